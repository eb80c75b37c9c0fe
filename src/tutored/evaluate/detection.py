"""Average precision of boxes: VOC's two kinds at IoU .5.

The rules are those of the devkit's `VOCevaldet.m` (specification 5.2): a detection is held against the object of its
class that it overlaps most; from IoU .5 on (the devkit compares with >=, the original network's code with >) the first
one by score finds it and every further one is wrong; on a `difficult` object a detection is neither right nor wrong,
and the object need not be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.structures import GroundTruth, Prediction

IOU_FLOOR = 0.5
RECALLS = 101
"""Points of a precision-recall curve: the recalls 0, .01, ..., 1."""


class Matches(NamedTuple):
    """One image's detections, by falling score, held against its objects.

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels.
        classes: int64 [K], 1..C.
        scores: float32 [K].
        hits: int8 [K], 1 where a detection found an object, 0 where it found none, -1 where it does not count.
        truth_boxes_xyxy: float32 [G, 4], pixels.
        truth_classes: int64 [G], 1..C.
        difficult: bool [G], objects that need not be found.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    hits: NDArray[np.int8]
    truth_boxes_xyxy: NDArray[np.float32]
    truth_classes: NDArray[np.int64]
    difficult: NDArray[np.bool_]


NO_MATCHES = Matches(
    np.zeros((0, 4), np.float32),
    np.zeros(0, np.int64),
    np.zeros(0, np.float32),
    np.zeros(0, np.int8),
    np.zeros((0, 4), np.float32),
    np.zeros(0, np.int64),
    np.zeros(0, np.bool_),
)
"""What an image without boxes tells."""


class Ranked(NamedTuple):
    """The counted detections of many images: class by class, in each class by falling score.

    Attributes:
        images: int64 [N], the image of each detection.
        hits: bool [N], whether it found an object.
        starts: int64 [C+2], class c has the rows `starts[c]` to `starts[c + 1]`.
        objects: int64 [I, C+1], objects to find in each image, `difficult` ones not counted.
    """

    images: NDArray[np.int64]
    hits: NDArray[np.bool_]
    starts: NDArray[np.int64]
    objects: NDArray[np.int64]


def match(truth: GroundTruth, prediction: Prediction, classes: int) -> Matches:
    """Hold one image's detections against its objects. Both must have boxes.

    Detections of classes that the image is not annotated for are left out. Equal scores keep the order of `prediction`.

    Args:
        classes: C, the number of object classes.

    Raises:
        InputError: a class is outside the label space, or a box or score is not finite.
    """
    assert truth.boxes_xyxy is not None and truth.classes is not None and truth.difficult is not None
    assert prediction.boxes_xyxy is not None and prediction.classes is not None and prediction.scores is not None
    boxes, scores = prediction.boxes_xyxy.cpu().numpy(), prediction.scores.cpu().numpy()
    truth_boxes, truth_classes, difficult = truth.boxes_xyxy.numpy(), truth.classes.numpy(), truth.difficult.numpy()
    answer_classes = prediction.classes.cpu().numpy()
    _refuse_outside(truth_classes, "ground truth", classes)
    _refuse_outside(answer_classes, "prediction", classes)
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise InputError("the prediction has a box or score that is no number; did training diverge?")

    order = np.argsort(-scores, kind="stable")
    if truth.annotated is not None:
        order = order[np.isin(answer_classes[order], truth.annotated)]
    boxes, answer_classes = boxes[order], answer_classes[order]
    hits = _hits(overlaps(boxes[:, None], truth_boxes) * (answer_classes[:, None] == truth_classes), difficult)
    return Matches(boxes, answer_classes, scores[order], hits, truth_boxes, truth_classes, difficult)


def _refuse_outside(classes: NDArray[np.int64], name: str, count: int) -> None:
    if len(classes) and not 1 <= classes.min() <= classes.max() <= count:
        outside = classes[(classes < 1) | (classes > count)]
        raise InputError(f"the {name} has a box of class {outside[0]}; possible: 1 to {count}")


