"""A tutor's boxes as columns of a store: sparse, quantised, sums exact; remapped for many images at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from tutored.boxes import nms
from tutored.tasks.columns import (
    FLOATS,
    MOST,
    NUMBERS,
    Array,
    Lists,
    expect,
    flat,
    lists,
    quantise,
    scored_boxes,
    starts,
)
from tutored.tasks.task import Remap

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
    counts = quantise(probs, LEVELS)
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
        space: classes of the label space.
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

    def remapped(self, remap: Remap) -> BoxBlock:
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
    counts, corners, classes, scores = scored_boxes(table, "", space)
    (lines, numbers), (same, values) = (lists(table.column(name)) for name in ("probs_class", "probs_value"))
    expect(bool((lines == counts).all() and (same == counts).all()), "boxes and distributions of other lengths")
    (lengths, numbers), (same, values) = lists(numbers), lists(values)
    expect(bool((lengths == same).all()), "classes and probabilities of other lengths")
    boxes, entries = np.arange(len(classes)), flat(numbers)
    expect(entries.max(initial=0) < space, f"a class outside 0..{space - 1}")
    places = np.concatenate([np.repeat(boxes, lengths) * space + entries, boxes * space + classes])
    # Scores rank boxes over a whole data set, so the kept class' own probability is exact: the last of its place.
    probs = np.concatenate([flat(values) / np.float32(LEVELS), scores])
    order = places.argsort(kind="stable")
    order = order[np.diff(places[order], append=-1) != 0]
    places, probs = places[order], probs[order]
    sums = np.bincount(places // space, probs)
    expect(sums.max(initial=0) <= MOST, "probabilities of a box that sum to more than one")
    return BoxBlock(starts(counts), corners, classes, space, places, probs)


def _suppress(corners: Array, classes: Array, probs: Array) -> Array:
    """Of one image's boxes the indices of those that no better one of their class overlaps, by falling score."""
    scores = torch.from_numpy(probs[np.arange(len(probs)), classes])
    kept: Array = nms(torch.from_numpy(corners), scores, torch.from_numpy(classes), NMS_IOU).numpy()
    return kept
