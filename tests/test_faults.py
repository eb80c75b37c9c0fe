"""Every reader against damaged and hostile files: a valid value or one message, and nothing else.

`benchmarks/faults/inputs.py` does the same thousands of times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")

from benchmarks.faults import inputs
from benchmarks.faults.damage import damage_bytes
from benchmarks.faults.hostile import TRIED, Hostile
from benchmarks.faults.inputs import attacked, damaged, guarded, judged
from benchmarks.faults.kept import KEPT, make_checkpoint, make_state, read_checkpoint, read_state
from benchmarks.faults.readers import READERS, Reader

from tutored.config import read_yaml
from tutored.errors import InputError

EVERY = (*READERS, *KEPT)
TIMES = 40
"""Times its weight, a file is damaged so often."""


@pytest.fixture(autouse=True)
def _guarded() -> Iterator[None]:
    with guarded():
        yield


@pytest.mark.parametrize("reader", EVERY, ids=attrgetter("name"))
def test_a_damaged_file_is_read_as_a_valid_value_or_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    times = max(round(TIMES * reader.weight), 3)
    row = damaged(reader, tmp_path / "at", 0, times)
    assert row.faults == () and (row.tried, row.survived + row.refused) == (times, times)


@pytest.mark.parametrize("hostile", TRIED, ids=attrgetter("name"))
def test_a_hostile_file_does_nothing(hostile: Hostile, tmp_path: Path) -> None:
    row = attacked(hostile, tmp_path / "at")
    assert row.faults == ()
    assert (row.survived, row.refused) == ((1, 0) if hostile.harmless else (0, 1))


keys = st.sampled_from(
    "images annotations categories id file_name bbox labels parts identity step epoch seeds x".split()
)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
contents = (
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | trees.map(lambda tree: json.dumps(tree).encode())
)
quick = [reader for reader in EVERY if reader.weight >= 0.4]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with valid files for each reader."""
    made = {reader.name: tmp_path_factory.mktemp("any") for reader in quick}
    for reader in quick:
        reader.make(made[reader.name])
    return made


@given(st.sampled_from(quick), contents)
@settings(derandomize=True, max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_content_is_read_as_a_valid_value_or_refused_by_name(
    folders: dict[str, Path], reader: Reader, content: bytes
) -> None:
    folder = folders[reader.name]
    (folder / reader.file).write_bytes(content)
    outcome, fault = judged(lambda: reader.read(folder), str(folder))
    assert outcome != "lost", fault


def test_a_reader_that_fails_otherwise_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SECONDS", 0.2)

    def reader(read: Any, sealed: bool = False) -> Reader:
        return Reader("x", "x", lambda at: (at / "x").write_bytes(b"abc"), read, damage_bytes, sealed)

    def unless_whole(error: BaseException) -> Any:
        def read(folder: Path) -> None:
            if (folder / "x").read_bytes() != b"abc":
                raise error

        return read

    def sleep(folder: Path) -> None:
        if (folder / "x").read_bytes() != b"abc":
            time.sleep(5)

    def lost(one: Reader) -> int:
        return damaged(one, tmp_path, 0, 5).lost

    assert lost(reader(unless_whole(KeyError("a")))) == 5
    assert lost(reader(unless_whole(InputError("something is wrong somewhere")))) == 5
    assert lost(reader(unless_whole(InputError("/a/file: is wrong")))) == 0
    assert lost(reader(lambda at: (at / "x").read_bytes())) == 0
    assert lost(reader(lambda at: (at / "x").read_bytes(), sealed=True)) == 5
    assert damaged(reader(sleep), tmp_path, 0, 1).faults == ("NeverEndsError: not read within 0.2 seconds",)
    assert attacked(Hostile("x", lambda at: bytearray(2**40)), tmp_path).faults == ("MemoryError: ",)


@pytest.mark.parametrize(
    ("make", "read", "file", "old", "new"),
    [
        (make_checkpoint, read_checkpoint, "checkpoint/checkpoint.json", '"score_floor": 0.01', '"score_floor": 0.02'),
        (make_state, read_state, "state/state.json", '"lr": 0.1', '"lr": 0.2'),
    ],
)
def test_one_other_digit_is_refused_and_older_folders_without_a_hash_are_read(
    tmp_path: Path, make: Any, read: Any, file: str, old: str, new: str
) -> None:
    make(tmp_path)
    whole, path = read(tmp_path), tmp_path / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match="'sha256' differs from its content"):
        read(tmp_path)
    content = json.loads(text)
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert read(tmp_path) == whole


def test_yaml_may_have_aliases_as_long_as_they_stay_few(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"a": [1, 2]}) + "b: &b {c: 1}\nd: *b\n")
    assert read_yaml(file) == {"a": [1, 2], "b": {"c": 1}, "d": {"c": 1}}
    file.write_text("a: &a [*a]\n")
    with pytest.raises(InputError, match=r"a\.yaml: more than 100,000 entries, aliases counted"):
        read_yaml(file)
