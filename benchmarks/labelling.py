"""Labelling in one and two processes against the bare model: YOLOX-nano, ONNX Runtime, one thread each, photographs."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.data import real
from benchmarks.timing import side_by_side, table
from tutored.data import open_dataset
from tutored.data.part import Part
from tutored.softlabels.writer import PART_ROWS
from tutored.structures import Dataset
from tutored.tutors import open_tutor
from tutored.tutors.label import label

OPTIONS: dict[str, Any] = {"score_floor": 1e-4, "threads": 1}


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Images a second; a process decodes the next batch while its model runs."""
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    some = Part(dataset, "some", dataset.ids[: max(1, round(4 * scale)) * PART_ROWS])
    tutor = open_tutor("onnx", weights=real("weights", "yolox_nano.onnx"), **OPTIONS)
    pictures = [some.image(image_id) for image_id in some.ids]
    out = folder / "labelled"

    def in_memory() -> None:
        for picture, image_id in zip(pictures, some.ids, strict=True):
            tutor([picture], [image_id])

    things: dict[str, Callable[[], object]] = {
        "the bare model": _bare(len(some.ids)),
        "the tutor, pictures in memory": in_memory,
        "tutored label, 1 process": lambda: _label(some, out, 1),
        "tutored label, 2 processes": lambda: _label(some, out, 2),
    }
    note = "the bare model: one array in memory, again and again, one thread; label reads, answers and writes a store"
    return [table("labelling", side_by_side(things, len(some.ids), 3), "the bare model", "images/s", note)]


def _bare(images: int) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        real("weights", "yolox_nano.onnx").read_bytes(), options, ["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    array = {given.name: np.zeros((1, 3, *given.shape[2:]), np.float32)}

    def run() -> None:
        for _ in range(images):
            session.run(None, array)

    return run


def _label(some: Dataset, out: Path, processes: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(some, out, rank, processes)) for rank in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError("a labelling process failed")


def _work(some: Dataset, out: Path, rank: int, processes: int) -> None:
    tutor = open_tutor("onnx", weights=real("weights", "yolox_nano.onnx"), **OPTIONS)
    label(tutor, some, out, rank=rank, processes=processes)
