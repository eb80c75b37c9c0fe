"""The store against the thesis' arrays, on real photographs with real tutors' answers: bytes, and reading."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.data import real
from benchmarks.timing import Timed, side_by_side, table
from tutored.data import open_dataset
from tutored.data.part import Part
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.tutors import open_tutor
from tutored.tutors.label import label

ROUNDS = 3


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Answers of YOLOX-nano and DeepLab, ready for training, from files that the system has in memory or not."""
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    some = Part(dataset, "some", dataset.ids[: max(64, round(256 * scale))])
    boxes = open_tutor("onnx", weights=real("weights", "yolox_nano.onnx"), score_floor=1e-4)
    maps = open_tutor("files", folders=[real("data", "voc2012-animals-deeplab")], default_labels=dataset.labels)
    stores = {}
    for name, tutor in (("boxes", boxes), ("maps", maps)):
        path = folder / f"real-{name}-{len(some.ids)}"
        store = Store.open(label(tutor, some, path, resume=True))
        stores[name] = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
    dense = _write_dense(folder / f"real-dense-{len(some.ids)}", some.ids, stores["maps"])
    files = {
        "our store, boxes and maps": [file for each in stores.values() for file in sorted(_store(each).path.iterdir())],
        "our store, maps alone": sorted(_store(stores["maps"]).path.iterdir()),
        "the thesis' arrays, maps alone": dense,
    }

    def read(names: Sequence[str]) -> Callable[[], None]:
        def run() -> None:
            for name in names:
                former = stores[name]
                fresh = Folded(Store.open(_store(former).path), former.class_map)
                for image_id in some.ids:
                    fresh[image_id]

        return run

    def read_dense() -> None:
        for file in dense:
            torch.from_numpy(np.load(file, allow_pickle=False))

    ways = dict(zip(files, (read(("boxes", "maps")), read(("maps",)), read_dense), strict=True))
    tables = []
    for title, cold in (("files in memory", False), ("files evicted before", True)):
        timed = _timed(ways, files, len(some.ids)) if cold else side_by_side(ways, len(some.ids), ROUNDS)
        note = "opening, decoding and folding included"
        tables.append(table(f"reading answers, {title}", timed, "the thesis' arrays, maps alone", "images/s", note))
        for row in tables[-1]["rows"]:
            size = sum(file.stat().st_size for file in files[row["name"]])
            row["kB an image"] = round(size / len(some.ids) / 1000, 2)
    return tables


def _store(folded: Folded) -> Store:
    assert isinstance(folded.store, Store)
    return folded.store


def _write_dense(folder: Path, ids: Sequence[str], answers: Folded) -> list[Path]:
    """float32 [H, W, 21] of the picture's own size, a file an image (specification 3.5)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{image_id}.npy" for image_id in ids]
    for image_id, file in zip(ids, files, strict=True):
        if not file.exists():
            answer = answers[image_id]
            assert answer.map is not None
            full = F.interpolate(answer.map[None], size=answer.size, mode="bilinear", align_corners=False)[0]
            np.save(file, full.permute(1, 2, 0).contiguous().numpy())
    return files


def _timed(ways: Mapping[str, Callable[[], None]], files: Mapping[str, Sequence[Path]], count: int) -> dict[str, Timed]:
    """As `side_by_side`, but before each turn the system is asked to drop the files from its memory."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, do in ways.items():
            for file in files[name]:
                opened = os.open(file, os.O_RDONLY)
                os.fsync(opened)
                os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(opened)
            started = time.perf_counter()
            do()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timed(tuple(each), count) for name, each in seconds.items()}
