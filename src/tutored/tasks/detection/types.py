"""What detection is made of: annotated boxes, a tutor's soft boxes, final boxes, and targets of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.boxes import iou, nms, outwards
from tutored.config.tasks import DetectionSection
from tutored.tasks import columns
from tutored.tasks.columns import FLOATS, NUMBERS, Array, Lists, Rows, flat, lists, require, starts
from tutored.tasks.task import Remap, marked
from tutored.types import IGNORE, PerObject, Size, expect, expect_boxes

TAIL_FLOOR = 1e-3
"""A box's class probabilities below this count as background; the class that it was kept for is always stored."""
LEVELS = 65535
NMS_IOU = 0.5
"""Suppression within a class, done again where several of the tutor's classes become one of ours."""
FIELDS = (
    pa.field("classes", NUMBERS),
    pa.field("boxes_xyxy", FLOATS),
    pa.field("scores", FLOATS),
    pa.field("probs_class", pa.list_(NUMBERS)),
    pa.field("probs_value", pa.list_(NUMBERS)),
)
"""Lists of K boxes (`boxes_xyxy` flat, 4K). `probs_value` / 65535 are the probabilities of the classes in
`probs_class`; they sum to exactly 65535 for each box where the tutor's probabilities sum to one."""


def encode(corners: Array, kept: Array, scores: Array, probs: Array) -> dict[str, Any]:
    """One image's values of `FIELDS`.

    Args:
        corners: float32 [K, 4].
        kept: int64 [K], the classes that boxes were kept for.
        scores: float32 [K].
        probs: float64 [K, C+1], a copy that may be changed.
    """
    rows = np.arange(len(kept))
    tail = probs < TAIL_FLOOR
    tail[rows, kept] = False
    tail[:, 0] = False
    probs[:, 0] += np.where(tail, probs, 0).sum(-1)
    probs[tail] = 0
    counts = columns.quantise(probs, LEVELS)
    stored = counts > 0
    return {
        "boxes_xyxy": corners.ravel(),
        "classes": kept,
        "scores": scores,
        "probs_class": Lists(stored.sum(-1), np.nonzero(stored)[1]),
        "probs_value": Lists(stored.sum(-1), counts[stored]),
    }


class BoxBlock(NamedTuple):
    """Boxes of consecutive images; of their class probabilities those that are not zero.

    Attributes:
        starts: int64 [images + 1], each image's first box.
        corners: float32 [N, 4].
        classes: int64 [N].
        places: int64 [E], rising: box times `space` plus class.
        probs: float32 [E].
    """

    starts: Array
    corners: Array
    classes: Array
    space: int
    places: Array
    probs: Array

    def cut(self, row: int) -> dict[str, torch.Tensor]:
        """One image's boxes, classes and distributions, as tensors that nothing else shares."""
        start, end = self.starts[row : row + 2].tolist()
        first, last = self.places.searchsorted((start * self.space, end * self.space))
        probs = np.zeros((end - start, self.space), np.float32)
        probs.reshape(-1)[self.places[first:last] - start * self.space] = self.probs[first:last]
        return {
            "boxes_xyxy": torch.from_numpy(self.corners[start:end].copy()),
            "classes": torch.from_numpy(self.classes[start:end].copy()),
            "probs": torch.from_numpy(probs),
        }

    def remapped(self, remap: Remap) -> "BoxBlock":
        """The same in another label space."""
        classes = np.array(remap.to)[self.classes]
        kept = classes < remap.space
        before = np.concatenate([[0], kept.cumsum()])
        boxes, entries = np.divmod(self.places, self.space)
        entries = remap.probabilities(entries)
        heard = kept[boxes] & (entries < remap.space)
        probs = np.zeros((before[-1], remap.space), np.float32)
        # One by one and by rising class: what a sum of float32 is depends on the order.
        np.add.at(probs.reshape(-1), before[boxes[heard]] * remap.space + entries[heard], self.probs[heard])
        np.minimum(probs, 1, out=probs)  # probabilities of merged classes may exceed 1 by the rounding of their bytes
        first, corners, classes = before[self.starts], self.corners[kept], classes[kept]
        if remap.merges:
            once = [
                start + _suppress(corners[start:end], classes[start:end], probs[start:end])
                for start, end in pairwise(first.tolist())
            ]
            first = np.concatenate([[0], np.cumsum([len(each) for each in once])])
            chosen = np.concatenate(once)
            corners, classes, probs = corners[chosen], classes[chosen], probs[chosen]
        places = np.flatnonzero(probs)
        return BoxBlock(first, corners, classes, remap.space, places, probs.reshape(-1)[places])


