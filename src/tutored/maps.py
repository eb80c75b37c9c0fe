"""Class maps as pure functions: scores on a grid that spans the image, [C+1, h, w], and masks, uint8 [H, W]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**25
"""Enlarged values that are in memory at once (128 MB); a photograph of 12 megapixels in 21 classes has eight times as
many."""


def likeliest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel: bilinear (half-pixel centres), then the argmax.

    Args:
        scores: float32 [C+1, h, w], logits or probabilities.
        size: (H, W) in pixels.

    Returns:
        uint8 [H, W].
    """
    height, width = size
    packed = channels_last(scores)
    rows = max(1, AT_ONCE // (len(scores) * width))
    if height <= rows:
        enlarged = F.interpolate(packed, size=size, mode="bilinear", align_corners=False)
        return enlarged[0].argmax(dim=0).to(torch.uint8)
    broad = F.interpolate(packed, size=(scores.shape[1], width), mode="bilinear", align_corners=False)[0]
    lines = broad.permute(1, 2, 0)
    place = ((torch.arange(height, device=scores.device) + 0.5) * len(lines) / height - 0.5).clamp(min=0)
    above = place.long().clamp(max=len(lines) - 1)
    below = (above + 1).clamp(max=len(lines) - 1)
    strips = [
        torch.lerp(lines[upper], lines[lower], share[:, None, None]).argmax(dim=-1).to(torch.uint8)
        for upper, lower, share in zip(
            *(torch.split(each, rows) for each in (above, below, place - above)), strict=True
        )
    ]
    return torch.cat(strips)


def channels_last(scores: Tensor) -> Tensor:
    """One map, [C, h, w], as a batch of one whose classes lie side by side in memory: enlarged four times as fast.

    Of `scores[None]`, PyTorch's kernels do not recognize that layout where `scores` is a slice of a channels-last
    batch, because its first stride is too small; `contiguous(memory_format=torch.channels_last)` leaves that as it is.
    """
    return scores.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
