"""What crosses the borders between modules: ground truth, soft labels and predictions of one image, by task; batches.

Letters in shapes: B images, K boxes of one image, C object classes (background not counted), H x W pixels of an image,
h x w cells of a map. What one task's annotation, soft answer, prediction and targets are made of is the task's own
matter: see the modules of `tutored.tasks`.

Boxes are always `(x1, y1, x2, y2)`, float32, 0-based continuous pixel edges, so that a box over the whole image is
`(0, 0, W, H)`. Class 0 is background, 255 in a mask is "ignore".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from tutored.labels import LabelSpace

IGNORE = 255
BACKGROUND = 0
Size = tuple[int, int]
"""(height, width) in pixels."""
SOURCES = ("ground_truth", "tutor")
"""Who teaches."""


@dataclass(frozen=True, slots=True)
class PerTask:
    """What is known about one image.

    Attributes:
        size: of the image.
        tasks: by task. A task that is missing has no answer here; an answer that is there may say "nothing there".
    """

    size: Size
    tasks: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, size: tuple[int, int], *answers: Any) -> Self:
        """Answers under the names of their kinds, such as `detection`. None stands for no answer."""
        return cls(size, {answer.kind: answer for answer in answers if answer is not None})

    def without(self, *tasks: str) -> Self:
        """The same without the answers of these tasks."""
        return replace(self, tasks={name: answer for name, answer in self.tasks.items() if name not in tasks})

    def above(self, score: float | Mapping[str, float]) -> Self:
        """The same without what scores less, where answers have scores: less than this, or than each task's own."""
        least = score if isinstance(score, Mapping) else dict.fromkeys(self.tasks, score)
        kept = {
            name: answer.above(least[name]) if hasattr(answer, "above") else answer
            for name, answer in self.tasks.items()
        }
        return replace(self, tasks=kept)


class GroundTruth(PerTask):
    """What a person annotated on one image: by task an annotation, such as `tasks.detection.Boxes`.

    A task without an entry is not annotated here.
    """


class SoftLabels(PerTask):
    """One tutor's answers for one image, by kind, in the pixels of the image as it is stored, not augmented.

    Probabilities may sum to less than one: the sum is how much the tutor says at all about that box or cell, and it
    weighs the loss there. Zero everywhere is "says nothing".
    """


class Prediction(PerTask):
    """Final answers for one image in its own pixels, by task, from a student, a tutor, a store or a file."""


class PerObject:
    """A dataclass whose tensors have a row for each object of one image."""

    __slots__ = ()

    @property
    def parts(self) -> dict[str, Any]:
        """Its fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]

    def chosen(self, which: Tensor) -> Self:
        """The same with these rows (int64 [n], or bool [K])."""
        rows = {name: value[which] for name, value in self.parts.items() if isinstance(value, Tensor)}
        return replace(self, **rows)  # type: ignore[type-var]


class Batch(NamedTuple):
    """A training batch.

    Attributes:
        images: uint8 [B, 3, S, S], the three colours of a pixel side by side in memory (channels last).
        targets: by task and source (`SOURCES`), what the source teaches: a named tuple of tensors whose first
            dimension is B, the field `weight` (float32 [B]) among them. A source that teaches nothing of a task in the
            whole batch has no entry.
    """

    image_ids: tuple[str, ...]
    images: Tensor
    targets: dict[str, dict[str, Any]]

    def map(self, change: Any) -> Self:
        """The same with `change` applied to every tensor."""
        targets = {
            task: {source: type(each)(*map(change, each)) for source, each in by_source.items()}
            for task, by_source in self.targets.items()
        }
        return self._replace(images=change(self.images), targets=targets)


class Dataset(Protocol):
    """Images of one split with their ground truth, read one at a time by id.

    A reader names tasks by their kinds (`detection`, `segmentation`); a run sees it under the names of its own tasks.
    """

    @property
    def name(self) -> str:
        """What the user asked for, such as `voc:FOLDER/val`; used in messages."""

    @property
    def source(self) -> str:
        """Format and the folder's own name, such as `voc:VOC2012`, without the path on this machine."""

    @property
    def split(self) -> str:
        """As the user wrote it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader left out or changed when it opened the data set, a line each that names the file."""

    @property
    def labels(self) -> Mapping[str, LabelSpace]:
        """The label space of each task that may be annotated."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def files(self, image_id: str) -> tuple[Path | str, ...]:
        """The picture's file or address, and the files that hold its annotations."""

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture. Raises InputError, naming the file, where it can't be read."""

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Annotations in the image's own pixels. Raises InputError, naming the file."""

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """The tasks with ground truth for this image, found without reading it."""

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Every fault of the annotations, a message each; empty where `ground_truth` can read them."""


def expect(tensor: Tensor, name: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> None:
    """Raise ValueError unless a tensor has this shape (None: any length) and type."""
    found = tensor.shape
    if len(found) != len(shape) or [1 for want, got in zip(shape, found, strict=True) if want not in (None, got)]:
        raise ValueError(f"{name} must have shape {shape} (None: any), got {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")


def expect_boxes(boxes_xyxy: Tensor, name: str) -> None:
    """Raise ValueError unless a tensor is float32 [K, 4] and every box has an area."""
    expect(boxes_xyxy, name, (None, 4), torch.float32)
    near, far = boxes_xyxy.chunk(2, dim=1)
    if not bool((near < far).all()):
        raise ValueError(f"{name} holds a box without area: x1 < x2 and y1 < y2 must hold in every row")
