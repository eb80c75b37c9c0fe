"""What a run tells while it trains: its log, its page and trackers. Of several processes the main one tells."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator

from tutored.config import Config
from tutored.data.training import TrainingSet
from tutored.engine.batches import Plan
from tutored.engine.result import make_facts
from tutored.engine.shown import Shown, choose_images, keep_answers, keep_references
from tutored.engine.sources import count_sources, list_sources
from tutored.engine.supervision import OpenSupervision
from tutored.engine.track import numbers, start_trackers
from tutored.evaluate import Record, details
from tutored.files import write_text
from tutored.predict import Predictor
from tutored.runpage import keep_facts, keep_sources, keep_validation, write_page
from tutored.runpage.read import read_log

REFRESH = 30
"""Seconds after which a browser reads the page of a running training again."""
PAGE_SHARE = 0.02
"""The page takes at most this share of the time, but for the last one."""
FIRST_PAGE = 20.0
"""Seconds before the first page; a run that ends sooner writes one, at its end."""


class Report(NamedTuple):
    """What a watcher is told after some steps.

    Attributes:
        loss: every term's mean since the last report, already divided and weighted.
        images_per_second: of all processes, over the same steps.
        seconds_left: expected, validation not counted.
    """

    step: int
    steps: int
    epoch: int
    loss: dict[str, float]
    images_per_second: float
    seconds_left: float


Watcher = Callable[[Report], None]


class Journal:
    """A run's log, page and trackers.

    Attributes:
        entries: of `log.jsonl`, so far.
    """

    def __init__(self, config: Config, supervision: OpenSupervision, accelerator: Accelerator, out: Path) -> None:
        self.config, self.supervision, self.accelerator, self.out = config, supervision, accelerator, out
        self.entries: list[dict[str, Any]] = []
        self.shown: list[Shown] = []
        self.page_due = time.monotonic() + FIRST_PAGE

    @property
    def _log(self) -> Path:
        return self.out / "log.jsonl"

    def begin(self, training: TrainingSet, plan: Plan, done: int) -> None:
        """Start the trackers and keep what the page says before the first step.

        Raises:
            InputError: a tracker can't begin.
        """
        start_trackers(self.accelerator, self.config, self.out, done)
        if not self.accelerator.is_main_process:
            return
        with _unharmed("the run's page"):
            rows = list_sources(training)
            self.shown = choose_images(self.config, self.supervision, rows)
            facts = make_facts(self.config, self.supervision, self.accelerator.device)
            shown = [{"image": each.image_id, "split": each.split} for each in self.shown]
            more = {"epoch_steps": plan.epoch_steps, "coverage": count_sources(rows), "shown": shown}
            keep_sources(self.out, rows)
            keep_facts(self.out, facts | more)
            keep_references(self.out, self.shown, self.supervision)

    def add(self, entry: dict[str, Any]) -> None:
        """A new entry of the log, which is written by `save`."""
        self.entries.append(entry)
        with _unharmed("a tracker"):
            self.accelerator.log(numbers(entry), step=entry["step"])

    def save(self) -> None:
        write_text(self._log, "".join(json.dumps(entry) + "\n" for entry in self.entries))

    def load(self, done: int) -> None:
        """Take up the log as far as the step `done`. Raises InputError where it is damaged."""
        self.entries = [entry for entry in read_log(self._log) if entry["step"] <= done]

    @property
    def figures(self) -> dict[str, Any] | None:
        """Those of the last validation."""
        return next((entry["val"] for entry in reversed(self.entries) if "val" in entry), None)

    def keep(self, epoch: int, records: Sequence[Record], predictor: Predictor) -> None:
        """Keep what the page shows of a validation."""
        with _unharmed("the run's page"):
            labels = self.supervision.train.labels
            keep_validation(self.out, epoch, details(records, labels), labels)
            keep_answers(self.out, self.shown, epoch, predictor)

    def page(self) -> None:
        """Write the page where it is due."""
        began = time.monotonic()
        if began >= self.page_due:
            with _unharmed("the run's page"):
                write_page(self.out, refresh=REFRESH)
            self.page_due = time.monotonic() + (time.monotonic() - began) / PAGE_SHARE

    def close(self) -> None:
        """However training ends: the page as it stays, and the trackers' end."""
        if self.accelerator.is_main_process and self._log.exists():
            with _unharmed("the run's page"):
                write_page(self.out)
        for tracker in self.accelerator.trackers:
            with _unharmed("a tracker"):
                tracker.finish()


@contextmanager
def _unharmed(what: str) -> Iterator[None]:
    """Training goes on without its page or trackers, and says so."""
    try:
        yield
    except Exception as error:
        # A full disk stops a run at its next save, in words of its own; a page alone, or a server far away, does not.
        warnings.warn(f"{what} failed: {type(error).__name__}: {error}; training goes on", RuntimeWarning, stacklevel=4)
