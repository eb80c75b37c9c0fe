"""Files that tutored wrote itself, with random damage, under the commands that read them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.faults.children import command, run
from benchmarks.faults.damage import damage_bytes
from benchmarks.faults.disk import one_shot
from benchmarks.faults.jobs import Job, label_job, nothing, train_job, uninterrupted, watched
from benchmarks.faults.kills import kill
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work

STATE = ("state/state.json", "state/state.safetensors")
CHECKPOINT = ("checkpoint/checkpoint.json", "checkpoint/model.safetensors")
STORE = ("manifest.json", "part-00000.parquet")


class Case(NamedTuple):
    """A command that reads a folder in which one file is damaged.

    Attributes:
        whole: the folder without damage.
        job: makes the command for the damaged folder and for where its result goes.
        into: the result goes into the damaged folder itself.
    """

    what: str
    whole: Path
    files: Sequence[str]
    job: Callable[[Path], Job]
    into: bool


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """Each file of each case."""
    train, label = train_job(work), label_job(work)
    halves = {job.name: half(job) for job in (train, label)}
    data = ("--data", f"voc:{work.data}", "--split", "train")

    def predict(folder: Path) -> Job:
        words = ("predict", folder / "checkpoint", work.data / "JPEGImages", "--score", "0")
        return one_shot("predict", words, "", work)

    def evaluate(folder: Path) -> Job:
        return one_shot("evaluate", ("evaluate", folder, *data), "figures.json", work)

    cases = (
        Case("train --resume", halves["train"], STATE, lambda _: train, True),
        Case("label --resume", halves["label"], STORE, lambda _: label, True),
        Case("predict", train.reference, CHECKPOINT, predict, False),
        Case("evaluate", label.reference, STORE, evaluate, False),
    )
    for case in cases[2:]:  # from the place of the damaged ones: what evaluates tells of its path
        uninterrupted(case.job(copied(case, work)))
    times = max(round(20 * scale), 1)
    return [damaged(case, file, work, times, seed) for case in cases for file in case.files]


def half(job: Job) -> Path:
    """Make the reference, and a copy that was killed about half-way."""
    changes, _ = uninterrupted(job)
    for number in range(changes // 2, changes):
        out = job.fresh()
        run(watched, job.words(out), out, number, kill, None, out=job.said)
        if job.standing(out):
            return shutil.copytree(out, job.work.folder / f"{job.name}-half", dirs_exist_ok=True)
    raise RuntimeError(f"{job.name} saves nothing before its end")


def copied(case: Case, work: Work) -> Path:
    """The folder, where it may be damaged."""
    folder = work.folder / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(case.whole, folder)


def damaged(case: Case, file: str, work: Work, times: int, seed: int) -> Row:
    """One file damaged again and again, always anew, and read by the command."""
    rng, counts = Random(f"{seed}/{case.what}/{file}"), Counter[str]()
    faults: list[str] = []
    for _ in range(times):
        folder = copied(case, work)
        (folder / file).write_bytes(damage_bytes((folder / file).read_bytes(), rng))
        outcome, fault = judged(case, folder)
        counts[outcome] += 1
        faults += [fault] * bool(fault)
    return Row(
        group="Damaged files, by command", what=f"`{Path(file).name}` under `tutored {case.what}`", tried=times,
        survived=counts["survived"], refused=counts["refused"], lost=counts["lost"], faults=tuple(faults[:5]),
        note="survived: the same result; refused: one message that names the file, or `tutored verify` does",
    )  # fmt: skip


def judged(case: Case, folder: Path) -> tuple[str, str]:
    """The outcome, and what is wrong."""
    job = case.job(folder)
    out = folder if case.into else job.fresh()
    ended, _ = run(watched, job.words(out), out, 0, nothing, None, out=job.said)
    if ended.code == 0:
        differing = job.differing(out, job.reference)
        if not differing:
            return "survived", ""
        store = (folder / "manifest.json").exists()
        if store and run(command, "verify", folder, out=job.said)[0].code == 2:
            return "refused", ""
        return "lost", f"silently differs in {', '.join(differing)}"
    said = ended.last_line.startswith("tutored: ") and folder.name in ended.last_line
    if ended.code != 2 or not said or "Traceback" in ended.text or "defect" in ended.last_line:
        return "lost", f"ends with {ended.code}: {ended.last_line!r}"
    return "refused", ""
