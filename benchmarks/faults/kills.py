"""kill -9 of training and labelling, at random moments and before each change of a file; then going on to the end."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from random import Random

from benchmarks.faults.children import Child, run
from benchmarks.faults.jobs import Job, finish, label_job, nothing, standing, train_job, uninterrupted, watched
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work

GROUP = "kill -9"
AT_MOST = 4
"""Kills of one run at random moments, before it may end."""


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """Both kinds of kills for both commands."""
    rows = []
    for job, kills in ((train_job(work), 60), (label_job(work), 40)):
        changes, seconds = uninterrupted(job)
        rows.append(at_random(job, seconds, max(round(kills * scale), 2), seed))
        some = math.ceil(changes * min(scale, 1))
        chosen = sorted(Random(f"{seed}/{job.name}").sample(range(1, changes + 1), some))
        rows.append(at_changes(job, chosen, changes))
    return rows


def at_random(job: Job, seconds: float, kills: int, seed: int) -> Row:
    """Runs that are killed up to `AT_MOST` times each at a random moment, and go on."""
    rng = Random(f"{seed}/random/{job.name}")
    done, lost, runs = 0, 0, 0
    faults: list[str] = []
    while done < kills:
        hits, fault = _killed_again_and_again(job, seconds, min(AT_MOST, kills - done), rng)
        done, runs, lost = done + hits, runs + 1, lost + (hits if fault else 0)
        faults += [fault] * bool(fault)
    note = f"{runs} runs, each killed up to {AT_MOST} times and then ended: the same bytes"
    return _row(f"`tutored {job.name}`, at a random moment", done, lost, faults, note)


def _killed_again_and_again(job: Job, seconds: float, at_most: int, rng: Random) -> tuple[int, str]:
    """How often one run was hit, and what was wrong with it then or at its end."""
    out, hits, reached, fault = job.fresh(), 0, 0, ""
    for _ in range(at_most):
        child = Child(watched, job.words(out), out, 0, nothing, None, out=job.said)
        hit, ended = child.signalled(signal.SIGKILL, rng.uniform(0, seconds))
        hits += hit
        reached, found = standing(job, out, reached)
        fault = fault or found
        if not hit:
            fault = fault or (f"ended by itself with {ended.code}: {ended.last_line}" if ended.code else "")
            break
    return hits, fault or finish(job, out)


def at_changes(job: Job, chosen: Sequence[int], changes: int) -> Row:
    """A run killed just before each of the chosen changes of a file, and then ended."""
    faults = []
    for number in chosen:
        out = job.fresh()
        ended, _ = run(watched, job.words(out), out, number, kill, None, out=job.said)
        fault = "" if ended.code == -signal.SIGKILL else f"not killed: {ended.code} {ended.last_line}"
        fault = fault or standing(job, out)[1] or finish(job, out)
        if fault:
            faults.append(f"before change {number}: {fault}")
    note = f"{len(chosen)} of the {changes} times that it opens a file to write, renames or removes: the same bytes"
    return _row(f"`tutored {job.name}`, before a change of a file", len(chosen), len(faults), faults, note)


def kill(_event: str) -> None:
    """This process."""
    os.kill(os.getpid(), signal.SIGKILL)


def _row(what: str, tried: int, lost: int, faults: Sequence[str], note: str) -> Row:
    return Row(
        group=GROUP, what=what, tried=tried, survived=tried - lost, refused=0, lost=lost, note=note,
        faults=tuple(dict.fromkeys(faults))[:5],
    )  # fmt: skip
