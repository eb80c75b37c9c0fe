"""What tests share: a data set in memory, the tutor that repeats its ground truth, and a small student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from tutored.labels import LabelSpace
from tutored.structures import IGNORE, GroundTruth, SoftLabels

LABELS = LabelSpace.of(["cat", "dog", "horse"])
TINY = {"backbone": "test_resnet", "size": 64, "extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8}
"""A student that a step takes milliseconds of."""


class MadeDataset:
    """`count` images of coloured rectangles, with exact boxes and masks; nothing is on disk."""

    name, source, split, notes = "made", "made", "all", ()

    def __init__(self, count: int = 6, *, void: bool = True, annotated: tuple[int, ...] | None = None) -> None:
        self.labels = LABELS
        self.ids = tuple(f"made{index}" for index in range(count))
        self.void = void
        self.annotated = annotated

    def image(self, image_id: str) -> Image.Image:
        mask = self.ground_truth(image_id).mask
        noise = np.random.default_rng(len(image_id)).integers(0, 60, (*mask.shape, 3))
        return Image.fromarray((noise + mask.numpy()[..., None] % 4 * 60).astype(np.uint8))

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return ("detection", "segmentation")

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
        return GroundTruth(
            size=(height, width),
            boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            classes=torch.tensor(classes, dtype=torch.int64),
            difficult=torch.zeros(len(boxes), dtype=torch.bool),
            mask=mask,
            annotated=self.annotated,
        )


def truthful(truth: GroundTruth, classes: int = len(LABELS)) -> SoftLabels:
    """Soft labels that say with certainty what the ground truth says, and nothing in the void."""
    drawn = truth.mask != IGNORE
    one_hot = F.one_hot(torch.where(drawn, truth.mask, 0).long(), classes).permute(2, 0, 1).float() * drawn
    return SoftLabels(
        size=truth.size,
        boxes_xyxy=truth.boxes_xyxy,
        classes=truth.classes,
        probs=F.one_hot(truth.classes, classes).float(),
        map=one_hot,
    )


class Repeats:
    """A tutor that repeats the ground truth through `change(answer, image_id)`; without, it says nothing."""

    def __init__(self, dataset, change=lambda answer, image_id: answer, kind="repeats"):
        self.dataset, self.change = dataset, change
        self.labels, self.identity = dataset.labels, {"kind": kind}

    def __call__(self, images, image_ids):
        return [self.change(truthful(self._whole(each), len(self.labels)), each) for each in image_ids]

    def _whole(self, image_id):
        truth = self.dataset.ground_truth(image_id)
        if truth.boxes_xyxy is None:
            none = torch.zeros(0, dtype=torch.int64)
            truth = replace(truth, boxes_xyxy=torch.zeros(0, 4), classes=none, difficult=none.bool())
        return truth if truth.mask is not None else replace(truth, mask=torch.zeros(truth.size, dtype=torch.uint8))
