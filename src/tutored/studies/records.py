"""The finished runs of a study folder, in one Parquet file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from tutored.evaluate import Resampled
from tutored.files import regular, whole_file
from tutored.studies.setting import Run, Setting

FILE = "runs.parquet"
TUTORS = "tutors"
"""The group of the tutors' own figures; their label is the tutor's name."""
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
    """What is kept of a run that has just finished in the folder `where`.

    Args:
        rows: the keys of all rows that the run serves.
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
