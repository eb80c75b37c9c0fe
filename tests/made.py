"""What tests share: a data set in memory, the tutor that repeats its ground truth, and a small student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from tutored.labels import LabelSpace
from tutored.tasks.detection import Boxes, Detection, SoftBoxes
from tutored.tasks.segmentation import ClassMask, Segmentation, SoftMap
from tutored.types import IGNORE, GroundTruth, SoftLabels

LABELS = LabelSpace.of(["cat", "dog", "horse"])
TINY = {
    "kind": "blitznet",
    "backbone": "test_resnet",
    "size": 64,
    "extra": 2,
    "extra_width": 32,
    "up_width": 32,
    "map_width": 8,
}
"""A student that takes milliseconds for a step."""
COMPACT = {"kind": "compact", "backbone": "test_resnet", "weights": "random", "size": 64, "width": 16, "map_width": 8}
"""The default student in that size."""
SHAPE = {
    "kind": "blitznet",
    "backbone": "mobilenetv3_small_050",
    "size": 64,
    "extra_width": 32,
    "up_width": 16,
    "map_width": 8,
}
"""A small student on a trunk as people have it, with depthwise convolutions and squeeze-and-excitation."""


def two_tasks(labels=LABELS, detection=None, segmentation=None):
    """A detection and a segmentation task in one label space, with these keys of their sections."""
    kinds = {Detection: detection, Segmentation: segmentation}
    return {
        kind.kind: kind(kind.kind, labels, kind.Section.model_validate({"kind": kind.kind, **(keys or {})}))
        for kind, keys in kinds.items()
    }


class MadeDataset:
    """`count` images of coloured rectangles, with exact boxes and masks; nothing is on disk."""

    name, source, split, notes = "made", "made", "all", ()

    def __init__(self, count: int = 6, *, void: bool = True, annotated: tuple[int, ...] | None = None) -> None:
        self.labels = {"detection": LABELS, "segmentation": LABELS}
        self.ids = tuple(f"made{index}" for index in range(count))
        self.void = void
        self.annotated = annotated

    def image(self, image_id: str) -> Image.Image:
        mask = self.ground_truth(image_id).tasks["segmentation"].mask
        noise = np.random.default_rng(len(image_id)).integers(0, 60, (*mask.shape, 3))
        return Image.fromarray((noise + mask.numpy()[..., None] % 4 * 60).astype(np.uint8))

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return tuple(self.labels)

    def problems(self, image_id: str) -> tuple[str, ...]:
        return ()

    def ground_truth(self, image_id: str) -> GroundTruth:
        rng = np.random.default_rng(int(image_id.removeprefix("made")))
        height, width = int(rng.integers(50, 70)), int(rng.integers(60, 90))
        mask = torch.zeros(height, width, dtype=torch.uint8)
        boxes, classes = [], []
        for column in range(int(rng.integers(0, 4))):
            x1, y1 = 20 * column + int(rng.integers(0, 4)), int(rng.integers(0, 20))
            x2, y2 = x1 + int(rng.integers(9, 16)), y1 + int(rng.integers(12, 28))
            classes.append(int(rng.integers(1, 4)))
            boxes.append([x1, y1, x2, y2])
            mask[y1:y2, x1:x2] = classes[-1]
        if self.void:
            mask[:, width // 2] = IGNORE
        drawn = Boxes(
            boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            classes=torch.tensor(classes, dtype=torch.int64),
            difficult=torch.zeros(len(boxes), dtype=torch.bool),
            annotated=self.annotated,
        )
        return GroundTruth.of((height, width), drawn, ClassMask(mask=mask, annotated=self.annotated))


def certain_boxes(boxes: Boxes, space: int = len(LABELS)) -> SoftBoxes:
    """Soft boxes that say with certainty what was drawn."""
    return SoftBoxes(boxes_xyxy=boxes.boxes_xyxy, classes=boxes.classes, probs=F.one_hot(boxes.classes, space).float())


def certain_map(drawn: ClassMask, space: int = len(LABELS)) -> SoftMap:
    """A soft map that says with certainty what was drawn, and nothing in the void."""
    known = drawn.mask != IGNORE
    one_hot = F.one_hot(torch.where(known, drawn.mask, 0).long(), space).permute(2, 0, 1).float() * known
    return SoftMap(map=one_hot)


def truthful(truth: GroundTruth, space: int = len(LABELS)) -> SoftLabels:
    """Soft labels that say with certainty what the ground truth says, under the names of its tasks."""
    certain = {"detection": certain_boxes, "segmentation": certain_map}
    return SoftLabels(truth.size, {name: certain[each.kind](each, space) for name, each in truth.tasks.items()})


class Repeats:
    """A tutor that repeats the ground truth through `change(answer, image_id)`; without, it says nothing."""

    def __init__(self, dataset, change=lambda answer, image_id: answer, kind="repeats"):
        self.dataset, self.change = dataset, change
        self.labels, self.identity = next(iter(dataset.labels.values())), {"kind": kind}

    def __call__(self, images, image_ids):
        return [self.change(truthful(self._whole(each), len(self.labels)), each) for each in image_ids]

    def _whole(self, image_id):
        truth = self.dataset.ground_truth(image_id)
        none = torch.zeros(0, dtype=torch.int64)
        nothing = {
            "detection": Boxes(boxes_xyxy=torch.zeros(0, 4), classes=none, difficult=none.bool()),
            "segmentation": ClassMask(mask=torch.zeros(truth.size, dtype=torch.uint8)),
        }
        return replace(truth, tasks=nothing | dict(truth.tasks))
