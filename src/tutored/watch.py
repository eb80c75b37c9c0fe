"""What a training tells about itself while it runs: to a progress bar, to the run's page, to a user's own code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tutored.config import Config
from tutored.errors import InputError
from tutored.files import regular
from tutored.tasks import Task
from tutored.types import Dataset, SoftLabels

if TYPE_CHECKING:
    from tutored.evaluate import Record, Result
    from tutored.students import Student

TEACHES = ("ground_truth", "tutor", "both", "nobody")
"""Who teaches one task of one image."""


class Source(NamedTuple):
    """Who teaches one training image.

    Attributes:
        data: the data set that the image is from, and its split.
        teaches: by task, one of `TEACHES`. `both` is also a tutor that completes what an image is not annotated for,
            and a share that is drawn anew at every visit.
    """

    image_id: str
    data: str
    teaches: Mapping[str, str]


class Start(NamedTuple):
    """What is known before the first step.

    Attributes:
        soft_labels: by task, the tutor's answers by image id, each under the name of the task's kind.
        sources: of all training images.
        epoch_steps: steps of an epoch.
        facts: JSON-ready, as `result.json` has them: run id, machine, versions, stores, notes.
    """

    out: Path
    config: Config
    tasks: Mapping[str, Task]
    train: Dataset
    val: Dataset | None
    soft_labels: Mapping[str, Mapping[str, SoftLabels]]
    sources: Sequence[Source]
    epoch_steps: int
    facts: Mapping[str, Any]


class Report(NamedTuple):
    """What happened in some steps.

    Attributes:
        loss: the mean of every term since the last report, already divided and weighted, by `task/term/source`.
        images_per_second: of all processes, over the same steps.
        seconds_left: expected, validation not counted.
    """

    step: int
    steps: int
    epoch: int
    loss: dict[str, float]
    images_per_second: float
    seconds_left: float


class Validation(NamedTuple):
    """A validation after an epoch.

    Attributes:
        records: of all images, from which `result` was computed.
        student: with the averaged weights, ready to answer.
    """

    epoch: int
    records: Sequence[Record]
    student: Student
    result: Result


class Watcher:
    """Is told of a training; of several processes the main one tells. A subclass overrides what it wants to know.

    What a watcher raises ends the training.
    """

    def __init__(self, report: Callable[[Report], object] | None = None) -> None:
        self._report = report

    def begin(self, start: Start) -> None:
        """Before the first step, also of a training that is resumed."""

    def __call__(self, report: Report) -> None:
        """After every few steps."""
        if self._report:
            self._report(report)

    def validated(self, validation: Validation) -> None:
        """After each validation, before the state is saved: a resumed training does not repeat it."""

    def end(self) -> None:
        """However the training ended; what it wrote is in the run's folder."""


class Watchers(Watcher):
    """Several watchers, told in this order."""

    def __init__(self, *watchers: Watcher) -> None:
        super().__init__()
        self.watchers = watchers

    def begin(self, start: Start) -> None:
        for each in self.watchers:
            each.begin(start)

    def __call__(self, report: Report) -> None:
        for each in self.watchers:
            each(report)

    def validated(self, validation: Validation) -> None:
        for each in self.watchers:
            each.validated(validation)

    def end(self) -> None:
        for each in self.watchers:
            each.end()


@contextmanager
def unharmed(what: str) -> Iterator[None]:
    """Training goes on where something beside it fails, such as a tracker's server, and a warning names it.

    A full disk still stops the training, at its next save and with a message of its own.
    """
    try:
        yield
    except Exception as error:
        warnings.warn(f"{what} failed: {type(error).__name__}: {error}; training goes on", RuntimeWarning, stacklevel=4)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's `log.jsonl`; none where there is no file. Raises InputError: an entry is damaged."""
    if not path.exists():
        return []
    try:
        entries = [json.loads(line) for line in regular(path).read_text(encoding="utf-8").splitlines()]
        whole = all(isinstance(entry["step"], int) and isinstance(entry.get("epoch", 0), int) for entry in entries)
        if not whole or any("val" in entry and "epoch" not in entry for entry in entries):
            raise ValueError("an entry without its step or epoch")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again") from error
    return entries
