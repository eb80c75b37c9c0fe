"""Where images come from, and how they are augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tutored.section import Names, Section, Share, Text

Annotates = Names | dict[str, Names] | None
"""Names of classes, for all tasks alike or by task; None: every class."""
Empty = Literal["annotated", "unannotated"]
"""What an image is for which a data set has a place for objects, and no object there."""


class MoreData(Section):
    """Another data set to train on together with the first."""

    train: str
    """Data set, such as `voc:FOLDER`."""
    split: Text = "train"
    """Its split."""
    annotated: Annotates = None
    """Names of the classes that it annotates, for all tasks or by task; null: all of its label spaces."""
    tasks: Names | None = None
    """The tasks whose annotations are taken from it; null: all that it has."""
    empty: Empty = "unannotated"
    """As `data.empty`, for this data set."""


class Data(Section):
    """Where images and ground truth come from."""

    train: str
    """Data set to train on, such as `voc:FOLDER` or `coco:FOLDER`."""
    split: Text = "train"
    """Split to train on; of a VOC folder, several are joined by `+`."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images that is kept out of training and validated on, instead of `val`: to choose settings
    on. The same images for every training seed."""
    val: str | None = None
    """Data set to validate on; if absent, the training data set's folder and `tasks`."""
    val_split: Text | None = "val"
    """Split to validate on while training; null: no validation."""
    val_annotated: Annotates = None
    """Names of the classes that `val` annotates; without `val`, those of the training data."""
    annotated: Annotates = None
    """Names of the classes that the training data annotates, for all tasks or by task; null: all of its label
    spaces."""
    tasks: Names | None = None
    """The tasks whose annotations are taken from it; null: all that it has."""
    empty: Empty = "unannotated"
    """What an image without any object is, here and in `val`, where the format leaves it open (VOC's XML, COCO, YOLO,
    CVAT and Labelme): `annotated`, so that it shows nothing, or `unannotated`, not labelled yet, so that it teaches
    nothing and a tutor may fill it."""
    more: tuple[MoreData, ...] = ()
    """Further training data. Their classes may differ: the student's are then all of them, and in each data set those
    that it does not have count as not annotated. An image may stand in several data sets if each annotates other
    tasks."""
    cache: Path | None = None
    """Folder for decoded training pictures and their annotations, which runs may share: what was read once is read from
    there, in a sixth of the time and equal to the bit, until a picture, an annotation or how it is read changes. null:
    none. It pays where reading holds the training up, as on a GPU, and the folder fits into memory."""
    cache_gb: Annotated[float, Field(gt=0)] = 10.0
    """Gigabytes that `cache` may take; a photograph of 500 x 375 pixels with boxes and a mask takes .00075."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides which images are held out, hidden or given to the tutor; shared by runs that differ in `train.seed`
    only."""


class Augment(Section):
    """One random geometry for image, boxes and maps; colour for the image only."""

    colour: bool = True
    """Random brightness, contrast, saturation and hue, as SSD has them."""
    zoom_out: Literal["image", "run", "never"] = "image"
    """Drawn for each `image`, or once for the whole `run`, the thesis' defect (specification 7.1, 1)."""
    zoom_out_share: Share = 0.5
    """Share of images that are placed, smaller, on a larger canvas."""
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0
    """The canvas is at most so many times as wide and high as the image, and at least 1.05 times."""
    crop: bool = True
    """Random crops as SSD has them; false: the whole image."""
    flip_share: Share = 0.5
    """Share of images that are mirrored left to right."""
    crop_guides: Literal["taught", "all"] = "taught"
    """Boxes of which a crop must cover one: the ground truth that is taught, or all ground truth and every box of the
    tutor, the thesis' defects (7.1, 4 and 5)."""
