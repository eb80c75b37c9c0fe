"""The whole command line on made-up data, and what a user sees who makes a mistake."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError

from made import TINY
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.cli import main
from tutored.cli.options import make_parser
from tutored.cli.progress import bar, watch_study
from tutored.data import open_dataset
from tutored.judge import predictions_of
from tutored.labels import VOC, ClassMap
from tutored.predict import Predictor, predict_dataset
from tutored.softlabels import Folded, Store
from tutored.studies import Standing


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
    assert {each["split"] for each in figures.values()} == {"val"}
    assert figures["student"]["notes"] == []
    assert "20 of the tutor's 20 classes map to ours" in figures["store"]["notes"][0]
    assert "20 of the tutor's 20 classes map to ours" in capsys.readouterr().out

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
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert [first, second] == [f"note: {note}" for note in result["notes"]]
    assert all("20 of the tutor's 20 classes map to ours" in note for note in (first, second))
    assert rest[0].startswith("wrote ") and rest[1].startswith("next: tutored evaluate ")

    pictures = [str(voc_folder / "JPEGImages" / "val_000.jpg"), str(voc_folder / "JPEGImages" / "val_001.jpg")]
    assert main(["predict", str(work / "tutored" / "checkpoint"), *pictures, "--out", str(work / "seen")]) == 0
    names = {path.name for path in (work / "seen").iterdir()}
    assert names == {f"val_00{i}{end}" for i in (0, 1) for end in (".predicted.jpg", ".mask.png")} | {
        "predictions.json"
    }
    assert Image.open(work / "seen" / "val_000.mask.png").size == Image.open(pictures[0]).size


def test_a_store_answers_as_the_student_that_filled_it(work, voc_folder, tmp_path):
    student, config, labels = load_checkpoint(work / "run" / "checkpoint")
    torch.manual_seed(0)
    for weight in (student.map.logits.weight, student.map.logits.bias):  # so that the map is not background only
        torch.nn.init.normal_(weight, std=3)
    save_checkpoint(tmp_path / "student", student, config)
    data = ["--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "store")]
    assert main(["label", "student", "--weights", str(tmp_path / "student"), *data]) == 0

    dataset, store = open_dataset(f"voc:{voc_folder}", "val"), Store.open(tmp_path / "store")
    told = dict(predictions_of(Folded(store, ClassMap.by_name(labels, labels)), dataset, store.path))
    classes_drawn = set()
    for image_id, seen in predict_dataset(Predictor(student, config.decode), dataset):
        kept = told[image_id]
        assert len(seen.boxes_xyxy) > 5
        # The best ten: a store's rounding may swap boxes of the same score.
        for prediction in (seen, kept):
            assert prediction.scores.tolist() == sorted(prediction.scores.tolist(), reverse=True)
        torch.testing.assert_close(kept.scores[:10], seen.scores[:10], atol=0.005, rtol=0)
        assert len(kept.boxes_xyxy) == pytest.approx(len(seen.boxes_xyxy), abs=2)
        nearest = torch.cdist(seen.boxes_xyxy[:10], kept.boxes_xyxy).min(dim=1)
        assert float(nearest.values.max()) < 0.5
        # The one enlarges logits, the other their probabilities: they differ along the borders.
        assert float((kept.mask == seen.mask).float().mean()) > 0.9
        classes_drawn |= set(seen.mask.unique().tolist())
    assert len(classes_drawn - {0}) >= 2


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(work, tmp_path, capsys, monkeypatch):
    @contextmanager
    def impatient():
        def watch(report):
            if report.epoch == 2:
                raise KeyboardInterrupt

        yield watch

    command = ["train", str(work / "run.yaml"), "--out", str(tmp_path / "run"), "--train.epochs", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("tutored.cli.progress.watch_training", impatient)
        assert main(command) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert not (tmp_path / "run" / "result.json").exists()
    assert "--resume" in complaint(command, capsys)
    assert main([*command, "--resume"]) == 0
    weights = [folder / "checkpoint" / "model.safetensors" for folder in (tmp_path / "run", work / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_stopped_command_that_keeps_nothing_does_not_advise_to_go_on(work, voc_folder, capsys, monkeypatch):
    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tutored.judge.judge", stopped)
    assert main(["evaluate", str(work / "run" / "checkpoint"), "--data", f"voc:{voc_folder}", "--split", "val"]) == 1
    assert capsys.readouterr().err == "tutored: stopped\n"


@contextmanager
def unread(monkeypatch):
    """Standard output is a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


def test_work_goes_on_to_its_end_where_nobody_reads_of_it(work, voc_folder, tmp_path, monkeypatch):
    student, store, run = work / "run" / "checkpoint", tmp_path / "store", tmp_path / "run"
    data = ["--data", f"voc:{voc_folder}", "--split"]
    fill = ["--supervision.detection.policy", "both", "--supervision.detection.store", store]
    commands = {
        store / "manifest.json": ["label", "student", "--weights", student, *data, "train", "--out", store],
        run / "result.json": ["train", work / "run.yaml", *fill, "--out", run],
        store / "audit.html": ["audit", store, *data, "train"],
        tmp_path / "figures.json": ["evaluate", student, *data, "val", "--json", tmp_path / "figures.json"],
        tmp_path / "check.json": ["data", "check", *data, "val", "--json", tmp_path / "check.json"],
    }
    for written, command in commands.items():
        with unread(monkeypatch):
            assert main([str(word) for word in command]) == 0, command
        assert written.is_file()
    assert json.loads((run / "result.json").read_text())["notes"]


