"""Average precision of boxes: VOC's two kinds at IoU .5, and COCO's.

VOC's rules are those of the devkit's `VOCevaldet.m` (specification 5.2): a detection is compared with the object of its
class that it overlaps most; from IoU .5 on (the devkit compares with >=, the original network's code with >) the first
one by score finds it and every further one is wrong; on a `difficult` object a detection is neither right nor wrong,
and the object need not be found.

COCO's rules are those of pycocotools' `COCOeval`: in an image the detections of a class, at most 100, choose one after
the other by falling score. Of the objects of its class that are still free, each takes the one that it overlaps most,
if by the IoU floor at least. Where there is none, it may take a difficult object (COCO's crowd), any number of
detections the same one, and then does not count; there the share of the detection inside the object is measured.
The libraries for it need a dictionary for each box, which takes several times as long as all that is done here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.tasks.calibrate import averaged_classes, known, known_mean, rounded_down
from tutored.tasks.detection.types import Boxes, Detections
from tutored.tasks.task import Detail, Figures

AP_AREA, AP_POINTS, AP_COCO, AP_COCO_50, AP_COCO_75 = METRICS = (
    "AP_voc_area@.5",
    "AP_voc07_11point@.5",
    "AP_coco@.5:.95",
    "AP_coco@.5",
    "AP_coco@.75",
)
"""Of one class. Their means over classes are called `mAP_...`."""
IOU_FLOOR = 0.5
COCO_FLOORS = np.linspace(0.5, 0.95, 10)
COCO_DETECTIONS = 100
RECALLS = 101
"""Points of a precision-recall curve: the recalls 0, .01, ..., 1."""


class Matches(NamedTuple):
    """One image's detections, by falling score, compared with its objects.

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels.
        classes: int64 [K], 1..C.
        scores: float32 [K].
        hits: int8 [K], 1 where a detection found an object, 0 where it found none, -1 where it does not count.
        truth_boxes_xyxy: float32 [G, 4], pixels.
        truth_classes: int64 [G], 1..C.
        difficult: bool [G], objects that need not be found.
        pairs: int64 [P, 2], rows of detections and of objects of one class that overlap by the lowest of COCO's floors.
        overlaps: float64 [P], of each pair.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    hits: NDArray[np.int8]
    truth_boxes_xyxy: NDArray[np.float32]
    truth_classes: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    pairs: NDArray[np.int64]
    overlaps: NDArray[np.float64]


NO_MATCHES = Matches(
    np.zeros((0, 4), np.float32),
    np.zeros(0, np.int64),
    np.zeros(0, np.float32),
    np.zeros(0, np.int8),
    np.zeros((0, 4), np.float32),
    np.zeros(0, np.int64),
    np.zeros(0, np.bool_),
    np.zeros((0, 2), np.int64),
    np.zeros(0),
)
"""The record of an image without boxes."""


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


def record(
    truth: Boxes,
    prediction: Detections,
    labels: LabelSpace,
    shares: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Matches:
    """Compare one image's detections with its objects.

    Detections of classes that the image is not annotated for are left out. Equal scores keep the order of `prediction`.
    Raises InputError: a class is outside the label space, or a box or score is not finite.

    Args:
        shares: float64 [K, G] each, how much detections and objects overlap by VOC's rules, and by COCO's; None: by
            their boxes.
    """
    boxes, scores = prediction.boxes_xyxy.cpu().numpy(), prediction.scores.cpu().numpy()
    answer_classes = prediction.classes.cpu().numpy()
    truth_boxes, truth_classes, difficult = truth.boxes_xyxy.numpy(), truth.classes.numpy(), truth.difficult.numpy()
    for name, classes in (("ground truth", truth_classes), ("prediction", answer_classes)):
        outside = classes[(classes < 1) | (classes > len(labels.classes))]
        if len(outside):
            raise InputError(f"the {name} has a box of class {outside[0]}; possible: 1 to {len(labels.classes)}")
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise InputError("the prediction has a box or score that is NaN or infinite; did training diverge?")

    order = np.argsort(-scores, kind="stable")
    if truth.annotated is not None:
        order = order[np.isin(answer_classes[order], truth.annotated)]
    if shares is None:
        shares = overlaps(boxes[:, None], truth_boxes), overlaps(boxes[:, None], truth_boxes, inside=difficult)
    boxes, answer_classes = boxes[order], answer_classes[order]
    voc, coco = (each[order] * (answer_classes[:, None] == truth_classes) for each in shares)
    pairs = np.argwhere(coco >= COCO_FLOORS[0])
    paired = coco[pairs[:, 0], pairs[:, 1]]
    hits = _hits(voc, difficult)
    return Matches(boxes, answer_classes, scores[order], hits, truth_boxes, truth_classes, difficult, pairs, paired)


def figures(records: Sequence[Matches], labels: LabelSpace, reported: Sequence[str] | None) -> Figures:
    """Average precisions of each class, and their means over the reported classes that have an object to find. Raises
    InputError: an unknown class is reported. `reported` are the classes that means are over; None: all. It restricts
    what is averaged, not what is counted.
    """
    averaged, count = averaged_classes(labels, reported), len(labels.classes)
    numbers = [labels.index(name) for name in averaged]
    rows = dict(zip(METRICS, (*voc_ap(rank(records, count)), *coco_ap(records, count)), strict=True))
    truths = [np.bincount(item.truth_classes * 2 + item.difficult, minlength=2 * count + 2) for item in records]
    objects, difficult = np.sum(truths, axis=0).reshape(-1, 2)[1:].T.tolist()
    score, best = best_score(records)
    return Figures(
        images=len(records),
        classes=averaged,
        means={f"m{metric}": known(known_mean(row[numbers])) for metric, row in rows.items()},
        per_class={
            metric: dict(zip(labels.classes, map(known, row[1:]), strict=True))
            for metric, row in rows.items()
            if metric != AP_COCO_75  # a column more than 80 characters hold
        },
        counts={
            "objects": dict(zip(labels.classes, objects, strict=True)),
            "difficult": dict(zip(labels.classes, difficult, strict=True)),
        },
        notes=() if score is None else (f"best F1 {best:.2f}, from score {score:.2f} on",),
        score=score,
    )


def best_score(records: Sequence[Matches]) -> tuple[float | None, float]:
    """The score from which on the boxes of all classes together have the best F1, and that F1.

    The score is rounded down to two digits, as people write it; None where no box is right.
    """
    scores, hits = (np.concatenate([getattr(item, name) for item in records]) for name in ("scores", "hits"))
    order = np.argsort(-scores, kind="stable")
    order = order[hits[order] >= 0]
    total = sum(int((~item.difficult).sum()) for item in records)
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(len(order)) + 1 + total)
    if not f1.any():
        return None, 0.0
    best = int(f1.argmax())
    return rounded_down(float(scores[order[best]])), float(f1[best])


