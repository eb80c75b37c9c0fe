"""A data set of the user's own, named by its import path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tutored.config.entries import guarded, imported
from tutored.data.images import Annotations, Images, Size
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.types import Dataset

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

    Args:
        path: `module:name`.
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
