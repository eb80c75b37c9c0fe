"""Progress of long work on the terminal: a bar where one is watched, a line now and then where it goes to a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import progress as columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutored.cli.common import is_main, say, unheard
from tutored.errors import Progress, printable
from tutored.tasks import task_class
from tutored.watch import Report, Validation, Watcher, read_log

if TYPE_CHECKING:
    from tutored.evaluate import Result
    from tutored.studies.folder import Standing

LINE_SECONDS = 30
"""Between two lines where nobody watches a bar."""
COUNT = columns.BarColumn(10), columns.MofNCompleteColumn()
TEXT = columns.TextColumn("{task.fields[text]}", markup=False)


class Lasting(Console):
    """A console on which names are never markup and steer no terminal, and whose reader may leave meanwhile."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        unheard(self.file)


@contextmanager
def _shown(what: str, *shown: columns.ProgressColumn) -> Iterator[Callable[..., None]]:
    """Give a function to call with items done, items in all, what `TEXT` shows, and a line for where nobody watches."""
    console = Lasting(stderr=True, quiet=not is_main())
    last = time.monotonic()
    live: dict[str, Any] = {"transient": True, "disable": not console.is_terminal}
    with columns.Progress(*shown, console=console, redirect_stdout=sys.stdout.isatty(), **live) as bars:
        task = bars.add_task(printable(what), total=None, text="")

        def step(done: int, total: int, text: str, line: str, *, now: bool = False) -> None:
            nonlocal last
            bars.update(task, completed=done, total=total, text=printable(text))
            if not console.is_terminal and (now or time.monotonic() - last > LINE_SECONDS):
                console.print(line, soft_wrap=True)
                last = time.monotonic()

        yield step


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Give a function to call with items done and items in all; it shows count, speed and time left."""
    started = time.monotonic()
    name = columns.TextColumn("{task.description}", markup=False)
    left = columns.TimeElapsedColumn(), columns.TimeRemainingColumn()
    with _shown(what, name, *COUNT, TEXT, *left) as step:

        def watch(done: int, total: int) -> None:
            rate = f"{done / max(time.monotonic() - started, 1e-6):.1f}/s"
            step(done, total, rate, f"{what}: {done} of {total}, {rate}")

        yield watch


class TrainingLine(Watcher):
    """Shows step, epoch, loss and time left of a training; a line of figures after each validation. `result` is that of
    the last validation.
    """

    def __init__(self, step: Callable[..., None]) -> None:
        super().__init__()
        self.result: Result | None = None
        self._step = step

    def __call__(self, report: Report) -> None:
        terms: dict[str, float] = {}
        for name, value in report.loss.items():
            term = name.rpartition("/")[0]
            terms[term] = terms.get(term, 0.0) + value
        loss, left = sum(terms.values()), timedelta(seconds=round(report.seconds_left))
        parts = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
        pace = f"{report.images_per_second:.1f} images/s, {left} left"
        line = f"step {report.step} of {report.steps}, epoch {report.epoch}: loss {loss:.3f} ({parts}), {pace}"
        text = f"epoch {report.epoch} loss {loss:.3f} {pace}"
        self._step(report.step, report.steps, text, line, now=report.step == report.steps)

    def validated(self, validation: Validation) -> None:
        self.result, found = validation.result, []
        for name, figures in validation.result.tasks.items():
            metric, short = validation.student.tasks[name].headline
            value = figures.means.get(metric)
            found.append(f"{name} {short} {'unknown' if value is None else f'{value:.3f}'}")
        say(f"epoch {validation.epoch}: {', '.join(found)}")


@contextmanager
def watch_training() -> Iterator[TrainingLine]:
    """Give a watcher for `engine.train`."""
    with _shown("training", *COUNT, TEXT) as step:
        yield TrainingLine(step)


def course_of(log: Path, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each task's headline figure after the last validation and after the best one, JSON-ready, from a run's log."""
    validations = {entry["epoch"]: entry["val"]["tasks"] for entry in read_log(log) if "val" in entry}
    found = []
    for name, task in ((name, task_class(kind)) for name, kind in kinds.items()):
        metric, short = task.headline
        values = {epoch: tasks.get(name, {}).get(metric) for epoch, tasks in validations.items()}
        known = {epoch: value for epoch, value in values.items() if value is not None}
        if known:
            best = (min if task.lower_is_better else max)(known, key=known.__getitem__)
            last = known[max(known)]
            found.append({"task": name, "figure": short, "last": last, "best": known[best], "best epoch": best})
    return found


def course_table(course: Sequence[Mapping[str, Any]]) -> Table:
    drawn = Table(*course[0])
    for each in course:
        drawn.add_row(*(Text(f"{value:.3f}" if isinstance(value, float) else str(value)) for value in each.values()))
    return drawn


@contextmanager
def watch_study() -> Iterator[Callable[[Standing], None]]:
    """Give a watcher for `studies.run_all`: runs done, what is being trained and how far, time left for all."""
    with _shown("study", TEXT, *COUNT) as step:

        def watch(standing: Standing) -> None:
            report, left = standing.report, ""
            if standing.seconds_left is not None:
                left = f", {timedelta(seconds=round(standing.seconds_left))} left for all runs"
            text = f"{standing.run.label}: step {report.step} of {report.steps}{left}"
            step(standing.done, standing.total, text, f"{standing.done} of {standing.total} runs; {text}")

        yield watch
