"""Stores of soft labels: one Parquet file a part, found by image id, in the tutor's own label space or remapped."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tutored.config.entries import TASKS
from tutored.errors import InputError
from tutored.files import STORE, read_json, require, sha256
from tutored.labels import ClassMap, LabelSpace
from tutored.tasks import columns, task_class
from tutored.tasks.columns import flat
from tutored.tasks.task import Remap, SoftAnswer, Task
from tutored.types import Size, SoftLabels

MANIFEST = STORE.file
SEALS = ".part-*.sha256"
"""Beside each part that the manifest does not know yet, what it will say of it."""
FORMAT = "tutored-softlabels"
VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Identity(_Strict):
    labels: list[str]
    images: int = Field(ge=0)


class _Part(_Strict):
    file: str = Field(pattern=r"^part-\d{5,}\.parquet$")
    rows: int = Field(ge=0)
    sha256: str
    bytes: int
    answers: list[str]
    failed: dict[str, str] = {}


class _Manifest(_Strict):
    complete: bool
    identity: _Identity
    parts: list[_Part] | None
    index: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.complete and self.parts is None:
            raise ValueError("'complete' is true, but there are no 'parts'")
        LabelSpace(tuple(self.identity.labels))
        return self


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, finished or not; None where there is none. Raises InputError: it is damaged, something
    else, or written by a newer version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path, "label into another folder", "can't be read")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: not a store of soft labels ('format' must be {FORMAT!r}); give the store's folder")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path}: 'version' is {manifest.get('version')!r}, this tutored reads {VERSION}; "
            "update tutored, or label again"
        )
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {f'{where!r}: ' if where else ''}{first['msg']}; label again") from error
    except InputError as error:
        raise InputError(f"{path}: 'identity.labels': {error}") from error
    return manifest


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields of `wanted` that `stored` states otherwise, for a message; empty where there are none."""
    wanted = json.loads(json.dumps(wanted))
    return "; ".join(
        f"'{name}' is {stored.get(name, 'not stated')!r} there, {value!r} is asked for"
        for name, value in wanted.items()
        if stored.get(name) != value
    )


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields in which two identities differ."""
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


INDEX = "index.arrow"
"""All ids in the order of their rows, so that opening a large store reads one file. Not Parquet, for `*.parquet` are
the parts."""
SLICE = 65536


class Index:
    """Where an image's row is. A million ids take 8 MB and a mapped file; a dictionary of them takes 200 MB. `ids` are
    in the order of rows.
    """

    def __init__(self, ids: pa.StringArray) -> None:
        self.ids = ids
        keys = np.fromiter(map(_key, self), np.uint32, len(ids))
        self._rows = keys.argsort(kind="stable").astype(np.uint32)
        self._keys = keys[self._rows]

    def find(self, image_id: str) -> int | None:
        """The row of an image, None where there is none."""
        key = np.uint32(_key(image_id))
        # Two ids may share a key.
        for place in range(int(self._keys.searchsorted(key)), len(self._keys)):
            if self._keys[place] != key:
                break
            row = int(self._rows[place])
            if self.ids[row].as_py() == image_id:
                return row
        return None

    def repeated(self) -> str | None:
        """An id that is there twice."""
        for place in np.flatnonzero(self._keys[1:] == self._keys[:-1]):
            first, second = (self.ids[int(row)].as_py() for row in self._rows[place : place + 2])
            if first == second:
                return str(first)
        return None

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.ids), SLICE):
            yield from self.ids.slice(start, SLICE).to_pylist()

    def __len__(self) -> int:
        return len(self.ids)


def _key(image_id: str) -> int:
    return crc32(image_id.encode(errors="replace"))


def read_ids(path: Path) -> pa.StringArray:
    """The ids in a file of `write_ids`, which stays mapped. Raises pyarrow's errors for any other file."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("image_id")


def write_ids(path: Path, ids: pa.StringArray) -> None:
    """Uncompressed, to be mapped."""
    batch = pa.record_batch({"image_id": ids})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


BLOCK_ROWS = 8
"""Images that are compressed together: the cost of one random read against the store's size."""
CACHED_BLOCKS = 512
"""Decoded blocks that one store keeps. A store of no more blocks is decoded in whole parts, which is faster."""
BASE = (
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
)
"""The columns of every row; those of each kind of answer follow, where the part has any."""
ALTERED = "the bytes are not those that were written ('sha256' differs)"


def answer_types() -> dict[str, type[SoftAnswer]]:
    """The package's types of soft answer by kind."""
    return {each.kind: each for kind in TASKS for each in task_class(kind).answers}


class Block(NamedTuple):
    """Consecutive rows: sizes, and by kind an answer a row or None."""

    sizes: Sequence[Size]
    answers: Mapping[str, Sequence[Any]]

    def row(self, index: int) -> SoftLabels:
        """One image's answers."""
        return SoftLabels.of(self.sizes[index], *(rows[index] for rows in self.answers.values()))


class Part(NamedTuple):
    """An opened part, the rows that are decompressed at once, and the kinds of answer that it has."""

    file: pq.ParquetFile
    block_rows: int
    kinds: Sequence[str]


