"""Progress of long work on the terminal: a bar where one is watched, a line now and then where it goes to a file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from tutored.cli.output import is_main, unheard
from tutored.progress import Progress

if TYPE_CHECKING:
    from tutored.engine import Report
    from tutored.studies import Standing

LINE_SECONDS = 30
"""Between two lines where nobody watches a bar."""
TEXT = TextColumn("{task.fields[text]}", markup=False)


class Lasting(Console):
    """Work goes on where nobody reads of it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        unheard(self.file)


@contextmanager
def _shown(what: str, *columns: ProgressColumn, since: float = -math.inf) -> Iterator[Callable[..., None]]:
    """Give a function to call with items done, items in all, what `TEXT` shows, and a line for where nobody watches.

    Args:
        since: when the last line is taken to have been printed.
    """
    console = Lasting(stderr=True, quiet=not is_main())
    last = since
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None, text="")

        def step(done: int, total: int, text: str, line: str, *, now: bool = False) -> None:
            nonlocal last
            shown.update(task, completed=done, total=total, text=text)
            if not console.is_terminal and (now or time.monotonic() - last > LINE_SECONDS):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                last = time.monotonic()

        yield step


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Give a function to call with items done and items in all; it shows count, speed and time left."""
    started = time.monotonic()
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TEXT, TimeElapsedColumn(), TimeRemainingColumn())
    with _shown(what, *columns, since=started) as step:

        def watch(done: int, total: int) -> None:
            rate = f"{done / max(time.monotonic() - started, 1e-6):.1f}/s"
            step(done, total, rate, f"{what}: {done} of {total}, {rate}")

        yield watch


@contextmanager
def watch_training() -> Iterator[Callable[[Report], None]]:
    """Give a watcher for `engine.train`: step, epoch, loss terms, images/s and time left."""
    with _shown("training", BarColumn(), MofNCompleteColumn(), TEXT) as step:

        def watch(report: Report) -> None:
            text = f"epoch {report.epoch}: {describe(report)}"
            line = f"step {report.step} of {report.steps}, {text}"
            step(report.step, report.steps, text, line, now=report.step == report.steps)

        yield watch


@contextmanager
def watch_study() -> Iterator[Callable[[Standing], None]]:
    """Give a watcher for `studies.run_all`: runs done, what is being trained and how far, time left for all."""
    with _shown("study", TEXT, BarColumn(), MofNCompleteColumn()) as step:

        def watch(standing: Standing) -> None:
            report, left = standing.report, "unknown"
            if standing.seconds_left is not None:
                left = str(timedelta(seconds=round(standing.seconds_left)))
            text = f"{standing.run.label}: step {report.step} of {report.steps}, all of it {left} left"
            step(standing.done, standing.total, text, f"{standing.done} of {standing.total} runs; {text}")

        yield watch


def describe(report: Report) -> str:
    """One line: the loss and its terms (both sources together), speed, time left."""
    terms: dict[str, float] = {}
    for name, value in report.loss.items():
        term = name.split("/")[0]
        terms[term] = terms.get(term, 0.0) + value
    parts = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
    left = timedelta(seconds=round(report.seconds_left))
    return f"loss {sum(terms.values()):.3f} ({parts}), {report.images_per_second:.1f} images/s, {left} left"