def decode(table: pa.Table, space: int) -> BoxBlock:
    """The boxes in a table's rows. Raises ValueError for values that no tutor's answer has."""
    counts, corners, classes, scores = columns.scored_boxes(table, "", space)
    (lines, numbers), (same, values) = (lists(table.column(name)) for name in ("probs_class", "probs_value"))
    require(bool((lines == counts).all() and (same == counts).all()), "boxes and distributions of other lengths")
    (lengths, numbers), (same, values) = lists(numbers), lists(values)
    require(bool((lengths == same).all()), "classes and probabilities of other lengths")
    boxes, entries = np.arange(len(classes)), flat(numbers)
    require(entries.max(initial=0) < space, f"a class outside 0..{space - 1}")
    places = np.concatenate([np.repeat(boxes, lengths) * space + entries, boxes * space + classes])
    # Scores rank boxes over a whole data set, so the kept class' own probability is exact: the last of its place.
    probs = np.concatenate([flat(values) / np.float32(LEVELS), scores])
    order = places.argsort(kind="stable")
    order = order[np.diff(places[order], append=-1) != 0]
    places, probs = places[order], probs[order]
    sums = np.bincount(places // space, probs)
    require(sums.max(initial=0) <= columns.MOST, "probabilities of a box that sum to more than one")
    return BoxBlock(starts(counts), corners, classes, space, places, probs)


def _suppress(corners: Array, classes: Array, probs: Array) -> Array:
    """Of one image's boxes the indices of those that no better one of their class overlaps, by falling score."""
    scores = torch.from_numpy(probs[np.arange(len(probs)), classes])
    kept: Array = nms(torch.from_numpy(corners), scores, torch.from_numpy(classes), NMS_IOU).numpy()
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes(PerObject):
    """The objects that a person drew on one image; no rows mean "nothing there".

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], 1..C.
        difficult: bool [K], VOC's flag; COCO's crowds have it too.
        annotated: the classes that the data set annotates; None means every class. The others may be anywhere.
    """

    kind: ClassVar[str] = "detection"
    boxes_xyxy: Tensor
    classes: Tensor
    difficult: Tensor
    annotated: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        expect_boxes(self.boxes_xyxy, "Boxes.boxes_xyxy")
        expect(self.classes, "Boxes.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.difficult, "Boxes.difficult", (len(self.boxes_xyxy),), torch.bool)

    def relabelled(self, to: Sequence[int], annotated: tuple[int, ...] | None) -> Self:
        """The same in another label space: `to[c]` is the class there of class c; boxes of those with 0 are dropped."""
        classes = torch.tensor(to)[self.classes]
        return replace(self, classes=classes, annotated=annotated).chosen(classes > 0)

    def counts(self, space: int) -> dict[str, list[int]]:
        """By column, how much there is of each class of a label space with `space` names."""
        classes = {"objects": self.classes, "difficult": self.classes[self.difficult]}
        return {column: torch.bincount(each, minlength=space).tolist() for column, each in classes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftBoxes(PerObject):
    """A tutor's boxes for one image; no rows mean "nothing there".

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], 1..C, the class each box was kept for (one proposal may be kept for two classes).
        probs: float32 [K, C+1], the full class distribution, column 0 background; a row may sum to less than 1.
        unknown: classes of the label space that this tutor knows nothing about, so that its background may be any.
    """

    kind: ClassVar[str] = "detection"
    fields: ClassVar[Sequence[pa.Field]] = FIELDS
    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    unknown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expect_boxes(self.boxes_xyxy, "SoftBoxes.boxes_xyxy")
        expect(self.classes, "SoftBoxes.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.probs, "SoftBoxes.probs", (len(self.boxes_xyxy), None), torch.float32)

    @property
    def scores(self) -> Tensor:
        """float32 [K]: the probability of the class that each box was kept for."""
        return self.probs.gather(1, self.classes[:, None])[:, 0]

    def rescored(self, scores: Tensor) -> Self:
        """The same with these scores (float32 [K], 0..1), the other classes scaled to the remaining probability."""
        others = self.probs.scatter(1, self.classes[:, None], 0.0)
        # Where the score is 1, the other classes hold only rounding, which may exceed the remainder.
        before = torch.maximum(1 - self.scores, others.sum(dim=1)).clamp(min=torch.finfo(scores.dtype).tiny)
        probs = (others * ((1 - scores) / before)[:, None]).scatter(1, self.classes[:, None], scores[:, None])
        return replace(self, probs=probs)

    def limited(self, which: Tensor, most: float) -> Self:
        """The same with the boxes `which` (bool [K]) scaled so that their scores are `most` at most."""
        scale = most / self.scores.clamp(min=max(most, torch.finfo(self.probs.dtype).tiny))
        return replace(self, probs=self.probs * torch.where(which, scale, 1.0)[:, None])

    def normalised(self) -> Self:
        """The same with distributions that sum to 1 at most, where the classes were scored by themselves."""
        return replace(self, probs=self.probs / self.probs.sum(dim=1, keepdim=True).clamp(min=1))

    def tempered(self, temperature: float) -> Self:
        """Every score s and its rest 1 - s become powers 1 / T, renormalised."""
        own = self.scores
        powers = torch.stack([own, 1 - own]).clamp(min=0) ** (1 / temperature)
        return self.rescored(powers[0] / powers.sum(0).clamp(min=torch.finfo(own.dtype).tiny))

    def muted(self, classes: Sequence[int], most: float) -> Self:
        """The same with nothing said about some classes: their boxes keep a score of `most` at most.

        Those boxes stay so that what lies on them is ignored instead of learning that nothing is there. Background may
        be any of these classes.
        """
        own = torch.isin(self.classes, torch.tensor(classes))
        heard = self.probs.index_fill(1, torch.tensor(classes), 0.0)
        probs = torch.where(own[:, None], self.limited(own, most).probs, heard)
        return replace(self, probs=probs, unknown=tuple(sorted({*self.unknown, *classes})))

    def encode(self) -> dict[str, Any]:
        """A store's row, see `FIELDS`."""
        corners, classes, scores = (each.numpy() for each in (self.boxes_xyxy, self.classes, self.scores))
        return encode(corners, classes, scores, self.probs.double().numpy().copy())

    @classmethod
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Self | None]:
        """The answers of a table's rows, in another label space with a remap; see `SoftAnswer`."""
        block, unknown = decode(table, space), remap.unknown if remap else ()
        if remap is not None and not remap.identical:
            block = block.remapped(remap)
        return Rows(columns.answered(table, cls.fields), lambda row: cls(**block.cut(row), unknown=unknown))

    def final(self) -> "Detections":
        """The boxes as final ones, each with the probability of its class as its score."""
        return Detections(boxes_xyxy=self.boxes_xyxy, classes=self.classes, scores=self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections(PerObject):
    """Final boxes of one image in its own pixels.

    Attributes:
        boxes_xyxy: float32 [K, 4].
        classes: int64 [K], 1..C.
        scores: float32 [K], 0..1.
    """

    kind: ClassVar[str] = "detection"
    boxes_xyxy: Tensor
    classes: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        expect(self.boxes_xyxy, "Detections.boxes_xyxy", (None, 4), torch.float32)
        expect(self.classes, "Detections.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.scores, "Detections.scores", (len(self.boxes_xyxy),), torch.float32)

    def above(self, score: float) -> Self:
        """Only the boxes of at least this score."""
        return self.chosen(self.scores >= score)


class BoxTargets(NamedTuple):
    """What one source teaches about the boxes of a batch; ground truth and tutor have the same form.

    An image of weight 0 is not taught by this source. Padding rows have no area and no probability.

    Attributes:
        boxes_xyxy: float32 [B, K, 4], pixels of the network's input.
        classes: int64 [B, K], 1..C, 0 in padding rows.
        probs: float32 [B, K, C+1], class distributions; ground truth's are one-hot.
        difficult: bool [B, K], ground truth's flag.
        unknown: bool [B, C+1], classes the source draws no boxes of: its background may be any of them; [B, 0] where no
            image of the batch has such a class.
        weight: float32 [B].
    """

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    unknown: Tensor
    weight: Tensor

    @property
    def scores(self) -> Tensor:
        """float32 [B, K]: the probability of each box's class."""
        return self.probs.gather(2, self.classes[..., None])[..., 0]


class BoxRow(NamedTuple):
    """One image's `BoxTargets` without weight, not padded; `unknown` is bool [C+1]."""

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    unknown: Tensor


def nothing(space: int) -> BoxRow:
    """No box, in a label space of so many names, background included."""
    none = torch.zeros(0, dtype=torch.int64)
    return BoxRow(torch.zeros(0, 4), none, torch.zeros(0, space), none.bool(), marked((), space))


def teachable(answer: SoftBoxes, section: DetectionSection) -> Tensor:
    """int64 indices of the tutor's boxes that have a say.

    Boxes under the ignore floor have none. With `conflicts: score`, of boxes on one object, whatever their classes,
    only the best-scored has one, and the result is by falling score: a tutor that keeps a horse also as a cow would
    otherwise teach both (specification 7.1, 6).
    """
    scores = answer.scores
    chosen = (scores >= min(section.ignore_floor, section.box_floor)).nonzero()[:, 0]
    if section.conflicts == "keep":
        return chosen
    chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
    return chosen[nms(answer.boxes_xyxy[chosen], scores[chosen], None, section.conflict_iou)]


def apart(truth: BoxRow, tutor: BoxRow, conflict_iou: float) -> Tensor:
    """bool [K]: the tutor's boxes that lie on no drawn one."""
    return iou(tutor.boxes_xyxy, F.pad(truth.boxes_xyxy, (0, 0, 0, 1))).amax(dim=1) <= conflict_iou


def vet_by_mask(
    answer: SoftBoxes, mask: Tensor, to: Tensor, annotated: tuple[int, ...] | None, most: float
) -> SoftBoxes:
    """The tutor's boxes, with low scores where a drawn mask contradicts them.

    A box without a pixel of its class keeps a score of `most` at most, unless the mask says nothing (255) about most of
    the box, or does not annotate the class. It is not left out, for VOC's masks lack difficult objects: what lies on it
    should be ignored instead of learning that nothing is there.

    Args:
        mask: uint8 [H, W], in the label space of a segmentation task.
        to: int64 [C+1], the class there of each class here; 0 where it has none, which can't be contradicted.
        annotated: the classes of the mask's label space that it annotates; None means every class.
    """
    size = (mask.shape[0], mask.shape[1])
    edges = outwards(answer.boxes_xyxy, size)
    sides = edges[:, 2:] - edges[:, :2]
    there = to[answer.classes]
    known = there > 0
    if annotated is not None:
        known &= torch.isin(there, torch.tensor(annotated, dtype=torch.int64))
    kept = ~known | (2 * _count(mask == IGNORE, edges) > sides.prod(dim=1))
    for number in sorted(set(there[~kept].tolist())):
        of_class = there == number
        kept[of_class] |= _count(mask == number, edges[of_class]) > 0
    return answer.limited(~kept, most)


def _count(pixels: Tensor, edges: Tensor) -> Tensor:
    """int64 [K]: true pixels within each range, by summed areas."""
    sums = F.pad(pixels.long().cumsum(dim=0).cumsum(dim=1), (1, 0, 1, 0))
    left, top, right, bottom = edges.unbind(dim=1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
