"""The whole command line on made-up data, and what a user sees who makes a mistake."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError

from made import TINY
from tutored.cli import main
from tutored.config.entries import DEFAULT_TASKS


@pytest.fixture(scope="module")
def work(tmp_path_factory, voc_folder):
    """A trained student, and a config to train another from its labels."""
    folder = tmp_path_factory.mktemp("work")
    config = {"data": {"train": f"voc:{voc_folder}"}, "student": TINY}
    config["train"] = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu"}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert run("train", folder / "run.yaml", "--out", folder / "run", "--train.epochs", "2") == 0
    return folder


def run(*words):
    return main([str(word) for word in words])


def complaint(words, capsys):
    """The message of a command that must fail with exit code 2, without a traceback."""
    assert run(*words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tutored: ") and "Traceback" not in errors
    return errors


def test_every_command_says_first_what_it_leaves_out(work, make_voc, tmp_path, capsys):
    folder = make_voc(tmp_path / "voc")
    Image.new("RGB", (9, 9)).save(folder / "JPEGImages" / "scan.gif")
    for mask in (folder / "SegmentationClass").glob("*.png"):
        Image.new("L", Image.open(mask).size, 255).save(mask)
    data, store = ("--data", f"voc:{folder}", "--split", "val"), tmp_path / "store"
    told = {}
    for name, words in {
        "label": (f"student:{work / 'run' / 'checkpoint'}", *data, "--out", store),
        "audit": (store, *data),
        "evaluate": (store, *data),
        "convert": (store, *data, "--to", "voc", "--out", tmp_path / "converted"),
    }.items():
        assert run(name, *words) == 0
        told[name] = capsys.readouterr().out.splitlines()[:2]
    for first, second in told.values():
        assert first.startswith("note: 1 pictures of other formats, such as ") and "scan.gif" in first
        assert second.startswith("note: segmentation: none of 4 annotations looked at holds a class")


def test_from_data_to_a_tutored_student_and_its_pictures(work, voc_folder, capsys):
    data = ["--data", f"voc:{voc_folder}"]
    assert run("data", "check", *data, "--split", "train", "val", "--json", work / "check.json") == 0
    report = json.loads((work / "check.json").read_text())["splits"]["train"]
    assert [report[key] for key in ("images", "complete", "none")] == [8, 3, 1]

    checkpoint = work / "run" / "checkpoint"
    assert run("label", f"student:{checkpoint}", *data, "--split", "train", "--out", work / "store-train") == 0
    assert run("label", "student", f"--weights={checkpoint}", *data, "--split", "val", "--out", work / "store-val") == 0
    assert run("verify", work / "store-train") == 0

    figures = {}
    for name, subject in (("student", checkpoint), ("store", work / "store-val")):
        words = [*data, "--split", "val", "--classes", "cat,dog", "--json", work / f"{name}.json"]
        assert run("evaluate", subject, *words) == 0
        figures[name] = json.loads((work / f"{name}.json").read_text())
    assert figures["student"].keys() == figures["store"].keys()
    for each in figures.values():
        assert each["split"] == "val" and list(each["tasks"]) == list(DEFAULT_TASKS)
        assert all(task["classes"] == ["cat", "dog"] for task in each["tasks"].values())
    assert figures["student"]["notes"] == []
    assert "20 of the tutor's 20 classes map to ours" in figures["store"]["notes"][0]
    assert figures["store"]["notes"][0] in capsys.readouterr().out

    keys = {"policy": "fill", "store": work / "store-train", "hidden": "0.5"}
    fill = [word for task in DEFAULT_TASKS for key, value in keys.items() for word in (f"--tasks.{task}.{key}", value)]
    assert run("train", work / "run.yaml", *fill, "--out", work / "tutored") == 0
    result = json.loads((work / "tutored" / "result.json").read_text())
    assert {task["policy"] for task in result["config"]["tasks"].values()} == {"fill"}
    told = capsys.readouterr().out
    assert all(f"note: {note}\n" in told for note in result["notes"]) and result["notes"]
    assert f"epoch 1: {DEFAULT_TASKS[0]} " in told and "next: tutored evaluate " in told
    assert (work / "tutored" / "report.html").is_file()
    assert run("report", work / "tutored") == 0

    pictures = [voc_folder / "JPEGImages" / f"val_00{number}.jpg" for number in (0, 1)]
    assert run("predict", work / "tutored" / "checkpoint", *pictures, "--out", work / "seen") == 0
    names = {path.name for path in (work / "seen").iterdir()}
    assert {"val_000.predicted.jpg", "val_001.predicted.jpg", "predictions.json"} < names
    assert Image.open(work / "seen" / "val_000.predicted.jpg").width >= Image.open(pictures[0]).width


def test_a_stopped_command_says_how_to_go_on(work, tmp_path, capsys, monkeypatch):
    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tutored.engine.train", stopped)
    assert run("train", work / "run.yaml", "--out", tmp_path / "run") == 1
    assert capsys.readouterr().err == "tutored: stopped; what is finished is kept, go on with --resume\n"


@contextmanager
def unread(monkeypatch):
    """Standard output is a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


