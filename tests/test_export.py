from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tutored import boxes, export
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import Decode, Student, make_config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.export import NotEqualError, Options, export_onnx, export_program
from tutored.export.network import Network
from tutored.export.program import ABOUT
from tutored.export.sample import choose_sample
from tutored.labels import LabelSpace
from tutored.structures import Outputs, Prediction
from tutored.student import BlitzNet, decode, preprocess
from tutored.tutors import open_tutor

MakeVoc = Callable[..., Path]
ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("TUTORED_REAL", ROOT.parent / "shared"))
PETS = LabelSpace.of(["cat", "dog"])
SHAPE = {"backbone": "mobilenetv3_small_050", "size": 64, "extra_width": 32, "up_width": 16, "map_width": 8}


def saved(folder: Path, spread: float = 0.5, **sections: Any) -> BlitzNet:
    """A checkpoint whose boxes overlap and whose scores and classes vary; its decoding limits all bite.

    `spread`: of the class head's weights. Too large for the features, and most scores are 1 exactly, in no order.
    """
    torch.manual_seed(0)
    limits = {"score_floor": 0.3, "nms_iou": 0.45, "top_k": 60, "per_class": 15, "total": 25}
    config = make_config({"data": {"train": "voc:somewhere"}, "student": SHAPE, "decode": limits} | sections)
    student = BlitzNet(config.student, PETS).eval()
    for head in student.boxes.logits:
        torch.nn.init.normal_(head.weight, std=spread)
    save_checkpoint(folder, student, config)
    return student


def made_pictures(count: int) -> list[Image.Image]:
    """Noise of several coarsenesses."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (4 + 3 * i, 5 + 2 * i, 3), dtype=np.uint8) for i in range(count)]
    return [Image.fromarray(pixels).resize((90, 50 + i), Image.Resampling.BICUBIC) for i, pixels in enumerate(small)]


def opened(path: Path | bytes) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_an_exported_student_answers_as_pytorch_does_and_says_what_it_needs(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    parity = export_onnx(tmp_path / "best", tmp_path / "best.onnx")
    onnx.checker.check_model(tmp_path / "best.onnx", full_check=True)
    session = opened(tmp_path / "best.onnx")
    for many in (1, 3):
        images = torch.rand(many, 3, 64, 64)
        found = session.run(["boxes", "logits", "map_logits"], {"images": images.numpy()})
        with torch.no_grad():
            outputs = student(images)
        expected = (boxes.decode(outputs.deltas, outputs.anchors_xyxy), outputs.logits, outputs.map_logits)
        for got, want in zip(found, expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["names"]) == ["background", "cat", "dog"]
    assert json.loads(about["decode"])["nms_iou"] == 0.45
    assert json.loads(about["tasks"]) == ["detection", "segmentation"]
    assert list(json.loads(about["outputs"])) == ["boxes", "logits", "map_logits"]
    assert json.loads(about["checked"])["sample"] == parity.sample == "noise: the run's images are not here"
    assert about["precision"] == "float32" and "64 x 64" in about["preprocessing"]
    assert parity.boxes is None and parity.pixels is None and max(parity.differences.values()) < 1e-3


def test_boxes_and_mask_in_the_graph_are_those_of_decode(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    export_onnx(tmp_path / "best", tmp_path / "best.onnx", Options(nms=True, mask=True))
    onnx.checker.check_model(tmp_path / "best.onnx", full_check=True)
    session = opened(tmp_path / "best.onnx")
    assert {output.name: output.shape for output in session.get_outputs()} == {
        "boxes": ["batch", 25, 4],
        "scores": ["batch", 25],
        "classes": ["batch", 25],
        "count": ["batch"],
        "mask": ["batch", 64, 64],
    }
    limits = json.loads(_about(session)["decode"])
    for many in (1, 3):
        images = preprocess(made_pictures(many), 64)
        with torch.no_grad():
            wanted = decode(student(images), [(64, 64)] * many, Decode(**limits), 64)
        assert min(compared(session, images, wanted)) > 5


def compared(session: Any, images: Tensor, wanted: list[Prediction]) -> list[int]:
    """Assert that a graph's final boxes, and its mask if it has one, are these; how many boxes each image has."""
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
    for index, want in enumerate(wanted):
        assert want.boxes_xyxy is not None and want.scores is not None and want.classes is not None
        count = int(found["count"][index])
        assert count == len(want.scores)
        np.testing.assert_allclose(found["boxes"][index, :count], want.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found["scores"][index, :count], want.scores, atol=1e-5)
        assert found["classes"][index, :count].tolist() == want.classes.tolist()
        assert not any(found[name][index, count:].any() for name in ("boxes", "scores", "classes"))
        if "mask" in found:
            assert np.array_equal(found["mask"][index], want.mask)
    return [int(count) for count in found["count"]]


