"""The finished runs of a study folder, in one Parquet file, and what they say: means over seeds, and differences with
their intervals.
"""

import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.evaluate import ENOUGH_SEEDS, LEVEL, Interval, Resampled, benjamini_hochberg, compare
from tutored.files import regular, whole_file
from tutored.studies.setting import Recipe, Row, Run, Setting, Study, run_of

FILE = "runs.parquet"
TUTORS = "tutors"
"""The group of the tutors' own figures; their label is the tutor's name."""
MEASURED = "measured"
"""Stands in a record's figures where a task does, for figures that are of no task."""
FIGURES = {"mAP": ("detection", "mAP_voc_area@.5"), "mIoU": ("segmentation", "mIoU")}
"""Short names of the figures that reports show: task and metric."""
CLASS_FIGURES = {"AP": ("detection", "AP_voc_area@.5"), "IoU": ("segmentation", "IoU")}
"""The same by class."""
JSON = ("config", "figures", "versions", "stores")
TEXTS = ("group", "setting", "recipe", "label", "run", "split", *JSON, "drawn", "device", "commit")
SCHEMA = pa.schema(
    {
        **dict.fromkeys(TEXTS, pa.string()),
        **dict.fromkeys(("seed", "images", "threads"), pa.int64()),
        **dict.fromkeys(("rows", "measures", "lower_is_better"), pa.list_(pa.string())),
        "seconds": pa.float64(),
        "resamples": pa.list_(pa.float32()),
        "pictures": pa.list_(pa.struct({"told": pa.string(), "file": pa.binary()})),
    }
)
IDENTITY = ("group", "setting", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One finished run and what it found. It is evidence: nothing of it is validated against today's configuration.

    Attributes:
        group: what the run was made for where it is no row of a declared study; `TUTORS`: figures of a tutor's store.
        rows: what finds the run, such as `thesis/table-12 | corrected | ground truth` (`Study.key`).
        run: the run's id when it was made.
        split: of the training images.
        figures: by task, then as `Figures.to_dict` has them; empty where the run was not validated. Those of the
            setting's further splits are under `TASK on SPLIT`.
        resamples: float32 [samples + 1, measures], shares in 0..1; row 0 is on the images themselves, see `Resampled`.
        measures: task and metric of each column of `resamples`, such as `segmentation/mIoU`.
        lower_is_better: those of `measures` of which the lower one is better; None of runs older than this field.
        drawn: SHA-256 of the evaluated image ids and the draws; runs with the same one can be compared.
        images: how many the run was trained on.
        stores: the identities of the tutors' stores, by folder.
        commit: of the code that made the run, with `+` for changes since; for runs that are older than this file, the
            commit that first held their figures.
        pictures: some answers: `told` says what is seen, `file` holds a WebP file.
    """

    group: str = ""
    setting: str = ""
    rows: Sequence[str] = ()
    recipe: str = ""
    label: str = ""
    seed: int | None = None
    run: str = ""
    split: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measures: Sequence[str] = ()
    lower_is_better: Sequence[str] | None = None
    resamples: NDArray[np.float32] | None = None
    drawn: str = ""
    images: int | None = None
    seconds: float | None = None
    device: str = ""
    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    commit: str = ""
    pictures: Sequence[Mapping[str, Any]] = ()

    def figure(self, name: str) -> float | None:
        """The figure "mAP", "mIoU" or `TASK/METRIC`, of a further split with ` on SPLIT`; None: not known."""
        short, _, split = name.partition(" on ")
        task, metric = FIGURES.get(short) or short.split("/", 1)
        value: float | None = self.figures.get(f"{task} on {split}" if split else task, {}).get(metric)
        return value

    @property
    def resampled(self) -> Resampled | None:
        """The main figures on resampled images, for comparisons."""
        if self.resamples is None or not self.resamples.size:
            return None
        return Resampled(
            self.resamples.astype(np.float64), tuple(self.measures), self.drawn, tuple(self.lower_is_better or ())
        )


def read_records(folder: Path) -> list[Record]:
    """What a study folder holds so far. Raises InputError where its file is damaged."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        table = pq.read_table(regular(path))
        rows = table.drop_columns("resamples").to_pylist()
        for row, resamples in zip(rows, table["resamples"], strict=True):
            row |= {name: json.loads(row[name]) for name in JSON}
            row["resamples"] = resamples.values.to_numpy(zero_copy_only=False).reshape(-1, len(row["measures"]) or 1)
        return [Record(**row) for row in rows]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not readable as the results of a study ({error}); restore it from a copy, or remove it to train "
            "its runs again"
        ) from error