class Store(Mapping[str, SoftLabels]):
    """Image id -> soft labels in the tutor's own label space, decoded when asked for.

    Iteration and length follow the split's order. May be sent to worker processes: each opens the files itself.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], index: Index) -> None:
        self.path = path
        self.manifest = manifest
        self.labels = LabelSpace(tuple(manifest["identity"]["labels"]))
        self._index = index
        self._starts = [0, *accumulate(part["rows"] for part in manifest["parts"])]
        self._is_small = len(index) <= CACHED_BLOCKS * BLOCK_ROWS
        self._part = lru_cache(maxsize=64)(self._open_part)
        self._block = lru_cache(maxsize=CACHED_BLOCKS)(self._decode_block)
        self._answered = lru_cache(maxsize=None)(self._read_answered)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a finished store. Raises InputError: no store, an unfinished, incomplete or damaged one, or one of a
        newer format. Damage to a part's inside is found when that is read, a single changed byte by `verify` only.
        """
        path = Path(path)
        require(path, STORE)
        manifest = read_manifest(path)
        assert manifest is not None
        newer = "a part is newer" if any(path.glob(SEALS)) else None
        if why := newer if manifest["complete"] else "'complete' is false":
            raise InputError(f"{path}: labelling did not finish ({why}); run `tutored label` --resume")
        _check_sizes(path, manifest)
        ids = indexed_ids(path, manifest)
        if ids is None:
            ids = pa.chunked_array([part_ids(path, part) for part in manifest["parts"]], pa.string()).unique()
        failed = sum(len(part.get("failed", ())) for part in manifest["parts"])
        if len(ids) + failed != manifest["identity"]["images"]:
            raise InputError(f"{path}: {len(ids)} images, 'images' says {manifest['identity']['images']}; label again")
        index = Index(ids)
        if (twice := index.repeated()) is not None:
            raise InputError(f"{path}: image {twice} is there twice; label again")
        return cls(path, manifest, index)

    @classmethod
    def teaching(cls, path: Path, task: Task | type[Task]) -> Self:
        """A store that can teach a task. Raises InputError where it can't; else see `open`."""
        store = cls.open(path)
        if not store.teaches(task):
            has = " and ".join(store.kinds) or "nothing"
            needs = f"tasks.{task.name} needs {task.kind}" if isinstance(task, Task) else f"not {task.kind}"
            raise InputError(f"store {path} answers {has}, {needs}; give another one")
        return store

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
    def kinds(self) -> tuple[str, ...]:
        """The kinds of answer that any image has, such as `detection`."""
        return tuple(dict.fromkeys(kind for part in self.manifest["parts"] for kind in part["answers"]))

    def teaches(self, task: Task | type[Task]) -> bool:
        """Whether any image has an answer that can teach a kind of task."""
        return any(each.kind in self.kinds for each in task.answers)

    def answered_by(self, task: Task | type[Task], image_id: str) -> bool:
        """Whether an image has such an answer, found without decoding any. Raises InputError on damage."""
        row = self._index.find(image_id)
        return row is not None and any(self._answered(each)[row] for each in task.answers if each.kind in self.kinds)

    def __getitem__(self, image_id: str) -> SoftLabels:
        return self.read(image_id, tuple(answer_types().values()))

    def read(self, image_id: str, types: tuple[type[SoftAnswer], ...], remap: Remap | None = None) -> SoftLabels:
        """One image's answers of some types, in another label space with a remap. Raises KeyError: there is no such
        image. Raises InputError: the store is damaged.
        """
        place = self._index.find(image_id)
        if place is None:
            raise KeyError(image_id)
        number = bisect_right(self._starts, place) - 1
        row = place - self._starts[number]
        with damage_named(self.path, self.manifest["parts"][number]["file"]):
            block = None
            if not self._is_small:
                block, row = divmod(row, self._part(number).block_rows)
            return self._block(number, block, types, remap).row(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self._index.find(image_id) is not None

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
            if not (self.path / name).is_file() or sha256(self.path / name) != wanted
        ]
        if broken:
            raise damaged(self.path / ", ".join(broken), ALTERED)

    def _read_answered(self, answer: type[SoftAnswer]) -> list[bool]:
        """For each row whether it has an answer of a type."""
        there: list[bool] = []
        for part in self.manifest["parts"]:
            if answer.kind in part["answers"]:
                table = _columns(self.path, part["file"], [answer.fields[0].name])
                there += table.column(0).is_valid().to_pylist()
            else:
                there += [False] * part["rows"]
        return there

    def _open_part(self, number: int) -> Part:
        about = self.manifest["parts"][number]
        file = pq.ParquetFile(self.path / about["file"], memory_map=True, page_checksum_verification=True)
        return Part(file, file.metadata.row_group(0).num_rows, about["answers"])

    def _decode_block(
        self, number: int, block: int | None, types: tuple[type[SoftAnswer], ...], remap: Remap | None
    ) -> Block:
        part = self._part(number)
        types = tuple(each for each in types if each.kind in part.kinds)
        fields = [*BASE[1:], *(field for each in types for field in each.fields)]
        found = part.file.schema_arrow
        for field in fields:
            if found.field(field.name).type != field.type:
                raise ValueError(f"column {field.name} holds {found.field(field.name).type} instead of {field.type}")
        # Threads of Arrow's pool do not survive the fork of a loader's workers.
        read = part.file.read if block is None else partial(part.file.read_row_group, block)
        table = read(columns=[field.name for field in fields], use_threads=False)
        sizes = list(zip(*(flat(table.column(name)).tolist() for name in ("height", "width")), strict=True))
        for height, width in sizes:
            columns.require(min(height, width) > 0, f"an image of {height} x {width} pixels")
        return Block(sizes, {each.kind: each.decode(table, sizes, len(self.labels), remap) for each in types})


