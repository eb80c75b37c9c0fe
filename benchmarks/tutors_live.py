"""Stored answers against the thesis' dense arrays and tutors in the loop: to read, and to train with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import detection, segmentation

from benchmarks.data import config, make_data
from benchmarks.timing import side_by_side, table
from benchmarks.training import loop
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.structures import Dataset, SoftLabels

READ = 16
NOTE = (
    "of the thesis the maps alone, float32 [H, W, C+1], from a warm disk cache; in the loop SSDLite320 and LR-ASPP "
    "(MobileNetV3, random weights), about the smallest tutors that torchvision has, one image at a time"
)


class Stored(Mapping[str, SoftLabels]):
    """The store's answers, read anew each time."""

    def __init__(self, answers: Mapping[str, SoftLabels]) -> None:
        self.answers = answers

    def __getitem__(self, image_id: str) -> SoftLabels:
        return self.answers[image_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


class Dense(Stored):
    """The thesis' format: every pixel's value for every class, in a file an image; boxes are the store's."""

    def __init__(self, answers: Mapping[str, SoftLabels], folder: Path) -> None:
        super().__init__(answers)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for image_id in answers:
            answer = answers[image_id]
            assert answer.map is not None
            full = F.interpolate(answer.map[None], size=answer.size, mode="nearest")[0].permute(1, 2, 0)
            np.save(folder / f"{image_id}.npy", full.contiguous().numpy())
        self.kept = {image_id: replace(answers[image_id], map=None) for image_id in answers}

    def __getitem__(self, image_id: str) -> SoftLabels:
        dense = np.load(self.folder / f"{image_id}.npy", allow_pickle=False)
        return replace(self.kept[image_id], map=torch.from_numpy(dense).permute(2, 0, 1))


class Live(Stored):
    """Both tutors are asked each time; then the store's answer is given, so that all teach the same."""

    def __init__(self, answers: Mapping[str, SoftLabels], dataset: Dataset) -> None:
        super().__init__(answers)
        self.dataset = dataset
        self.tutors: list[nn.Module] = [
            detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval(),
            segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval(),
        ]

    @torch.no_grad()
    def __getitem__(self, image_id: str) -> SoftLabels:
        pixels = torch.from_numpy(np.array(self.dataset.image(image_id))).permute(2, 0, 1).float() / 255
        self.tutors[0]([pixels])
        self.tutors[1](F.interpolate(pixels[None], size=(520, 694)))["out"].softmax(dim=1)
        return self.answers[image_id]


class Half(Stored):
    """One of two tasks: without the other one's answers, so that a live tutor is asked once for both."""

    def __getitem__(self, image_id: str) -> SoftLabels:
        return replace(self.answers[image_id], map=None)


def measure(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Answers a second, by where they come from, and kilobytes an image; then whole training steps."""
    data, path = make_data(folder, max(32, round(128 * scale)))
    settings = config(data, path, "replace")
    supervision = open_supervision(settings)
    answers = supervision.soft_labels["segmentation"]
    ids = supervision.train.ids[:READ]
    sources: dict[str, Stored] = {
        "our store": Stored(answers),
        "the thesis' dense arrays": Dense(answers, folder / f"dense-{len(answers)}"),
        "tutors in the loop": Live(answers, supervision.train),
    }

    def read(source: Stored) -> Callable[[], None]:
        def run() -> None:
            for image_id in ids:
                source[image_id]

        return run

    timed = side_by_side({name: read(source) for name, source in sources.items()}, READ, 3)
    reading = table("answers for training, by where they come from", timed, "our store", "images/s", NOTE)
    stored = sum(part.stat().st_size for part in path.glob("*.parquet")) / len(answers)
    arrays = sum(file.stat().st_size for file in (folder / f"dense-{len(answers)}").iterdir()) / len(answers)
    reading["kB an image"] = {"our store": round(stored / 1000, 2), "the thesis' dense arrays": round(arrays / 1000, 1)}

    yield reading
    steps = max(1, round(2 * scale))
    with tempfile.TemporaryDirectory() as out:
        loops = {}
        for name, source in sources.items():
            tutors = {"detection": Half(answers), "segmentation": source}
            loops[name] = loop(Trainer(settings, supervision._replace(soft_labels=tutors), Path(out)), steps, 0)
        timed = side_by_side(loops, settings.train.batch * steps, 3)
    note = f"the light student at 160 pixels, taught by tutors alone; {NOTE}"
    yield table("training, by where the tutors' answers come from", timed, "our store", "images/s", note)
