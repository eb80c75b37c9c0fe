"""BlitzNet's default boxes (specification 1.5): one square, a pair per aspect ratio, and a larger square per cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def level_scales(levels: int, scales: tuple[float, float, float]) -> list[tuple[float, float]]:
    """Each level's scale and that of its larger square, as shares of the image side, finest level first.

    The finest level has its own scale; from there `low` grows in even steps and reaches `high` at the last level.

    Args:
        levels: number of maps, 3 or more.
        scales: `(smallest, low, high)`.
    """
    smallest, low, high = scales
    step = (high - low) / (levels - 2)
    sizes = [smallest, *(low + step * index for index in range(levels))]
    return [(size, math.sqrt(size * following)) for size, following in pairwise(sizes)]


def anchors(
    sides: Sequence[int], size: int, scales: tuple[float, float, float], ratios: Sequence[float] = (2.0, 3.0)
) -> Tensor:
    """All default boxes of a network whose maps are `sides[i] x sides[i]` cells, finest first.

    Returns:
        float32 [A, 4], xyxy in pixels of the network's `size x size` input, not clipped. Order: level,
        row, column, then in the cell: square, wide and tall box of each ratio (width : height), larger square.
    """
    levels = []
    for side, (scale, larger) in zip(sides, level_scales(len(sides), scales), strict=True):
        shapes = [(scale, scale)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        shapes.append((larger, larger))
        half = torch.tensor(shapes, dtype=torch.float64) / 2
        centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        levels.append(torch.cat([cells - half, cells + half], dim=-1).reshape(-1, 4))
    return (torch.cat(levels) * size).float()
