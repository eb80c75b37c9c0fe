"""Damaged files are refused by name or read as valid; commands that are disturbed go on to the same bytes.

`python -m benchmarks.faults` does the same hundreds of times.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("onnxruntime")

from benchmarks.faults import readers
from benchmarks.faults.campaign import Job, differing, disturbed, make_jobs
from benchmarks.faults.readers import READERS, Reader, attempt, examine, guarded
from benchmarks.faults.work import Fault, run

from tutored.config import read_yaml
from tutored.errors import InputError

EXAMPLES = 30
STOPPED = "tutored: stopped; what is finished is kept, go on with --resume"


@pytest.mark.parametrize("reader", READERS, ids=attrgetter("name"))
def test_a_damaged_file_is_refused_or_read_as_valid(reader: Reader, tmp_path: Path) -> None:
    row = examine(reader, tmp_path / "at", max(round(EXAMPLES * reader.share), 3), seed=0)
    assert row["losses"] == [] and row["tried"] > 2


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda text: {}[text], "KeyError"),
        (lambda text: bytearray(2**40), "MemoryError"),
        (lambda text: (_ for _ in ()).throw(InputError("something is wrong")), "no file is named"),
    ],
)
def test_a_reader_that_fails_otherwise_is_found(read: Any, told: str, tmp_path: Path) -> None:
    def unless_whole(folder: Path) -> None:
        if (folder / "x").read_bytes() != b"abc":
            read("x")

    row = examine(Reader("x", "x", lambda at: (at / "x").write_bytes(b"abc"), unless_whole), tmp_path / "at", 5, seed=0)
    assert row["lost"] == 1 and told in row["losses"][0]


def test_a_reader_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "SECONDS", 0.2)
    with guarded(), pytest.raises(AssertionError, match="not read within"):
        attempt(lambda: time.sleep(5))


def test_a_sealed_file_may_not_be_read_as_another(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "x").write_bytes(b"abc")

    row = examine(Reader("x", "x", make, lambda at: (at / "x").read_bytes(), sealed=True), tmp_path / "at", 5, seed=0)
    assert row["lost"] == 1 and "other content" in row["losses"][0]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Job]]:
    return make_jobs(tmp_path_factory.mktemp("jobs"), ("label", "train"))


@pytest.mark.parametrize(("name", "kind"), [("label", "killed before a change of a file"), ("train", "full disk")])
def test_a_disturbed_command_goes_on_to_the_same_bytes(name: str, kind: str, jobs: dict[str, Job]) -> None:
    assert disturbed(jobs[name], kind, 1, seed=0)["losses"] == []


def test_ctrl_c_in_all_processes_stops_with_a_clear_line(jobs: dict[str, Job], tmp_path: Path) -> None:
    job, out = jobs["train"], tmp_path / "run"
    words = [*job.words, "--train.workers", "2", "--out", str(out)]
    ended = run(words, out, Fault(signal.SIGINT, change=job.undisturbed.changes // 2))
    assert (ended.code, ended.last_line, "Traceback" in ended.text) == (1, STOPPED, False)
    assert run(words, out).code == 0
    assert differing(out / "checkpoint", job.whole / "checkpoint", {"config"}) == []


def test_results_that_differ_are_told_apart(tmp_path: Path) -> None:
    for name, seconds, loss in (("one", 1, 2), ("other", 5, 2), ("third", 1, 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.json").write_text(f'{{"seconds": {seconds}, "loss": {loss}}}')
    assert differing(tmp_path / "one", tmp_path / "other") == []
    assert differing(tmp_path / "one", tmp_path / "third") == ["log.json"]
    assert differing(tmp_path / "one", tmp_path / "third", {"loss"}) == []


def test_yaml_may_have_few_aliases(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"a": [1, 2]}) + "b: &b {c: 1}\nd: *b\n")
    assert read_yaml(file) == {"a": [1, 2], "b": {"c": 1}, "d": {"c": 1}}
    file.write_text("a: &a [*a]\n")
    with pytest.raises(InputError, match=r"a\.yaml: more than 100,000 entries, aliases counted"):
        read_yaml(file)
