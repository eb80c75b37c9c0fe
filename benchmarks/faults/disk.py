"""Full disks: from one change of a file on, and file systems that are too small; then room is made."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.faults.children import Ended, run
from benchmarks.faults.jobs import Job, finish, label_job, nothing, standing, train_job, uninterrupted, watched
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work, differing_files
from tutored.errors import InputError
from tutored.files import LEFTOVERS

GROUP = "Full disks"
WRITES = ("open", "os.rename", "os.mkdir")
"""What a full disk refuses; what removes always works."""
REASON = os.strerror(errno.ENOSPC)


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """Every command that writes, on both kinds of full disks."""
    rows = []
    for job in jobs(work):
        changes, _ = uninterrupted(job)
        times = max(round(30 * scale), 1)
        rows.append(from_change(job, changes, min(times, changes), seed))
        if os.geteuid() == 0:
            rows.append(too_small(job, max(round(10 * scale), 1), seed))
        else:
            print(f"{job.name}: no small file system was tried: only root may mount one", file=sys.stderr)
    return rows


def jobs(work: Work) -> Iterator[Job]:
    """Training, labelling, and what uses their results."""
    train, label = train_job(work), label_job(work)
    yield train
    yield label
    checkpoint, store = train.reference / "checkpoint", label.reference
    data = ("--data", f"voc:{work.data}", "--split", "train")
    for name, words, out in (
        ("predict", ("predict", checkpoint, work.data / "JPEGImages", "--score", "0"), ""),
        ("evaluate", ("evaluate", store, *data), "figures.json"),
        ("export", ("export", checkpoint), "student.onnx"),
        ("convert --to coco", ("convert", store, "--to", "coco", *data), "soft.json"),
        ("convert --to voc", ("convert", store, "--to", "voc", *data), "voc"),
        ("convert --to cleanlab", ("convert", store, "--to", "cleanlab", *data), "arrays"),
        ("convert --to fiftyone", ("convert", store, "--to", "fiftyone", *data), "fiftyone"),
    ):
        yield one_shot(name, words, out, work)


def one_shot(name: str, words: Sequence[str | Path], out: str, work: Work) -> Job:
    """A command that writes into a folder, or a file in it, and does not go on with what is there."""
    option = "--json" if words[0] == "evaluate" else "--out"

    def written(folder: Path) -> int:
        found = [path for path in folder.rglob("*") if path.is_file()]
        whole = [path for path in found if path.read_bytes() == (job.reference / path.relative_to(folder)).read_bytes()]
        if len(whole) < len(found):
            raise InputError(f"{sorted({*found} - {*whole})[0].name} is not whole")
        return len(whole)

    job = Job(name, lambda folder: (*words, option, folder / out), differing_files, written, work)
    return job


def from_change(job: Job, changes: int, times: int, seed: int) -> Row:
    """Runs in which nothing can be written any more from a change of a file on."""
    faults = []
    for number in sorted(Random(f"{seed}/full/{job.name}").sample(range(1, changes + 1), times)):
        out = job.fresh()
        ended, _ = run(watched, job.words(out), out, number, full, None, out=job.said)
        fault = judged(job, ended, out) or again(job, ended, out)
        if fault:
            faults.append(f"from change {number} on: {fault}")
    return _row(f"`tutored {job.name}`", times, faults, f"from one of {changes} changes of a file on")


def full(event: str) -> None:
    """What the system says of a full disk."""
    if event in WRITES:
        raise OSError(errno.ENOSPC, REASON)


def too_small(job: Job, times: int, seed: int) -> Row:
    """Runs on file systems of a random size that is too small for them."""
    rng, faults, tried = Random(f"{seed}/small/{job.name}"), [], 0
    needed = sum(path.stat().st_size for path in job.reference.rglob("*"))
    for _ in range(times):
        size = rng.randrange(4096, max(needed, 8192), 4096)
        with file_system(job.work.folder / "disk", size) as disk:
            small = replace(job, place=disk)
            out = small.fresh()
            ended, _ = run(watched, small.words(out), out, 0, nothing, None, out=job.said)
            tried += ended.code != 0
            fault = judged(small, ended, out)
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            fault = fault or again(small, ended, out)
        if fault:
            faults.append(f"{size} bytes: {fault}")
    return _row(f"`tutored {job.name}`", tried, faults, "on a file system (tmpfs) of fewer bytes than it needs")


@contextmanager
def file_system(folder: Path, size: int) -> Iterator[Path]:
    """One of so many bytes, while inside."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def judged(job: Job, ended: Ended, out: Path) -> str:
    """What is wrong with how a command met a full disk, or nothing."""
    left = [path.name for path in out.rglob(LEFTOVERS)] if out.exists() else []
    said = ended.last_line.startswith("tutored: ") and REASON in ended.last_line and "Traceback" not in ended.text
    if ended.code not in (0, 1) or (ended.code == 1 and not said):
        return f"ends with {ended.code}: {ended.last_line!r}"
    return f"leaves {left[0]}" if left else standing(job, out)[1]


def again(job: Job, ended: Ended, out: Path) -> str:
    """The same command once more, unless it has done all; what is wrong then, or nothing."""
    if ended.code != 0:
        return finish(job, out)
    differing = job.differing(out, job.reference)
    return f"differs in {', '.join(differing)}" if differing else ""


def _row(what: str, tried: int, faults: Sequence[str], note: str) -> Row:
    lost = len(faults)
    then = "one message, nothing half-written; with room, the same bytes"
    return Row(
        group=GROUP, what=what, tried=tried, survived=tried - lost, refused=0, lost=lost, note=f"{note}: {then}",
        faults=tuple(faults[:5]),
    )  # fmt: skip
