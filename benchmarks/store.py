"""Stored answers against the thesis' dense arrays and tutors in the loop: to read, in bytes, and to train with."""

from __future__ import annotations

import gc
import os
import random
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.models import detection, segmentation

from benchmarks.harness import SMALLEST, Table, real, repeated, side_by_side, table
from benchmarks.package import (
    TASKS,
    Run,
    SoftMap,
    Subset,
    label,
    make_data,
    make_run_config,
    open_answers,
    open_dataset,
    open_tutor,
    students,
)

PLAIN, FIRST, NEXT = "dense arrays", "our stores, first pass", "our stores, later passes"
MAPS = TASKS[1]
Answers = Mapping[str, Any]


def measure(work: Path, scale: float) -> Iterator[Table]:
    """Training with made-up answers, then reading the answers of real tutors for photographs."""
    yield _training(work, scale)
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    some = Subset(dataset, "some", dataset.ids[: 4 if scale < SMALLEST else max(64, round(256 * scale))])
    stores = _label(some, work)
    dense = work / f"dense-{len(some.ids)}"
    boxes, maps = _opened(stores)
    _write_dense(dense, {image_id: maps[image_id] for image_id in some.ids})
    order = random.Random(0).sample(some.ids, len(some.ids))

    def read(answers: list[Answers]) -> None:
        for image_id in order:
            for each in answers:
                each[image_id]

    arrays = Changed(boxes, lambda image_id, _: _read_dense(dense / f"{image_id}.npy"))
    ways: dict[str, Callable[[], None]] = {
        PLAIN: lambda: read([boxes, arrays]),
        FIRST: lambda: read(_opened(stores)),
    }
    ours = [file for path in stores for file in path.iterdir()]
    files = {PLAIN: [dense / f"{each}.npy" for each in order], FIRST: ours, NEXT: ours}
    kept = _opened(stores)
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


class Changed(UserDict[str, Any]):
    """Answers by image id, each got by a function of the image id and the stored answer."""

    def __init__(self, answers: Any, change: Callable[[str, Any], Any]) -> None:
        self.data, self.change = answers, change

    def __getitem__(self, image_id: str) -> Any:
        return self.change(image_id, self.data[image_id])


def _read_dense(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(file, allow_pickle=False)).permute(2, 0, 1)


def _live(dataset: Any) -> Callable[[str, Any], Any]:
    """Two of torchvision's smallest networks are asked; then the stored answer is given."""
    detector = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    segmenter = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()

    @torch.no_grad()
    def ask(image_id: str, stored: Any) -> Any:
        pixels = torch.from_numpy(np.array(dataset.image(image_id))).permute(2, 0, 1).float() / 255
        detector([pixels])
        segmenter(F.interpolate(pixels[None], size=(520, 694)))["out"].softmax(dim=1)
        return stored

    return ask


def _training(work: Path, scale: float) -> Table:
    """Whole training steps, taught by tutors alone, by where their answers come from."""
    data, store = make_data(work, 128, scale)
    name, (shape, batch) = next(iter(students(scale).items()))
    config = make_run_config(data, store, shape, "replace", train={"batch": batch})
    dataset, dense = open_dataset(data, "train"), work / f"made-{store.name}"
    _write_dense(dense, open_answers(store, MAPS))

    def read(image_id: str, stored: Any) -> Any:
        return replace(stored, tasks={MAPS: SoftMap(map=_read_dense(dense / f"{image_id}.npy"))})

    def maps(change: Callable[[str, Any], Any]) -> Callable[[Any], Any]:
        return lambda given: {**given, MAPS: Changed(given[MAPS], change)}

    runs = {
        "stored answers": Run(config),
        "the thesis' dense arrays": Run(config, maps(read)),
        "tutors in the loop": Run(config, maps(_live(dataset))),
    }
    steps = max(1, round(2 * scale))
    timed = side_by_side({who: repeated(run.loop(), steps) for who, run in runs.items()}, batch * steps, 3, scale=scale)
    note = (
        "in the loop: SSDLite320 and LR-ASPP (MobileNetV3), about the smallest that torchvision has, an image at a time"
    )
    return table(f"training by where answers come from: {name}", timed, "stored answers", note)
