"""Images and what is known about them: `open_dataset` reads the folders of data sets and tools, and pictures alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tutored import files
from tutored.config.entries import guarded, imported
from tutored.config.training import Empty
from tutored.data.coco import open_coco
from tutored.data.cvat import cvat_splits, open_cvat
from tutored.data.images import Annotations, Images, TaskSource, open_images, with_tasks
from tutored.data.labelme import labelme_splits, open_labelme
from tutored.data.labelstudio import labelstudio_splits, open_labelstudio
from tutored.data.voc import open_voc
from tutored.data.yolo import open_yolo, yolo_splits
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.types import Dataset, Size

__all__ = ["TaskSource", "open_dataset"]

MEMBERS = ("labels", "ids", "image", "ground_truth", "annotated_tasks", "files")
"""What the user's object must have of `Dataset`."""


@dataclass(frozen=True, kw_only=True)
class OwnAnnotations(Annotations):
    """What the object says of one kind of task."""

    data: Dataset
    kind: str

    def has(self, image_id: str) -> bool:
        return self.kind in self.data.annotated_tasks(image_id)

    def files(self, image_id: str) -> tuple[Path, ...]:
        return tuple(map(Path, self.data.files(image_id)[1:]))

    def read(self, image_id: str, size: Size) -> Any:
        return guarded(f"ground_truth({image_id!r})", self.data.ground_truth, image_id).tasks[self.kind]


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnImages(Images):
    """The object's pictures, which need not lie in files."""

    data: Dataset

    def image(self, image_id: str) -> Image.Image:
        picture: Image.Image = guarded(f"{self.name}: image({image_id!r})", self.data.image, image_id)
        return picture.convert("RGB")

    def size(self, image_id: str) -> Size:
        size: Size = guarded(f"{self.name}: ground_truth({image_id!r})", self.data.ground_truth, image_id).size
        return size


def open_own(path: str, split: str) -> Images:
    """The data set that a class, or function, of the user's makes of the name of a split. Raises InputError: it can't
    be imported or made, or lacks `MEMBERS`; labels are no label spaces, or ids no texts.
    """
    what = f"data set python:{path}"
    data = guarded(f"{what}, for the split {split!r},", imported(path, "data set"), split)
    lacks = [name for name in MEMBERS if not hasattr(data, name)]
    if lacks:
        raise InputError(f"{what}: {type(data).__name__} lacks {', '.join(lacks)}; see docs/extend.md")
    spaces, ids = dict(data.labels), tuple(data.ids)
    if not all(isinstance(space, LabelSpace) for space in spaces.values()):
        raise InputError(f"{what}: `labels` must be a LabelSpace for each task, got {spaces}")
    if not all(isinstance(each, str) for each in ids) or len({*ids}) < len(ids):
        raise InputError(f"{what}: `ids` must be texts, each once")
    return OwnImages(
        format="python",
        folder=Path(path),
        split=split,
        classes=next(iter(spaces.values()), LabelSpace.of([])),
        ids=ids,
        place=partial(_picture, data),
        tasks={kind: OwnAnnotations(labels=space, data=data, kind=kind) for kind, space in spaces.items()},
        data=data,
    )


def _picture(data: Dataset, image_id: str) -> Path | str:
    return data.files(image_id)[0]


READERS = (open_voc, open_coco, open_yolo, open_cvat, open_labelme, open_labelstudio, open_images)
FORMATS: dict[str, Callable[[Path, str], Images]] = dict(zip(files.FORMATS, READERS, strict=True))
TOOLS: Mapping[str, tuple[str, Callable[[Path], list[str]]]] = {
    "yolo": ("a YOLO folder", yolo_splits),
    "cvat": ("a folder of CVAT for images", cvat_splits),
    "labelstudio": ("an export of Label Studio", labelstudio_splits),
    "labelme": ("a folder of Labelme", labelme_splits),
}
"""By format, what a folder of a tool is called, and the splits that it has; none where it is no such folder."""


def open_dataset(
    spec: str, split: str, tasks: Mapping[str, TaskSource] | None = None, empty: Empty = "unannotated"
) -> Images:
    """Open one split of a data set; images and ground truth are read when asked for. Raises InputError: an unknown
    format, folder or split, or a task that can't be had here; what is possible is named.

    Args:
        spec: such as `voc:FOLDER`, see `FORMATS`; or `python:MODULE:NAME`, see `open_own`.
        split: see `open_voc` and the other functions of `FORMATS`.
        tasks: a run's tasks; None: what the format has, under the names of kinds of task. What is not among them is
            not read.
        empty: what an image is that has no object in the files of a format that leaves it open.
    """
    kind, _, folder = spec.partition(":")
    if kind not in (*FORMATS, "python") or not folder:
        possible = ", ".join(f"{each}:FOLDER" for each in FORMATS)
        raise InputError(f"data {spec!r}: give the format and the folder; possible: {possible}, python:MODULE:NAME")
    path = Path(folder).expanduser()
    if kind != "python" and not path.is_dir():
        raise InputError(f"data {spec!r}: there is no folder {path}")
    dataset = open_own(folder, split) if kind == "python" else FORMATS[kind](path, split)
    dataset = replace(dataset, empty=empty)
    return dataset if tasks is None else with_tasks(dataset, tasks)
