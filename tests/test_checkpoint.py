from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutored import checkpoint
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.config import Config, make_config
from tutored.errors import InputError
from tutored.files import former
from tutored.labels import LabelSpace
from tutored.student import BlitzNet
from tutored.tutors.student import StudentTutor

PETS = LabelSpace.of(["cat", "dog"])
SHAPE = {"backbone": "mobilenetv3_small_050", "size": 64, "extra_width": 32, "up_width": 16, "map_width": 8}


def config_of(**student: object) -> Config:
    return make_config({"data": {"train": "voc:somewhere"}, "student": {**SHAPE, **student}})


def saved(folder: Path, config: Config | None = None) -> BlitzNet:
    config = config or config_of()
    student = BlitzNet(config.student, PETS).eval()
    save_checkpoint(folder, student, config)
    return student


def test_a_loaded_student_answers_the_same(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    loaded, config, labels = load_checkpoint(tmp_path / "best")
    assert (config, labels) == (config_of(), PETS)
    assert not loaded.training
    images = torch.rand(2, 3, 64, 64)
    for got, want in zip(loaded(images), student(images), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    description = json.loads((tmp_path / "best" / "checkpoint.json").read_text())
    assert description["labels"] == ["background", "cat", "dog"]
    assert {file.name for file in tmp_path.rglob("*")} == {"best", "checkpoint.json", "model.safetensors"}


@pytest.mark.parametrize("frozen", [False, True])
def test_the_imagenet_file_is_not_needed_any_more(tmp_path: Path, frozen: bool) -> None:
    path = tmp_path / "imagenet.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), path)
    student = saved(tmp_path / "best", config_of(weights=str(path), freeze_norm=frozen))
    assert ("backbone.net.bn1.weight" in load_file(tmp_path / "best" / "model.safetensors")) != frozen
    path.unlink()
    loaded, config, _ = load_checkpoint(tmp_path / "best")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(loaded(images).logits, student(images).logits, rtol=0, atol=0)
    assert config.student.weights == str(path)
    save_checkpoint(tmp_path / "again", loaded, config)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "best" / "model.safetensors"
    ).read_bytes()


def test_a_newer_checkpoint_takes_the_place_of_the_older(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "last"), saved(tmp_path / "last")
    loaded, _, _ = load_checkpoint(tmp_path / "last")
    weight = "boxes.deltas.0.weight"
    assert torch.equal(loaded.state_dict()[weight], new.state_dict()[weight])
    assert not torch.equal(old.state_dict()[weight], new.state_dict()[weight])
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_a_failed_write_leaves_the_older_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = saved(tmp_path / "last")

    def full_disk(*_args: object) -> None:
        raise SafetensorError("No space left on device")  # not an OSError, as it should be

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match=r"last: can't be written \(No space"):
        saved(tmp_path / "last")
    with pytest.raises(OSError, match=r"first: can't be written \(No space"):
        saved(tmp_path / "first")
    loaded, _, _ = load_checkpoint(tmp_path / "last")
    assert torch.equal(loaded.map.logits.weight, student.map.logits.weight)
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_killed_between_the_renames_the_older_one_is_read(tmp_path: Path) -> None:
    student = saved(tmp_path / "last")
    (tmp_path / "last").rename(former(tmp_path / "last"))
    loaded, _, _ = load_checkpoint(tmp_path / "last")
    assert torch.equal(loaded.map.logits.weight, student.map.logits.weight)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(InputError, match="photos: exists and is no checkpoint"):
        saved(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_another_label_space_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "best")
    load_checkpoint(tmp_path / "best", PETS)
    with pytest.raises(InputError, match=r"only there: dog; only here: cow\)"):
        load_checkpoint(tmp_path / "best", LabelSpace.of(["cat", "cow"]))
    with pytest.raises(InputError, match="same classes in another order"):
        load_checkpoint(tmp_path / "best", LabelSpace.of(["dog", "cat"]))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    file = tmp_path / "best" / "model.safetensors"
    tensors = {name: value.contiguous() for name, value in student.state_dict().items()}

    save_file({name: value for name, value in tensors.items() if name != "map.logits.bias"}, file)
    with pytest.raises(InputError, match=r"model\.safetensors: .*1 tensors .*\(map\.logits\.bias\)"):
        load_checkpoint(tmp_path / "best")
    save_file({**tensors, "stray": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"1 tensors .*\(stray\)"):
        load_checkpoint(tmp_path / "best")
    save_file({**tensors, "map.logits.bias": torch.zeros(21)}, file)
    with pytest.raises(InputError, match=r"1 tensors .*\(map\.logits\.bias\)"):
        load_checkpoint(tmp_path / "best")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: can't be read"):
        load_checkpoint(tmp_path / "best")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no checkpoint \(checkpoint\.json: No such file"):
        load_checkpoint(tmp_path / "nowhere")
    saved(tmp_path / "run" / "checkpoint")
    with pytest.raises(InputError, match=r"run is a run, and its checkpoint lies in it; give .*run/checkpoint$"):
        load_checkpoint(tmp_path / "run")
    saved(tmp_path / "best")
    file = tmp_path / "best" / "checkpoint.json"
    good = json.loads(file.read_text())

    def refused(text: str, message: str) -> None:
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            load_checkpoint(tmp_path / "best")

    refused("{", "not JSON")
    refused("[]", "format None")
    refused(json.dumps({**good, "format": 2}), "format 2, and tutored .* reads format 1")
    refused(json.dumps({**good, "labels": ["cat"]}), "damaged")
    refused(json.dumps({**good, "config": {**good["config"], "studnet": {}}}), "studnet: no such key")


def test_a_student_teaches_one_image_at_a_time(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    tutor = StudentTutor(tmp_path / "best", score_floor=0.2, device="cpu")
    (small,) = tutor([Image.new("RGB", (90, 5))], ["thin"])
    assert small.map is not None and small.map.shape[1:] == (5, 8), "no more cells than pixels"
    images = [Image.new("RGB", (90, 60), "red"), Image.new("RGB", (40, 80), "blue")]
    first, second = tutor(images, ["a", "b"])
    assert tutor.labels == PETS
    assert (first.size, second.size) == ((60, 90), (80, 40))
    assert first.map is not None and first.map.shape == (3, student.sides[0], student.sides[0])
    torch.testing.assert_close(first.map.sum(0), torch.ones(8, 8))
    assert first.probs is not None and first.probs.shape[1] == 3
    assert bool((first.scores > 0.2).all())
    (alone,) = tutor(images[1:], ["b"])
    assert alone.map is not None and second.map is not None and torch.equal(alone.map, second.map)

    assert tutor.identity["weights_sha256"] == StudentTutor(tmp_path / "best").identity["weights_sha256"]
    saved(tmp_path / "other")
    assert tutor.identity["weights_sha256"] != StudentTutor(tmp_path / "other").identity["weights_sha256"]
    assert tutor.identity["score_floor"] == 0.2
    assert json.loads(json.dumps(dict(tutor.identity))) == dict(tutor.identity)
