"""From the boxes of a detection head to final boxes, or to soft labels where the student is a tutor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config.tasks import Decode
from tutored.tasks.detection.types import SoftBoxes
from tutored.tasks.task import refuse_nan


class Kept(NamedTuple):
    """The boxes of one image that are kept.

    Attributes:
        boxes: on the CPU.
        rows: int64 [K], the place of each among the A that were given, on their device.
    """

    boxes: SoftBoxes
    rows: Tensor


def keep(
    boxes_xyxy: Tensor, probs: Tensor, sizes: Sequence[tuple[int, int]], config: Decode, network_size: int
) -> list[Kept]:
    """The boxes of every image that are kept, by falling score, in its own pixels (specification 5.1).

    Per class: scores above the floor, the best `top_k`, NMS, at most `per_class`; then the best `total` of all.
    Boxes are cut at the image's borders; those without any area left are dropped.

    Args:
        boxes_xyxy: float32 [B, A, 4], pixels of the network's input.
        probs: float32 [B, A, C+1], column 0 background.
        sizes: (height, width) of each image in pixels.
        network_size: side of the square that the images were resized to.

    Returns:
        Each box with its whole class distribution.

    Raises:
        FloatingPointError: the values are NaN, as from a student whose training diverged.
    """
    refuse_nan(probs, boxes_xyxy)
    best = probs[..., 1:].transpose(1, 2).topk(min(config.top_k, probs.shape[1]), dim=-1)
    found = []
    for index, (height, width) in enumerate(sizes):
        classes, rank = (best.values[index] > config.score_floor).nonzero(as_tuple=True)
        anchor, scores = best.indices[index, classes, rank], best.values[index, classes, rank]
        scale = boxes_xyxy.new_tensor([width, height, width, height]) / network_size
        corners = boxes.clip(boxes_xyxy[index, anchor] * scale, (height, width))
        solid = (corners[:, 2:] > corners[:, :2]).all(dim=1).nonzero()[:, 0]
        kept = solid[boxes.nms(corners[solid], scores[solid], classes[solid], config.nms_iou)]
        kept = kept[_earlier_of_class(classes[kept]) < config.per_class][: config.total]
        rows = anchor[kept]
        boxes_kept = SoftBoxes(
            boxes_xyxy=corners[kept].cpu(), classes=classes[kept].cpu() + 1, probs=probs[index, rows].cpu()
        )
        found.append(Kept(boxes_kept, rows))
    return found


def _earlier_of_class(classes: Tensor) -> Tensor:
    """For each entry the number of entries of the same class before it, [K]."""
    if not len(classes):
        return classes
    return torch.as_tensor(F.one_hot(classes).cumsum(dim=0).gather(1, classes[:, None])[:, 0] - 1)
