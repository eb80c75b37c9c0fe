"""From instance masks to one class-probability map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tutored.structures import Instances

Rule = Literal["noisy_or", "one", "complement", "zero"]


def draw_map(instances: Instances, size: tuple[int, int], classes: int, grid: tuple[int, int], rule: Rule) -> Tensor:
    """Draw a map by one of the rules of `config.Loss.background`.

    Args:
        size: (height, width) of the image in pixels.
        classes: C + 1, the names of the label space.
        grid: (h, w); cell centres are where the masks are read, bilinearly, zero outside their boxes.
        rule: "noisy_or": p_c = 1 - prod(1 - s_i m_i) over the instances i of class c and
            p_0 = prod(1 - s_i m_i) over all, with score s and soft mask m, divided by their sum. The
            others are the thesis' (specification 3.5, 8.2): v_c = the best score of class c where its
            mask is above .5, and v_0 = 1 where no mask is ("one"), 1 - max v_c ("complement") or 0 ("zero").

    Returns:
        float32 [classes, h, w]. Probabilities for "noisy_or"; detection confidences, which sum to
        anything, for the others.
    """
    masks = _paste(instances, size, grid)
    scores, index = instances.scores[:, None, None], instances.classes[:, None, None].expand_as(masks)
    if rule == "noisy_or":
        absent = torch.ones(classes, *grid).scatter_reduce(0, index, 1 - scores * masks, "prod")
        probs = torch.cat([absent.prod(0, keepdim=True), 1 - absent[1:]])
        return probs / probs.sum(0)
    drawn = torch.zeros(classes, *grid).scatter_reduce(0, index, scores * (masks > 0.5), "amax")
    if rule == "one":
        drawn[0] = ~(masks > 0.5).any(0)
    elif rule == "complement":
        drawn[0] = 1 - drawn.amax(0)
    return drawn


def _paste(instances: Instances, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Every mask read at the grid's cell centres, [N, h, w]."""
    if len(instances.scores) == 0:
        return torch.zeros(0, *grid)
    y, x = ((torch.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(grid, size, strict=True))
    x1, y1, x2, y2 = instances.boxes_xyxy[:, :, None].unbind(1)
    across, down = 2 * (x - x1) / (x2 - x1) - 1, 2 * (y - y1) / (y2 - y1) - 1
    shape = (len(across), *grid)
    places = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return grid_sample(instances.masks[:, None], places, align_corners=False)[:, 0]
