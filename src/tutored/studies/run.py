"""Train the runs of a study folder, each once, whoever and however many work on it."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from tutored.data.text import read_json
from tutored.engine import Report, train
from tutored.errors import InputError
from tutored.files import write_text
from tutored.runpage.read import read_run
from tutored.studies.answers import keep_answers
from tutored.studies.plan import Run


class Standing(NamedTuple):
    """Where a study stands.

    Attributes:
        done: runs that are finished or have failed.
        total: runs that were asked for.
        run: the one that is being trained here.
        report: of its training.
        seconds_left: for all that is not done, by the processes that train here; None before any run is finished.
    """

    done: int
    total: int
    run: Run
    report: Report
    seconds_left: float | None


def run_all(
    runs: Sequence[Run],
    folder: Path,
    *,
    hours: float | None = None,
    jobs: int = 1,
    watch: Callable[[Standing], None] | None = None,
) -> int:
    """Train what is not finished, in order. Killed and started again, it goes on where it was.

    A run that another process is training is left to it; processes share nothing but the folder, whose file system must
    know locks. A run whose loss is not finite is noted as failed and not tried again.

    Args:
        hours: begin no run that would end later than this from now, by the pace of those that are finished; of a new
            folder, where none is, the first one begins.
        jobs: processes that work on them here, which the time left is for.

    Returns:
        How many of the runs are done. The others are being trained elsewhere or did not fit.

    Raises:
        InputError: as `engine.train`.
    """
    began = time.monotonic()
    for run in runs:
        where = run_folder(folder, run)
        if is_done(where):
            shutil.rmtree(where / "spent", ignore_errors=True)  # a kill while it was removed left it
            continue
        left = seconds_left(runs, folder)
        if hours is not None and time.monotonic() - began + left.get(run.run_id, 0.0) > hours * 3600:
            continue
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / "locks" / run.run_id, timeout=0):
                if not is_done(where):
                    train_one(run, where, _told(watch, runs, folder, run, sum(left.values()) / jobs))
        except Timeout:
            continue
    return count_done(runs, folder)


def run_folder(folder: Path, run: Run) -> Path:
    """Where a run lives in a study folder."""
    return folder / "runs" / run.run_id


def is_done(where: Path) -> bool:
    """Whether a run's folder holds its result and nothing to go on from, or the note that it failed."""
    finished = (where / "result.json").exists() and not (where / "state").exists()
    return finished or (where / "failed.txt").exists()


def count_done(runs: Sequence[Run], folder: Path) -> int:
    return sum(is_done(run_folder(folder, run)) for run in runs)


def train_one(run: Run, where: Path, watch: Callable[[Report], None] | None = None) -> None:
    """One run, and the answers that a report shows; what only going on needs is removed at its end."""
    try:
        train(run.config, where, resume=True, watch=watch)
    except FloatingPointError as error:
        write_text(where / "failed.txt", f"{error}\n")
        return
    keep_answers(run.config, where)
    # Gone at once: half a state would be taken for a damaged one. Another process may remove what is spent, too.
    (where / "state").rename(where / "spent")
    shutil.rmtree(where / "spent", ignore_errors=True)


def seconds_left(runs: Sequence[Run], folder: Path) -> dict[str, float]:
    """Expected seconds of every run that is not done, by id: those of finished runs, by split, size and epochs.

    Of an interrupted run, what is left of it. Empty while none is finished. What is no result tells nothing.

    Raises:
        InputError: a run's log or facts are damaged.
    """
    paces: dict[tuple[str, int], list[float]] = {}
    for path in sorted((folder / "runs").glob("*/result.json")):
        with suppress(InputError, KeyError, TypeError):
            result = read_json(path)
            config = result["config"]
            kind = (config["data"]["split"], config["student"]["size"])
            paces.setdefault(kind, []).append(result["seconds"] / config["train"]["epochs"])
    if not paces:
        return {}
    usual = statistics.mean(statistics.mean(each) for each in paces.values())
    expected = {}
    for run in runs:
        where = run_folder(folder, run)
        if not is_done(where):
            known = paces.get((run.config.data.split, run.config.student.size))
            expected[run.run_id] = (statistics.mean(known) if known else usual) * _epochs_left(run, where)
    return expected


def _epochs_left(run: Run, where: Path) -> float:
    """All of them where nothing was saved, or nothing tells how many steps an epoch has."""
    begun = read_run(where) if (where / "state").exists() else None
    done = begun.done / begun.epoch_steps if begun and begun.epoch_steps else 0.0
    return run.config.train.epochs - done


def _told(
    watch: Callable[[Standing], None] | None, runs: Sequence[Run], folder: Path, run: Run, left: float
) -> Callable[[Report], None] | None:
    if watch is None:
        return None
    began, done = time.monotonic(), count_done(runs, folder)

    def tell(report: Report) -> None:
        remaining = max(left - (time.monotonic() - began), report.seconds_left) if left else None
        watch(Standing(done, len(runs), run, report, remaining))

    return tell
