"""Damaged files are refused by name or read as valid; commands that are disturbed go on to the same bytes.

`python -m benchmarks.faults` does the same hundreds of times.
"""

import signal
from operator import attrgetter

import pytest
import yaml

pytest.importorskip("onnxruntime")

from benchmarks.faults.campaign import differing, disturbed, make_jobs
from benchmarks.faults.readers import READERS, examine
from benchmarks.faults.work import Fault, run

from tutored.config import read_yaml
from tutored.errors import InputError

EXAMPLES = 15
STOPPED = "tutored: stopped; what is finished is kept, go on with --resume"


@pytest.mark.parametrize("reader", READERS, ids=attrgetter("name"))
def test_a_damaged_file_is_refused_or_read_as_valid(reader, tmp_path):
    row = examine(reader, tmp_path / "at", max(round(EXAMPLES * reader.share), 3), seed=0)
    assert row["losses"] == [] and row["tried"] > 2


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_jobs(tmp_path_factory.mktemp("jobs"), ("train",))["train"]


def test_a_disturbed_command_goes_on_to_the_same_bytes(job):
    assert disturbed(job, "full disk", 1, seed=0)["losses"] == []


def test_ctrl_c_in_all_processes_stops_with_a_clear_line(job, tmp_path):
    out = tmp_path / "run"
    words = [*job.words, "--train.workers", "2", "--out", str(out)]
    ended = run(words, out, Fault(signal.SIGINT, change=job.undisturbed.changes // 2))
    assert (ended.code, ended.last_line, "Traceback" in ended.text) == (1, STOPPED, False)
    assert run(words, out).code == 0
    assert differing(out / "checkpoint", job.whole / "checkpoint", {"config"}) == []


def test_yaml_may_have_few_aliases(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"a": [1, 2]}) + "b: &b {c: 1}\nd: *b\n")
    assert read_yaml(file) == {"a": [1, 2], "b": {"c": 1}, "d": {"c": 1}}
    file.write_text("a: &a [*a]\n")
    with pytest.raises(InputError, match=r"a\.yaml: more than 100,000 entries, aliases counted"):
        read_yaml(file)
