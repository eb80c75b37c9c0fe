"""Which anchor learns which box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tutored import boxes


class Matches(NamedTuple):
    """For each anchor of each image what it must learn.

    Attributes:
        box: int64 [B, A], index of its box, or -1.
        ignored: bool [B, A], neither positive nor negative.
    """

    box: Tensor
    ignored: Tensor


def match(
    anchors_xyxy: Tensor,
    boxes_xyxy: Tensor,
    teaches: Tensor,
    *,
    floor: float = 0.5,
    forced_floor: float = 0.0,
) -> Matches:
    """Give every anchor its box (SSD, section 2.2; specification 2.1).

    An anchor takes the teaching box that it overlaps most, if the IoU reaches `floor`; the lowest index wins a tie.
    Then every teaching box claims its best anchor whatever that anchor took before, so that no box is lost; an anchor
    claimed by several goes to the lowest index. Boxes that exist but do not teach (a tutor's uncertain ones,
    ground truth marked difficult) win no anchor; anchors that reach `floor` with one and took no box are ignored.

    Args:
        anchors_xyxy: float32 [A, 4], pixels of the network's input.
        boxes_xyxy: float32 [B, K, 4], the same frame; rows of no area are padding. K may be 0.
        teaches: bool [B, K].
        forced_floor: a claim needs an IoU above 0 and at least this.
    """
    batch, count = boxes_xyxy.shape[:2]
    if count == 0:
        nothing = torch.full((batch, len(anchors_xyxy)), -1, device=anchors_xyxy.device)
        return Matches(nothing, nothing >= 0)
    # Anchors come last, because there are many: all arithmetic runs along them.
    overlap = boxes.iou(boxes_xyxy, anchors_xyxy.T.contiguous().T)
    taught = overlap * teaches[:, :, None]
    best, box = taught.max(dim=1)
    box.masked_fill_(best < floor, -1)
    claim, anchor = taught.max(dim=2)
    rows = torch.arange(count, device=overlap.device).expand(batch, count)
    rows = rows.masked_fill(claim < forced_floor if forced_floor > 0 else claim <= 0, count)
    claimed = torch.full_like(box, count).scatter_reduce_(1, anchor, rows, "amin")
    box = torch.where(claimed < count, claimed, box)
    # An anchor without a box reaches the floor with no box that teaches.
    return Matches(box, (box < 0) & (overlap.amax(dim=1) >= floor))
