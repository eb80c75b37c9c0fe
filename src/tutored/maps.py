"""Class maps as pure functions: scores on a grid that spans the image, [C+1, h, w], and masks, uint8 [H, W]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**25
"""Enlarged values that are in memory at once (128 MB); a photograph of 12 megapixels in 21 classes has eight times so
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
    rows = max(1, AT_ONCE // (len(scores) * width))
    if height <= rows:
        # With the classes side by side in memory, enlarging and argmax are four times as fast on CPUs.
        packed = scores[None].contiguous(memory_format=torch.channels_last)
        return F.interpolate(packed, size=size, mode="bilinear", align_corners=False)[0].argmax(dim=0).to(torch.uint8)
    broad = F.interpolate(scores[None], size=(scores.shape[1], width), mode="bilinear", align_corners=False)[0]
    every = torch.arange(height, device=scores.device)
    strips = [every[start : start + rows] for start in range(0, height, rows)]
    return torch.cat([_rows(broad, strip, height).argmax(dim=0).to(torch.uint8) for strip in strips])


def _rows(broad: Tensor, rows: Tensor, height: int) -> Tensor:
    """Some rows of a map [C+1, h, W] that is enlarged to a height."""
    place = ((rows + 0.5) * broad.shape[1] / height - 0.5).clamp(min=0)
    above = place.long().clamp(max=broad.shape[1] - 1)
    below = (above + 1).clamp(max=broad.shape[1] - 1)
    return torch.lerp(broad[:, above], broad[:, below], (place - above)[:, None])
