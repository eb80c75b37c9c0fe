"""The map term of one source, from class probabilities per cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.config import Loss
from tutored.losses.background import merge_unknown
from tutored.targets import Targets


class MapTargets(NamedTuple):
    """What the cells of a batch learn from one source.

    Attributes:
        probs: float32 [B, C+1, h, w], weighted: a cell's sum is its weight, 0 where nothing is learnt.
        normaliser: float32 scalar, the summed weights.
    """

    probs: Tensor
    normaliser: Tensor


def assign(targets: Targets, config: Loss, *, tutor: bool) -> MapTargets:
    """Sharpen or soften the source's probabilities and weigh each cell.

    `power`: q = p^(1/T) over the classes, renormalised to the cell's own sum, so that what a tutor does not say has
    no weight (Hinton et al. 2015, for probabilities instead of logits). `softmax`: softmax(p / T) over detection
    confidences, a tutor's cells only (thesis, formula 5; specification 3.5). `margin`: a tutor's cell weighs its mass
    times the difference of its two largest probabilities, as shares of that mass.
    """
    probs = targets.map
    if tutor and config.map_weight == "margin":
        first, second = probs.topk(2, dim=1).values.unbind(dim=1)
        probs = probs * ((first - second) / probs.sum(dim=1).clamp(min=torch.finfo(probs.dtype).tiny))[:, None]
    if tutor and config.map_target == "softmax":
        probs = (probs / config.temperature).softmax(dim=1)
        if config.padding == "ignore":
            probs = probs * targets.inside[:, None]
    elif tutor and config.temperature != 1:
        weight = probs.sum(dim=1, keepdim=True)
        tiny = torch.finfo(probs.dtype).tiny
        # Of the likeliest class: a power of small probabilities is nothing in float32.
        sharpened = (probs / probs.amax(dim=1, keepdim=True).clamp(min=tiny)) ** (1 / config.temperature)
        probs = sharpened * weight / sharpened.sum(dim=1, keepdim=True).clamp(min=tiny)
    if not tutor and config.padding == "background":
        probs = probs.clone()
        probs[:, 0] = torch.where(targets.inside, probs[:, 0], 1.0)
    probs = probs * targets.segmentation_weight[:, None, None, None]
    return MapTargets(probs, probs.sum())


def map_sum(map_logits: Tensor, targets: Targets, cells: MapTargets) -> Tensor:
    """Summed cross-entropy of the student's map (float32 logits [B, C+1, h, w]) against the cells' targets."""
    log_probs = merge_unknown(F.log_softmax(map_logits, dim=1), targets.segmentation_unknown[:, :, None, None], dim=1)
    return -(cells.probs * log_probs).sum()