def _about(session: Any) -> Any:
    return session.get_modelmeta().custom_metadata_map


class Scattered(nn.Module):
    """Answers like a student of 90 anchors, by a linear function of 8 x 8 images; a fifth of them lie outside."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.labels = Student(size=8), PETS
        drawn = torch.Generator().manual_seed(0)
        corners = torch.rand(90, 2, generator=drawn) * 10 - 1
        corners[::5] += 12
        sides = torch.rand(90, 2, generator=drawn) * 4 + 1
        self.register_buffer("anchors_xyxy", torch.cat([corners, corners + sides], dim=1))
        self.register_buffer("weights", torch.randn(3 * 8 * 8, 90 * 7, generator=drawn))

    def forward(self, images: Tensor) -> Outputs:
        rows = (images.flatten(1) @ self.weights).reshape(-1, 90, 7) / 8
        return Outputs(self.anchors_xyxy, rows[..., :4], rows[..., 4:], images[:, :, :2, :2])


def test_every_limit_of_decoding_is_in_the_graph() -> None:
    student, images = Scattered(), torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loose = {"score_floor": 0.0, "nms_iou": 0.9, "top_k": 1000, "per_class": 1000, "total": 1000}
    counts = {}
    for name, value in {"": 0, "score_floor": 0.5, "nms_iou": 0.2, "top_k": 9, "per_class": 7, "total": 3}.items():
        limits = Decode(**(loose | ({name: value} if name else {})))
        network = Network(student, Options(nms=True), limits)  # type: ignore[arg-type]
        session = opened(export.onnx._trace(network).SerializeToString())
        counts[name] = max(compared(session, images, decode(student(images), [(8, 8)] * 3, limits, 8)))
    assert 100 < counts[""] <= 2 * 90 * 4 // 5
    assert 9 < counts["top_k"] <= 2 * 9 and counts["per_class"] == 2 * 7 and counts["total"] == 3
    assert 0 < counts["score_floor"] < counts[""] > counts["nms_iou"] > 0


def test_half_precision_keeps_its_types_and_stays_near(tmp_path: Path) -> None:
    saved(tmp_path / "best")
    whole = export_onnx(tmp_path / "best", tmp_path / "whole.onnx", Options(nms=True, mask=True))
    half = export_onnx(tmp_path / "best", tmp_path / "half.onnx", Options(nms=True, mask=True, half=True))
    session = opened(tmp_path / "half.onnx")
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(float)"
    assert _about(session)["precision"] == "float16, inputs and outputs float32"
    assert (tmp_path / "half.onnx").stat().st_size < 0.65 * (tmp_path / "whole.onnx").stat().st_size
    assert half.tolerance == 1e-2 and whole.tolerance == 1e-4
    assert all(1e-6 < half.differences[name] <= 1e-2 * max(1, half.largest[name]) for name in half.differences)
    assert half.pixels is not None and half.pixels[0] < 0.01 * half.pixels[1] == 0.01 * 8 * 64 * 64


@pytest.mark.parametrize(("half", "apart"), [(False, 1e-4), (True, 1e-2)])
def test_a_program_of_torch_export_answers_as_the_student(tmp_path: Path, half: bool, apart: float) -> None:
    student = saved(tmp_path / "best")
    parity = export_program(tmp_path / "best", tmp_path / "best.pt2", half=half)
    kept = {ABOUT: ""}
    loaded = torch.export.load(tmp_path / "best.pt2", extra_files=kept).module()
    for many in (1, 3):
        images = torch.rand(many, 3, 64, 64)
        with torch.no_grad():
            found, outputs = loaded(images), student(images)
        expected = (boxes.decode(outputs.deltas, outputs.anchors_xyxy), outputs.logits, outputs.map_logits)
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want, atol=apart * max(1, float(want.abs().max())), rtol=0)
    about = json.loads(kept[ABOUT])
    assert json.loads(about["names"]) == ["background", "cat", "dog"]
    assert about["precision"].startswith("float16" if half else "float32") and parity.tolerance == apart


def spoil(network: Network) -> None:
    network.student.map.logits.bias += 0.01


def suppress_less(network: Network) -> None:
    network.config = network.config.model_copy(update={"nms_iou": 0.6})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil, r"map_logits differ from PyTorch's by up to 0\.01, .* on noise"),
        (suppress_less, "network's boxes [0-9]+ .* are not what its own raw outputs say"),
    ],
)
def test_a_network_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    saved(tmp_path / "best")
    trace = export.onnx._trace

    def spoiled(network: Network) -> Any:
        config = network.config
        with torch.no_grad():
            change(network)
        traced, network.config = trace(network), config
        return traced

    monkeypatch.setattr(export.onnx, "_trace", spoiled)
    with pytest.raises(NotEqualError, match=message):
        export_onnx(tmp_path / "best", tmp_path / "best.onnx", Options(nms=True))
    arguments = ["export", str(tmp_path / "best"), "--nms", "--out", str(tmp_path / "best.onnx")]
    assert main(arguments) == 1
    assert not (tmp_path / "best.onnx").exists()


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "best")

    def spoiled(*arguments: Any) -> Network:
        network = Network(*arguments)
        with torch.no_grad():
            spoil(network)
        return network

    monkeypatch.setattr(export.program, "Network", spoiled)
    with pytest.raises(NotEqualError, match=r"map_logits differ from PyTorch's by up to 0\.01, "):
        export_program(tmp_path / "best", tmp_path / "best.pt2")
    assert not (tmp_path / "best.pt2").exists()


def test_it_is_checked_on_given_pictures_else_on_those_of_the_run(tmp_path: Path, voc_folder: Path) -> None:
    saved(tmp_path / "best", data={"train": f"voc:{voc_folder}"})
    assert export_onnx(tmp_path / "best", tmp_path / "best.onnx").sample == "4 image(s) of voc:voc0/val"
    (picture,) = made_pictures(1)
    picture.save(tmp_path / "one.png")
    parity = export_onnx(tmp_path / "best", tmp_path / "best.onnx", Options(mask=True), [tmp_path / "one.png"])
    assert parity.sample == "1 picture(s)" and parity.pixels == (0, 3 * 64 * 64)


@pytest.mark.parametrize(("there", "chosen"), [(3, "012"), (8, "01234567"), (10, "01235678")])
def test_up_to_eight_images_spread_over_the_split(make_voc: MakeVoc, tmp_path: Path, there: int, chosen: str) -> None:
    folder = make_voc(tmp_path / "voc", {"val": ("both",) * there})
    config = make_config({"data": {"train": f"voc:{folder}"}})
    dataset = open_dataset(f"voc:{folder}", "val")
    sample = choose_sample(config, [])
    assert sample.words.startswith(f"{len(chosen)} image(s) of ")
    wanted = [dataset.image(f"val_00{number}") for number in chosen]
    assert [np.asarray(each).tobytes() for each in sample.pictures] == [np.asarray(each).tobytes() for each in wanted]


def test_a_run_that_held_images_out_is_checked_on_those_it_has(make_voc: MakeVoc, tmp_path: Path) -> None:
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 3})
    sample = choose_sample(make_config({"data": {"train": f"voc:{folder}", "held_out": 0.5}}), [])
    assert sample.words == "3 image(s) of voc:voc/train"


def test_a_student_of_one_task_says_so_and_answers_as_a_tutor_for_it_alone(tmp_path: Path) -> None:
    saved(tmp_path / "boxes", supervision={"segmentation": {"policy": "none"}})
    export_onnx(tmp_path / "boxes", tmp_path / "boxes.onnx")
    assert json.loads(opened(tmp_path / "boxes.onnx").get_modelmeta().custom_metadata_map["tasks"]) == ["detection"]
    (answer,) = open_tutor("onnx", weights=tmp_path / "boxes.onnx")([Image.new("RGB", (90, 60))], ["a"])
    assert answer.boxes_xyxy is not None and answer.map is None


def test_what_is_not_possible_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "boxes", supervision={"segmentation": {"policy": "none"}})
    with pytest.raises(InputError, match="boxes: was not taught segmentation; export it without mask"):
        export_onnx(tmp_path / "boxes", tmp_path / "x.onnx", Options(mask=True))
    assert main(["export", str(tmp_path / "boxes"), "--to", "torch", "--nms", "--out", str(tmp_path / "x.pt2")]) == 2
    assert "--nms and --mask are ONNX's" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_said_with_the_extra_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    saved(tmp_path / "best")
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "best.onnx")]) == 2
    said = capsys.readouterr().err
    assert said == f"tutored: exporting to ONNX needs {missing}; run `pip install 'tutored[onnx]'`\n"
    assert main(["export", str(tmp_path / "best"), "--to", "torch", "--out", str(tmp_path / "best.pt2")]) == 0


def test_ten_lines_without_us_give_what_predict_gives(tmp_path: Path) -> None:
    saved(tmp_path / "best")
    picture = made_pictures(6)[-1].resize((333, 217))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "straight.png")
    picture.save(tmp_path / "turned.png", exif=turned)
    example_is_predict(tmp_path, [tmp_path / "straight.png", tmp_path / "turned.png"])
    lines = example().split('"""\n\n', 1)[1]
    assert lines in (ROOT / "docs" / "export.md").read_text()
    assert [line.split()[1] for line in lines.splitlines() if line.startswith(("import ", "from "))] == [
        "json",
        "sys",
        "numpy",
        "onnxruntime",
        "PIL",
    ]
    assert len(lines.split("\n\n", 2)[2].splitlines()) == 10


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("onnx", "best.pt2", "a name of PyTorch's; give --to torch"),
        ("torch", "best.onnx", "a name of ONNX's; give --to"),
    ],
)
def test_a_name_of_one_format_is_not_given_to_the_other(
    kind: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "best")
    assert main(["export", str(tmp_path / "best"), "--to", kind, "--out", str(tmp_path / name)]) == 2
    assert f"{name}: that is {message}" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "data/voc2012-animals").is_dir(), reason="the real images are absent (TUTORED_REAL)")
