"""What the raw queries of universal segmentation models mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Queries' classes [Q, N+1], "no object" last, and masks [Q, h, w] as scores [N, h, w], 0..Q."""
    return torch.einsum("qc,qhw->chw", class_logits.softmax(-1)[:, :-1], mask_logits.sigmoid())


def mask_scores(masks: Tensor) -> Tensor:
    """How sure each soft mask [Q, h, w] is of its region, [Q]."""
    region = (masks > 0.5).float()
    return (masks * region).sum((1, 2)) / region.sum((1, 2)).clamp(min=1)


def boxes_around(regions: Tensor) -> Tensor:
    """The smallest boxes around regions, bool [Q, h, w], none empty; float32 [Q, 4] in cells."""
    inclusive: Tensor = masks_to_boxes(regions)
    return inclusive + torch.tensor([0.0, 0.0, 1.0, 1.0])


def picture_part(values: Tensor, share: tuple[float, float]) -> Tensor:
    """Of values [N, h, w] over the network's input the part over the picture; padding lies right and below."""
    rows, columns = (max(1, round(part * side)) for part, side in zip(share, values.shape[1:], strict=True))
    return values[:, :rows, :columns]
