"""From dense class scores to a detector's answer: the steps that all detectors share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tutored.boxes import clip, nms
from tutored.structures import Instances, SoftLabels
from tutored.tutors.outputs import finite


def select(
    boxes_xyxy: Tensor,
    scores: Tensor,
    *,
    score_floor: float,
    nms_iou: float,
    max_boxes: int,
    groups: Tensor | None = None,
    group_limit: int = 0,
) -> tuple[Tensor, Tensor]:
    """The (box, class) pairs that a detector keeps: floor, suppression within each class, the best of all.

    A box may stand under several classes.

    Args:
        boxes_xyxy: float32 [A, 4], or [A, C, 4] with a box for each class.
        scores: float32 [A, C].
        groups: int64, broadcastable to [A, C]; of each group only the `group_limit` best pairs are suppressed.

    Returns:
        int64 rows [K] and columns [K] into `scores`, by falling score.

    Raises:
        InputError: scores, or boxes above the floor, are not finite.
    """
    rows, columns = (finite(scores, "scores") > score_floor).nonzero(as_tuple=True)
    if groups is not None:
        kept = _best_of_each(scores[rows, columns], groups.expand_as(scores)[rows, columns], group_limit)
        rows, columns = rows[kept], columns[kept]
    boxes = boxes_xyxy[rows] if boxes_xyxy.dim() == 2 else boxes_xyxy[rows, columns]
    kept = nms(finite(boxes, "box sides"), scores[rows, columns], columns, nms_iou)[:max_boxes]
    return rows[kept], columns[kept]


def distribution(scores: Tensor, columns: Tensor) -> Tensor:
    """A class distribution for each kept box.

    Background is what the classes leave. Where scores of independent classes (sigmoids) exceed one
    in sum, the others shrink beside the class that the box was kept for, whose score never changes.

    Args:
        scores: float32 [K, C], 0..1.
        columns: int64 [K], the column each box was kept for.

    Returns:
        float32 [K, C+1], background first.
    """
    own = scores.gather(1, columns[:, None])
    others = scores.scatter(1, columns[:, None], 0.0)
    mass = others.sum(1, keepdim=True)
    others = others * ((1 - own) / mass.clamp(min=1e-12)).clamp(max=1)
    foreground = others.scatter(1, columns[:, None], own)
    return torch.cat([(1 - foreground.sum(1, keepdim=True)).clamp(min=0), foreground], dim=1)


def answer(boxes_xyxy: Tensor, scores: Tensor, columns: Tensor, size: tuple[int, int]) -> SoftLabels:
    """Boxes [K, 4] in the image's pixels with their scores [K, C]: clipped, those outside the image dropped."""
    boxes = clip(boxes_xyxy, size)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    probs = distribution(scores, columns)
    return SoftLabels(size=size, boxes_xyxy=boxes[inside], classes=columns[inside] + 1, probs=probs[inside])


def with_masks(found: SoftLabels, masks: Tensor) -> SoftLabels:
    """The same answer with masks [N, m, m] for its first N boxes, the best-scored ones.

    Raises:
        InputError: masks that are not finite.
    """
    assert found.boxes_xyxy is not None and found.classes is not None
    boxes, classes, scores = (each[: len(masks)] for each in (found.boxes_xyxy, found.classes, found.scores))
    masks = finite(masks, "mask values")
    return replace(found, instances=Instances(boxes_xyxy=boxes, classes=classes, scores=scores, masks=masks))


def _best_of_each(scores: Tensor, groups: Tensor, limit: int) -> Tensor:
    """Indices of the `limit` best scores of each group."""
    order = scores.argsort(descending=True)
    order = order[groups[order].argsort(stable=True)]
    counts = groups.bincount()
    first = (counts.cumsum(0) - counts)[groups[order]]
    return order[torch.arange(len(order), device=order.device) - first < limit]