def add_record(folder: Path, record: Record) -> None:
    """Add a run, or replace it, whole or not at all. Several processes may add at once."""
    path = folder / FILE
    row = {name: getattr(record, name) for name in SCHEMA.names}
    row |= {name: json.dumps(row[name]) for name in JSON}
    row["resamples"] = [] if record.resamples is None else np.ravel(record.resamples)
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "locks" / "runs"):
        table = pa.Table.from_pylist([row], SCHEMA)
        if path.exists():
            before = pq.read_table(path)
            other = [any(each[name] != row[name] for name in IDENTITY) for each in before.select(IDENTITY).to_pylist()]
            table = pa.concat_tables([before.filter(pa.array(other, pa.bool_())), table], promote_options="default")
        write_table(table, path)


def write_table(table: pa.Table, path: Path) -> None:
    encoding = {"resamples.list.element": "BYTE_STREAM_SPLIT"}
    with whole_file(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", compression_level=9, use_dictionary=False, column_encoding=encoding
        )


def by_row(records: Iterable[Record], setting: Setting) -> dict[tuple[str, int], Record]:
    """The runs of a setting's studies, by the key of each row that they serve, and by their ids; with the seed."""
    return {
        (name, record.seed): record
        for record in records
        if record.setting == setting.name and not record.group and record.seed is not None
        for name in (*record.rows, record.run)
    }


def record_of(
    run: Run, where: Path, result: Mapping[str, Any], rows: Sequence[str], pictures: Sequence[Mapping[str, Any]]
) -> Record:
    """What is kept of a run that has just finished in the folder `where`. `rows` are the keys of all rows that the run
    serves.
    """
    stores: dict[str, list[Mapping[str, Any]]] = {}
    for task, identities in result["stores"].items():
        if identities:
            stores.setdefault(str(result["config"]["tasks"][task]["store"]), []).extend(identities)
    resampled = Resampled.load(where / "resamples.npz") if result["figures"] else None
    return Record(
        setting=run.setting.name,
        rows=rows,
        recipe=run.recipe,
        label=run.row.label,
        seed=run.seed,
        run=run.run_id,
        split=run.split,
        config=result["config"],
        figures=result["figures"] or {},
        measures=resampled.names if resampled else (),
        lower_is_better=resampled.lower_is_better if resampled else None,
        resamples=resampled.values.astype(np.float32) if resampled else None,
        drawn=resampled.images if resampled else "",
        **{name: result[name] for name in ("images", "seconds", "device", "threads", "versions")},
        stores=stores,
        commit=commit(),
        pictures=pictures,
    )


@cache
def commit() -> str:
    """The commit of the checkout that this code runs from, or the version that is installed."""
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        words = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=+"]
        try:
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return f"tutored {version('tutored')}"


