"""Training and labelling, killed, stopped and out of room, go on to the same bytes.

`python -m benchmarks.faults` does the same hundreds of times, at every change of a file.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from benchmarks.faults.children import Child, run
from benchmarks.faults.disk import from_change
from benchmarks.faults.jobs import Job, finish, label_job, nothing, train_job, uninterrupted, watched
from benchmarks.faults.kills import at_changes, at_random
from benchmarks.faults.row import Row
from benchmarks.faults.signals import LAST, STOPS, Once, told, unread
from benchmarks.faults.work import Work, steps_done
from torch.utils.data import DataLoader

from tutored.engine.stop import deafly, hear_parent

Made = tuple[Job, int, float]
"""A job, the changes of files and the seconds that it takes."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("faults")
    yield Work(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def training(work: Work) -> Made:
    job = train_job(work, but="loss")
    return job, *uninterrupted(job)


@pytest.fixture(scope="module")
def labelling(work: Work) -> Made:
    job = label_job(work)
    return job, *uninterrupted(job)


def lost(row: Row) -> tuple[int, tuple[str, ...]]:
    return row.lost, row.faults


def test_training_killed_at_a_change_of_a_file_goes_on_to_the_same_bytes(training: Made) -> None:
    job, changes, _ = training
    # The fourth: the run's folder is there, and in it only the beginning of config.yaml.
    row = at_changes(job, [4, changes // 2, changes - 10], changes)
    assert lost(row) == (0, ()) and row.survived == 3


def test_training_killed_again_and_again_goes_on_to_the_same_bytes(training: Made) -> None:
    job, _, seconds = training
    row = at_random(job, seconds, 3, seed=0)
    assert lost(row) == (0, ()) and row.survived >= 3


def test_a_result_that_differs_is_lost(training: Made) -> None:
    job, changes, _ = training
    weights = job.reference / "checkpoint" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    row = at_changes(job, [changes // 2], changes)
    weights.write_bytes(whole)
    assert lost(row) == (1, (f"before change {changes // 2}: differs in checkpoint/model.safetensors",))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["training", "labelling"])
def test_a_signal_stops_with_a_clear_last_line(name: str, number: int, request: pytest.FixtureRequest) -> None:
    job, changes, _ = request.getfixturevalue(name)
    out = job.fresh()
    ended, _ = run(watched, job.words(out), out, changes // 2, Once(number), None, out=job.said)
    assert (ended.code, ended.last_line, "Traceback" in ended.text) == (1, LAST, False)
    assert finish(job, out) == ""


@pytest.fixture(scope="module")
def reading(work: Work) -> Made:
    job = train_job(work, workers=2, but="loss")
    return job, *uninterrupted(job)


@pytest.mark.parametrize("number", STOPS)
def test_signals_to_the_processes_that_read_do_nothing(reading: Made, number: int) -> None:
    job, changes, _ = reading
    out = job.fresh()
    ended, _ = run(watched, job.words(out), out, changes // 2, Readers(number), None, out=job.said)
    assert (ended.code, job.differing(out, job.reference)) == (0, [])


@dataclass
class Readers:
    """Lets another process send each one that reads a signal, once; there must be two."""

    number: int
    sent: bool = False

    def __call__(self, _event: str) -> None:
        if not self.sent:
            self.sent = True
            readers = [str(reader.pid) for reader in multiprocessing.active_children()]
            assert len(readers) == 2
            subprocess.run(["kill", f"-{int(self.number)}", *readers], check=True)


def test_a_process_that_reads_hears_its_parent_alone() -> None:
    others = {*multiprocessing.active_children()}
    batches = deafly(DataLoader([0, 1, 2, 3], num_workers=1, prefetch_factor=1, worker_init_fn=hear_parent))
    assert int(next(batches)) == 0
    (reader,) = {*multiprocessing.active_children()} - others
    for number in STOPS:
        subprocess.run(["kill", f"-{int(number)}", str(reader.pid)], check=True)
    assert [int(batch) for batch in (next(batches), next(batches))] == [1, 2] and reader.is_alive()
    reader.terminate()
    reader.join(20)
    assert reader.exitcode == 0


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_reaches_the_processes_that_read_too(reading: Made, number: int) -> None:
    job, _, _ = reading
    out = job.fresh()
    child = Child(watched, (*job.words(out), "--train.epochs", "200"), out, 0, nothing, None, out=job.said)
    while not (out / "state").exists() and child.process.is_alive():
        child.process.join(0.01)
    hit, ended = child.signalled(number, 0)
    assert hit and told(ended) == "" and steps_done(out) >= 2


def test_training_goes_on_where_nobody_reads_its_progress(training: Made) -> None:
    job, _, _ = training
    out = job.fresh()
    ended, _ = run(unread, job.words(out), (2,), out=job.said)
    assert ended.code == 0 and job.differing(out, job.reference) == []


@pytest.mark.parametrize("name", ["training", "labelling"])
def test_a_disk_that_is_full_from_some_change_on_leaves_nothing_half_written(
    name: str, request: pytest.FixtureRequest
) -> None:
    job, changes, _ = request.getfixturevalue(name)
    assert lost(from_change(job, changes, 2, seed=0)) == (0, ())


def test_the_place_of_a_command_that_was_killed_early_is_free(training: Made, tmp_path: Path) -> None:
    """What `whole_file` leaves behind is nobody's."""
    job, _, _ = training
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.1.new").write_text("half a conf")
    assert finish(job, tmp_path / "run") == ""
