"""Ground truth as people have it: boxes that are missing or drawn loosely, masks that are coarse polygons.

data: {train: "python:defective:Defective"}

The photographs are those of FOLDER, in VOC's layout (`results/wide.sh` makes it). Each picture's faults are
drawn from its name, so that every run has the same. Splits of INTACT, which figures are computed on, are left as they
are; `val+rest` names two of them.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import label

from tutored.data import open_dataset
from tutored.types import GroundTruth

FOLDER = Path("wide")
INTACT = ("val", "rest")
MISSING = 0.3
"""Share of the boxes that nobody drew."""
LOOSE = 0.1
"""Standard deviation of each side of a box, as a share of its width or height."""
CORNERS = 10
"""Of each polygon, at most."""


class Defective:
    """One split, with the members of `tutored.types.Dataset` that a data set of one's own needs."""

    def __init__(self, split: str) -> None:
        self.inner = open_dataset(f"voc:{FOLDER}", split)
        self.intact = all(part in INTACT for part in split.split("+"))
        self.labels, self.ids = self.inner.labels, self.inner.ids
        self.files, self.image, self.annotated_tasks = self.inner.files, self.inner.image, self.inner.annotated_tasks
        self.masks: dict[str, torch.Tensor] = {}  # .2 MB an image, so that each is drawn once

    def ground_truth(self, image_id: str) -> GroundTruth:
        truth = self.inner.ground_truth(image_id)
        if self.intact:
            return truth
        tasks, rng = dict(truth.tasks), random.Random(image_id)
        if "detection" in tasks:
            drawn = tasks["detection"]
            seen = torch.tensor([rng.random() >= MISSING for _ in drawn.classes], dtype=torch.bool)
            moved = [loosened(box, truth.size, rng) for box in drawn.boxes_xyxy[seen].tolist()]
            tasks["detection"] = replace(
                drawn,
                boxes_xyxy=torch.tensor(moved, dtype=torch.float32).reshape(-1, 4),
                classes=drawn.classes[seen],
                difficult=drawn.difficult[seen],
            )
        if "segmentation" in tasks:
            if image_id not in self.masks:
                self.masks[image_id] = torch.from_numpy(coarsened(tasks["segmentation"].mask.numpy()))
            tasks["segmentation"] = replace(tasks["segmentation"], mask=self.masks[image_id])
        return GroundTruth(truth.size, tasks)


def loosened(box: list[float], size: tuple[int, int], rng: random.Random) -> list[float]:
    """A box, x1, y1, x2, y2 in pixels, with each side moved; within the picture, and never thinner than half."""
    height, width = size
    found = []
    for low, high, end in ((box[0], box[2], width), (box[1], box[3], height)):
        length, quarter = high - low, (high - low) / 4
        first = min(max(low + rng.gauss(0, LOOSE) * length, 0), low + quarter)
        found.append((first, max(min(high + rng.gauss(0, LOOSE) * length, end), high - quarter)))
    (x1, x2), (y1, y2) = found
    return [x1, y1, x2, y2]


def coarsened(mask: np.ndarray) -> np.ndarray:
    """A class mask, uint8 [H, W], in which each connected region is a polygon of few corners around its centre."""
    drawn = Image.fromarray(np.where(mask == 255, 255, 0).astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    for number in np.unique(mask[(mask > 0) & (mask < 255)]):
        regions, count = label(mask == number)
        for region in range(1, count + 1):
            rows, columns = np.nonzero(regions == region)
            y, x = rows.mean(), columns.mean()
            sector = ((np.arctan2(rows - y, columns - x) + math.pi) / (2 * math.pi) * CORNERS).astype(int) % CORNERS
            away = (rows - y) ** 2 + (columns - x) ** 2
            ends = [np.where(sector == each, away, -1).argmax() for each in range(CORNERS) if (sector == each).any()]
            corners = [(int(columns[end]), int(rows[end])) for end in ends]
            if len(corners) > 2:
                pen.polygon(corners, fill=int(number))
    return np.array(drawn)
