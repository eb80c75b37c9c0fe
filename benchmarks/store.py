"""Stored answers against the thesis' dense arrays: to read, and in bytes."""

import gc
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import SMALLEST, Table, real, side_by_side, table
from benchmarks.package import TASKS, Subset, label, open_answers, open_dataset, open_tutor

PLAIN, FIRST, NEXT = "dense arrays", "our stores, first pass", "our stores, later passes"
MAPS = TASKS[1]
Answers = Mapping[str, Any]


def measure(work: Path, scale: float) -> Iterator[Table]:
    """Reading the answers of real tutors for photographs."""
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    some = Subset(dataset, "some", dataset.ids[: 4 if scale < SMALLEST else max(64, round(256 * scale))])
    stores = _label(some, work)
    dense = work / f"dense-{len(some.ids)}"
    boxes, maps = _opened(stores)
    _write_dense(dense, {image_id: maps[image_id] for image_id in some.ids})
    order = random.Random(0).sample(some.ids, len(some.ids))

    def read(answers: list[Callable[[str], Any]]) -> None:
        for image_id in order:
            for each in answers:
                each(image_id)

    def read_dense(image_id: str) -> torch.Tensor:
        return torch.from_numpy(np.load(dense / f"{image_id}.npy", allow_pickle=False)).permute(2, 0, 1)

    ways: dict[str, Callable[[], None]] = {
        PLAIN: lambda: read([boxes.__getitem__, read_dense]),
        FIRST: lambda: read([each.__getitem__ for each in _opened(stores)]),
    }
    ours = [file for path in stores for file in path.iterdir()]
    files = {PLAIN: [dense / f"{each}.npy" for each in order], FIRST: ours, NEXT: ours}
    kept = [each.__getitem__ for each in _opened(stores)]
    note = (
        "boxes of YOLOX-nano and maps of DeepLab in random order, remapped to our classes; dense: float32 [H, W, C + 1]"
    )
    warm = side_by_side(ways | {NEXT: lambda: read(kept)}, len(order), 3, scale=scale)
    tables = [table("answers for training, files in the system's memory", warm, PLAIN, note)]
    cold = side_by_side(ways, len(order), 3, scale=scale, before=lambda name: _evict(files[name]))
    tables.append(table("answers for training, files on disk", cold, PLAIN, note))
    for row in (row for each in tables for row in each["rows"]):
        row["kB an image"] = round(sum(file.stat().st_size for file in files[row["name"]]) / len(order) / 1000, 2)
    yield from tables


def _label(some: Subset, work: Path) -> list[Path]:
    boxes = open_tutor("onnx", weights=real("weights", "yolox_nano.onnx"), score_floor=1e-4)
    maps = open_tutor("files", folders=[real("data", "voc2012-animals-deeplab")], dataset=some)
    tutors = {"boxes": boxes, "maps": maps}
    return [label(tutor, some, work / f"real-{name}-{len(some.ids)}", resume=True) for name, tutor in tutors.items()]


def _opened(stores: list[Path]) -> list[Answers]:
    return [open_answers(path, kind) for kind, path in zip(TASKS, stores, strict=True)]


def _write_dense(folder: Path, answers: Answers) -> None:
    """The thesis' format (section 3.5): every pixel's value for every class."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id, answer in answers.items():
        if not (folder / f"{image_id}.npy").exists():
            cells = answer.tasks[MAPS].map
            full = F.interpolate(cells[None], size=answer.size, mode="bilinear", align_corners=False)[0]
            dense = full.permute(1, 2, 0).contiguous().numpy()
            np.save(folder / f"{image_id}.npy", dense)


def _evict(files: list[Path]) -> None:
    """Ask the system to drop files from its memory."""
    gc.collect()  # what is still mapped is not dropped
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.fsync(opened)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)
