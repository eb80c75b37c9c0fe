"""Agreement of two tutors on the same images, where no ground truth can tell who is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutored.audit.facts import without_maps
from tutored.config import Loss
from tutored.errors import InputError
from tutored.evaluate.detection import match
from tutored.evaluate.figures import known
from tutored.evaluate.segmentation import compare, confusion, iou, stack
from tutored.judge import as_prediction
from tutored.labels import ClassMap, LabelSpace
from tutored.progress import Progress
from tutored.softlabels import Folded, Store
from tutored.structures import BACKGROUND, GroundTruth, SoftLabels


def agreement(
    one: Store, other: Store, labels: LabelSpace, ids: Sequence[str], progress: Progress | None = None
) -> dict[str, Any]:
    """How far two tutors agree, class by class, on the tasks that both answer.

    Boxes: of those from `Loss.box_floor` on in both, those that stand on a box of the same class (IoU .5, one to one):
    F1, which is the same whichever tutor comes first but for chains of overlaps. Maps: IoU of the likeliest classes,
    and Cohen's kappa, which is 0 for agreement by chance, without the pixels that either calls a class which only one
    of them knows.

    Args:
        labels: the label space to compare in; only classes that both tutors know are compared. Maps of more classes
            than a mask can tell apart are left out.

    Raises:
        InputError: the stores have no task, class or image in common, or only such maps.
    """
    tasks = without_maps([task for task in one.tasks if task in other.tasks], labels)
    shared = [each for each in ids if each in one and each in other]
    if not tasks or not shared:
        raise InputError(
            f"{one.path} and {other.path} have no {'task' if not tasks else 'image of the split'} in common; "
            "give two stores that answer the same task for the same images"
        )
    maps = [ClassMap.by_name(store.labels, labels) for store in (one, other)]
    both = sorted({to for to in maps[0].to if to} & {*maps[1].to})
    if not both:
        raise InputError(f"{one.path} and {other.path} have no class in common; tutors of the same classes can agree")
    folded = [Folded(store, class_map) for store, class_map in zip((one, other), maps, strict=True)]
    boxes = np.zeros((len(labels), 3), np.int64)
    pixels = []
    for done, image_id in enumerate(shared, start=1):
        first, second = (each[image_id] for each in folded)
        if "detection" in tasks and first.boxes_xyxy is not None and second.boxes_xyxy is not None:
            boxes += _count(first, second, len(labels))
        if "segmentation" in tasks and first.map is not None and second.map is not None:
            drawn = [as_prediction(each).mask for each in (first, second)]
            assert drawn[0] is not None and drawn[1] is not None
            pixels.append(compare(drawn[0].numpy(), drawn[1].numpy(), len(labels.classes)))
        if progress:
            progress(done, len(shared))
    result: dict[str, Any] = {"images": len(shared), "classes": [labels.names[each] for each in both]}
    if "detection" in tasks:
        result["boxes"] = {labels.names[each]: _f1(boxes[each]) for each in both}
        result["boxes_all"] = _f1(boxes[both].sum(axis=0))
    if pixels:
        compared = [BACKGROUND, *both]
        matrix = confusion(stack(pixels, len(labels.classes)))[np.ix_(compared, [*compared, -1])]
        overlaps = zip(compared, iou(matrix), strict=True)
        result["maps"] = {labels.names[each]: known(overlap) for each, overlap in overlaps}
        result["kappa"] = kappa(matrix[:, :-1])
    return result


def kappa(matrix: NDArray[np.int64]) -> float | None:
    """Cohen's kappa of a square confusion matrix; None without a pixel, and where chance alone agrees everywhere."""
    if not matrix.any():
        return None
    shares = matrix / matrix.sum()
    chance = float((shares.sum(axis=0) * shares.sum(axis=1)).sum())
    return None if chance >= 1 else (float(shares.trace()) - chance) / (1 - chance)


def _count(first: SoftLabels, second: SoftLabels, size: int) -> NDArray[np.int64]:
    """By class: boxes of both that meet, boxes of the first, boxes of the second; int64 [C+1, 3]."""
    floor = Loss().box_floor
    mine, theirs = (as_prediction(each).above(floor) for each in (first, second))
    assert mine.boxes_xyxy is not None and mine.classes is not None and theirs.classes is not None
    truth = GroundTruth(
        size=mine.size, boxes_xyxy=mine.boxes_xyxy, classes=mine.classes, difficult=mine.classes.bool().logical_not()
    )
    found = match(truth, theirs, size - 1)
    return np.stack(
        [
            np.bincount(found.classes[found.hits > 0], minlength=size),
            np.bincount(mine.classes.numpy(), minlength=size),
            np.bincount(theirs.classes.numpy(), minlength=size),
        ],
        axis=1,
    )


def _f1(counts: NDArray[np.int64]) -> dict[str, Any]:
    met, mine, theirs = counts.tolist()
    return {"f1": 2 * met / (mine + theirs) if mine + theirs else None, "boxes": mine, "others": theirs}
