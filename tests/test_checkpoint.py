import json

import pytest
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from made import SHAPE, refused, two_tasks
from tutored import checkpoint
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.config import make_config
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.students import make_student

PETS = LabelSpace.of(["cat", "dog"])


def config_of(**student):
    return make_config({"data": {"train": "voc:somewhere"}, "student": {**SHAPE, **student}})


def saved(folder, config=None):
    config = config or config_of()
    student = make_student(config.student, two_tasks(PETS)).eval()
    save_checkpoint(folder, student, config)
    return student


def answers(student, images):
    raw = student(images)
    return [*raw["detection"], raw["segmentation"]]


def map_weight(student):
    return student.state_dict()["heads.segmentation.network.logits.weight"]


def test_a_loaded_student_answers_the_same(tmp_path):
    student = saved(tmp_path / "best")
    loaded, config = load_checkpoint(tmp_path / "best")
    assert config == config_of()
    assert {name: task.labels for name, task in loaded.tasks.items()} == dict.fromkeys(two_tasks(), PETS)
    assert not loaded.training
    images = torch.rand(2, 3, 64, 64)
    for got, want in zip(answers(loaded, images), answers(student, images), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    description = json.loads((tmp_path / "best" / "checkpoint.json").read_text())
    assert description["tasks"] == {name: ["background", "cat", "dog"] for name in two_tasks()}
    assert {file.name for file in tmp_path.rglob("*")} == {"best", "checkpoint.json", "model.safetensors"}


@pytest.mark.parametrize("frozen", [False, True])
def test_the_imagenet_file_is_not_needed_any_more(tmp_path, frozen):
    path = tmp_path / "imagenet.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), path)
    student = saved(tmp_path / "best", config_of(weights=str(path), freeze_norm=frozen))
    assert ("backbone.net.bn1.weight" in load_file(tmp_path / "best" / "model.safetensors")) != frozen
    path.unlink()
    loaded, config = load_checkpoint(tmp_path / "best")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(answers(loaded, images)[1], answers(student, images)[1], rtol=0, atol=0)
    assert config.student.weights == str(path)
    save_checkpoint(tmp_path / "again", loaded, config)
    again, best = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("again", "best"))
    assert again == best


def test_a_failed_write_leaves_the_older_one_and_nothing_else(tmp_path, monkeypatch):
    student = saved(tmp_path / "last")

    def full_disk(*_args):
        raise SafetensorError("No space left on device")  # not an OSError, as it should be

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match=r"last: can't be written \(No space"):
        saved(tmp_path / "last")
    with pytest.raises(OSError, match=r"first: can't be written \(No space"):
        saved(tmp_path / "first")
    loaded, _ = load_checkpoint(tmp_path / "last")
    assert torch.equal(map_weight(loaded), map_weight(student))
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    refused("photos: exists and is no checkpoint", saved, tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


BIAS = "heads.segmentation.network.logits.bias"


def test_tensors_that_do_not_fit_are_named(tmp_path):
    student = saved(tmp_path / "best")
    file = tmp_path / "best" / "model.safetensors"
    tensors = {name: value.contiguous() for name, value in student.state_dict().items()}

    save_file({name: value for name, value in tensors.items() if name != BIAS}, file)
    refused(r"model\.safetensors: .*1 tensors", load_checkpoint, tmp_path / "best")
    save_file({**tensors, "stray": torch.zeros(1)}, file)
    refused(r"1 tensors .*\(stray\)", load_checkpoint, tmp_path / "best")
    save_file({**tensors, BIAS: torch.zeros(21)}, file)
    refused(r"1 tensors .*\(heads\.segmentation\.network\.logits\.bias\)", load_checkpoint, tmp_path / "best")
    file.write_bytes(file.read_bytes()[:-100])
    refused(r"model\.safetensors: can't be read", load_checkpoint, tmp_path / "best")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no checkpoint \(it has no checkpoint\.json\); `tutored train`"):
        load_checkpoint(tmp_path / "nowhere")
    saved(tmp_path / "run" / "checkpoint")
    with pytest.raises(InputError, match=r"run is a run, and its checkpoint lies in it; give .*run/checkpoint$"):
        load_checkpoint(tmp_path / "run")
    saved(tmp_path / "best")
    file = tmp_path / "best" / "checkpoint.json"
    good = json.loads(file.read_text())

    def refused(text, message):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            load_checkpoint(tmp_path / "best")

    refused("{", "can.t be read as JSON")
    refused("[]", "format None")
    refused(json.dumps({**good, "format": 1}), "format 1, and tutored .* reads format 2")
    refused(json.dumps({**good, "tasks": {"detection": ["cat"]}}), "damaged")
    depth = json.dumps({**good, "tasks": {"depth": ["background"]}})
    refused(depth, "its tasks are depth, those of its config detection, ")
    refused(json.dumps({**good, "config": {**good["config"], "studnet": {}}}), "studnet: no such key")