TWO_NETWORKS = "two single-task networks"
MEASURES = {short: "/".join(path) for short, path in FIGURES.items()}
"""What `Resampled.names` calls the figures that reports show."""


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """One row of a study in one recipe.

    Attributes:
        records: its finished runs, by rising seed.
        missing: runs that are neither finished nor failed.
        failed: runs that failed, with the reason.
    """

    row: Row
    recipe: Recipe
    records: tuple[Record, ...]
    missing: tuple[Run, ...] = ()
    failed: tuple[tuple[Run, str], ...] = ()

    def values(self, name: str) -> list[float]:
        """The figure, see `Record.figure`, of every finished run that has it."""
        return [value for record in self.records if (value := record.figure(name)) is not None]

    def mean(self, name: str) -> float | None:
        """The mean over the finished seeds; None without one."""
        values = self.values(name)
        return statistics.mean(values) if values else None

    def spread(self, name: str) -> float | None:
        """The sample standard deviation over the finished seeds; None with fewer than two."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def resampled(self) -> dict[int, Resampled]:
        """The runs that can be compared, by seed."""
        return {each.seed: found for each in self.records if each.seed is not None and (found := each.resampled)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Is one row better than another?

    Attributes:
        recipe: of both rows; None: one row in both recipes.
        seeds: those that both rows have.
        intervals: "mAP", "mIoU", "Δm" or `TASK/METRIC` to the difference over these seeds.
        adjusted: by the same names, p-values adjusted for all comparisons of a page (`adjust`).
    """

    recipe: Recipe | None
    better: str
    than: str
    seeds: tuple[int, ...]
    intervals: Mapping[str, Interval]
    adjusted: Mapping[str, float] = field(default_factory=dict)

    def verdict(self, name: str, margin: float) -> str:
        """What the better row is in a figure: "better", "worse", "level", or "not resolved".

        "Better" and "worse" need an adjusted p-value of at most .05, "level" an interval inside -margin to +margin.
        Where seeds are too few, or an interval excludes zero by itself alone, the row only "seems" so.
        """
        interval, few = self.intervals[name], len(self.seeds) < ENOUGH_SEEDS
        if interval.verdict:
            survives = not few and self.adjusted.get(name, 1.0) <= 1 - LEVEL
            return interval.verdict if survives else f"seems {interval.verdict}"
        if interval.within(margin):
            return "seems level" if few else "level"
        return "not resolved"


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """A study with what is known so far."""

    study: Study
    rows: tuple[RowOutcome, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def missing(self) -> tuple[Run, ...]:
        """Distinct runs that are neither finished nor failed."""
        return tuple({run.run_id: run for row in self.rows for run in row.missing}.values())

    def of(self, recipe: Recipe) -> tuple[RowOutcome, ...]:
        """The rows of one recipe."""
        return tuple(row for row in self.rows if row.recipe == recipe)


def adjust(outcomes: Sequence[StudyOutcome]) -> list[StudyOutcome]:
    """The same studies with p-values for as many comparisons as they make together (`benjamini_hochberg`).

    Comparisons over fewer than three seeds, which may only "seem", do not count.
    """
    counted = [each for outcome in outcomes for each in outcome.comparisons if len(each.seeds) >= ENOUGH_SEEDS]
    p_values = [interval.p for each in counted for interval in each.intervals.values()]
    adjusted = iter(benjamini_hochberg(p_values))
    known = {id(each): dict(zip(each.intervals, adjusted, strict=False)) for each in counted}
    return [
        replace(
            outcome, comparisons=tuple(replace(each, adjusted=known.get(id(each), {})) for each in outcome.comparisons)
        )
        for outcome in outcomes
    ]


def gather(
    study: Study, setting: Setting, seeds: Sequence[int], folder: Path, records: Sequence[Record]
) -> StudyOutcome:
    """Find a study's runs among the records of its folder: by row and seed, or else by the id of their config. Raises
    InputError: two runs were evaluated on different images.
    """
    known = by_row(records, setting)
    rows = []
    for recipe in study.recipes:
        for row in study.of(recipe):
            found, missing, failed = [], [], []
            for seed in seeds:
                record = known.get((study.key(recipe, row), seed))
                if record is None:
                    run = run_of(study, row, recipe, setting, seed)
                    record = known.get((run.run_id, seed))
                    note = folder / "runs" / run.run_id / "failed.txt"
                if record is not None:
                    found.append(record)
                elif note.exists():
                    failed.append((run, note.read_text(encoding="utf-8").strip()))
                else:
                    missing.append(run)
            rows.append(RowOutcome(row, recipe, tuple(found), tuple(missing), tuple(failed)))
    evaluated = [record for row in rows for record in row.records if record.drawn]
    for record in evaluated:
        if record.drawn != evaluated[0].drawn:
            raise InputError(
                f"{folder}: run {record.run} ({record.label}, seed {record.seed}) was evaluated on other images than "
                f"run {evaluated[0].run} ({evaluated[0].label}, seed {evaluated[0].seed}); keep one of them there"
            )
    comparisons = (*_declared(rows), *_between_recipes(study, rows), *_single_task(study, rows))
    return StudyOutcome(study, tuple(rows), comparisons)


def _declared(rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    for row in rows:
        for other in rows:
            if other.recipe == row.recipe and other.row.label in row.row.against:
                yield _compared(row.recipe, row.row.label, row, other.row.label, other)


def _between_recipes(study: Study, rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    """Each row of a study that compares: in the recipe `corrected` against the same row in `thesis`."""
    thesis = {row.row.label: row for row in rows if row.recipe == "thesis"}
    for row in rows:
        label = row.row.label
        if row.recipe == "corrected" and label in thesis and any(each.against for each in study.rows):
            yield _compared(None, f"{label}, corrected", row, f"{label}, thesis", thesis[label])


def _compared(recipe: Recipe | None, better: str, one: RowOutcome, than: str, other: RowOutcome) -> Comparison:
    seeds = tuple(sorted(one.resampled.keys() & other.resampled.keys()))
    pair = ([each.resampled[seed] for seed in seeds] for each in (one, other))
    return Comparison(recipe, better, than, seeds, intervals(*pair) if seeds else {})


def intervals(better: Sequence[Resampled], than: Sequence[Resampled]) -> dict[str, Interval]:
    """By "mAP", "mIoU" and the `TASK/METRIC` of other tasks that both have; of the same seeds, in the same order."""
    found = compare(than, better)
    return {short: found.pop(name) for short, name in MEASURES.items() if name in found} | found


def _single_task(study: Study, rows: Sequence[RowOutcome]) -> Iterable[Comparison]:
    """Each other row against the two networks of one task each, with Δm (Vandenhende et al. 2021, eq. 1).

    A recipe that lacks one of the two has no such comparison. There is no Δm where a figure of theirs is 0 on the
    images or on a resample: it would be divided by, and an interval without that resample would be too narrow.
    """
    if study.single_task is None:
        return
    for recipe in study.recipes:
        by_label = {row.row.label: row.resampled for row in rows if row.recipe == recipe}
        if not by_label.keys() >= set(study.single_task):
            continue
        boxes, maps = (by_label[label] for label in study.single_task)
        for label, joint in by_label.items():
            seeds = tuple(sorted(joint.keys() & boxes.keys() & maps.keys()))
            if label in study.single_task or not seeds:
                continue
            both = tuple(MEASURES.values())
            one = [_named(both, joint[seed], joint[seed]) for seed in seeds]
            two = [_named(both, boxes[seed], maps[seed]) for seed in seeds]
            found = intervals(one, two)
            if all(each.values.all() for each in two):
                gains = [mine.values / theirs.values - 1 for mine, theirs in zip(one, two, strict=True)]
                relative = [Resampled(each.mean(axis=1, keepdims=True), ("Δm",), one[0].images) for each in gains]
                nothing = [replace(each, values=np.zeros_like(each.values)) for each in relative]
                found |= compare(nothing, relative)
            yield Comparison(recipe, label, TWO_NETWORKS, seeds, found)


def _named(names: Sequence[str], *each: Resampled) -> Resampled:
    """Figures by these names, one of each run; NaN for one that its run does not have."""
    nothing = np.full(len(each[0].values), np.nan)
    columns = [
        run.values[:, run.names.index(name)] if name in run.names else nothing
        for name, run in zip(names, each, strict=True)
    ]
    return Resampled(np.stack(columns, axis=1), tuple(names), each[0].images)


def rows_of(records: Sequence[Record], wanted: Sequence[str] = ()) -> dict[str, list[Record]]:
    """The runs of each row by its key, in alphabetical order; those of a row by rising seed. Raises InputError: no key
    holds one of them.

    Args:
        wanted: how the keys begin, such as `literature` or `thesis/table-12 | corrected`, or else parts of them; none:
            every row.
    """
    rows: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda each: each.seed or 0):
        for key in record.rows:
            rows.setdefault(key, []).append(record)
    chosen: set[str] = set()
    for name in wanted:
        found = [key for key in rows if key.startswith(name)] or [key for key in rows if name in key]
        if not found:
            raise InputError(f"no row is called {name!r}; without a name, all rows are shown")
        chosen.update(found)
    return {key: rows[key] for key in sorted(chosen if wanted else rows)}


def show(own: Sequence[Record], against: Sequence[Record] | None = None) -> str:
    """A row in one line: its figures, or differences to another row over the seeds that both have.

    A row without a seed, such as a tutor's, is compared with every seed.
    """
    seeds: list[int | None] = [each.seed for each in own]
    if against is None:
        told = [f"{name} {_spread(values)}" for name, values in _values(own).items()]
    else:
        sides = [{each.seed: found for each in side if (found := each.resampled)} for side in (own, against)]
        seeds = sorted((sides[0].keys() & sides[1].keys()) or {*sides[0], *sides[1]} - {None}, key=str)
        pair = [[found for seed in seeds if (found := side.get(seed, side.get(None)))] for side in sides]
        comparable = seeds and len(pair[0]) == len(pair[1])
        told = [f"{name} {interval}" for name, interval in intervals(*pair).items()] if comparable else []
        if not told:
            return "nothing to compare"
    named = [str(seed) for seed in seeds if seed is not None]
    return ", ".join(told) + (f" (seed{'s' if len(named) > 1 else ''} {', '.join(named)})" if named else "")


def splits_of(records: Sequence[Record]) -> list[str]:
    """The further splits on which any of them has figures."""
    return [*dict.fromkeys(split for each in records for task in each.figures if (split := task.partition(" on ")[2]))]


def _values(records: Sequence[Record]) -> dict[str, list[float]]:
    """mAP and mIoU, every number of other tasks as `TASK/METRIC`, and those of no task."""
    columns = [*FIGURES, *(f"{name} on {split}" for split in splits_of(records) for name in FIGURES)]
    found = {name: [value for each in records if (value := each.figure(name)) is not None] for name in columns}
    tasks = {task for task, _ in FIGURES.values()}
    for record in records:
        for group, figures in record.figures.items():
            for name, value in figures.items() if group.partition(" on ")[0] not in tasks else ():
                if isinstance(value, int | float):
                    found.setdefault(name if group == MEASURED else f"{group}/{name}", []).append(value)
    return {name: values for name, values in found.items() if values}


def _spread(values: Sequence[float]) -> str:
    each = ", ".join(f"{value:.3f}" for value in values)
    return each if len(values) == 1 else f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} ({each})"