def test_work_goes_on_where_nobody_reads_of_it(work, voc_folder, tmp_path, monkeypatch):
    student, store, out = work / "run" / "checkpoint", tmp_path / "store", tmp_path / "run"
    data = ["--data", f"voc:{voc_folder}", "--split"]
    fill = [f"--tasks.{DEFAULT_TASKS[0]}.policy=both", f"--tasks.{DEFAULT_TASKS[0]}.store={store}"]
    commands = {
        store / "manifest.json": ["label", "student", "--weights", student, *data, "train", "--out", store],
        out / "result.json": ["train", work / "run.yaml", *fill, "--out", out],
        store / "audit.html": ["audit", store, *data, "train"],
        tmp_path / "figures.json": ["evaluate", student, *data, "val", "--json", tmp_path / "figures.json"],
        tmp_path / "check.json": ["data", "check", *data, "val", "--json", tmp_path / "check.json"],
    }
    for written, command in commands.items():
        with unread(monkeypatch):
            assert run(*command) == 0, command
        assert written.is_file()


def test_the_evaluation_that_training_names_gives_its_figures(work, tmp_path, capsys):
    lists = [f"--tasks.{task}.reported=[cat, dog]" for task in DEFAULT_TASKS]
    annotated = "{" + f"{DEFAULT_TASKS[0]}: [cat, dog, person]" + "}"
    assert run("train", work / "run.yaml", *lists, "--data.annotated", annotated, "--out", tmp_path / "run") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.endswith(f" --annotated {DEFAULT_TASKS[0]}=cat,dog,person")
    assert run(*told.split()[2:], "--json", tmp_path / "figures.json") == 0
    figures, own = (json.loads((tmp_path / name).read_text()) for name in ("figures.json", "run/result.json"))
    assert figures["tasks"] == own["figures"]
    assert figures["tasks"][DEFAULT_TASKS[0]]["classes"] == ["cat", "dog"]


def test_names_are_for_all_tasks_or_for_one(work, voc_folder, tmp_path, capsys):
    words = ["evaluate", work / "run" / "checkpoint", "--data", f"voc:{voc_folder}", "--split", "val"]
    one, other = DEFAULT_TASKS
    given = ["--classes", f"{one}=cat", "--classes", f"{other}=dog,bus", "--annotated", "dog,cat,bus"]
    assert run(*words, *given, "--json", tmp_path / "f.json") == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert [figures["tasks"][task]["classes"] for task in (one, other)] == [["cat"], ["dog", "bus"]]
    assert figures["annotated"] == ["dog", "cat", "bus"]
    assert "did you mean dog" in complaint([*words, "--annotated", "dgo"], capsys)
    assert "did you mean cat" in complaint([*words, "--classes", f"{one}=cta"], capsys)
    assert "parts" in complaint([*words, "--classes", "parts=cat"], capsys)
    assert "once for all tasks" in complaint([*words, "--classes", "cat", "--classes", f"{one}=dog"], capsys)
    assert "values with commas" in complaint([*words, "--classes", ","], capsys)


