"""Soft labels of several images as a store holds them: checked and folded at once, cut for one image when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tutored.boxes import nms
from tutored.structures import Instances, SoftLabels

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Where the classes of one label space go in another.

    Attributes:
        to: int64, for each class its number there; `space` where its probability is taken away, `space + 1` where that
            is background. Boxes of either are dropped.
        space: classes there.
        boxes: whether boxes are folded; where not, the two spaces are one.
        maps: the same for maps.
        nms_iou: suppression within a class, done again; None where no two classes become one.
        unknown: see `SoftLabels`.
    """

    to: Array
    space: int
    boxes: bool
    maps: bool
    nms_iou: float | None = None
    unknown: tuple[int, ...] = ()

    def probabilities(self, classes: Array) -> Array:
        """Where these classes' probabilities go; `space` where nowhere."""
        there = self.to[classes]
        there[there > self.space] = 0
        return there


class Boxes(NamedTuple):
    """Boxes of consecutive images; of their class probabilities those that are not zero.

    Attributes:
        answered: for each image, whether the tutor answers detection.
        starts: int64 [images + 1], each image's first box.
        corners: float32 [N, 4].
        classes: int64 [N].
        space: classes of the label space.
        places: int64 [E], rising: box times `space` plus class.
        probs: float32 [E].
    """

    answered: Sequence[bool]
    starts: Array
    corners: Array
    classes: Array
    space: int
    places: Array
    probs: Array

    def cut(self, row: int) -> dict[str, Tensor]:
        """One image's, for `SoftLabels`; nothing where the tutor does not answer."""
        if not self.answered[row]:
            return {}
        start, end = self.starts[row : row + 2].tolist()
        first, last = self.places.searchsorted((start * self.space, end * self.space))
        probs = np.zeros((end - start, self.space), np.float32)
        probs.reshape(-1)[self.places[first:last] - start * self.space] = self.probs[first:last]
        return {
            "boxes_xyxy": _own(self.corners[start:end]),
            "classes": _own(self.classes[start:end]),
            "probs": torch.from_numpy(probs),
        }

    def fold(self, fold: Fold) -> Boxes:
        """The same in another label space."""
        classes = fold.to[self.classes]
        kept = classes < fold.space
        before = np.concatenate([[0], kept.cumsum()])
        boxes, entries = np.divmod(self.places, self.space)
        entries = fold.probabilities(entries)
        heard = kept[boxes] & (entries < fold.space)
        probs = np.zeros((before[-1], fold.space), np.float32)
        # One by one and by rising class: what a sum of float32 is depends on the order.
        np.add.at(probs.reshape(-1), before[boxes[heard]] * fold.space + entries[heard], self.probs[heard])
        np.minimum(probs, 1, out=probs)  # classes that become one add up to more by what their bytes are rounded
        starts, corners, classes = before[self.starts], self.corners[kept], classes[kept]
        if fold.nms_iou is not None:
            once = [
                start + _suppress(corners[start:end], classes[start:end], probs[start:end], fold.nms_iou)
                for start, end in pairwise(starts.tolist())
            ]
            starts = np.concatenate([[0], np.cumsum([len(each) for each in once])])
            chosen = np.concatenate(once)
            corners, classes, probs = corners[chosen], classes[chosen], probs[chosen]
        places = np.flatnonzero(probs)
        return Boxes(self.answered, starts, corners, classes, fold.space, places, probs.reshape(-1)[places])


class Cells(NamedTuple):
    """A map of one image; of the classes those that occur.

    Attributes:
        classes: int64 [n].
        space: classes of the label space.
        values: [n, h, w], probabilities times `levels`.
    """

    classes: Array
    space: int
    values: Array
    levels: int

    def dense(self) -> Tensor:
        """float32 [space, h, w]; probabilities of a class that stands there twice are added."""
        dense = np.zeros((self.space, *self.values.shape[1:]), np.float32)
        probs = self.values / np.float32(self.levels)
        if len(set(self.classes.tolist())) == len(self.classes):
            dense[self.classes] = probs
        else:
            np.add.at(dense, self.classes, probs)
        return torch.from_numpy(dense)

    def fold(self, fold: Fold) -> Cells:
        """The same in another label space."""
        classes = fold.probabilities(self.classes)
        heard = classes < fold.space
        return Cells(classes[heard], fold.space, self.values[heard], self.levels)


class Stamps(NamedTuple):
    """Instance masks of one image.

    Attributes:
        corners: float32 [N, 4].
        classes: int64 [N].
        scores: float32 [N].
        masks: [N, m, m], times `levels`.
    """

    corners: Array
    classes: Array
    scores: Array
    masks: Array
    levels: int

    def instances(self) -> Instances:
        """The same as tensors."""
        return Instances(
            boxes_xyxy=_own(self.corners),
            classes=_own(self.classes),
            scores=_own(self.scores),
            masks=torch.from_numpy(self.masks / np.float32(self.levels)),
        )


class Block(NamedTuple):
    """Soft labels of several images.

    Attributes:
        sizes: (height, width) of each.
        boxes: of all; None where the tutor answers detection for none.
        maps: of each, None where there is none.
        instances: of each, None where there are none.
        unknown: see `SoftLabels`.
    """

    sizes: Sequence[tuple[int, int]]
    boxes: Boxes | None
    maps: Sequence[Cells | None]
    instances: Sequence[Stamps | None]
    unknown: tuple[int, ...] = ()

    @classmethod
    def of(cls, answer: SoftLabels, space: int) -> Block:
        """A block of one image, in a label space of so many classes."""
        boxes = cells = stamps = None
        if answer.boxes_xyxy is not None and answer.classes is not None and answer.probs is not None:
            corners, classes, probs = (each.numpy() for each in (answer.boxes_xyxy, answer.classes, answer.probs))
            places = np.flatnonzero(probs)
            starts = np.array([0, len(corners)])
            boxes = Boxes([True], starts, corners, classes, space, places, probs.reshape(-1)[places])
        if answer.map is not None:
            cells = Cells(np.arange(space), space, answer.map.numpy(), 1)
        if (found := answer.instances) is not None:
            corners, classes, scores = found.boxes_xyxy.numpy(), found.classes.numpy(), found.scores.numpy()
            stamps = Stamps(corners, classes, scores, found.masks.numpy(), 1)
        return cls([answer.size], boxes, [cells], [stamps], answer.unknown)

    def cut(self, row: int) -> SoftLabels:
        """One image's, as tensors that nothing else shares."""
        cells, stamps = self.maps[row], self.instances[row]
        return SoftLabels(
            size=self.sizes[row],
            **(self.boxes.cut(row) if self.boxes else {}),
            map=cells.dense() if cells else None,
            instances=stamps.instances() if stamps else None,
            unknown=self.unknown,
        )

    def fold(self, fold: Fold) -> Block:
        """The same in another label space, all but the instances."""
        return Block(
            self.sizes,
            self.boxes.fold(fold) if self.boxes and fold.boxes else self.boxes,
            [cells.fold(fold) if cells and fold.maps else cells for cells in self.maps],
            self.instances,
            fold.unknown,
        )


def _own(array: Array) -> Tensor:
    return torch.from_numpy(array.copy())


def _suppress(corners: Array, classes: Array, probs: Array, nms_iou: float) -> Array:
    """Of one image's boxes those that no better one of their class overlaps, by falling score."""
    scores = torch.from_numpy(probs[np.arange(len(probs)), classes])
    kept: Array = nms(torch.from_numpy(corners), scores, torch.from_numpy(classes), nms_iou).numpy()
    return kept
