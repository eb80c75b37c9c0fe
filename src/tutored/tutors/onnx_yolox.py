"""YOLOX' head (Ge et al. 2021): from the raw output to boxes and scores."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDES = (8, 16, 32)


def cells_of(side: tuple[int, int]) -> Tensor:
    """Of every row of the output for an input of `side` (height, width): its cell (x, y) and stride, [A, 3]."""
    grids = []
    for stride in STRIDES:
        cells = torch.cartesian_prod(torch.arange(side[0] // stride), torch.arange(side[1] // stride)).flip(1)
        grids.append(torch.cat([cells, torch.full((len(cells), 1), stride)], dim=1))
    return torch.cat(grids).float()


def decode(output: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes xyxy [A, 4] in pixels of the network's input, and scores [A, C].

    Args:
        output: [A, 5 + C]: centre offset and log size in units of the stride, objectness and class probabilities
            behind their sigmoids. A class' score is objectness times class probability.
        cells: those of `cells_of`.
    """
    places, strides = cells[:, :2], cells[:, 2:]
    centres, halves = (output[:, :2] + places) * strides, output[:, 2:4].exp() * strides / 2
    return torch.cat([centres - halves, centres + halves], dim=1), output[:, 4:5] * output[:, 5:]
