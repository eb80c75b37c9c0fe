"""Commands that begin and go on: training and labelling, disturbed and then ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.children import before_change, command, run
from benchmarks.faults.work import Work, differing_files, differing_run, make_small, steps_done
from tutored.errors import InputError

Do = Callable[[str], None]
"""A fault: is given the name of Python's audit event that it comes before."""


def nothing(_event: str) -> None:
    """No fault."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command that begins and goes on, and when two of its results are the same.

    Attributes:
        words: of the command, for an output folder.
        differing: the files in which two results differ.
        standing: how far a result has come; raises InputError where something in it is not whole.
        work: with its data.
        place: where disturbed results lie; None: in its folder.
    """

    name: str
    words: Callable[[Path], Sequence[str | Path]]
    differing: Callable[[Path, Path], list[str]]
    standing: Callable[[Path], int]
    work: Work
    place: Path | None = None

    @property
    def reference(self) -> Path:
        """What it makes undisturbed, once `uninterrupted` made it."""
        return self.work.folder / f"{self.name}-whole"

    @property
    def said(self) -> Path:
        """Where the last child's words go."""
        return self.work.folder / "said.txt"

    def fresh(self) -> Path:
        """A place for a result that is about to be disturbed."""
        out = (self.place or self.work.folder) / f"{self.name}-disturbed"
        shutil.rmtree(out, ignore_errors=True)
        return out


def train_job(work: Work, workers: int = 0, *, but: str = "") -> Job:
    """Training.

    Args:
        workers: processes that read its images; 0: it does so itself.
        but: an entry of the log in which two results may differ.
    """
    name = f"train-{workers}" if workers else "train"
    return Job(name, partial(work.train, workers=workers), partial(differing_run, but=but), steps_done, work)


def label_job(work: Work) -> Job:
    """Labelling."""
    return Job("label", work.label, differing_files, lambda out: len([*out.glob("part-*.parquet")]), work)


def uninterrupted(job: Job) -> tuple[int, float]:
    """Make the reference; how many changes of files and seconds it takes."""
    out, counted = job.reference, job.work.folder / "changes.txt"
    shutil.rmtree(out, ignore_errors=True)
    run(command, "--help", out=job.said)  # imports everything once, before times are taken
    ended, seconds = run(watched, job.words(out), out, 0, nothing, counted, out=job.said)
    if ended.code != 0:
        raise RuntimeError(f"{job.name} fails without any fault: {ended.text}")
    return int(counted.read_text()), seconds


def finish(job: Job, out: Path) -> str:
    """Go on to the end without a fault; what is wrong then, or nothing."""
    ended, _ = run(watched, job.words(out), out, 0, nothing, None, out=job.said)
    if ended.code != 0:
        return f"does not go on: {ended.code} {ended.last_line}"
    differing = job.differing(out, job.reference)
    return f"differs in {', '.join(differing)}" if differing else ""


def watched(words: Sequence[Any], folder: Path, number: int, do: Do, counted: Path | None) -> int:
    """In a child: the command, with a fault before each change under `folder` from the `number`th on; 0: none."""
    make_small()
    count = before_change(folder, number, do)
    code = command(*words)
    if counted:
        counted.write_text(str(count()))
    return code


def standing(job: Job, out: Path, reached: int = 0) -> tuple[int, str]:
    """How far a disturbed result has come, and what is wrong with it: not whole, or less than it was before."""
    try:
        now = job.standing(out) if out.exists() else 0
    except (InputError, OSError) as error:
        return reached, f"not whole: {error}"
    return now, f"fell back from {reached} to {now}" if now < reached else ""