def indexed_ids(path: Path, manifest: Mapping[str, Any]) -> pa.StringArray | None:
    """The ids of all rows as the index has them; None where it is missing or not what was written."""
    if not (path / INDEX).is_file() or sha256(path / INDEX) != manifest.get("index"):
        return None
    with damage_named(path, INDEX):
        ids = read_ids(path / INDEX)
    return ids if len(ids) == sum(part["rows"] for part in manifest["parts"]) else None


def part_ids(path: Path, part: Mapping[str, Any]) -> pa.StringArray:
    """The ids of a part of the store at `path`. Raises InputError where they are not texts, as many as `rows` says."""
    ids = _columns(path, part["file"], ["image_id"]).column("image_id").combine_chunks()
    if ids.type != pa.string() or ids.null_count:
        raise damaged(path / part["file"], "column image_id lacks ids")
    if len(ids) != part["rows"]:
        raise damaged(path / part["file"], f"{len(ids)} rows, the manifest's 'rows' says {part['rows']}")
    return ids


def _check_sizes(path: Path, manifest: Mapping[str, Any]) -> None:
    there = {file.name: file.stat().st_size for file in path.iterdir()}
    for part in manifest["parts"]:
        size = there.get(part["file"])
        if size is None:
            raise damaged(path / part["file"], "it is missing")
        if size != part["bytes"]:
            raise damaged(path / part["file"], f"{size} bytes, the manifest's 'bytes' says {part['bytes']}")


def _columns(path: Path, part: str, names: list[str]) -> pa.Table:
    with damage_named(path, part):
        file = pq.ParquetFile(path / part, page_checksum_verification=True)
        return file.read(columns=names, use_threads=False).select(names)  # reading leaves out those that are missing


@contextmanager
def damage_named(path: Path, part: str) -> Iterator[None]:
    """What pyarrow and our decoding raise on broken bytes, as the InputError that names the part."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # broken bytes make pyarrow and numpy raise nearly anything
        raise damaged(path / part, f"it can't be read ({' '.join(str(error).split())})") from error


def damaged(part: Path, what: str) -> InputError:
    """The error that names a part, or several, and what to do."""
    return InputError(f"{part}: {what}; delete the file and run `tutored label` with --resume to make it again")


class Remapped(Mapping[str, SoftLabels]):
    """Image id -> soft labels with the one answer of a task, under its kind. Images without an answer are left out.

    Args:
        store: the tutor's answers in the label space `class_map.source`.
        task: in the label space `class_map.target`. Its section says how a map is made of instances or confidences.
        temperature: probabilities become p^(1/T), those of a box for "its class" and "not its class".
        muted: classes of our space that the tutor must not teach, see `Task.mute`.
    """

    def __init__(
        self, store: Store, class_map: ClassMap, task: Task, *, temperature: float = 1.0, muted: Sequence[int] = ()
    ) -> None:
        self.store, self.class_map, self.task = store, class_map, task
        self.temperature, self.muted = temperature, tuple(muted)
        self._remap = remap_of(class_map)

    def __getitem__(self, image_id: str) -> SoftLabels:
        stored = self.store.read(image_id, self.task.answers, self._remap)
        answer = self.task.from_store(stored, self.class_map, self.task.section)
        if answer is None:
            raise KeyError(image_id)
        if self.temperature != 1:
            answer = answer.tempered(self.temperature)
        if self.muted:
            answer = self.task.mute(answer, self.muted)
        return SoftLabels(stored.size, {self.task.kind: answer})

    def __iter__(self) -> Iterator[str]:
        return (image_id for image_id in self.store if image_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self.store.answered_by(self.task, image_id)


def remap_of(class_map: ClassMap) -> Remap:
    """A class map in the form that rows of a store are remapped by."""
    # Two numbers beyond the target space collect what has no target: what is ignored, and what is background.
    space = len(class_map.target)
    to = [to if to is not None else space + (number not in class_map.ignored) for number, to in enumerate(class_map.to)]
    reached = [number for number in class_map.to if number is not None]
    unreached = sorted(class_map.target.index(name) for name in class_map.unreached)
    return Remap(tuple(to), space, len(reached) > len(set(reached)), tuple(unreached))
