"""Class and box terms of one source, from its boxes and their class distributions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config import Loss
from tutored.losses.background import merge_unknown
from tutored.losses.match import match
from tutored.targets import Targets


class AnchorTargets(NamedTuple):
    """What the anchors of a batch learn from one source.

    Attributes:
        box: int64 [B, A], the row of `Targets` that each positive anchor learns; 0 elsewhere.
        positive: bool [B, A].
        negative: bool [B, A]; what is neither is ignored.
        weight: float32 [B, A], of a positive anchor's class and box loss, image weight included; 0 elsewhere.
        normaliser: float32 scalar, what both sums are to be divided by.
    """

    box: Tensor
    positive: Tensor
    negative: Tensor
    weight: Tensor
    normaliser: Tensor


def assign(anchors_xyxy: Tensor, targets: Targets, config: Loss) -> AnchorTargets:
    """Build the anchors' targets; they depend on the targets alone, never on the student's outputs."""
    scores = targets.scores
    teaches = scores >= config.box_floor
    if config.difficult == "ignore":
        teaches &= ~targets.difficult
    matches = match(
        anchors_xyxy, targets.boxes_xyxy, teaches, floor=config.match_floor, forced_floor=config.forced_floor
    )
    taught = (targets.detection_weight > 0)[:, None]
    positive = (matches.box >= 0) & taught
    negative = ~(positive | matches.ignored) & taught
    box = matches.box.clamp(min=0)
    image_weight = targets.detection_weight[:, None] * positive
    confidence = scores.gather(1, box) if config.confidence and scores.shape[1] else torch.ones_like(image_weight)
    weight = image_weight * confidence
    normaliser = weight.sum() if config.normaliser == "weights" else image_weight.sum()
    return AnchorTargets(box, positive, negative, weight, normaliser)


def class_sum(logits: Tensor, targets: Targets, anchors: AnchorTargets, config: Loss) -> Tensor:
    """Summed cross-entropy of positives and of mined negatives.

    Negatives have the image's weight. Of an image (or, with `mining: batch`, of the batch) the ones of largest
    loss count, `config.negatives` for each unit of positive weight (each positive, where confidences do not enter
    the normaliser). Specification 3.2 and 3.4.

    Args:
        logits: float32 [B, A, C+1].
    """
    log_probs = merge_unknown(F.log_softmax(logits, dim=-1), targets.detection_unknown[:, None, :], dim=-1)
    positive = _positive_sum(log_probs, targets, anchors, config)
    return -(positive + _negative_sum(log_probs[..., 0], targets, anchors, config))


def _positive_sum(log_probs: Tensor, targets: Targets, anchors: AnchorTargets, config: Loss) -> Tensor:
    if targets.classes.shape[1] == 0:
        return log_probs.sum() * 0
    if config.class_target == "hard":
        classes = targets.classes.gather(1, anchors.box)
        likelihood = log_probs.gather(2, classes[..., None])[..., 0]
    else:
        wanted = targets.probs.gather(1, anchors.box[..., None].expand(-1, -1, log_probs.shape[-1]))
        likelihood = (wanted * log_probs).sum(dim=-1)
    return (anchors.weight * likelihood).sum()


def _negative_sum(log_background: Tensor, targets: Targets, anchors: AnchorTargets, config: Loss) -> Tensor:
    likelihood = torch.where(anchors.negative, log_background, 0.0)
    if config.mining == "image":
        image_weight = targets.detection_weight.clamp(min=torch.finfo(likelihood.dtype).tiny)
        counted = anchors.weight.sum(1) / image_weight if config.normaliser == "weights" else anchors.positive.sum(1)
        wanted = torch.where(
            anchors.positive.any(dim=1), (config.negatives * counted).round().clamp(min=1), float(config.min_negatives)
        )
        hardest = likelihood.sort(dim=1).values
        chosen = torch.arange(likelihood.shape[1], device=likelihood.device) < wanted[:, None]
        return (hardest * (chosen * targets.detection_weight[:, None])).sum()
    positives = anchors.positive.sum()
    wanted = torch.minimum(config.negatives * positives, likelihood.shape[1] - positives).clamp(min=0)
    hardest = (likelihood * targets.detection_weight[:, None]).flatten().sort().values
    return (hardest * (torch.arange(len(hardest), device=likelihood.device) < wanted)).sum()


def box_sum(deltas: Tensor, anchors_xyxy: Tensor, targets: Targets, anchors: AnchorTargets) -> Tensor:
    """Summed smooth-L1 (knee at 1) of the positives' four encoded offsets, weighted. Specification 3.2."""
    if targets.classes.shape[1] == 0:
        return deltas.sum() * 0
    matched = targets.boxes_xyxy.gather(1, anchors.box[..., None].expand(-1, -1, 4))
    matched = torch.where(anchors.positive[..., None], matched, anchors_xyxy)
    error = F.smooth_l1_loss(deltas, boxes.encode(matched, anchors_xyxy), reduction="none")
    return (anchors.weight[..., None] * error).sum()
