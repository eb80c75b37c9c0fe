"""YOLOX' head (Ge et al. 2021): from the raw output to boxes and scores."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tutored.errors import InputError
from tutored.tutors.outputs import probabilities

STRIDES = (8, 16, 32)
FARTHEST = 8.0
"""Strides. Half of the boxes are nearer to their cells; where they are pixels already, half read as farther."""


def cells_of(side: tuple[int, int]) -> Tensor:
    """Of every row of the output for an input of `side` (height, width): its cell (x, y) and stride, [A, 3]."""
    grids = []
    for stride in STRIDES:
        cells = torch.cartesian_prod(torch.arange(side[0] // stride), torch.arange(side[1] // stride)).flip(1)
        grids.append(torch.cat([cells, torch.full((len(cells), 1), stride)], dim=1))
    return torch.cat(grids).float()


def decode(output: Tensor, cells: Tensor, weights: Path) -> tuple[Tensor, Tensor]:
    """Boxes xyxy [A, 4] in pixels of the network's input, and scores [A, C].

    Args:
        output: [A, 5 + C]: centre offset and log size in units of the stride, objectness and class probabilities
            behind their sigmoids. A class' score is objectness times class probability.
        cells: those of `cells_of`.
        weights: the model's file.

    Raises:
        InputError: the output holds pixels, or no probabilities.
    """
    offset = float(output[:, :2].abs().median())
    if offset > FARTHEST:
        raise InputError(
            f"{weights}: half of its boxes are {offset:.0f} strides or more from their cells, as if they were pixels; "
            "export it without --decode_in_inference"
        )
    sure = probabilities(output[:, 4:], weights, "export the head with its sigmoids")
    places, strides = cells[:, :2], cells[:, 2:]
    centres, halves = (output[:, :2] + places) * strides, output[:, 2:4].exp() * strides / 2
    return torch.cat([centres - halves, centres + halves], dim=1), sure[:, :1] * sure[:, 1:]
