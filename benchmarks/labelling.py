"""Labelling in one and two processes against the bare model: YOLOX-nano, ONNX Runtime, one thread each, photographs."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.harness import SMALLEST, Table, real, side_by_side, table
from benchmarks.package import PART_ROWS, Subset, label, open_dataset, open_tutor


def measure(work: Path, scale: float) -> Iterator[Table]:
    """Images a second; a process decodes the next batch while its model runs."""
    weights = real("weights", "yolox_nano.onnx")
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    count = 4 if scale < SMALLEST else max(2, round(4 * scale)) * PART_ROWS
    some = Subset(dataset, "some", dataset.ids[:count])
    tutor, pictures = _tutor(weights), {image_id: some.image(image_id) for image_id in some.ids}
    things: dict[str, Callable[[], object]] = {
        "the bare model": _bare(weights, count),
        "the tutor, pictures in memory": lambda: [tutor([each], [image_id]) for image_id, each in pictures.items()],
        "tutored label, 1 process": lambda: _label(some, weights, work / "labelled", 1),
        "tutored label, 2 processes": lambda: _label(some, weights, work / "labelled", 2),
    }
    note = "the bare model: one array in memory, again and again, one thread; label reads, answers and writes a store"
    yield table("labelling", side_by_side(things, count, 3, scale=scale), "the bare model", note)


def _tutor(weights: Path) -> Any:
    return open_tutor("onnx", weights=weights, score_floor=1e-4, threads=1)


def _bare(weights: Path, images: int) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights.read_bytes(), options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    array = {given.name: np.zeros((1, 3, *given.shape[2:]), np.float32)}
    return lambda: [session.run(None, array) for _ in range(images)]


def _label(some: Subset, weights: Path, out: Path, processes: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.starmap(_work, [(some, weights, out, rank, processes) for rank in range(processes)], chunksize=1)


def _work(some: Subset, weights: Path, out: Path, rank: int, processes: int) -> None:
    label(_tutor(weights), some, out, rank=rank, processes=processes)
