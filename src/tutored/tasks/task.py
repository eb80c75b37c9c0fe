"""What every kind of task is: from annotation and soft answer to targets, stored, measured and drawn."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tutored.config import TaskSection
from tutored.errors import InputError
from tutored.geometry import Geometry
from tutored.labels import ClassMap, LabelSpace
from tutored.types import Size, SoftLabels

if TYPE_CHECKING:
    from tutored.tasks.audit import Auditor


@lru_cache(maxsize=64)
def marked(numbers: tuple[int, ...], space: int) -> Tensor:
    """bool [space], true at `numbers`. The same tensor for equal arguments: do not change it."""
    return torch.isin(torch.arange(space), torch.tensor(numbers, dtype=torch.int64))


def unannotated(annotated: tuple[int, ...] | None, space: int) -> Tensor:
    """bool [space]: the object classes that an annotation leaves out; the same tensor for equal arguments."""
    if annotated is None:
        return marked((), space)
    return marked(tuple(number for number in range(1, space) if number not in annotated), space)


def stack_unknown(marks: Sequence[Tensor]) -> Tensor:
    """bool [B, space] of the images' marks; [B, 0] where nothing is unknown, so that the loss need not ask a device."""
    stacked = torch.stack(list(marks))
    return stacked if stacked.any() else stacked[:, :0]


