"""Stored answers against the thesis' dense arrays and against tutors in the loop; sizes on disk and reading speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import detection, segmentation

from benchmarks.data import make_data
from benchmarks.timing import side_by_side, table
from tutored.data import open_dataset
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.structures import Dataset, SoftLabels

READ = 32


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Images whose answers are ready in a second, by where they come from; and kilobytes an image."""
    data, path = make_data(folder, max(32, round(128 * scale)))
    dataset = open_dataset(data, "train")
    store = Store.open(path)
    ids = dataset.ids[:READ]
    folded = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
    dense = _write_dense(folder / "dense", ids, folded)
    live = _live(dataset, ids)

    def read_store() -> None:
        fresh = Folded(Store.open(path), folded.class_map)
        for image_id in ids:
            fresh[image_id]

    def read_dense() -> None:
        for image_id in ids:
            torch.from_numpy(np.load(dense / f"{image_id}.npy", allow_pickle=False))

    things: dict[str, Callable[[], None]] = {
        "our store": read_store,
        "the thesis' dense arrays": read_dense,
        "tutors in the loop": live,
    }
    note = (
        "of the thesis the maps alone, float32 [H, W, 21], from a warm disk cache; in the loop SSDLite320 and LR-ASPP "
        "(MobileNetV3, random weights), about the smallest tutors that torchvision has, one image at a time"
    )
    result = table(
        "answers for training, by where they come from", side_by_side(things, READ), "our store", "images/s", note
    )
    stored = sum(part.stat().st_size for part in path.glob("*.parquet")) / len(dataset.ids)
    arrays = sum(file.stat().st_size for file in dense.iterdir()) / READ
    result["kB an image"] = {"our store": round(stored / 1000, 2), "the thesis' dense arrays": round(arrays / 1000, 1)}
    return [result]


def _write_dense(folder: Path, ids: tuple[str, ...], answers: Mapping[str, SoftLabels]) -> Path:
    """The thesis' format: every pixel's value for every class."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        answer = answers[image_id]
        assert answer.map is not None
        full = F.interpolate(answer.map[None], size=answer.size, mode="nearest")[0].permute(1, 2, 0)
        np.save(folder / f"{image_id}.npy", full.contiguous().numpy())
    return folder


def _live(dataset: Dataset, ids: tuple[str, ...]) -> Callable[[], None]:
    tutors: list[nn.Module] = [
        detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval(),
        segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval(),
    ]

    def run() -> None:
        with torch.no_grad():
            for image_id in ids[:4]:
                pixels = torch.from_numpy(np.array(dataset.image(image_id))).permute(2, 0, 1).float() / 255
                tutors[0]([pixels])
                tutors[1](F.interpolate(pixels[None], size=(520, 694)))["out"].softmax(dim=1)

    def all_of_them() -> None:
        for _ in range(len(ids) // 4):
            run()

    return all_of_them
