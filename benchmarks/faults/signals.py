"""Ctrl-C, SIGTERM, a closed terminal and closed pipes while training and labelling; then going on to the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.faults.children import Child, Ended, command, run
from benchmarks.faults.jobs import Job, finish, label_job, nothing, standing, train_job, uninterrupted, watched
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work, make_small

GROUP = "Signals and closed pipes"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST = "tutored: stopped; what is finished is kept, go on with --resume"
STOPPED = "exit code 1, a last line that says how to go on; then the same bytes"
PIPES = {"standard output": (1,), "standard error": (2,), "both": (1, 2)}
EARLIEST = 0.05
"""Seconds that a child takes at most to its first line of tutored's."""


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """Signals at random moments and before changes of files, then closed pipes."""
    rows = []
    # Stopped between two entries of the log, the later one has the mean loss of the steps after it only.
    for job in (train_job(work, but="loss"), train_job(work, workers=2, but="loss"), label_job(work)):
        changes, seconds = uninterrupted(job)
        for number in STOPS:
            rows.append(at_random(job, number, seconds, max(round(10 * scale), 1), seed))
        if job.name != "train-2":
            rows.append(before_changes(job, changes, max(round(20 * scale), 1), seed))
            rows.append(closed_pipes(job))
    return rows


def at_random(job: Job, number: signal.Signals, seconds: float, times: int, seed: int) -> Row:
    """Runs that get a signal at a random moment, say so and go on; those that end by themselves do not count."""
    rng = Random(f"{seed}/{number}/{job.name}")
    faults: list[str] = []
    tried = 0
    while tried < times:
        out = job.fresh()
        child = Child(watched, job.words(out), out, 0, nothing, None, out=job.said)
        hit, ended = child.signalled(number, rng.uniform(EARLIEST, seconds))
        if hit and ended.code != 0:
            tried += 1
            fault = told(ended) or standing(job, out)[1] or finish(job, out)
            faults += [fault] * bool(fault)
    whom = ", to it and the two processes that read for it" if job.name == "train-2" else ""
    return _row(f"{number.name}, `tutored {job.words(out)[0]}`{whom}", tried, faults, "at a random moment")


def before_changes(job: Job, changes: int, times: int, seed: int) -> Row:
    """Runs that get a signal just before a change of a file."""
    rng = Random(f"{seed}/changes/{job.name}")
    faults = []
    for number in sorted(rng.sample(range(1, changes + 1), min(times, changes))):
        out, stop = job.fresh(), rng.choice(STOPS)
        ended, _ = run(watched, job.words(out), out, number, Once(stop), None, out=job.said)
        fault = "" if ended.code == 0 else told(ended)
        fault = fault or standing(job, out)[1] or finish(job, out)
        if fault:
            faults.append(f"{stop.name} before change {number}: {fault}")
    return _row(f"one of them, `tutored {job.name}`", min(times, changes), faults, "just before a change of a file")


@dataclass
class Once:
    """Sends this process a signal, once."""

    number: int
    sent: bool = False

    def __call__(self, _event: str) -> None:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)


def told(ended: Ended) -> str:
    """What is wrong with how a stopped command ended, or nothing."""
    return "" if (ended.code, ended.last_line) == (1, LAST) else f"ends with {ended.code}: {ended.last_line!r}"


def closed_pipes(job: Job) -> Row:
    """Runs whose output nobody reads."""
    faults = []
    for name, numbers in PIPES.items():
        out = job.fresh()
        ended, _ = run(unread, job.words(out), numbers, out=job.said)
        reached, fault = standing(job, out)
        fault = fault or ("" if reached else "nothing is saved")
        fault = fault or ("" if ended.code in (0, 1) else f"ends with {ended.code}")
        fault = fault or (f"traceback: {ended.last_line}" if "Traceback" in ended.text else "")
        fault = fault or finish(job, out)
        if fault:
            faults.append(f"{name}: {fault}")
    what = "of standard output, of standard error, of both"
    return _row(
        f"closed pipe, `tutored {job.name}`",
        len(PIPES),
        faults,
        what,
        "all is done, without a traceback; the same bytes",
    )


def unread(words: Sequence[Any], numbers: Sequence[int]) -> int:
    """In a child: the command, with pipes that nobody reads; every report of training and labelling is a line."""
    from tutored.cli import progress

    make_small()
    progress.LINE_SECONDS = -1
    reads, writes = os.pipe()
    os.close(reads)
    for number in numbers:
        os.dup2(writes, number)
    return command(*words)


def _row(what: str, tried: int, faults: Sequence[str], note: str, then: str = STOPPED) -> Row:
    lost = len(faults)
    return Row(
        group=GROUP, what=what, tried=tried, survived=tried - lost, refused=0, lost=lost, note=f"{note}: {then}",
        faults=tuple(faults[:5]),
    )  # fmt: skip