def test_the_evaluation_that_training_names_gives_the_runs_own_figures(work, tmp_path, capsys):
    lists = ["--data.reported", "[cat, dog]", "--data.annotated", "[cat, dog, person]"]
    assert main(["train", str(work / "run.yaml"), *lists, "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.endswith(" --classes cat,dog --annotated cat,dog,person")
    assert main([*told.split()[2:], "--json", str(tmp_path / "figures.json")]) == 0
    figures, own = (json.loads((tmp_path / name).read_text()) for name in ("figures.json", "run/result.json"))
    assert {name: figures[name] for name in own["figures"] if name != "notes"} == {
        name: value for name, value in own["figures"].items() if name != "notes"
    }


def test_a_flipped_byte_in_a_store_is_found(work, voc_folder, tmp_path, capsys):
    label = ["label", "student", "--weights", str(work / "run" / "checkpoint"), "--data", f"voc:{voc_folder}"]
    assert main([*label, "--split", "val", "--out", str(tmp_path / "store")]) == 0
    assert main(["verify", str(tmp_path / "store")]) == 0
    part = tmp_path / "store" / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    assert "part-00000.parquet" in complaint(["verify", tmp_path / "store"], capsys)


def test_classes_that_only_one_of_checkpoint_and_data_set_has(work, make_voc, tmp_path, capsys):
    folder, checkpoint = make_voc(tmp_path / "zoo"), work / "run" / "checkpoint"
    evaluate = ["evaluate", checkpoint, "--data", f"voc:{folder}", "--split", "val"]
    (folder / "labels.txt").write_text("zebra\ngiraffe\n")
    message = complaint(evaluate, capsys)
    assert all(word in message for word in (f"voc:{folder}", str(checkpoint), "zebra, giraffe", "aeroplane"))

    (folder / "labels.txt").write_text("\n".join((*VOC.classes, "zebra")))
    figures = tmp_path / "figures.json"
    assert main([str(each) for each in (*evaluate, "--json", figures)]) == 0
    (note,) = json.loads(figures.read_text())["notes"]
    assert "does not know zebra" in note
    assert note in capsys.readouterr().out


def test_data_may_be_declared_to_annotate_some_of_its_classes(work, voc_folder, tmp_path, capsys):
    evaluate = ["evaluate", work / "run" / "checkpoint", "--data", f"voc:{voc_folder}", "--split", "val"]
    figures = {}
    for name, annotated in (("all", []), ("dog", ["--annotated", "dog"])):
        assert main([str(each) for each in (*evaluate, *annotated, "--json", tmp_path / name)]) == 0
        figures[name] = json.loads((tmp_path / name).read_text())
    assert sum(figures["all"]["objects"].values()) > figures["all"]["objects"]["dog"] > 0
    assert sum(figures["dog"]["objects"].values()) == figures["dog"]["objects"]["dog"]
    assert figures["dog"]["objects"]["dog"] == figures["all"]["objects"]["dog"]
    assert figures["dog"]["annotated"] == ["dog"]
    assert "did you mean dog" in complaint([*evaluate, "--annotated", "dgo"], capsys)


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
    for options, message in (
        (["--train.epochs", "0", work / "run.yaml"], "train.epochs"),
        (["--train.epochs=0", work / "run.yaml"], "train.epochs"),
        ([work / "run.yaml", "--recipe", "thesys"], "recipe"),
    ):
        assert message in complaint(["train", *options, "--out", tmp_path / "x"], capsys)
    predict = ["predict", checkpoint, tmp_path, "--out", tmp_path]
    assert "argument --batch: 0 is not possible; give a whole number from 1" in complaint(
        [*predict, "--batch", "0"], capsys
    )
    assert "--score: 7 is not possible; give a number from 0 to 1" in complaint([*predict, "--score", "7"], capsys)
    assert "4294967296 is not possible" in complaint(["quickstart", "--seed", str(2**32)], capsys), "train.seed's limit"
    assert "device gpu: not here; possible: " in complaint([*predict, "--device", "gpu"], capsys)
    assert "--classes: give names" in complaint(["evaluate", checkpoint, *data, "--classes", ","], capsys)
    assert "the following arguments are required: --out" in complaint(predict[:3], capsys)
    assert "unknown option --batsh" in complaint(
        ["predict", checkpoint, tmp_path, "--out", tmp_path, "--batsh", "3"], capsys
    )
    label = ["label", "student", "--weights", checkpoint, *data, "--out", tmp_path / "store"]
    assert main([str(argument) for argument in label]) == 0
    assert "--resume" in complaint(label, capsys)

    broken = make_voc(tmp_path / "broken")
    picture = broken / "JPEGImages" / "val_001.jpg"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    assert "val_001.jpg" in complaint(["evaluate", checkpoint, "--data", f"voc:{broken}", "--split", "val"], capsys)
    assert main(["data", "check", "--data", f"voc:{broken}", "--split", "val"]) == 2
    assert "val_001.jpg" in capsys.readouterr().out
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg" in complaint(["predict", checkpoint, tmp_path / "text.jpg", "--out", tmp_path / "p"], capsys)


def test_options_that_would_do_nothing_are_refused(work, voc_folder, tmp_path, capsys):
    checkpoint, out = work / "run" / "checkpoint", tmp_path / "out"
    label = ["label", "student", "--weights", checkpoint, "--data", f"voc:{voc_folder}", "--split", "val", "--out", out]
    (tmp_path / "a.mp4").touch()
    predict = ["predict", checkpoint, tmp_path / "a.mp4", "--out", out, "--coco", tmp_path / "coco.json"]
    for words, message in (
        ([*label, "--workers", "2"], "--workers is for --engine ray"),
        ([*label, "--worker-gpus", "0"], "--worker-gpus is for --engine ray"),
        ([*label, "--engine", "ray", "--processes", "2"], "--processes is not for --engine ray"),
        ([*label, "--engine", "ray", "--rank", "0"], "--rank is not for --engine ray"),
        (["init", out, "--example", "--out", tmp_path / "t.yaml"], "--out is not for --example"),
        (predict, "--coco numbers pictures, and none is given; leave it out"),
    ):
        assert message in complaint(words, capsys)
    assert not out.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_is_the_machines_fault_and_leaves_nothing(work, tmp_path, capsys, monkeypatch, error):
    def full(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("tutored.checkpoint.save_file", full)
    assert main(["train", str(work / "run.yaml"), "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert f"{tmp_path}/run/checkpoint: can't be written (No space left on device); make room" in message
    assert "--resume" in message
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
    ],
)
def test_too_little_memory_is_the_machines_fault_and_the_run_goes_on(work, tmp_path, capsys, monkeypatch, error):
    def full(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("tutored.engine.trainer.backward", full)
    assert main(["train", str(work / "run.yaml"), "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert f"not enough memory: {error}; smaller batches (train.micro_batch" in message
    assert "a defect" not in message and "go on with --resume" in message


def test_a_disk_that_fills_up_while_labelling(work, voc_folder, tmp_path, capsys, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    label = ["label", "student", "--weights", str(work / "run" / "checkpoint"), "--data", f"voc:{voc_folder}"]
    label += ["--split", "val", "--out", str(tmp_path / "store")]
    with monkeypatch.context() as patch:
        patch.setattr("tutored.softlabels.writer.pq.write_table", full)
        assert main(label) == 1
    message = capsys.readouterr().err
    assert all(word in message for word in ("part-00000.parquet", "No space left on device", "make room", "--resume"))
    assert main([*label, "--resume"]) == 0


def test_where_nobody_watches_a_bar_lines_come(capsys, monkeypatch):
    with bar("reading") as step:
        step(1, 10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("tutored.cli.progress.LINE_SECONDS", -1)
    with bar("reading") as step:
        step(3, 10)
        step(4, 10)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("reading: 3 of 10, ")
    assert second.startswith("reading: 4 of 10, ")
    assert second.endswith("/s")


def test_a_bar_takes_any_name(monkeypatch):
    monkeypatch.setattr("tutored.cli.progress.Lasting.is_terminal", True)
    with bar("{3F25} [bold]film") as step:
        step(1, 10)


@pytest.mark.parametrize("watched", [True, False])
def test_a_row_of_a_study_has_any_name(watched, monkeypatch, capsys):
    monkeypatch.setattr("tutored.cli.progress.LINE_SECONDS", -1)
    monkeypatch.setattr("tutored.cli.progress.Lasting.is_terminal", watched)
    run, report = SimpleNamespace(label="lr [/10] and [fast]"), SimpleNamespace(step=1, steps=2)
    with watch_study() as watch:
        watch(Standing(0, 1, run, report, None))
    assert watched or "0 of 1 runs; lr [/10] and [fast]: step 1 of 2" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "option"), [("files", "--from FOLDER"), ("onnx", "--weights FILE")])
def test_each_kind_of_tutor_has_its_own_help(kind, option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["label", kind, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert option in printed
    assert "--resume" in printed


def test_checking_data_does_not_load_what_trains(voc_folder):
    script = f"""
import sys
from tutored.cli import main
main(["data", "check", "--data", "voc:{voc_folder}", "--split", "val"])
sys.exit(bool({{"accelerate", "timm", "tutored.engine"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_list_of_commands_is_what_we_promised():
    commands = next(action for action in make_parser()._actions if action.choices)
    assert list(commands.choices) == [
        "quickstart",
        "init",
        "data",
        "label",
        "verify",
        "audit",
        "convert",
        "train",
        "report",
        "evaluate",
        "compare",
        "study",
        "predict",
        "serve",
        "export",
    ]


def test_help_starts_without_torch():
    script = "import sys, tutored.cli as cli; cli.make_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
