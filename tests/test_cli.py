"""The whole command line on made-up data, and what a user sees who makes a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tutored.cli import main
from tutored.cli.options import make_parser

TINY = {"backbone": "test_resnet", "size": 64, "extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8}


@pytest.fixture(scope="module")
def work(tmp_path_factory, voc_folder) -> Path:
    """A trained student, and a config to train another from its labels."""
    folder = tmp_path_factory.mktemp("work")
    config = {
        "data": {"train": f"voc:{voc_folder}"},
        "student": TINY,
        "train": {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(folder / "run.yaml"), "--out", str(folder / "run"), "--train.epochs", "2"]) == 0
    return folder


def test_from_data_to_a_tutored_student_and_its_pictures(work, voc_folder, capsys):
    data = ["--data", f"voc:{voc_folder}"]
    assert main(["data", "check", *data, "--split", "train", "--split", "val", "--json", str(work / "c.json")]) == 0
    report = json.loads((work / "c.json").read_text())
    assert [report["splits"]["train"][key] for key in ("images", "boxes", "masks", "both", "none")] == [8, 5, 5, 3, 1]

    checkpoint = str(work / "run" / "checkpoint")
    for split in ("train", "val"):
        out = ["--split", split, "--out", str(work / f"store-{split}")]
        assert main(["label", "student", "--weights", checkpoint, *data, *out]) == 0
    assert main(["verify", str(work / "store-train")]) == 0

    figures = {}
    for name, subject in (("student", checkpoint), ("store", str(work / "store-val"))):
        written = str(work / f"{name}.json")
        assert main(["evaluate", subject, *data, "--split", "val", "--classes", "cat,dog", "--json", written]) == 0
        figures[name] = json.loads(Path(written).read_text())
    assert figures["student"]["classes"] == figures["store"]["classes"] == ["cat", "dog"]
    assert set(figures["student"]) == set(figures["store"])
    assert figures["store"]["mIoU"] == pytest.approx(figures["student"]["mIoU"], abs=0.05)

    store = str(work / "store-train")
    fill = [
        argument
        for task in ("detection", "segmentation")
        for key, value in (("policy", "fill"), ("store", store), ("hidden", "0.5"))
        for argument in (f"--supervision.{task}.{key}", value)
    ]
    assert main(["train", str(work / "run.yaml"), *fill, "--out", str(work / "tutored")]) == 0
    result = json.loads((work / "tutored" / "result.json").read_text())
    assert result["config"]["supervision"]["detection"]["policy"] == "fill"

    pictures = [str(voc_folder / "JPEGImages" / "val_000.jpg"), str(voc_folder / "JPEGImages" / "val_001.jpg")]
    assert main(["predict", str(work / "tutored" / "checkpoint"), *pictures, "--out", str(work / "seen")]) == 0
    names = {path.name for path in (work / "seen").iterdir()}
    assert names == {f"val_00{i}{end}" for i in (0, 1) for end in (".predicted.jpg", ".mask.png")} | {
        "predictions.json"
    }
    assert Image.open(work / "seen" / "val_000.mask.png").size == Image.open(pictures[0]).size
    assert "next: tutored evaluate" in capsys.readouterr().out


def test_export_is_checked_and_runs_without_us(work, voc_folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = work / "student.onnx"
    assert main(["export", str(work / "run" / "checkpoint"), "--to", "onnx", "--out", str(out)]) == 0
    assert onnxruntime.InferenceSession(str(out)).get_inputs()[0].shape[1:] == [3, 64, 64]


def complaint(arguments, capsys) -> str:
    """The message of a command that must fail with exit code 2, without a traceback."""
    assert main([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tutored: ")
    assert "Traceback" not in errors
    return errors


def test_mistakes_are_one_message_and_exit_code_2(work, voc_folder, make_voc, tmp_path, capsys):
    data = ["--data", f"voc:{voc_folder}", "--split", "val"]
    checkpoint = work / "run" / "checkpoint"
    assert "possible: voc:FOLDER, coco:FOLDER" in complaint(
        ["evaluate", checkpoint, "--data", "csv:x", "--split", "a"], capsys
    )
    assert "no-such" in complaint(["evaluate", checkpoint, "--data", "voc:no-such", "--split", "a"], capsys)
    assert "train, val" in complaint(["evaluate", checkpoint, *data[:3], "validation"], capsys)
    assert "did you mean cat" in complaint(["evaluate", checkpoint, *data, "--classes", "cta"], capsys)
    assert "no checkpoint" in complaint(["evaluate", tmp_path, *data], capsys)
    assert "did you mean epochs" in complaint(
        ["train", work / "run.yaml", "--train.epoch", "3", "--out", tmp_path], capsys
    )
    assert "unknown option --epochs" in complaint(
        ["train", work / "run.yaml", "--epochs", "3", "--out", tmp_path], capsys
    )
    assert "give a value" in complaint(["train", work / "run.yaml", "--train.epochs", "--out", tmp_path / "x"], capsys)
    assert "unknown option --batsh" in complaint(
        ["predict", checkpoint, tmp_path, "--out", tmp_path, "--batsh", "3"], capsys
    )
    label = ["label", "student", "--weights", checkpoint, *data, "--out", tmp_path / "store"]
    assert main([str(argument) for argument in label]) == 0
    assert "--resume" in complaint(label, capsys)

    broken = make_voc(tmp_path / "broken")
    (broken / "JPEGImages" / "val_001.jpg").write_bytes(b"\xff\xd8\xff no picture")
    assert "val_001.jpg" in complaint(["evaluate", checkpoint, "--data", f"voc:{broken}", "--split", "val"], capsys)
    assert main(["data", "check", "--data", f"voc:{broken}", "--split", "val"]) == 2
    assert "val_001.jpg" in capsys.readouterr().out
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg" in complaint(["predict", checkpoint, tmp_path / "text.jpg", "--out", tmp_path / "p"], capsys)


def test_a_full_disk_is_the_machines_fault_and_leaves_nothing(work, voc_folder, tmp_path, capsys, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "run"))

    monkeypatch.setattr("tutored.checkpoint.save_file", full)
    assert main(["train", str(work / "run.yaml"), "--out", str(tmp_path / "run")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def test_the_list_of_commands_is_what_we_promised():
    commands = next(action for action in make_parser()._actions if action.choices)
    assert list(commands.choices) == [
        "quickstart",
        "data",
        "label",
        "verify",
        "train",
        "evaluate",
        "predict",
        "export",
    ]


def test_help_starts_without_torch():
    script = "import sys, tutored.cli as cli; cli.make_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
