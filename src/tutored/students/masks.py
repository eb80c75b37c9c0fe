"""A head for instance masks beside any head for boxes: prototypes of the whole image, and coefficients for each box.

Bolya et al. 2019 (YOLACT): a mask is a sum of prototype maps, weighted by the coefficients of the place that found the
box, and cut at the box. The network sees all of the image when it draws prototypes, and a mask costs one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import grid_sample

from tutored.losses import Term
from tutored.students.heads import Head
from tutored.tasks.instances import InstanceMasks, Instances, InstanceSegmentation, InstanceTargets
from tutored.tasks.instances.targets import cells_inside
from tutored.tasks.task import Size, refuse_nan

SIDE = 56
"""Cells along one side of a soft mask over its box."""


class InstanceOutputs(NamedTuple):
    """An instance head's raw answer for a batch.

    Attributes:
        boxes: that of its head for boxes, with P places.
        coefficients: float32 [B, P, D].
        prototypes: float32 [B, D, g, g].
    """

    boxes: Any
    coefficients: Tensor
    prototypes: Tensor


class InstanceHead(Head):
    """Boxes with masks.

    Args:
        boxes: a head for boxes with P places, of which `kept` says which one each final box comes from; what it learns
            has `box`, `positive` and `weight` of each place, and `normaliser`.
        coefficients: network from the student's features to [B, P, D].
        prototypes: network from the student's features to [B, D, grid, grid].
        grid: cells along one side of the prototypes.
    """

    task: InstanceSegmentation

    def __init__(
        self, task: InstanceSegmentation, boxes: Any, coefficients: nn.Module, prototypes: nn.Module, grid: int
    ) -> None:
        terms = {name: _of_boxes(term) for name, term in boxes.terms.items()}
        terms["mask"] = Term(lambda _, learned: learned.normaliser, self.mask_sum)
        super().__init__(task, terms, grid)
        self.by_class = tuple(f"boxes.{name}" for name in boxes.by_class)
        self.boxes, self.coefficients, self.prototypes = boxes, coefficients, prototypes
        self.size: int = boxes.size

    def forward(self, features: Any) -> InstanceOutputs:
        return InstanceOutputs(self.boxes(features), self.coefficients(features), self.prototypes(features))

    def assign(self, targets: InstanceTargets, *, tutor: bool) -> Any:
        """What the head for boxes learns: masks follow the same places."""
        return self.boxes.assign(targets.boxes, tutor=tutor)

    def mask_sum(self, raw: InstanceOutputs, targets: InstanceTargets, learned: Any) -> Tensor:
        """Summed loss of the positive places' masks, weighted as their boxes.

        Of one place it is the mean cross-entropy of the cells in its box, and one minus the overlap that soft masks
        have there: (a + b - |a - b|) / (a + b + |a - b|), which is largest where both are equal (Wang et al. 2023).
        Cells that are not known do not count.
        """
        side = targets.masks.shape[-1]
        centres = (torch.arange(side, device=raw.prototypes.device) + 0.5) * (self.size / side)
        total = raw.prototypes.float().sum() * 0 + raw.coefficients.float().sum() * 0
        for image in range(len(targets.masks)):
            places = learned.positive[image].nonzero()[:, 0]
            if not len(places):
                continue
            rows = learned.box[image, places]
            logits = mask_logits(raw.coefficients[image, places], raw.prototypes[image])
            wanted, counts = targets.masks[image, rows], cells_inside(targets.boxes_xyxy[image, rows], centres)
            counts = counts & ~wanted.isnan()
            wanted = wanted.nan_to_num(0.0)
            entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counts
            found = logits.sigmoid() * counts
            both, apart = found + wanted * counts, (found - wanted * counts).abs()
            shared, every = (each.sum(dim=(1, 2)) for each in (both - apart, both + apart))
            seen = counts.sum(dim=(1, 2))
            losses = entropy.sum(dim=(1, 2)) / seen.clamp(min=1) + (1 - shared / every.clamp(min=1e-6)) * (seen > 0)
            total = total + (losses * learned.weight[image, places]).sum()
        return self.task.section.mask * total

    def boxes_and_probs(self, raw: InstanceOutputs) -> tuple[Tensor, Tensor]:
        """As its head for boxes."""
        found: tuple[Tensor, Tensor] = self.boxes.boxes_and_probs(raw.boxes)
        return found

    def soften(self, raw: InstanceOutputs, sizes: Sequence[Size]) -> list[Instances]:
        """The kept boxes, each with a mask [SIDE, SIDE] over it."""
        refuse_nan(raw.coefficients, raw.prototypes)
        found = []
        for index, (kept, size) in enumerate(zip(self.boxes.kept(raw.boxes, sizes), sizes, strict=True)):
            answer = kept.boxes.normalised()
            logits = mask_logits(raw.coefficients[index, kept.rows], raw.prototypes[index])
            masks = over_boxes(logits.cpu(), answer.boxes_xyxy, size).sigmoid()
            found.append(
                Instances(boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, scores=answer.scores, masks=masks)
            )
        return found

    def decode(self, raw: InstanceOutputs, sizes: Sequence[Size]) -> list[InstanceMasks]:
        """Final boxes and masks of every image in its own pixels."""
        return [found.final(size) for found, size in zip(self.soften(raw, sizes), sizes, strict=True)]


def _of_boxes(term: Term) -> Term:
    """A term of the head for boxes on the raw answer and the targets of an instance head."""
    return Term(
        lambda targets, learned: term.weight(targets.boxes, learned),
        lambda raw, targets, learned: term.sum(raw.boxes, targets.boxes, learned),
        term.sources,
    )


def mask_logits(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """float32 [N, g, g], of coefficients [N, D] and prototypes [D, g, g] of one image."""
    return (coefficients.float() @ prototypes.float().flatten(1)).reshape(-1, *prototypes.shape[1:])


def over_boxes(maps: Tensor, boxes_xyxy: Tensor, size: Size) -> Tensor:
    """float32 [N, SIDE, SIDE]: maps [N, g, g] over an image of `size`, read bilinearly on a grid over each box."""
    if not len(maps):
        return maps.new_zeros(0, SIDE, SIDE)
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    near, far = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    places = (near + (far - near) * steps[:, None]) * 2 / torch.tensor([size[1], size[0]]) - 1
    shape = (len(maps), SIDE, SIDE)
    grid = torch.stack([places[:, None, :, 0].expand(shape), places[:, :, None, 1].expand(shape)], dim=-1)
    return grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