def test_ten_lines_give_what_predict_gives_on_real_images(tmp_path: Path) -> None:
    weights = REAL / "weights" / "tf_efficientnet_lite0.in1k.safetensors"
    saved(tmp_path / "best", spread=0.005, student={"preset": "light", "weights": str(weights)})
    example_is_predict(tmp_path, sorted((REAL / "data/voc2012-animals/JPEGImages").iterdir())[:900:300])


def example() -> str:
    return (ROOT / "docs" / "examples" / "onnx_only.py").read_text()


def example_is_predict(folder: Path, pictures: list[Path]) -> None:
    """Export `folder/best` and assert that the example says of each picture what `tutored predict` says."""
    checkpoint, file, given = str(folder / "best"), str(folder / "best.onnx"), [str(picture) for picture in pictures]
    assert main(["export", checkpoint, "--nms", "--out", file, "--images", *given]) == 0
    assert main(["predict", checkpoint, *given, "--out", str(folder / "ours"), "--device", "cpu"]) == 0
    every = json.loads((folder / "ours" / "predictions.json").read_text())
    for picture in pictures:
        command = [sys.executable, "-c", example(), file, str(picture), str(folder / "mask.png")]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        expected = [entry for entry in every if Path(entry["file_name"]).stem == picture.stem]
        assert len(lines) == len(expected) > 10
        for line, entry in zip(lines, expected, strict=True):
            name, *numbers = line.split()
            score, x1, y1, x2, y2 = map(float, numbers)
            assert name == entry["category"] and score == pytest.approx(entry["score"], abs=1e-3)
            assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(entry["bbox"], abs=0.03)
        ours, theirs = (
            np.array(Image.open(path)) for path in (folder / "ours" / f"{picture.stem}.mask.png", folder / "mask.png")
        )
        assert ours.shape == theirs.shape and len(np.unique(ours)) > 1
        assert (ours != theirs).mean() < 1e-4
