"""A folder of one tutor's soft labels with an identity: read by image id, verified, refused on a mismatch."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.softlabels.codec import from_table
from tutored.structures import SoftLabels

MANIFEST = "manifest.json"
INDEX = "index.parquet"
"""The ids of all rows in their order, so that opening a large store reads one file."""
FORMAT = "tutored-softlabels"
VERSION = 1
CACHED_BLOCKS = 512
"""Decompressed blocks of eight images that one store keeps: about 64 MB."""
TASK_OF = {"classes": "detection", "map_height": "segmentation", "instance_side": "segmentation"}
"""Small columns that are null where a row has no answer for the task."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, finished or not; None where there is none.

    Raises:
        InputError: it is damaged, something else, or written by a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error}); label into another folder") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: not a store of soft labels ('format' must be {FORMAT!r}); give the store's folder")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path}: 'version' is {manifest.get('version')!r}, this tutored reads {VERSION}; "
            "update tutored, or label again"
        )
    missing = {"identity", "complete", "parts"} - manifest.keys()
    if missing:
        raise InputError(f"{path}: the field {min(missing)!r} is missing; label again")
    return manifest


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields of `wanted` that `stored` states otherwise, for a message; empty where there are none."""
    wanted = json.loads(json.dumps(wanted))
    return "; ".join(
        f"'{name}' is {stored.get(name, 'not stated')!r} there, {value!r} is asked for"
        for name, value in wanted.items()
        if stored.get(name) != value
    )


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store(Mapping[str, SoftLabels]):
    """Image id -> soft labels in the tutor's own label space, decoded when asked for.

    Iteration and length follow the split's order. May be sent to worker processes: each opens the
    files itself.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], image_ids: Sequence[str]) -> None:
        self.path = path
        self.manifest = manifest
        self.labels = LabelSpace(tuple(manifest["identity"]["labels"]))
        self._rows = {image_id: row for row, image_id in enumerate(image_ids)}
        self._starts = [0, *accumulate(part["rows"] for part in manifest["parts"])]
        self._file = lru_cache(maxsize=64)(lambda part: pq.ParquetFile(path / part, memory_map=True))
        self._block = lru_cache(maxsize=CACHED_BLOCKS)(self._read_block)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a finished store.

        Raises:
            InputError: no store, an unfinished, incomplete or damaged one, or one of a newer format. Damage to a
                part's inside is found when that is read, a single changed byte by `verify` only.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            raise InputError(f"{path}: no store of soft labels (no {MANIFEST}); `tutored label` makes one")
        if not manifest["complete"]:
            raise InputError(f"{path}: labelling did not finish ('complete' is false); run `tutored label` --resume")
        image_ids = _image_ids(path, manifest)
        failed = sum(len(part.get("failed", ())) for part in manifest["parts"])
        rows, images = len(set(image_ids)), manifest["identity"]["images"]
        if rows + failed != images:
            raise InputError(f"{path}: {rows} images, 'images' says {images}; label again")
        return cls(path, manifest, image_ids)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Who answered what: tutor, weights, label space, preprocessing, floors, data set and split."""
        identity: Mapping[str, Any] = self.manifest["identity"]
        return identity

    @property
    def failed(self) -> dict[str, str]:
        """Images that could not be read when they were labelled, and why; `tutored label` --resume tries again."""
        return {name: why for part in self.manifest["parts"] for name, why in part.get("failed", {}).items()}

    @property
    def map_values(self) -> str:
        """What the values of maps are: "probabilities", or "confidences" of classes without a background."""
        return str(self.identity.get("map_values", "probabilities"))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with an answer for any image; instance masks are segmentation."""
        answered: dict[str, bool] = {}
        for part in self.manifest["parts"]:
            table = _columns(self.path / part["file"], [*TASK_OF])
            for name, task in TASK_OF.items():
                answered[task] = answered.get(task, False) or table.column(name).null_count < len(table)
            if all(answered.values()):
                break
        return tuple(task for task in answered if answered[task])

    def __getitem__(self, image_id: str) -> SoftLabels:
        place = self._rows[image_id]
        number = bisect_right(self._starts, place) - 1
        part, row = self.manifest["parts"][number]["file"], place - self._starts[number]
        with _damage_named(self.path / part):
            block_rows = self._file(part).metadata.row_group(0).num_rows
            block = self._block(part, row // block_rows)
            return from_table(block, row % block_rows, len(self.labels))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.path,)

    def verify(self) -> None:
        """Compare every part's hash with the manifest. Raises InputError naming the parts that differ."""
        names = {part["file"]: part["sha256"] for part in self.manifest["parts"]}
        if "index" in self.manifest:
            names[INDEX] = self.manifest["index"]
        broken = [
            name
            for name, wanted in names.items()
            if not (self.path / name).exists() or sha256(self.path / name) != wanted
        ]
        if broken:
            what = "the bytes are not those that were written ('sha256' differs)"
            raise _damaged(self.path / ", ".join(broken), what)

    def expect(self, **fields: Any) -> None:
        """Refuse the store unless its identity has these fields. Raises InputError naming those that differ."""
        differing = differences(self.identity, fields)
        if differing:
            raise InputError(f"{self.path}: another store than asked for: {differing}; label again, or give its fields")

    def _read_block(self, part: str, block: int) -> pa.Table:
        # Threads of Arrow's pool do not survive the fork of a loader's workers.
        return self._file(part).read_row_group(block, use_threads=False)


def indexed_ids(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The ids of all rows as the index has them; none where it is missing or not what was written."""
    if not (path / INDEX).is_file() or sha256(path / INDEX) != manifest.get("index"):
        return []
    ids: list[str] = _columns(path / INDEX, ["image_id"]).column("image_id").to_pylist()
    return ids


def _image_ids(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The ids of all rows, in order: from the index where there is one, else from the parts."""
    parts = manifest["parts"]
    there = {file.name: file.stat().st_size for file in path.iterdir()}
    for part in parts:
        if part["file"] not in there:
            raise _damaged(path / part["file"], "it is missing")
        if there[part["file"]] != part.get("bytes", there[part["file"]]):
            what = f"{there[part['file']]} bytes, the manifest's 'bytes' says {part['bytes']}"
            raise _damaged(path / part["file"], what)
    ids = indexed_ids(path, manifest)
    if len(ids) == sum(part["rows"] for part in parts):
        return ids
    ids = []
    for part in parts:
        with _damage_named(path / part["file"]):
            own = _columns(path / part["file"], ["image_id"]).column("image_id").to_pylist()
        if len(own) != part["rows"]:
            raise _damaged(path / part["file"], f"{len(own)} rows, the manifest's 'rows' says {part['rows']}")
        ids += own
    return ids


def _columns(part: Path, names: list[str]) -> pa.Table:
    if not part.is_file():
        raise _damaged(part, "it is missing")
    with _damage_named(part):
        return pq.ParquetFile(part).read(columns=names, use_threads=False)


@contextmanager
def _damage_named(part: Path) -> Iterator[None]:
    """What pyarrow and our decoding raise on broken bytes, as the InputError that names the part."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, RuntimeError) as error:
        raise _damaged(part, f"it can't be read ({' '.join(str(error).split())})") from error


def _damaged(part: Path, what: str) -> InputError:
    return InputError(f"{part}: {what}; delete the file and run `tutored label` with --resume to make it again")
