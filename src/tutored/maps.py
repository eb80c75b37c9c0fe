"""Class maps as pure functions: scores on a grid that spans the image, [C+1, h, w], and masks, uint8 [H, W]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**20
"""Enlarged values at once (4 MB, which stay in a processor's cache); of 12 megapixels in 21 classes there are 250 times
as many."""


def likeliest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel: bilinear (half-pixel centres), then the argmax.

    Args:
        scores: float32 [C+1, h, w], logits or probabilities.
        size: (H, W) in pixels.

    Returns:
        uint8 [H, W].
    """
    (classes, rows, _), (height, width) = scores.shape, size
    plain = scores[None].contiguous()  # a class after the other
    broad = F.interpolate(plain, size=(rows, width), mode="bilinear", align_corners=False)[0]
    weights = torch.from_numpy(interpolation(np.arange(height) + 0.5, height, rows)).to(scores.device)
    found = []
    for strip in torch.split(weights, max(1, AT_ONCE // (classes * width))):
        seen = strip.any(dim=0).nonzero()
        first, end = int(seen[0]), int(seen[-1]) + 1
        found.append(_first_best(strip[:, first:end] @ broad[:, first:end]))
    return torch.cat(found)


def interpolation(centres: NDArray[Any], length: float, cells: int) -> NDArray[np.float32]:
    """float32 [n, cells]: rows of linear-interpolation weights; the border is continued, and zero beyond `length`."""
    position = (centres * cells / length - 0.5).clip(0, cells - 1)
    weights = (1 - np.abs(position[:, None] - np.arange(cells))).clip(0)
    return (weights * ((centres >= 0) & (centres < length))[:, None]).astype(np.float32)


def _first_best(planes: Tensor) -> Tensor:
    """uint8 [rows, W]: `planes.argmax(0)`; on a CPU, class by class, it takes a third of the time."""
    if not planes.is_cpu:
        return planes.argmax(dim=0).to(torch.uint8)
    best, *others = planes.numpy()
    found = np.zeros(best.shape, np.uint8)
    for number, plane in enumerate(others, start=1):
        np.maximum(found, (plane > best) * np.uint8(number), out=found)
        np.maximum(best, plane, out=best)
    return torch.from_numpy(found)


def channels_last(scores: Tensor) -> Tensor:
    """One map, [C, h, w], as a batch of one whose classes lie side by side in memory: enlarged four times as fast.

    Of `scores[None]`, PyTorch's kernels do not recognize that layout where `scores` is a slice of a channels-last
    batch, because its first stride is too small; `contiguous(memory_format=torch.channels_last)` leaves that as it is.
    """
    return scores.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