class Remap(NamedTuple):
    """Where the classes of one label space go in another, in the form that rows of a store are remapped by.

    Attributes:
        to: int64, for each class its number there; `space` where its probability is taken away, `space + 1` where that
            is background. Boxes of either are dropped.
        space: classes there, background included.
        merges: whether two classes become one.
        unknown: classes there that none here becomes.
    """

    to: tuple[int, ...]
    space: int
    merges: bool
    unknown: tuple[int, ...]

    @property
    def identical(self) -> bool:
        """Whether the two label spaces are one."""
        return self.to == tuple(range(self.space))

    def probabilities(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the probabilities of these classes go; `space` where they are taken away."""
        there = np.array(self.to)[classes]
        there[there > self.space] = 0
        return there


class SoftAnswer(Protocol):
    """A type of soft answer for one image, and how it stands in a store: columns of an Arrow table, one row an image.

    Attributes:
        kind: its name in stores and in `SoftLabels`.
        unknown: classes of the label space that the tutor knows nothing about.
        fields: its columns, all null where the tutor does not answer; the first one is small.
    """

    kind: ClassVar[str]
    fields: ClassVar[Sequence[pa.Field]]

    @property
    def unknown(self) -> tuple[int, ...]: ...

    def encode(self) -> dict[str, Any]:
        """The value of each column in one image's row; see `columns.column`. Raises ValueError: a value that no tutor's
        answer may have, such as NaN for a probability.
        """

    @classmethod
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Any]:
        """The answers of a table's rows, None where there is none, in another label space with a remap.

        The sequence may make an answer when it is asked for; nothing else shares the answer's tensors. Raises
        ValueError: a value that no tutor's answer has; damaged lists may raise other errors as well.
        """

    def tempered(self, temperature: float) -> Any:
        """The same with its probabilities as powers 1 / T, renormalised."""


class Figures(NamedTuple):
    """The figures of one task on one split: shares in 0..1 (or numbers in the task's unit), None where unknown.

    Attributes:
        classes: the object classes that means are over.
        means: by metric, the main figure first.
        per_class: by metric and class, for the whole label space.
        counts: what there is of each class, such as `objects`.
        notes: for the reader of the figures, a sentence each.
        score: from which on answers are worth showing; None where they have no scores, or none is right.
    """

    images: int
    classes: tuple[str, ...]
    means: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: means first, then figures by class, then counts."""
        return {
            **self.means,
            **({} if self.score is None else {"score": self.score}),
            "images": self.images,
            "classes": list(self.classes),
            "per_class": self.per_class,
            **self.counts,
            "notes": list(self.notes),
        }


class Detail(NamedTuple):
    """What lies behind the figures, to be drawn.

    Attributes:
        title: what is shown over what.
        kind: `curves`: `values` is float64 [n, points], shares in 0..1 at evenly spaced places from 0 to 1; `matrix`:
            `values` is int64 [n, m], with n true classes as rows.
        names: of the n curves, or of the matrix' m columns, of which the first n are its rows too.
    """

    title: str
    kind: Literal["curves", "matrix"]
    names: tuple[str, ...]
    values: NDArray[Any]


class Task(ABC):
    """One named task of a run, or a kind of task: what does not need a name or label space is a class method.

    A kind must say what its annotation teaches, how targets are stacked, how a prediction is measured and drawn. All
    else has a default: without `answers` no tutor can teach it.

    Attributes:
        kind: name of the kind: what annotations, answers and readers call it.
        Section: the config keys of the kind.
        answers: the types of soft answer that can teach it, the usual one first.
        suffixes: of the annotation files that `read` takes, one an image.
        headline: the metric's name in `Figures.means` by which two students are compared, and its short name.
        lower_is_better: of the headline.
    """

    kind: ClassVar[str]
    Section: ClassVar[type[TaskSection]]
    answers: ClassVar[tuple[type[SoftAnswer], ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[tuple[str, str]]
    lower_is_better: ClassVar[bool] = False
    section: Any

    def __init__(self, name: str, labels: LabelSpace, section: TaskSection | None = None) -> None:
        self.name, self.labels = name, labels
        self.section = section or self.Section(kind=self.kind)

    # --- Data

    @classmethod
    def read(cls, path: Path, size: Size, labels: LabelSpace) -> Any:
        """The annotation in one image's own file. Raises InputError: naming the file, where it can't be read or does
        not fit the image or the label space.
        """
        raise InputError(f"{path}: tasks of kind {cls.kind} have no annotation files of their own")

    @abstractmethod
    def teach(self, truth: Any | None, size: Size, geometry: Geometry, grid: int) -> Any:
        """What ground truth teaches about one augmented image: a row of the kind's targets without `weight`.

        Args:
            size: of the image.
            grid: cells along one side of the map for which targets are made; 0 for a head without one.
        """

    def teach_soft(self, answer: Any | None, size: Size, geometry: Geometry, grid: int) -> Any:
        """What a tutor's answer teaches, under the same geometry and in the same form."""
        if answer is not None:
            raise InputError(f"tasks.{self.name}: no tutor can teach tasks of kind {self.kind}; leave its `store` out")
        return self.teach(None, size, geometry, grid)

    def complete(self, truth: Any, tutor: Any) -> Any:
        """One row of both: ground truth for the classes that it annotates, the tutor for the others."""
        return truth

    @abstractmethod
    def stack(self, rows: Sequence[Any], weight: Tensor) -> Any:
        """The targets of a batch from those of its images."""

    def guides(self, shown: Any) -> Tensor:
        """float32 [K, 4]: boxes of an annotation or a soft answer that may steer a random crop."""
        return torch.zeros(0, 4)

    def unannotated(self, answer: Any, truth: Any) -> Any:
        """What the answer says about classes that the annotation leaves out: the others are known from it."""
        return answer

    def vet(self, answer: Any, size: Size, other: Any, other_labels: LabelSpace) -> Any:
        """The answer without what another task's annotation of the same image contradicts; of `Section.VETTING`."""
        raise NotImplementedError

    # --- Soft answers

    @classmethod
    def from_store(cls, stored: SoftLabels, class_map: ClassMap, section: TaskSection | None) -> Any | None:
        """The answer for this kind of task among a store's, which are remapped already."""
        return stored.tasks.get(cls.kind)

    def mute(self, answer: Any, classes: Sequence[int]) -> Any:
        """The answer with nothing said about some classes."""
        return answer

    @classmethod
    def final(cls, answer: Any, size: Size) -> Any | None:
        """A soft answer as a prediction; None where it has no such form."""
        return None

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[Any]:
        """Predictions from a task's outputs of an exported file, by name, raw or final, for images of `sizes`."""
        raise InputError(f"tasks.{self.name}: answers of kind {self.kind} can't be read from exported files")

    # --- Measured

    @abstractmethod
    def record(self, truth: Any, prediction: Any) -> Any:
        """What one image tells about its predictor: picklable, a few kilobytes. Raises InputError: the two do not fit
        each other or the label space.
        """

    @abstractmethod
    def figures(self, records: Sequence[Any]) -> Figures:
        """The figures of all images' records, in any order."""

    def resampler(self, records: Sequence[Any | None]) -> Callable[[NDArray[np.int64]], float]:
        """A function from weights (int64 [images], how many times each counts) to the headline figure, NaN if unknown.

        A kind may do it faster than by `figures` of records that stand there several times.
        """

        def resampled(weights: NDArray[np.int64]) -> float:
            drawn = [each for each, times in zip(records, weights.tolist(), strict=True) for _ in range(times) if each]
            value = self.figures(drawn).means[self.headline[0]] if drawn else None
            return math.nan if value is None else value

        return resampled

    def details(self, records: Sequence[Any]) -> list[Detail]:
        """Curves and matrices behind the figures, from the same records."""
        return []

    def auditor(self) -> Auditor:
        """What compares a tutor's answers with ground truth, or with another tutor's. Raises InputError: the kind can't
        be audited, or not in this label space.
        """
        raise InputError(f"tasks of kind {self.kind} can't be audited yet; leave {self.name} out")

    # --- Shown

    @abstractmethod
    def draw(self, picture: Image.Image, shown: Any, zoom: float) -> Image.Image:
        """An annotation, or a prediction, drawn onto an RGB picture that is `zoom` times as large as the image."""

    def describe(self, prediction: Any) -> Any | None:
        """A prediction as JSON-ready entries; None where it has no such form."""
        return None

    def save(self, prediction: Any, path: Path) -> Path | None:
        """Write a prediction's file beside `path` (without suffix); None where it has no file form."""
        return None


class DenseTask(Task):
    """A task whose raw answer is a map of the student: any student can learn it."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of the raw map."""

    @abstractmethod
    def assign(self, targets: Any, *, tutor: bool) -> Any:
        """What each cell learns, from targets alone."""

    @property
    @abstractmethod
    def terms(self) -> Mapping[str, Any]:
        """The loss terms, see `losses.Term`."""

    @abstractmethod
    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        """Predictions from raw maps [B, channels, h, w], for images of `sizes`, on the CPU. Raises FloatingPointError:
        the maps are NaN, see `refuse_nan`.
        """

    def soften(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        """Soft answers from raw maps, where the student is a tutor. Raises InputError: a student can't be a tutor of
        this kind. Raises FloatingPointError: as `decode`.
        """
        raise InputError(f"a student can't be a tutor of tasks of kind {self.kind}; leave {self.name} out")

    @property
    def facts(self) -> dict[str, Any]:
        """The keys of its section that decoding needs, JSON-ready, for an exported file."""
        return {}

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[Any]:
        (values,) = outputs.values()
        return self.decode(values, sizes)

    def onnx(self, raw: Tensor, side: int) -> tuple[str, Tensor, str]:
        """A final map of the network's input of `side` pixels for an exported file: its name, value and meaning."""
        large = F.interpolate(raw.float(), size=(side, side), mode="bilinear", align_corners=False)
        return "raw", large, f"float32 [B, {self.channels}, {side}, {side}]: the raw map, enlarged bilinearly"


def at_most(maps: Tensor, size: Size) -> Tensor:
    """Maps [C, h, w] over an image of `size`, averaged to one cell a pixel where they are finer."""
    height, width = (min(cells, side) for cells, side in zip(maps.shape[1:], size, strict=True))
    return F.adaptive_avg_pool2d(maps, (height, width))


def refuse_nan(*raw: Tensor) -> None:
    """Raise FloatingPointError where a student's raw answers are NaN, as after a training that diverged."""
    if any(bool(each.isnan().any()) for each in raw):
        raise FloatingPointError(
            "the student's answers are NaN, so its training diverged; lower train.lr, or set train.clip"
        )
