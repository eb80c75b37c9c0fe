"""Photograph-sized scenes with ground truth, and stores of a tutor that says what the ground truth says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from tutored.config import Config, make_config
from tutored.data import open_dataset
from tutored.scenes import make_scenes
from tutored.structures import IGNORE, Dataset, SoftLabels
from tutored.tutors.label import label

SIZE = (500, 375)
"""VOC's usual width and height."""
STRIDE = 8
LIGHT = {
    "student": {"preset": "light"},
    "augment": {"colour": False},
    "train": {"batch": 16, "micro_batch": None, "workers": 0, "lr": 1e-3},
}
"""A small student for CPUs: EfficientNet-lite0 at 160 pixels."""


class AbsentError(RuntimeError):
    """Photographs or weights that a benchmark needs are not here."""


def real(*parts: str) -> Path:
    """Something in the folder of photographs and weights, which `TUTORED_REAL` names. Raises AbsentError."""
    path = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[2] / "shared")).joinpath(*parts)
    if not path.exists():
        raise AbsentError(f"{'/'.join(parts)} is not here; let TUTORED_REAL name the folder that holds it")
    return path


class Repeater:
    """Answers with the ground truth, nine parts in ten, so that a store has the usual shape and size."""

    identity = {"kind": "repeater", "score_floor": 0.0}  # noqa: RUF012

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.labels = dataset, dataset.labels

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return [self._answer(image_id) for image_id in image_ids]

    def _answer(self, image_id: str) -> SoftLabels:
        truth = self.dataset.ground_truth(image_id)
        assert truth.boxes_xyxy is not None and truth.classes is not None and truth.mask is not None
        classes = len(self.labels)
        grid = (-(-truth.size[0] // STRIDE), -(-truth.size[1] // STRIDE))
        drawn = F.one_hot(torch.where(truth.mask == IGNORE, 0, truth.mask).long(), classes).permute(2, 0, 1).float()
        cells = F.interpolate(drawn[None], size=grid, mode="area")[0]
        probs = 0.9 * F.one_hot(truth.classes, classes).float()
        probs[:, 0] += 0.1
        return SoftLabels(
            size=truth.size, boxes_xyxy=truth.boxes_xyxy, classes=truth.classes, probs=probs, map=cells / cells.sum(0)
        )


def make_data(folder: Path, images: int) -> tuple[str, Path]:
    """The data set, such as `voc:FOLDER/scenes` with a split `train`, and its store; kept for the next time."""
    scenes, store = folder / f"scenes-{images}", folder / f"store-{images}"
    if not scenes.exists():
        make_scenes(scenes, "student", {"train": images}, seed=0, size=SIZE)
    dataset = open_dataset(f"voc:{scenes}", "train")
    label(Repeater(dataset), dataset, store, resume=store.exists())
    return f"voc:{scenes}", store


def config(data: str, store: Path | None = None, policy: str = "ground_truth", **changes: Any) -> Config:
    """A light student's complete config on such data, both tasks taught by the same policy."""
    task = {"policy": policy} | ({"store": str(store)} if store else {})
    sections = {name: {**section, **changes.get(name, {})} for name, section in LIGHT.items()}
    sections |= {name: section for name, section in changes.items() if name not in LIGHT}
    return make_config(
        {
            "data": {"train": data, "val_split": None},
            "supervision": {"detection": task, "segmentation": task},
            **sections,
        }
    )
