"""Several answers about one image made one: weighted box fusion, and the mean of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from tutored.boxes import iou
from tutored.structures import Instances, SoftLabels

OVERLAP = 0.55
"""IoU from which two boxes of one class are the same object, as Solovyev et al. have it."""


def fuse(answers: Sequence[SoftLabels], weights: Sequence[float], *, limit: int, floor: float) -> SoftLabels:
    """One answer of several in one label space; each task is the mean of those that answer it.

    Boxes: weighted box fusion (Solovyev et al. 2021), in which an answer has one box an object: what it keeps apart
    itself, be it a weak double, stays apart. A class distribution is the mean of its boxes', in which who did not find
    the object says background. Maps: the mean of probabilities on the finest of the grids; the others are
    read bilinearly. Instances: as boxes, each mask the mean of those that were found.

    Args:
        answers: about the same image.
        weights: one for each, positive.
        limit: boxes and instances to keep, the best.
        floor: weaker ones are dropped.
    """
    first = answers[0]
    boxed = [(answer, weight) for answer, weight in zip(answers, weights, strict=True) if answer.boxes_xyxy is not None]
    drawn = [(answer.map, weight) for answer, weight in zip(answers, weights, strict=True) if answer.map is not None]
    masked = [
        (answer.instances, weight)
        for answer, weight in zip(answers, weights, strict=True)
        if answer.instances is not None
    ]
    boxes, classes, probs = _boxes(boxed, limit, floor) if boxed else (None, None, None)
    return SoftLabels(
        size=first.size,
        boxes_xyxy=boxes,
        classes=classes,
        probs=probs,
        map=mean_map(*zip(*drawn, strict=True)) if drawn else None,
        instances=_instances(masked, limit, floor) if masked else None,
    )


def cluster(boxes_xyxy: Tensor, scores: Tensor, classes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Which boxes are one object, and where it is.

    By falling score, a box joins the object of its class without a box of the same answer that it overlaps most, from
    `OVERLAP` on, or begins one; an object's box is the mean of its boxes, weighted by their scores.

    Args:
        boxes_xyxy: float32 [K, 4].
        scores: float32 [K], each times its answer's weight.
        classes: int64 [K].
        owners: int64 [K], the answer of each box.

    Returns:
        int64 [K], the object of each box, and float32 [N, 4].
    """
    boxes_xyxy, scores = boxes_xyxy.double(), scores.double()  # so that a box alone stays what it is
    order = scores.argsort(descending=True, stable=True).tolist()
    member = torch.zeros(len(scores), dtype=torch.int64)
    sums, mass, kinds = boxes_xyxy.new_zeros(len(scores), 4), scores.new_zeros(len(scores), 1), classes.clone()
    holds = torch.zeros(len(scores), int(owners.max()) + 1 if len(owners) else 0, dtype=torch.bool)
    count = 0
    for row in order:
        overlaps = iou(boxes_xyxy[row : row + 1], sums[:count] / mass[:count])[0]
        overlaps = overlaps.masked_fill((kinds[:count] != classes[row]) | holds[:count, owners[row]], 0)
        best = int(overlaps.argmax()) if count and float(overlaps.max()) > OVERLAP else count
        if best == count:
            kinds[count] = classes[row]
            count += 1
        member[row] = best
        holds[best, owners[row]] = True
        sums[best] += scores[row] * boxes_xyxy[row]
        mass[best] += scores[row]
    return member, (sums[:count] / mass[:count]).float()


def mean_map(maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of maps, float32 [C+1, h, w], on the finest of their grids."""
    grid = max((tuple(drawn.shape[1:]) for drawn in maps), key=lambda shape: shape[0] * shape[1])
    total = sum(weights)
    mean = maps[0].new_zeros(len(maps[0]), *grid)
    for drawn, weight in zip(maps, weights, strict=True):
        same = drawn if drawn.shape[1:] == grid else interpolate(drawn[None], grid, mode="bilinear")[0]
        mean += same * (weight / total)
    return mean


def _boxes(answers: Sequence[tuple[SoftLabels, float]], limit: int, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    boxes = torch.cat([answer.boxes_xyxy for answer, _ in answers if answer.boxes_xyxy is not None])
    classes = torch.cat([answer.classes for answer, _ in answers if answer.classes is not None])
    probs = torch.cat([answer.probs for answer, _ in answers if answer.probs is not None])
    scores = torch.cat([answer.scores for answer, _ in answers])
    owners, weights = _spread(answers, [len(answer.scores) for answer, _ in answers])
    member, fused = cluster(boxes, scores * weights, classes, owners)
    share = weights / sum(weight for _, weight in answers)
    mean = probs.new_zeros(len(fused), probs.shape[1]).index_add_(0, member, probs * share[:, None])
    mean[:, 0] += 1 - share.new_zeros(len(fused)).index_add_(0, member, share)
    kinds = classes.new_zeros(len(fused)).index_copy_(0, member, classes)
    best = _best(mean.gather(1, kinds[:, None])[:, 0], limit, floor)
    # Shares may sum to more than one by a rounding.
    return fused[best], kinds[best], mean[best].clamp(0, 1)


def _instances(answers: Sequence[tuple[Instances, float]], limit: int, floor: float) -> Instances:
    boxes, classes, scores, masks = (
        torch.cat([getattr(found, name) for found, _ in answers])
        for name in ("boxes_xyxy", "classes", "scores", "masks")
    )
    owners, weights = _spread(answers, [len(found.scores) for found, _ in answers])
    member, fused = cluster(boxes, scores * weights, classes, owners)
    share = weights / sum(weight for _, weight in answers)
    mean = scores.new_zeros(len(fused)).index_add_(0, member, scores * share)
    found = scores.new_zeros(len(fused)).index_add_(0, member, weights)
    moved = _in_frame(masks, boxes, fused[member]) * (weights / found[member])[:, None, None]
    drawn = masks.new_zeros(len(fused), *masks.shape[1:]).index_add_(0, member, moved)
    kinds = classes.new_zeros(len(fused)).index_copy_(0, member, classes)
    best = _best(mean, limit, floor)
    scores, masks = mean[best].clamp(max=1), drawn[best].clamp(max=1)
    return Instances(boxes_xyxy=fused[best], classes=kinds[best], scores=scores, masks=masks)


def _spread(answers: Sequence[tuple[object, float]], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Number and weight of the answer that each box is of."""
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return owners, torch.tensor([float(weight) for _, weight in answers])[owners]


def _best(scores: Tensor, limit: int, floor: float) -> Tensor:
    order = scores.argsort(descending=True, stable=True)[:limit]
    return order[scores[order] > floor]


def _in_frame(masks: Tensor, boxes_xyxy: Tensor, frames_xyxy: Tensor) -> Tensor:
    """Masks [K, m, m], each stretched over its box, read at the centres of a grid over its frame; zero outside."""
    side = masks.shape[-1]
    centres = (torch.arange(side) + 0.5) / side
    corner, size = frames_xyxy[:, :2], frames_xyxy[:, 2:] - frames_xyxy[:, :2]
    places = corner[:, None] + size[:, None] * centres[None, :, None]
    inside = 2 * (places - boxes_xyxy[:, None, :2]) / (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])[:, None] - 1
    across, down = inside[:, None, :, 0], inside[:, :, None, 1]
    shape = (len(masks), side, side)
    grid = torch.stack([across.expand(shape), down.expand(shape)], dim=-1)
    return grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