def resampler(
    records: Sequence[Matches | None], labels: LabelSpace, reported: Sequence[str] | None
) -> Callable[[NDArray[np.int64]], float]:
    """See `Task.resampler`: mAP (VOC area) of images of which some have no boxes (None)."""
    numbers = [labels.index(name) for name in averaged_classes(labels, reported)]
    ranked = rank([each or NO_MATCHES for each in records], len(labels.classes))
    return lambda weights: known_mean(voc_ap(ranked, weights)[0, numbers])


def details(records: Sequence[Matches], labels: LabelSpace) -> list[Detail]:
    """The precision envelope of each class with an object: the curve whose area is VOC's average precision."""
    ranked, curves = rank(records, len(labels.classes)), {}
    for index in np.flatnonzero(ranked.objects.sum(axis=0)):
        hits = ranked.hits[ranked.starts[index] : ranked.starts[index + 1]]
        found, envelope = _curve(hits, np.ones(len(hits), np.int64))
        curves[labels.names[index]] = _at_recalls(found, envelope, int(ranked.objects[:, index].sum()), RECALLS)
    values = np.array([*curves.values()]).reshape(-1, RECALLS)
    return [Detail("Precision over recall at IoU .5", "curves", tuple(curves), values)]


def overlaps(
    a_xyxy: NDArray[np.float32], b_xyxy: NDArray[np.float32], inside: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union, in double precision and on small arrays faster than `boxes.iou`; shapes broadcast. Where
    `inside` is true, it is the share of `a_xyxy` inside `b_xyxy`.
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
    """Order the detections of one or more images of `count` object classes; equal scores keep the order of images."""
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
    """Average precision of each class: row 0 the area under the precision envelope, row 1 VOC07's 11 points. Returns
    float64 [2, C+1]; NaN for background and for a class without an object to find. `weights`: int64 [I], how many times
    each image stands in the split; None: once.
    """
    if weights is None:
        weights = np.ones(len(ranked.objects), np.int64)
    totals = weights @ ranked.objects
    copies = weights[ranked.images]
    result = np.full((2, len(totals)), np.nan)
    for index in np.flatnonzero(totals):
        rows, total = slice(ranked.starts[index], ranked.starts[index + 1]), int(totals[index])
        found, envelope = _curve(ranked.hits[rows], copies[rows])
        area = (envelope * ranked.hits[rows] * copies[rows]).sum() / total
        result[:, index] = area, _at_recalls(found, envelope, total, 11).mean()
    return result


def _curve(hits: NDArray[np.bool_], copies: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Objects found down to each detection, and the best precision from there on; both along the first dimension."""
    found = np.cumsum(hits * copies, axis=0)
    precision = found / np.maximum(np.cumsum(copies, axis=0), 1)
    return found, np.maximum.accumulate(precision[::-1])[::-1]


def _at_recalls(found: NDArray[np.int64], envelope: NDArray[np.float64], total: int, count: int) -> NDArray[np.float64]:
    """The envelope at `count` recalls from 0 to 1; 0 where so many objects are never found."""
    # Recalls are compared as whole numbers: .1 * 3 is above .3 in floating point.
    reached = np.searchsorted((count - 1) * found, np.arange(count) * total)
    return np.append(envelope, 0.0)[reached]


class _Pairs(NamedTuple):
    """Detections and objects of one image and class that overlap by the lowest of COCO's floors.

    Pairs of one image and class stand together, in the order in which they are asked: by falling score, then by
    preference. Of two objects overlapped alike the later one comes first, as in pycocotools.

    Attributes:
        detections: int64 [P], rows of the detections.
        objects: int64 [P], rows of the objects.
        overlaps: float64 [P], at least `COCO_FLOORS[0]`.
        turns: int64 [P], how many pairs of the same image and class stand before.
    """

    detections: NDArray[np.int64]
    objects: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    turns: NDArray[np.int64]


def coco_ap(matches: Sequence[Matches], count: int) -> NDArray[np.float64]:
    """COCO's average precision of `count` classes: over IoU .5 to .95, at .5 and at .75; at most 100 detections an
    image. Returns float64 [3, C+1]; NaN for background and for a class without an object to find.
    """
    images = np.repeat(np.arange(len(matches)), [len(item.classes) for item in matches])
    groups = images * (count + 1) + np.concatenate([item.classes for item in matches])
    order = np.argsort(groups, kind="stable")
    order = order[_places(groups[order]) < COCO_DETECTIONS]
    classes, scores = groups[order] % (count + 1), np.concatenate([item.scores for item in matches])[order]
    difficult = np.concatenate([item.difficult for item in matches])
    hits = _choose(_pairs(matches, groups[order], order, difficult), len(order), difficult)

    by_score = np.lexsort((-scores, classes))
    starts = np.searchsorted(classes[by_score], np.arange(count + 2))
    true_classes = np.concatenate([item.truth_classes for item in matches])
    totals = np.bincount(true_classes[~difficult], minlength=count + 1)
    result = np.full((3, count + 1), np.nan)
    for index in np.flatnonzero(totals):
        precision = _precision(hits[by_score[starts[index] : starts[index + 1]]], int(totals[index]))
        result[:, index] = precision.mean(), precision[0].mean(), precision[5].mean()
    return result


def _places(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """The position of each number among those equal to it, in a sorted array."""
    return np.arange(len(ordered)) - np.searchsorted(ordered, ordered)


def _pairs(
    matches: Sequence[Matches], groups: NDArray[np.int64], order: NDArray[np.int64], difficult: NDArray[np.bool_]
) -> _Pairs:
    """The pairs of all images: of detections in `order`, which fall by score in rising groups of image and class."""
    firsts = np.cumsum([(0, 0), *((len(each.classes), len(each.difficult)) for each in matches)], axis=0)
    places = np.full(firsts[-1, 0], -1)
    places[order] = np.arange(len(order))
    pairs = np.concatenate([each.pairs + first for each, first in zip(matches, firsts[:-1], strict=True)])
    detections, objects, shares = places[pairs[:, 0]], pairs[:, 1], np.concatenate([each.overlaps for each in matches])
    asked = np.lexsort((-objects, -shares, difficult[objects], detections))
    asked = asked[detections[asked] >= 0]
    detections = detections[asked]
    return _Pairs(detections, objects[asked], shares[asked], _places(groups[detections]))


def _choose(pairs: _Pairs, detections: int, difficult: NDArray[np.bool_]) -> NDArray[np.int8]:
    """What each detection does at each floor, as in `Matches.hits`: int8 [detections, floors]."""
    hits = np.zeros((detections, len(COCO_FLOORS)), np.int8)
    chosen = np.zeros((len(difficult), len(COCO_FLOORS)), np.bool_)
    means = np.where(difficult, -1, 1).astype(np.int8)[:, None]
    by_turn = np.argsort(pairs.turns, kind="stable")
    # All images and classes take their n-th turn together: no two of these pairs share a detection or an object.
    for rows in np.split(by_turn, np.cumsum(np.bincount(pairs.turns))):
        detection, thing = pairs.detections[rows], pairs.objects[rows]
        takes = (pairs.overlaps[rows, None] >= COCO_FLOORS) & (hits[detection] == 0) & ~chosen[thing]
        hits[detection] += takes * means[thing]
        chosen[thing] |= takes & ~difficult[thing, None]
    return hits


def _precision(hits: NDArray[np.int8], total: int) -> NDArray[np.float64]:
    """Of one class by falling score: the precision envelope at each floor and recall, float64 [floors, RECALLS]."""
    found, best = _curve(hits > 0, (hits >= 0).astype(np.int64))
    ends = np.vstack([best, np.zeros(len(COCO_FLOORS))])
    # Recalls are compared in floating point, as in pycocotools.
    recalls = np.linspace(0, 1, RECALLS)
    reached = [np.searchsorted(column, recalls) for column in (found / total).T]
    return np.stack([ends[rows, floor] for floor, rows in enumerate(reached)])
