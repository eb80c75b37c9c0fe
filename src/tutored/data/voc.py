"""Data sets in the layout of PASCAL VOC 2007 and 2012: boxes from XML, class masks from PNG, either may be missing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from tutored.data.pictures import picture_size, read_mask, read_picture
from tutored.data.text import complaints, own_name, read_classes, read_lines, refuse_climbing
from tutored.data.voc_boxes import box_problems, read_boxes
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.structures import GroundTruth

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
OF_ONE_CLASS = re.compile(r"\s(-1|0|1)\s*$")
"""How every line of VOC's lists of one class ends; an image id itself may hold blanks."""
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
"""Where a mask is looked for, in this order; the second holds SBD's masks, as people commonly add them to VOC2012."""


@dataclass(frozen=True, slots=True)
class Voc:
    """One split of a VOC folder.

    An image without XML has no boxes annotated; XML without an object says that nothing is there. An image without
    a PNG in `MASK_FOLDERS` has no mask.

    Attributes:
        folder: holds JPEGImages, Annotations, SegmentationClass and ImageSets.
        split: as the user wrote it.
    """

    folder: Path
    split: str
    labels: LabelSpace
    ids: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"voc:{self.folder}/{self.split}"

    @property
    def source(self) -> str:
        return f"voc:{own_name(self.folder)}"

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture as stored. Raises InputError, naming the file, where it can't be read."""
        return read_picture(self._picture(image_id))

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Boxes and mask in the stored pixels of the image; the image's size is read from its own file.

        Raises:
            InputError: naming the file and, in XML, the object and field that is missing or impossible.
        """
        size = picture_size(self._picture(image_id))
        annotation, mask = self._annotation(image_id), self._mask(image_id)
        boxes = read_boxes(annotation, size, self.labels) if annotation else (None, None, None)
        return GroundTruth(
            size=size,
            boxes_xyxy=boxes[0],
            classes=boxes[1],
            difficult=boxes[2],
            mask=read_mask(mask, size, self.labels) if mask else None,
        )

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with a file for this image."""
        boxes, mask = self._annotation(image_id), self._mask(image_id)
        return (*(("detection",) if boxes else ()), *(("segmentation",) if mask else ()))

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Every fault of boxes and mask; where the picture has no size to compare with, that one alone."""
        try:
            size = picture_size(self._picture(image_id))
        except InputError as error:
            return (str(error),)
        annotation, mask = self._annotation(image_id), self._mask(image_id)
        boxes = box_problems(annotation, size, self.labels) if annotation else ()
        return boxes + (complaints([partial(read_mask, mask, size, self.labels)]) if mask else ())

    def _picture(self, image_id: str) -> Path:
        return _picture(self.folder, image_id) or self.folder / "JPEGImages" / f"{image_id}.jpg"

    def _annotation(self, image_id: str) -> Path | None:
        return _find(self.folder, ("Annotations",), image_id, (".xml",))

    def _mask(self, image_id: str) -> Path | None:
        return _find(self.folder, MASK_FOLDERS, image_id, (".png",))


def open_voc(folder: Path, split: str) -> Voc:
    """Open a split of a VOC folder, or of the VOCdevkit folder above it where that holds only one.

    Args:
        split: a list of ImageSets. `Main/train` or `Segmentation/train` is that list alone; `train` is every image
            on either (in VOC2012 they differ, and training takes from each image what it has). `a+b` is the union
            of splits, in this order.

    Classes are VOC's twenty, or those of a file `labels.txt` in the folder, one a line in the order of their indices.

    Raises:
        InputError: no such folder or split (the possible ones are named), an empty list, an id listed twice.
    """
    folder = _dataset_folder(folder)
    own = folder / "labels.txt"
    return Voc(folder, split, read_classes(own) if own.exists() else VOC, _read_split(folder, split))


def _dataset_folder(folder: Path) -> Path:
    if (folder / "JPEGImages").is_dir():
        return folder
    inner = sorted(path for path in folder.glob("VOC*") if (path / "JPEGImages").is_dir())
    if len(inner) == 1:
        return inner[0]
    if inner:
        raise InputError(f"{folder}: holds several data sets; give one: {', '.join(f'voc:{path}' for path in inner)}")
    raise InputError(
        f"{folder}: not a VOC folder; it must hold JPEGImages, ImageSets and Annotations or SegmentationClass"
    )


def _picture(folder: Path, image_id: str) -> Path | None:
    return _find(folder, ("JPEGImages",), image_id, PICTURE_SUFFIXES)


def _find(folder: Path, inside: tuple[str, ...], image_id: str, suffixes: tuple[str, ...]) -> Path | None:
    """The first of these files that is there; cameras write suffixes in capitals."""
    either = (*suffixes, *(suffix.upper() for suffix in suffixes))
    paths = (folder / part / f"{image_id}{suffix}" for part in inside for suffix in either)
    return next((path for path in paths if os.path.exists(path)), None)  # False for impossible names, too


def _read_split(folder: Path, split: str) -> tuple[str, ...]:
    lists = {f"{path.parent.name}/{path.stem}": path for path in sorted((folder / "ImageSets").glob("*/*.txt"))}
    ids: dict[str, None] = {}
    for part in split.split("+"):
        wanted = [key for key in (part, f"Main/{part}", f"Segmentation/{part}") if key in lists]
        if not wanted:
            raise InputError(f"{folder}: there is no split {part!r}; {_possible(folder, lists)}")
        listed = [image_id for key in wanted for image_id in _read_ids(folder, lists[key])]
        if not listed:
            raise InputError(f"{lists[wanted[0]]}: the split {part!r} lists no image; {_possible(folder, lists)}")
        ids.update(dict.fromkeys(listed))
    return tuple(ids)


def _read_ids(folder: Path, path: Path) -> tuple[str, ...]:
    ids = tuple(line.strip() for line in read_lines(path) if line.strip())
    if ids and _are_of_one_class(folder, ids):
        raise InputError(f"{path}: a list of one class (id and -1, 0 or 1) is not a split; give one like train or val")
    for image_id in ids:
        refuse_climbing(image_id, path)
    if len(set(ids)) < len(ids):
        twice = sorted({image_id for image_id in ids if ids.count(image_id) > 1})
        raise InputError(f"{path}: listed twice: {', '.join(twice[:5])}; list each image once")
    return ids


def _are_of_one_class(folder: Path, lines: Sequence[str]) -> bool:
    """Whether all lines end as those of a list of one class, and none is a picture's own name."""
    return all(map(OF_ONE_CLASS.search, lines)) and not any(_picture(folder, line) for line in lines)


def _possible(folder: Path, lists: dict[str, Path]) -> str:
    first = {key: [line.strip() for line in read_lines(path)[:1]] for key, path in lists.items()}
    whole = [key for key, lines in first.items() if any(lines) and not _are_of_one_class(folder, lines)]
    if not whole:
        return "ImageSets/Main and ImageSets/Segmentation hold no list of image ids, one a line; add one"
    names = dict.fromkeys(key.split("/")[1] for key in whole)
    return f"possible: {', '.join(names)}; or one list alone ({whole[0]}), or several joined by +"
