"""From raw outputs and targets to one scalar: named terms, each a weighted sum and its weight.

    assigned = assign(anchors, batch, config)           what each anchor and cell learns; no outputs needed
    factors = divide(assigned.weights, config)          one a term, from weights summed over the whole batch
    loss = mix(sums(outputs, batch, assigned, config), factors)

The weights may be added up over micro-batches and processes before `divide`, and then the loss and its gradients
do not depend on how the batch was split (`mining: image`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tutored.config import Loss
from tutored.losses import detection, segmentation
from tutored.structures import Outputs
from tutored.targets import Batch, Targets

SOURCES = ("ground_truth", "tutor")
TASK = {"class": "detection", "box": "detection", "map": "segmentation"}
"""Every term and the task it belongs to."""


class Assigned(NamedTuple):
    """One batch's targets, for each source that teaches in it.

    Attributes:
        anchors: by source.
        cells: by source.
        weights: float32 scalars, `term/source`: what the term's sum is to be divided by; `images/task/source`: the
            summed weights of the images that the source teaches; with `untaught: counted` also `taught/task`, the
            images that anybody teaches, and `images`, all of them.
    """

    anchors: dict[str, detection.AnchorTargets]
    cells: dict[str, segmentation.MapTargets]
    weights: dict[str, Tensor]


def assign(anchors_xyxy: Tensor, batch: Batch, config: Loss) -> Assigned:
    """Match anchors and cells to both sources' targets."""
    anchors, cells = {}, {}
    weights: dict[str, Tensor] = {}
    teaching: list[Tensor] = []
    tasks = tuple(dict.fromkeys(TASK.values()))
    for source in SOURCES:
        targets: Targets | None = getattr(batch, source)
        if targets is None:
            nothing = torch.zeros((), device=anchors_xyxy.device)
            weights |= dict.fromkeys([f"{term}/{source}" for term in TASK], nothing)
            weights |= dict.fromkeys([f"images/{task}/{source}" for task in TASK.values()], nothing)
            continue
        anchors[source] = detection.assign(anchors_xyxy, targets, config)
        cells[source] = segmentation.assign(targets, config, tutor=source == "tutor")
        weights[f"class/{source}"] = weights[f"box/{source}"] = anchors[source].normaliser
        weights[f"map/{source}"] = cells[source].normaliser
        images = torch.stack([getattr(targets, f"{task}_weight") for task in tasks])
        teaching.append(images)
        weights |= {f"images/{task}/{source}": total for task, total in zip(tasks, images.sum(dim=1), strict=True)}
    if config.untaught == "counted":
        count = len(batch.images)
        together = sum(teaching[1:], teaching[0]) if teaching else anchors_xyxy.new_zeros((len(tasks), count))
        taught = (together > 0).sum(dim=1, dtype=torch.float32)
        weights |= {f"taught/{task}": number for task, number in zip(tasks, taught, strict=True)}
        weights["images"] = taught.new_full((), count)
    return Assigned(anchors, cells, weights)


def sums(outputs: Outputs, batch: Batch, assigned: Assigned, config: Loss) -> dict[str, Tensor]:
    """The weighted sum of every term, `term/source`; float32 scalars, differentiable also where nobody teaches."""
    if not assigned.anchors:
        return {"class/ground_truth": sum((each.sum() for each in outputs[1:]), outputs.logits.new_zeros(())) * 0}
    result = {}
    for source, anchors in assigned.anchors.items():
        targets: Targets = getattr(batch, source)
        result[f"class/{source}"] = detection.class_sum(outputs.logits.float(), targets, anchors, config)
        result[f"box/{source}"] = detection.box_sum(outputs.deltas.float(), outputs.anchors_xyxy, targets, anchors)
        result[f"map/{source}"] = segmentation.map_sum(outputs.map_logits.float(), targets, assigned.cells[source])
    return result


def divide(
    weights: Mapping[str, Tensor],
    config: Loss,
    *,
    mixture: Mapping[str, tuple[float, float]] | None = None,
    processes: int = 1,
) -> dict[str, Tensor]:
    """The factor of every term's sum.

    `joint`: a term's two sources share one normaliser, their weights' sum. Otherwise each source has its own, and the
    sources are mixed by the share of images each teaches (specification 3.6), or as `mixture` says.
    `untaught: counted` scales a task by the share of images that anybody teaches it, so that each of them weighs as
    much as in a batch where all are taught.

    Args:
        mixture: of the tasks whose policy is `both`, the weights of ground truth and tutor (formula 18: one half each,
            whatever they teach in this batch). For `joint` they are in the images' weights already.
        processes: whose gradients will be averaged, each with sums of its own images and with these weights.
    """

    def table(*names: str) -> Tensor:
        return torch.stack([weights[f"{name}/{source}"] for name in names for source in SOURCES]).view(-1, len(SOURCES))

    mine = table(*TASK)
    share: Tensor | float = 1.0
    if config.untaught == "counted":
        taught = torch.stack([weights[f"taught/{task}"] for task in TASK.values()])
        share = (taught / weights["images"])[:, None]
    if config.joint:
        shares = (share / mine.sum(dim=1, keepdim=True).clamp(min=1)).expand_as(mine)
    else:
        fixed = {task: mine.new_tensor(pair) for task, pair in (mixture or {}).items()}
        images = table(*[f"images/{task}" for task in TASK.values()])
        images = torch.stack([fixed.get(task, row) for task, row in zip(TASK.values(), images, strict=True)])
        shares = share * images / images.sum(dim=1, keepdim=True).clamp(min=1e-6) / mine.clamp(min=1)
    factors: dict[str, Tensor] = {}
    for (term, task), row in zip(TASK.items(), shares, strict=True):
        weight = config.detection_weight if task == "detection" else config.segmentation_weight
        scaled = row * (weight * processes)
        factors |= {f"{term}/{source}": factor for source, factor in zip(SOURCES, scaled, strict=True)}
    return factors


def weigh(sums: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Tensor:
    """Every term's sum by its factor, float32 [terms] in the order of `sums`; the loss is their sum."""
    return torch.stack(list(sums.values())) * torch.stack([factors[name] for name in sums])


def mix(sums: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Tensor:
    """The loss."""
    return weigh(sums, factors).sum()
