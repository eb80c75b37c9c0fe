"""Progress of long work on the terminal: a bar where one is watched, a line now and then where it goes to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tutored.cli.output import is_main, unheard
from tutored.progress import Progress

if TYPE_CHECKING:
    from tutored.engine import Report
    from tutored.studies import Standing

LINE_SECONDS = 30
"""Between two lines where nobody watches a bar."""


class Lasting(Console):
    """Work goes on where nobody reads of it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        unheard(self.file)


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Give a function to call with items done and items in all; it shows count, speed and time left."""
    console = Lasting(stderr=True, quiet=not is_main())
    started = last = time.monotonic()
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task(what, total=None, rate="")

        def step(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            rate = f"{done / max(now - started, 1e-6):.1f}/s"
            shown.update(task, completed=done, total=total, rate=rate)
            if not console.is_terminal and now - last > LINE_SECONDS:
                console.print(f"{what}: {done} of {total}, {rate}", highlight=False, soft_wrap=True)
                last = now

        yield step


@contextmanager
def watch_training() -> Iterator[Callable[[Report], None]]:
    """Give a watcher for `engine.train`: step, epoch, loss terms, images/s and time left."""
    console = Lasting(stderr=True)
    last = -float("inf")
    with Bar(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("training", total=None, epoch=0, text="")

        def watch(report: Report) -> None:
            nonlocal last
            text = describe(report)
            shown.update(task, completed=report.step, total=report.steps, epoch=report.epoch, text=text)
            now = time.monotonic()
            if not console.is_terminal and (now - last > LINE_SECONDS or report.step == report.steps):
                line = f"step {report.step} of {report.steps}, epoch {report.epoch}: {text}"
                console.print(line, highlight=False, soft_wrap=True)
                last = now

        yield watch


@contextmanager
def watch_study() -> Iterator[Callable[[Standing], None]]:
    """Give a watcher for `studies.run_all`: runs done, what is being trained and how far, time left for all."""
    console = Lasting(stderr=True)
    last = -float("inf")
    with Bar(
        TextColumn("{task.fields[text]}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("study", total=None, text="")

        def watch(standing: Standing) -> None:
            nonlocal last
            report, left = standing.report, "unknown"
            if standing.seconds_left is not None:
                left = str(timedelta(seconds=round(standing.seconds_left)))
            text = f"{standing.run.label}: step {report.step} of {report.steps}, all of it {left} left"
            shown.update(task, completed=standing.done, total=standing.total, text=text)
            now = time.monotonic()
            if not console.is_terminal and now - last > LINE_SECONDS:
                console.print(f"{standing.done} of {standing.total} runs; {text}", highlight=False, soft_wrap=True)
                last = now

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
