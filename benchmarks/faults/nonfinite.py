"""Losses that are not finite: training stops with the term and the images, and what is saved stays good."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from safetensors.torch import load_file

from benchmarks.faults.children import Ended, run
from benchmarks.faults.jobs import nothing, standing, train_job, watched
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work
from tutored.data import open_dataset

MESSAGE = re.compile(
    r"tutored: the loss is not finite at step \d+: ([\w/, ]+); among images ([\w, ]+)\. Lower train\.lr"
)
TERMS = re.compile(r"(class|box|map)/ground_truth")
SAVED = ("checkpoint/model.safetensors", "state/state.safetensors")


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """Learning rates that no network stands, where an epoch has two steps, and one."""
    job, rng = train_job(work), Random(f"{seed}/nonfinite")
    rows = []
    for batch in (4, 8):
        faults, tried = [], max(round(10 * scale), 1)
        for _ in range(tried):
            out, rate = job.fresh(), 10 ** rng.uniform(8, 30)
            more = ("--train.lr", f"{rate:.3g}", "--train.batch", str(batch), "--train.epochs", "4")
            ended, _ = run(watched, work.train(out, *more), out, 0, nothing, None, out=job.said)
            fault = told(ended, work) or standing(job, out)[1] or broken(out)
            faults += [f"lr {rate:.3g}: {fault}"] * bool(fault)
        note = f"epochs of {8 // batch} steps: stops with the terms and the ids of the images; what is saved is finite"
        rows.append(
            Row(
                group="Losses that are not finite", what="`tutored train` with train.lr of 10⁸ to 10³⁰", tried=tried,
                survived=tried - len(faults), refused=0, lost=len(faults), note=note, faults=tuple(faults[:5]),
            )
        )  # fmt: skip
    return rows


def told(ended: Ended, work: Work) -> str:
    """What is wrong with the message, or nothing."""
    found = MESSAGE.match(ended.last_line)
    if ended.code != 1 or not found:
        return f"ends with {ended.code}: {ended.last_line!r}"
    terms, images = found[1].split(", "), found[2].split(", ")
    right = all(map(TERMS.fullmatch, terms)) and {*images} <= {*open_dataset(f"voc:{work.data}", "train").ids}
    return "" if right else f"names {terms} and {images}"


def broken(run: Path) -> str:
    """The saved file with numbers that are not finite, or nothing."""
    there = [run / name for name in SAVED if (run / name).exists()]
    bad = [path.name for path in there if not all(bool(value.isfinite().all()) for value in load_file(path).values())]
    return f"{bad[0]} is not finite" if bad else ""