def overlaps(
    a_xyxy: NDArray[np.float32], b_xyxy: NDArray[np.float32], inside: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union, in double precision and on small arrays faster than `boxes.iou`; shapes broadcast.

    Args:
        inside: where true, it is the share of `a_xyxy` inside `b_xyxy`.
    """
    a, b = a_xyxy.astype(np.float64), b_xyxy.astype(np.float64)
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    a_sides, b_sides = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    shared, area = sides[..., 0] * sides[..., 1], a_sides[..., 0] * a_sides[..., 1]
    union = area + b_sides[..., 0] * b_sides[..., 1] - shared
    result: NDArray[np.float64] = shared / (union if inside is None else np.where(inside, area, union))
    return result


def _hits(shares: NDArray[np.float64], difficult: NDArray[np.bool_]) -> NDArray[np.int8]:
    hits = np.zeros(len(shares), np.int8)
    if not shares.size:
        return hits
    touching = np.flatnonzero(shares.max(axis=1) >= IOU_FLOOR)
    nearest = shares[touching].argmax(axis=1)
    hits[touching[difficult[nearest]]] = -1
    # Of detections of one object the first is written last and stays.
    first = np.full(len(difficult), -1)
    first[nearest[::-1]] = touching[::-1]
    hits[first[(first >= 0) & ~difficult]] = 1
    return hits


def rank(matches: Sequence[Matches], count: int) -> Ranked:
    """Order the detections of one or more images for `voc_ap`; equal scores keep the order of images.

    Args:
        count: C, the number of object classes.
    """
    objects = np.stack([np.bincount(item.truth_classes[~item.difficult], minlength=count + 1) for item in matches])
    images = np.repeat(np.arange(len(matches)), [len(item.hits) for item in matches])
    classes = np.concatenate([item.classes for item in matches])
    scores = np.concatenate([item.scores for item in matches])
    hits = np.concatenate([item.hits for item in matches])

    order = np.lexsort((-scores, classes))
    order = order[hits[order] >= 0]
    starts = np.searchsorted(classes[order], np.arange(count + 2))
    return Ranked(images[order], hits[order] > 0, starts, objects)


def voc_ap(ranked: Ranked, weights: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Average precision of each class: row 0 the area under the precision envelope, row 1 VOC07's 11 points.

    Args:
        weights: int64 [I], how many times each image counts; None: once. The result is that of a split in which
            each image stands so many times.

    Returns:
        float64 [2, C+1]; NaN for background and for a class without an object to find.
    """
    if weights is None:
        weights = np.ones(len(ranked.objects), np.int64)
    totals = weights @ ranked.objects
    copies = weights[ranked.images]
    result = np.full((2, len(totals)), np.nan)
    for index in np.flatnonzero(totals):
        rows = slice(ranked.starts[index], ranked.starts[index + 1])
        result[:, index] = _average_precision(ranked.hits[rows], copies[rows], int(totals[index]))
    return result


def _average_precision(hits: NDArray[np.bool_], copies: NDArray[np.int64], total: int) -> tuple[float, float]:
    found, envelope = curve(hits, copies)
    area = float((envelope * hits * copies).sum() / total)
    return area, float(_at_recalls(found, envelope, total, 11).mean())


def curve(hits: NDArray[np.bool_], copies: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Objects found down to each detection, and the best precision from there on; both along the first dimension."""
    found = np.cumsum(hits * copies, axis=0)
    precision = found / np.maximum(np.cumsum(copies, axis=0), 1)
    return found, np.maximum.accumulate(precision[::-1])[::-1]


def _at_recalls(found: NDArray[np.int64], envelope: NDArray[np.float64], total: int, count: int) -> NDArray[np.float64]:
    """The envelope at `count` recalls from 0 to 1; 0 where so many objects are never found."""
    # Recalls are compared as whole numbers: .1 * 3 is above .3 in floating point.
    reached = np.searchsorted((count - 1) * found, np.arange(count) * total)
    return np.append(envelope, 0.0)[reached]


def precisions(ranked: Ranked) -> NDArray[np.float64]:
    """The precision envelope of each class at the recalls 0, .01, ..., 1: the curve whose area `voc_ap` takes.

    Returns:
        float64 [C+1, RECALLS]; 0 beyond the highest recall; NaN for background and for a class without an object.
    """
    totals = ranked.objects.sum(axis=0)
    result = np.full((len(totals), RECALLS), np.nan)
    for index in np.flatnonzero(totals):
        hits = ranked.hits[ranked.starts[index] : ranked.starts[index + 1]]
        found, envelope = curve(hits, np.ones(len(hits), np.int64))
        result[index] = _at_recalls(found, envelope, int(totals[index]), RECALLS)
    return result
