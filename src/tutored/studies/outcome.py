"""What the finished runs of a study say: means over seeds, and differences with their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tutored.config import make_config
from tutored.data.text import read_json
from tutored.errors import InputError
from tutored.evaluate import Interval, Resampled, compare
from tutored.studies.declare import Recipe, Row, Study
from tutored.studies.plan import Run, runs_of
from tutored.studies.run import run_folder
from tutored.studies.setting import Setting

FIGURES = {"mAP": "mAP_voc_area@.5", "mIoU": "mIoU"}
"""Short names, and the figures' names in `result.json`."""
NEEDED = ("figures", "images", "seconds", "device", "threads", "versions")
"""Of a result, what a report shows."""
TWO_NETWORKS = "two single-task networks"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One run: finished (`result` is its `result.json`), failed (with the reason), or neither.

    Attributes:
        folder: of the run, with `result.json`, `resamples.npz` and `answers/`.
    """

    run: Run
    folder: Path
    result: Mapping[str, Any] | None
    failure: str | None

    @property
    def figures(self) -> Mapping[str, Any] | None:
        """Those of its last validation; None while it is not finished, or where it was validated on nothing."""
        return None if self.result is None else self.result["figures"]

    def resampled(self) -> Resampled:
        """Its figures on resampled images. Raises InputError where it has none, or the file is damaged."""
        return Resampled.load(self.folder / "resamples.npz")

    def figure(self, name: str) -> float | None:
        """ "mAP" or "mIoU", a share in 0..1; None while there is none, or where the task is not trained."""
        return (self.figures or {}).get(FIGURES[name])


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """One row of a study in one recipe, with its runs by rising seed."""

    row: Row
    recipe: Recipe
    runs: tuple[RunOutcome, ...]

    def values(self, name: str) -> list[float]:
        """The figure of every finished run."""
        return [value for run in self.runs if (value := run.figure(name)) is not None]

    def mean(self, name: str) -> float | None:
        """The mean over the finished seeds; None without one."""
        values = self.values(name)
        return statistics.mean(values) if values else None

    def spread(self, name: str) -> float | None:
        """The sample standard deviation over the finished seeds; None with fewer than two."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Is `better` better than `than`? By figure an interval of the difference better - than.

    The figures are "mAP" and "mIoU"; against two single-task networks also "Δm", the mean relative difference.

    Attributes:
        recipe: of both rows; None: the same row in both recipes.
        seeds: those that both rows have; the comparison is over these.
    """

    recipe: Recipe | None
    better: str
    than: str
    seeds: tuple[int, ...]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """A study with what is known so far."""

    study: Study
    rows: tuple[RowOutcome, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def missing(self) -> tuple[Run, ...]:
        """Distinct runs that have neither a result nor failed."""
        each = (run for row in self.rows for run in row.runs if run.result is None and run.failure is None)
        return tuple({run.run.run_id: run.run for run in each}.values())

    def of(self, recipe: Recipe) -> tuple[RowOutcome, ...]:
        """The rows of one recipe."""
        return tuple(row for row in self.rows if row.recipe == recipe)


def gather(study: Study, setting: Setting, seeds: Sequence[int], folder: Path) -> StudyOutcome:
    """Read the results of a study's runs from the study folder.

    Raises:
        InputError: a result is damaged, was made with another config than its run has today, or is of other images than
            the others.
    """
    rows = tuple(
        RowOutcome(row, recipe, tuple(_outcome(run, folder) for run in runs_of(row, recipe, setting, seeds)))
        for recipe, rows in study.rows.items()
        for row in rows
    )
    _refuse_other_images([run for row in rows for run in row.runs if run.figures is not None])
    return StudyOutcome(study, rows, (*_comparisons(study, rows), *_recipes(study, rows), *_single_task(study, rows)))


def _outcome(run: Run, folder: Path) -> RunOutcome:
    where = run_folder(folder, run)
    written, failed = where / "result.json", where / "failed.txt"
    result = None
    if written.exists():
        try:
            result = read_json(written)
            config = make_config(result["config"], origin=str(written))
            absent = [key for key in NEEDED if key not in result]
            if absent:
                raise ValueError(f"no {', '.join(absent)}")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{written}: no result of a run ({error}); remove its folder to train it again") from error
        if config != run.config:
            raise InputError(
                f"{written}: made with another config than {run.label} has today, by an earlier version; "
                "remove its folder to train it again"
            )
    failure = failed.read_text().strip() if failed.exists() and result is None else None
    return RunOutcome(run, where, result, failure)


def _refuse_other_images(runs: Sequence[RunOutcome]) -> None:
    for run in runs[1:]:
        if run.resampled().images != runs[0].resampled().images:
            raise InputError(
                f"{run.folder}: validated on other images than {runs[0].folder}; remove the folder of the one that is "
                "wrong to train it again"
            )


def _comparisons(study: Study, rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    for recipe in study.rows:
        by_label = {row.row.label: row for row in rows if row.recipe == recipe}
        for better, than in study.against:
            if better in by_label and than in by_label:
                yield _compared(recipe, better, by_label[better], than, by_label[than])


def _recipes(study: Study, rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    """Each row of a study that compares, as `corrected` has it against itself as `thesis` has it."""
    thesis = {row.row.label: row for row in rows if row.recipe == "thesis"}
    for row in rows:
        label = row.row.label
        if study.against and row.recipe == "corrected" and label in thesis:
            yield _compared(None, f"{label}, corrected", row, f"{label}, thesis", thesis[label])


def _compared(recipe: Recipe | None, better: str, one: RowOutcome, than: str, other: RowOutcome) -> Comparison:
    validated = [_validated(row) for row in (one, other)]
    seeds = tuple(sorted(validated[0].keys() & validated[1].keys()))
    intervals = _intervals([[each[seed] for seed in seeds] for each in validated]) if seeds else {}
    return Comparison(recipe, better, than, seeds, intervals)


def _validated(row: RowOutcome) -> dict[int, Resampled]:
    return {run.run.seed: run.resampled() for run in row.runs if run.figures is not None}


def _intervals(pair: Sequence[Sequence[Resampled]]) -> dict[str, Interval]:
    better, than = pair
    found = compare(than, better)
    return {short: found[name] for short, name in FIGURES.items() if name in found}


def _single_task(study: Study, rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    """Each other row against the two networks of one task each, with Δm (Vandenhende et al. 2021, eq. 1).

    Nothing of a recipe that lacks one of the two. No Δm where a figure of theirs is 0 on the images or on a resample:
    there is no share of nothing, and an interval without that resample would be too narrow.
    """
    if study.single_task is None:
        return
    for recipe in study.rows:
        by_label = {row.row.label: _validated(row) for row in rows if row.recipe == recipe}
        if not by_label.keys() >= set(study.single_task):
            continue
        boxes, maps = (by_label[label] for label in study.single_task)
        for label, joint in by_label.items():
            seeds = tuple(sorted(joint.keys() & boxes.keys() & maps.keys()))
            if label in study.single_task or not seeds:
                continue
            two = [
                Resampled(np.stack([boxes[seed].values[:, 0], maps[seed].values[:, 1]], axis=1), boxes[seed].images)
                for seed in seeds
            ]
            one = [joint[seed] for seed in seeds]
            intervals = _intervals([one, two])
            if all(each.values.all() for each in two):
                relative = [_relative(*pair) for pair in zip(one, two, strict=True)]
                nothing = [replace(each, values=np.zeros_like(each.values)) for each in relative]
                delta = _intervals([relative, nothing])
                intervals |= {"Δm": delta["mAP"]} if delta else {}
            yield Comparison(recipe, label, TWO_NETWORKS, seeds, intervals)


def _relative(one: Resampled, two: Resampled) -> Resampled:
    """The mean over both figures of what `one` gains, as a share of `two`; in both columns."""
    gains = (one.values - two.values) / two.values
    return replace(one, values=gains.mean(axis=1, keepdims=True).repeat(2, axis=1))
