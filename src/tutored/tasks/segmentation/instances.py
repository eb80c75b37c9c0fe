"""The map that is rasterized from instance masks, or from confidences, by a rule."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tutored.tasks.instances.types import Instances
from tutored.tasks.task import Size

Rule = Literal["noisy_or", "one", "complement", "zero"]


def rasterize(instances: Instances, size: Size, classes: int, grid: tuple[int, int], rule: Rule) -> Tensor:
    """A map of instances; their confidence is the score, times the soft mask ("noisy_or") or where it is above .5.

    Args:
        size: (height, width) of the image in pixels.
        classes: C + 1, the names of the label space.
        grid: (h, w); masks are read at the centres of cells, bilinearly, zero outside their boxes.
        rule: see `combine`.

    Returns:
        float32 [classes, h, w], see `combine`.
    """
    masks = _paste(instances, size, grid)
    shape = masks if rule == "noisy_or" else (masks > 0.5).float()
    return combine(instances.scores[:, None, None] * shape, instances.classes, classes, rule)


def combine(confidences: Tensor, index: Tensor, classes: int, rule: Rule) -> Tensor:
    """Several confidences for each class and cell into one, and a background, by a rule of `section.background`.

    Args:
        confidences: float32 [N, h, w], 0..1: v_i.
        index: int64 [N], 1..C, the class of each.
        classes: C + 1, the names of the label space.
        rule: "noisy_or": p_c = 1 - prod(1 - v_i) over the i of class c and p_0 = prod(1 - v_i) over all, divided by
            their sum. The others are the thesis' (specification 3.5, 8.2): v_c = the greatest v_i of class c, and
            v_0 = 1 where all are zero ("one"), 1 - max v_c ("complement") or 0 ("zero").

    Returns:
        float32 [classes, h, w]. Probabilities for "noisy_or"; detection confidences, which sum to
        anything, for the others.
    """
    places, grid = index[:, None, None].expand_as(confidences), confidences.shape[1:]
    if rule == "noisy_or":
        absent = torch.ones(classes, *grid).scatter_reduce(0, places, 1 - confidences, "prod")
        probs = torch.cat([absent.prod(0, keepdim=True), 1 - absent[1:]])
        return probs / probs.sum(0)
    drawn = torch.zeros(classes, *grid).scatter_reduce(0, places, confidences, "amax")
    if rule == "one":
        drawn[0] = drawn.amax(0) == 0
    elif rule == "complement":
        drawn[0] = 1 - drawn.amax(0)
    return drawn


def _paste(instances: Instances, size: Size, grid: tuple[int, int]) -> Tensor:
    """Every mask read at the grid's cell centres, [N, h, w]."""
    if len(instances.scores) == 0:
        return torch.zeros(0, *grid)
    y, x = ((torch.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(grid, size, strict=True))
    x1, y1, x2, y2 = instances.boxes_xyxy[:, :, None].unbind(1)
    across, down = 2 * (x - x1) / (x2 - x1) - 1, 2 * (y - y1) / (y2 - y1) - 1
    shape = (len(across), *grid)
    places = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return grid_sample(instances.masks[:, None], places, align_corners=False)[:, 0]
