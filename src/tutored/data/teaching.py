"""What ground truth and a tutor teach about one augmented image, in one common form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config import TASKS, Loss
from tutored.data.sources import Weights
from tutored.data.transforms import Geometry
from tutored.structures import IGNORE, GroundTruth, SoftLabels


@dataclass(frozen=True, slots=True)
class Teaching:
    """One source's targets for one image in the network's input frame; a row of `targets.Targets`, not padded.

    Attributes:
        unknown: by task, bool [C+1]: classes this source knows nothing about.
    """

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    map: Tensor
    inside: Tensor
    unknown: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Example:
    """One augmented image (uint8 [3, S, S]), both sources' targets, and by task who teaches it how much."""

    image_id: str
    image: Tensor
    ground_truth: Teaching
    tutor: Teaching
    weights: dict[str, Weights]


def teach_ground_truth(truth: GroundTruth, geometry: Geometry, classes: int, map_side: int) -> Teaching:
    """Ground truth as certain soft labels: one-hot class distributions, a one-hot map, void and padding silent.

    Args:
        classes: size of the label space, background included.
    """
    inside = geometry.inside(truth.size, map_side)
    annotated = range(classes) if truth.annotated is None else truth.annotated
    unknown = _marked(tuple(index for index in range(1, classes) if index not in annotated), classes)
    one_hot = torch.zeros(classes, map_side, map_side)
    if truth.mask is not None:
        mask = geometry.mask(truth.mask, map_side, outside=IGNORE).long()
        drawn = mask != IGNORE
        one_hot.scatter_(0, torch.where(drawn, mask, 0)[None], drawn.float()[None])
    taught = _no_boxes(classes)
    if truth.boxes_xyxy is not None:
        assert truth.classes is not None
        assert truth.difficult is not None
        moved, kept = geometry.boxes(truth.boxes_xyxy)
        numbers = truth.classes[kept]
        taught = moved[kept], numbers, F.one_hot(numbers, classes).float(), truth.difficult[kept]
    return Teaching(*taught, one_hot, inside, dict.fromkeys(TASKS, unknown))


def teach_soft_labels(
    soft: Mapping[str, SoftLabels | None], geometry: Geometry, beside: Teaching, config: Loss
) -> Teaching:
    """A tutor's boxes and map (from one tutor or one for each task) under the same geometry.

    Args:
        soft: answers for "detection" and "segmentation"; a missing one teaches nothing.
        beside: the ground truth's targets of the same image.
    """
    classes, side = beside.map.shape[0], beside.map.shape[1]
    unknown = {task: _marked(answer.unknown if (answer := soft.get(task)) else (), classes) for task in TASKS}
    taught, drawn = _no_boxes(classes), None
    detection, segmentation = soft.get("detection"), soft.get("segmentation")
    if segmentation is not None and segmentation.map is not None:
        drawn = geometry.soft_map(segmentation.map, segmentation.size, side)
    if detection is not None and detection.boxes_xyxy is not None:
        assert detection.classes is not None
        assert detection.probs is not None
        chosen = teachable(detection, config)
        moved, kept = geometry.boxes(detection.boxes_xyxy[chosen])
        chosen = chosen[kept]
        difficult = torch.zeros(len(chosen), dtype=torch.bool)
        taught = moved[kept], detection.classes[chosen], detection.probs[chosen], difficult
    return Teaching(*taught, torch.zeros_like(beside.map) if drawn is None else drawn, beside.inside, unknown)


def teachable(soft: SoftLabels, config: Loss) -> Tensor:
    """int64 indices of the tutor boxes that have a say.

    Boxes under the ignore floor have none. With `conflicts: score`, of boxes on one object, whatever their classes,
    only the best-scored has one, and the result is by falling score: a tutor that keeps a horse also as a cow would
    otherwise teach both (specification 7.1, 6).
    """
    assert soft.boxes_xyxy is not None
    scores = soft.scores
    chosen = (scores >= min(config.ignore_floor, config.box_floor)).nonzero()[:, 0]
    if config.conflicts == "keep":
        return chosen
    chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
    return chosen[boxes.nms(soft.boxes_xyxy[chosen], scores[chosen], None, config.conflict_iou)]


def complete(truth: Teaching, tutor: Teaching, task: str, conflict_iou: float) -> Teaching:
    """Ground truth for the classes it annotates, the tutor for the others, as one source in the tutor's place.

    Boxes: the drawn ones, and the tutor's (of classes that were not annotated), unless they lie on a drawn one. Map:
    where ground truth says background, the tutor's probabilities of background and those classes; what it gives to
    annotated classes is contradicted and weighs nothing.
    """
    foreign = truth.unknown[task]
    unknown = tutor.unknown | {task: foreign & tutor.unknown[task]}
    if task == "segmentation":
        allowed = foreign.clone()
        allowed[0] = True
        background = truth.map[:1]
        drawn = truth.map * (1 - background)
        return replace(tutor, map=drawn + tutor.map * allowed[:, None, None] * background, unknown=unknown)
    overlap = boxes.iou(tutor.boxes_xyxy, F.pad(truth.boxes_xyxy, (0, 0, 0, 1))).amax(dim=1)
    chosen = overlap <= conflict_iou
    return replace(
        tutor,
        boxes_xyxy=torch.cat([truth.boxes_xyxy, tutor.boxes_xyxy[chosen]]),
        classes=torch.cat([truth.classes, tutor.classes[chosen]]),
        probs=torch.cat([truth.probs, tutor.probs[chosen]]),
        difficult=torch.cat([truth.difficult, tutor.difficult[chosen]]),
        unknown=unknown,
    )


@lru_cache(maxsize=64)
def _marked(numbers: tuple[int, ...], classes: int) -> Tensor:
    """bool [classes], the same tensor every time: the classes of a source are those of nearly every image."""
    return torch.isin(torch.arange(classes), torch.tensor(numbers, dtype=torch.int64))


def _no_boxes(classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, classes),
        torch.zeros(0, dtype=torch.bool),
    )