def test_mistakes_are_one_message_and_exit_code_2(work, voc_folder, make_voc, tmp_path, capsys):
    checkpoint, config, out = work / "run" / "checkpoint", work / "run.yaml", tmp_path / "x"
    data = ["--data", f"voc:{voc_folder}", "--split", "val"]
    evaluate, train = ["evaluate", checkpoint], ["train", config, "--out", out]
    predict = ["predict", checkpoint, voc_folder, "--out", out]
    label = ["label", "student", "--weights", checkpoint, *data, "--out", out / "store"]
    for words, message in (
        (["tarin"], "did you mean `tutored train`?"),
        ([*evaluate, "--data", "voc:no-such", "--split", "a"], "there is no folder no-such"),
        ([*evaluate, "--data", "no-format", "--split", "a"], "possible: voc:FOLDER, coco:FOLDER"),
        ([*evaluate, "--data", f"csv:{voc_folder}", "--split", "a"], "possible: voc:FOLDER, coco:FOLDER"),
        ([*evaluate, *data[:3], "validation"], "train, val"),
        (["evaluate", voc_folder, *data], "no checkpoint"),
        (["evaluate", tmp_path / "nowhere", *data], "does not exist"),
        (["train", tmp_path / "nowhere.yaml", "--out", out], "nowhere.yaml does not exist; `tutored init FOLDER`"),
        ([*train, "--train.epoch", "3"], "did you mean epochs"),
        ([*train, "--epochs", "3"], "did you mean --train.epochs 3?"),
        ([*train, "--train.epochs"], "give a value"),
        ([*train, "--train.epochs", "--resume"], "give a value"),
        (["train", "--train.epochs=0", config, "--out", out], "train.epochs"),
        ([*train, "--recipe", "thesys"], "recipe"),
        ([*train, "--data.train", "voc:no-such"], "there is no folder no-such"),
        ([*predict, "--batch", "0"], "'--batch': 0 is not in the range x>=1"),
        ([*predict, "--score", "7"], "'--score': 7.0 is not in the range"),
        ([*predict, "--score", "nan"], "nan is not possible"),
        ([*predict, "--batsh", "3"], "did you mean --batch 3?"),
        ([*predict, "--device", "gpu"], "device gpu: not here; possible: "),
        (predict[:3], "missing option '--out'"),
        (["predict", checkpoint, tmp_path / "no.jpg", "--out", out], "there is no such picture"),
        (["quickstart", "--seed", 2**32], "4294967296 is not in the range"),
        (["label", "nobody", *data, "--out", out], "no such command 'nobody'"),
        (["label", "onnx:no.onnx", *data, "--out", out], "there is no file or folder 'no.onnx'"),
        (["label", "yolo.pt", *data, "--out", out], "export it: `yolo export model=yolo.pt format=onnx` (Ultralytics)"),
        ([*label, "--score-floor", "7"], "score_floor"),
        ([*label, "--workers", "2"], "--workers is for --engine ray"),
        ([*label, "--worker-gpus", "0"], "--worker-gpus is for --engine ray"),
        ([*label, "--engine", "ray", "--processes", "2"], "--processes is not for --engine ray"),
        (["init", out, "--example", "--out", tmp_path / "t.yaml"], "--out is not for --example"),
    ):
        assert message in complaint(words, capsys).replace("Did", "did"), words
    assert not out.exists()

    os.mkfifo(tmp_path / "pipe")
    table = ["evaluate", checkpoint, *data, "--json"]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").touch()
    for words in (train[:2], predict[:3], label[:-2], ["convert", tmp_path / "store", "--to", "voc", *data]):
        for place in (config, tmp_path / "pipe", config / "below"):
            message = complaint([*words, "--out", place], capsys)
            assert "no folder" in message or "already" in message, words
    assert "pipe is no regular file" in complaint([*table, tmp_path / "pipe"], capsys)
    assert "no regular file" in complaint([*table, tmp_path], capsys)

    (tmp_path / "a.mp4").touch()
    video = ["predict", checkpoint, tmp_path / "a.mp4", *predict[3:], "--coco", config]
    assert "--coco numbers pictures" in complaint(video, capsys)
    assert run(*label) == 0
    assert "--resume" in complaint(label, capsys)
    assert "--resume" in complaint(["train", config, "--out", work / "run", "--train.epochs", "2"], capsys)
    broken = make_voc(tmp_path / "broken")
    picture = broken / "JPEGImages" / "val_001.jpg"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    assert "val_001.jpg" in complaint([*evaluate, "--data", f"voc:{broken}", "--split", "val"], capsys)
    assert run("data", "check", "--data", f"voc:{broken}", "--split", "val") == 2
    assert "val_001.jpg" in capsys.readouterr().out


NO_SPACE = "{run}/checkpoint: can't be written (No space left on device); make room"
NO_MEMORY = "not enough memory: {error}; smaller batches (train.micro_batch"
NO_FILES = "too few files may be open: {error}; raise the limit (`ulimit -n`)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SafetensorError("No space left on device"), NO_SPACE),
        (MemoryError("Unable to allocate 3 GiB"), NO_MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"), NO_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), NO_MEMORY),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "), NO_MEMORY),
        (RuntimeError("received 0 items of ancdata"), NO_FILES),
        (OSError(24, "Too many open files"), NO_FILES),
    ],
)
def test_what_the_machine_lacks_is_told_and_how_to_go_on(work, tmp_path, capsys, monkeypatch, error, told):
    def full(*_args, **_kwargs):
        raise error

    place = "tutored.checkpoint.save_file" if told == NO_SPACE else "tutored.engine.train"
    monkeypatch.setattr(place, full)
    assert run("train", work / "run.yaml", "--out", tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert told.format(error=error, run=tmp_path / "run") in message
    assert "a defect" not in message and "--resume" in message
    assert not (tmp_path / "run" / "checkpoint").exists() and not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "unwanted"),
    [
        (["--help"], 0, {"torch", "numpy", "pydantic", "rich"}),
        (["train", "nowhere.yaml", "--out", "x"], 2, {"torch", "numpy", "pydantic"}),
        (["train", "{misspelt}", "--out", "x"], 2, {"torch", "numpy"}),
        (["label", "onnx:nowhere.onnx", "--data", "voc:.", "--split", "a", "--out", "x"], 2, {"torch", "numpy"}),
        (["evaluate", ".", "--data", "voc:.", "--split", "a"], 2, {"torch", "numpy"}),
    ],
)
def test_nothing_slow_is_imported_before_it_is_needed(words, code, unwanted, tmp_path):
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text("data: {train: 'voc:.'}\ntasks: {detection: {boxfloor: 0.3}}\nstudent: {kind: compact}\n")
    words = [word.format(misspelt=misspelt) for word in words]
    check = f"sys.exit(code + 10 * bool({unwanted} & {{*sys.modules}}))"
    script = f"import sys; from tutored.cli import main; code = main({words}); {check}"
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == code
