"""Boxes as pure functions: `(x1, y1, x2, y2)`, continuous pixel edges, last dimension 4, any batch shape before it."""

import torch
from torch import Tensor

CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
FEW = 1000
"""Boxes from which on torchvision suppresses group by group."""


def area(boxes_xyxy: Tensor) -> Tensor:
    """Area in square pixels, [...]."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union of every pair: [..., N, 4] and [..., M, 4] to [..., N, M]; 0 where both are empty."""
    a, b = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]
    # One coordinate at a time: of pairs side by side in memory, min and max would take one at a time.
    width, height = (
        (torch.minimum(a[..., axis + 2], b[..., axis + 2]) - torch.maximum(a[..., axis], b[..., axis])).clamp(min=0)
        for axis in (0, 1)
    )
    shared = width * height
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode(boxes_xyxy: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """Offsets of boxes against their anchors, as SSD has them (variances .1 and .2)."""
    a_size = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    a_centre = (anchors_xyxy[..., 2:] + anchors_xyxy[..., :2]) / 2
    size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    centre = (boxes_xyxy[..., 2:] + boxes_xyxy[..., :2]) / 2
    shift = (centre - a_centre) / a_size / CENTRE_VARIANCE
    scale = torch.log(size / a_size) / SIZE_VARIANCE
    return torch.cat([shift, scale], dim=-1)


def decode(deltas: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """The boxes that these offsets mean: the inverse of `encode`. Not clipped."""
    a_size = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    a_centre = (anchors_xyxy[..., 2:] + anchors_xyxy[..., :2]) / 2
    centre = deltas[..., :2] * CENTRE_VARIANCE * a_size + a_centre
    half = torch.exp(deltas[..., 2:] * SIZE_VARIANCE) * a_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes at the borders of an image of `size` (height, width)."""
    limit = boxes_xyxy.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes_xyxy.clamp(min=0), limit)


def outwards(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 [K, 4]: the rows and columns of a grid that boxes touch, as half-open ranges within it."""
    near, far = clip(boxes_xyxy, size).chunk(2, dim=1)
    return torch.cat([near.floor(), far.ceil()], dim=1).long()


def nms(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
    """Greedy suppression within each group (a class; None: one group for all, class-agnostic). Returns int64 indices of
    the kept boxes, by falling score.
    """
    from torchvision import ops  # brings all models and torch's compiler with it: as much time again as torch itself

    kept: Tensor
    if groups is None:
        kept = ops.nms(boxes_xyxy, scores, threshold)
    elif len(boxes_xyxy) <= FEW or not boxes_xyxy.is_cpu:
        kept = ops.batched_nms(boxes_xyxy, scores, groups, threshold)
    else:
        # As torchvision does, which looks through all boxes for each group's.
        order, counts = groups.argsort(stable=True), groups.bincount().tolist()
        parts = zip(*(torch.split(each, counts) for each in (order, boxes_xyxy[order], scores[order])), strict=True)
        each = [rows[ops.nms(*of, threshold)] if len(rows) > 1 else rows for rows, *of in parts]
        kept = torch.cat(each).sort().values
        kept = kept[scores[kept].sort(descending=True).indices]
    return kept
