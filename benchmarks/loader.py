"""Reading training images: what each part costs, and how the loader scales with processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import SMALLEST, Table, Timed, side_by_side, table
from benchmarks.package import TINY, Run, make_data, make_run_config

PREFETCH = 2
"""Batches that each process of torch's loader has ready."""


def measure(work: Path, scale: float) -> Iterator[Table]:
    """The parts of an image, and images a second by processes, at 300 pixels with the whole augmentation."""
    small = scale < SMALLEST
    data, store = make_data(work, 256, scale)
    student = TINY | ({} if small else {"size": 300})
    plain, full = (
        Run(make_run_config(data, store, student, "both", train={"batch": 2 if small else 16}, augment={"colour": on}))
        for on in (False, True)
    )
    dataset, images = full.examples.dataset, len(full.examples) if not small else 4
    ids = dataset.ids[:images]

    def each(do: Callable[[Any], object], items: Any) -> Callable[[], object]:
        return lambda: [do(item) for item in items]

    places = [(0, position) for position in range(images)]
    parts = {
        "decode the picture": each(dataset.image, ids),
        "read boxes and mask": each(dataset.ground_truth, ids),
        "a training image without colour jitter": each(plain.examples.__getitem__, places),
        "a training image": each(full.examples.__getitem__, places),
    }
    note = f"{dataset.image(ids[0]).size} pixels, taught by ground truth and stored answers, one process"
    yield table("parts of reading", side_by_side(parts, images, 3, scale=scale), "a training image", note)
    cores = os.cpu_count() or 1
    counts = [0, *(number for number in (1, 2, 4, 8, 15) if number <= cores)]
    batches = max(2, round(200 * scale))
    timed = {f"{number} processes": _drained(full, number, batches) for number in counts}
    note = f"{batches} batches, after the {PREFETCH} that each process had ready were taken; {cores} cores here"
    yield table("the loader by processes (0: the training itself reads)", timed, "0 processes", note)


def _drained(run: Run, workers: int, batches: int) -> Timed:
    """Batches taken as fast as they come; the ones that were ready before the clock starts do not count."""
    each = run.batches(workers)
    for _ in range(1 + PREFETCH * workers):
        next(each)
    started = time.perf_counter()
    for _ in range(batches):
        next(each)
    return Timed((time.perf_counter() - started,), batches * run.batch_size)
