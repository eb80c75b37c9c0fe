"""COCO's average precision of boxes, by the rules of pycocotools' `COCOeval`, for all images and IoU floors at once.

In an image the detections of a class, at most 100, choose one after the other by falling score: of its class' objects
that nobody chose, each takes the one that it overlaps most, if by the floor at least. Where there is none, it may take
an object that need not be found, as often as that is wanted, and then does not count; what is measured there is the
share of the detection inside the object.

The libraries for it take a dictionary a box, and making and indexing these takes several times what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.evaluate.detection import RECALLS, Matches, curve, overlaps

IOU_FLOORS = np.linspace(0.5, 0.95, 10)
DETECTIONS = 100


class _Pairs(NamedTuple):
    """Detections and objects of one image and class that overlap by the lowest floor.

    Those of one image and class stand together, in the order in which they are asked: by falling score, then by
    preference. Two objects overlapped alike: the later one first, as pycocotools has it.

    Attributes:
        detections: int64 [P], rows of the detections.
        objects: int64 [P], rows of the objects.
        overlaps: float64 [P], at least `IOU_FLOORS[0]`.
        turns: int64 [P], how many pairs of the same image and class stand before.
    """

    detections: NDArray[np.int64]
    objects: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    turns: NDArray[np.int64]


def coco_ap(matches: Sequence[Matches], count: int) -> NDArray[np.float64]:
    """COCO's average precision of each class: row 0 over IoU .5 to .95, row 1 at .5; at most 100 detections an image.

    A `difficult` object is COCO's crowd: need not be found, and detections inside it do not count.

    Args:
        matches: of one or more images; their `hits`, which are VOC's, do not matter.
        count: C, the number of object classes.

    Returns:
        float64 [2, C+1]; NaN for background and for a class without an object to find.
    """
    groups = _groups([item.classes for item in matches], count)
    order = np.argsort(groups, kind="stable")
    order = order[_places(groups[order]) < DETECTIONS]
    classes, scores = groups[order] % (count + 1), np.concatenate([item.scores for item in matches])[order]
    difficult = np.concatenate([item.difficult for item in matches])
    true_groups = _groups([item.truth_classes for item in matches], count)
    boxes = np.concatenate([item.boxes_xyxy for item in matches])[order]
    true_boxes = np.concatenate([item.truth_boxes_xyxy for item in matches])
    hits = _choose(_pairs(groups[order], boxes, true_groups, true_boxes, difficult), len(order), difficult)

    by_score = np.lexsort((-scores, classes))
    starts = np.searchsorted(classes[by_score], np.arange(count + 2))
    totals = np.bincount(true_groups[~difficult] % (count + 1), minlength=count + 1)
    result = np.full((2, count + 1), np.nan)
    for index in np.flatnonzero(totals):
        precision = _precision(hits[by_score[starts[index] : starts[index + 1]]], int(totals[index]))
        result[:, index] = precision.mean(), precision[0].mean()
    return result


def _groups(classes: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """A number for each image and class."""
    images = np.repeat(np.arange(len(classes)), [len(each) for each in classes])
    return images * (count + 1) + np.concatenate(classes)


def _places(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal numbers stand before each, of numbers that rise."""
    return np.arange(len(ordered)) - np.searchsorted(ordered, ordered)


def _pairs(
    groups: NDArray[np.int64],
    boxes_xyxy: NDArray[np.float32],
    true_groups: NDArray[np.int64],
    true_boxes_xyxy: NDArray[np.float32],
    difficult: NDArray[np.bool_],
) -> _Pairs:
    """Pair detections, by group and falling score, with objects in any order."""
    by_group = np.argsort(true_groups, kind="stable")
    first = np.searchsorted(true_groups[by_group], groups)
    number = np.searchsorted(true_groups[by_group], groups, side="right") - first
    detections = np.repeat(np.arange(len(groups)), number)
    objects = by_group[_places(detections) + first[detections]]

    shares = overlaps(boxes_xyxy[detections], true_boxes_xyxy[objects], inside=difficult[objects])
    asked = np.lexsort((-objects, -shares, difficult[objects], detections))
    asked = asked[shares[asked] >= IOU_FLOORS[0]]
    detections = detections[asked]
    return _Pairs(detections, objects[asked], shares[asked], _places(groups[detections]))


def _choose(pairs: _Pairs, detections: int, difficult: NDArray[np.bool_]) -> NDArray[np.int8]:
    """What each detection does at each floor, as `Matches.hits`: int8 [detections, floors]."""
    hits = np.zeros((detections, len(IOU_FLOORS)), np.int8)
    chosen = np.zeros((len(difficult), len(IOU_FLOORS)), np.bool_)
    means = np.where(difficult, -1, 1).astype(np.int8)[:, None]
    by_turn = np.argsort(pairs.turns, kind="stable")
    # All images and classes take their n-th turn together: no two of these pairs share a detection or an object.
    for rows in np.split(by_turn, np.cumsum(np.bincount(pairs.turns))):
        detection, thing = pairs.detections[rows], pairs.objects[rows]
        takes = (pairs.overlaps[rows, None] >= IOU_FLOORS) & (hits[detection] == 0) & ~chosen[thing]
        hits[detection] += takes * means[thing]
        chosen[thing] |= takes & ~difficult[thing, None]
    return hits


def _precision(hits: NDArray[np.int8], total: int) -> NDArray[np.float64]:
    """Of one class by falling score: the precision envelope at each floor and recall, float64 [floors, RECALLS]."""
    found, best = curve(hits > 0, (hits >= 0).astype(np.int64))
    ends = np.vstack([best, np.zeros(len(IOU_FLOORS))])
    # Recalls are compared in floating point, as pycocotools does it.
    recalls = np.linspace(0, 1, RECALLS)
    reached = [np.searchsorted(column, recalls) for column in (found / total).T]
    return np.stack([ends[rows, floor] for floor, rows in enumerate(reached)])
