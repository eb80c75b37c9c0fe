"""Progress of long work on the terminal: a bar where one is watched, a line now and then where it goes to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tutored.engine import Progress as TrainingProgress

LINE_SECONDS = 30
"""Between two lines where nobody watches a bar."""


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with items done and items in all; it shows count, speed and time left."""
    console = Console(stderr=True)
    started = last = time.monotonic()
    with Progress(
        TextColumn(what),
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
def watch_training() -> Iterator[Callable[[TrainingProgress], None]]:
    """Give a watcher for `engine.train`: step, epoch, loss terms, images/s and time left."""
    console = Console(stderr=True)
    last = -float("inf")
    with Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("training", total=None, epoch=0, text="")

        def watch(progress: TrainingProgress) -> None:
            nonlocal last
            text = describe(progress)
            shown.update(task, completed=progress.step, total=progress.steps, epoch=progress.epoch, text=text)
            now = time.monotonic()
            if not console.is_terminal and (now - last > LINE_SECONDS or progress.step == progress.steps):
                console.print(
                    f"step {progress.step} of {progress.steps}, epoch {progress.epoch}: {text}", highlight=False
                )
                last = now

        yield watch


def describe(progress: TrainingProgress) -> str:
    """One line: the loss and its terms (both sources together), speed, time left."""
    terms: dict[str, float] = {}
    for name, value in progress.loss.items():
        term = name.split("/")[0]
        terms[term] = terms.get(term, 0.0) + value
    parts = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
    left = timedelta(seconds=round(progress.seconds_left))
    return f"loss {sum(terms.values()):.3f} ({parts}), {progress.images_per_second:.1f} images/s, {left} left"
