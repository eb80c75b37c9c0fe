"""Reading training images: what each part costs, and how the loader scales with processes."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import SMALLEST, Clock, Table, Timed, side_by_side, table
from benchmarks.package import TINY, Run, make_data, make_run_config

PREFETCH = 2
"""Batches that each process of torch's loader has ready."""


def measure(work: Path, scale: float) -> Iterator[Table]:
    """The parts of an image, and images a second by processes, at 300 pixels with the whole augmentation."""
    small = scale < SMALLEST
    spec, store = make_data(work, 256, scale)
    student = TINY | ({} if small else {"size": 300})

    def run(policy: str, augment: dict[str, bool] | None = None, **sections: Any) -> Run:
        augment = {"as_specified": False, **(augment or {})}
        sections |= {"train": {"batch": 2 if small else 16}, "augment": augment}
        return Run(make_run_config(spec, store, student, policy, **sections))

    with tempfile.TemporaryDirectory(dir=work) as cache:
        kept = {"data": {"train": spec, "val_split": None, "cache": cache}}
        runs = {
            "taught by both": run("both"),
            "taught by both, kept decoded": run("both", **kept),
            "taught by ground truth, kept decoded": run("ground_truth", **kept),
            "the same, augmented as specified": run("ground_truth", {"as_specified": True}, **kept),
            "the same without colours": run("ground_truth", {"colour": False}, **kept),
        }
        dataset = runs["taught by both"].examples.dataset
        ids = dataset.ids[: 4 if small else None]
        places = [(0, position) for position in range(len(ids))]
        parts: dict[str, Callable[[], object]] = {
            "decode the picture": lambda: [dataset.image(each) for each in ids],
            "read boxes and mask": lambda: [dataset.ground_truth(each) for each in ids],
        }
        parts |= {name: lambda of=each.examples: [of[place] for place in places] for name, each in runs.items()}
        note = f"{dataset.image(ids[0]).size} pixels, one process; kept decoded: data.cache, filled"
        yield table("parts of reading", side_by_side(parts, len(ids), scale=scale), "taught by both", note)
        cores = os.cpu_count() or 1
        counts = [0, *(number for number in (1, 2, 4, 8, 15) if number <= cores)]
        batches = max(2, round(1000 * scale))
        for name in list(runs)[:3]:
            timed = {f"{number} processes": _drained(runs[name], number, batches) for number in counts}
            note = f"{batches} batches, after the {PREFETCH} that each process had ready were taken; {cores} cores here"
            yield table(f"by processes (0: the training itself reads), {name}", timed, "0 processes", note)


def _drained(run: Run, workers: int, batches: int) -> Timed:
    """Batches taken as fast as they come; the ones that were ready before the clock starts do not count."""
    each = run.batches(workers)
    for _ in range(1 + PREFETCH * workers):
        next(each)
    now = time.perf_counter if workers else Clock.now
    started = now()
    for _ in range(batches):
        next(each)
    return Timed((now() - started,), batches * run.batch_size)
