import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tutored
from made import SHAPE, turned, two_tasks
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.errors import InputError
from tutored.export import (
    ABOUT,
    Network,
    NotEqualError,
    Options,
    check,
    choose_sample,
    export_onnx,
    export_program,
    trace,
)
from tutored.labels import LabelSpace
from tutored.students import Student, make_student, preprocess
from tutored.students.blitznet import BlitzNetSection
from tutored.tasks import open_task
from tutored.tasks.detection import Detection

ROOT = Path(__file__).parents[1]
PETS = LabelSpace.of(["cat", "dog"])
LIMITS = {"score_floor": 0.3, "nms_iou": 0.45, "top_k": 60, "per_class": 15, "total": 25}
ALL = ("detection", "segmentation")
DEPTH = {"depth": {"kind": "regression", "from": "Depth", "scale": 3.0, "shift": 10.0}}


def saved(folder, **sections):
    """A checkpoint whose boxes overlap and whose scores and classes vary; its decoding limits all bite."""
    torch.manual_seed(0)
    tasks = {"detection": {"decode": LIMITS}, "segmentation": {}} | sections.pop("tasks", {})
    config = make_config({"data": {"train": "voc:somewhere"}, "student": SHAPE, "tasks": tasks} | sections)
    own = {name: open_task(name, PETS, section) for name, section in config.tasks.items()}
    student = make_student(config.student, own).eval()
    for head in student.heads["detection"].logits:
        torch.nn.init.normal_(head.weight, std=0.5)
    save_checkpoint(folder, student, config)
    return student


def made_pictures(count):
    """Noise of several coarsenesses."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (4 + 3 * i, 5 + 2 * i, 3), dtype=np.uint8) for i in range(count)]
    return [Image.fromarray(pixels).resize((90, 50 + i), Image.Resampling.BICUBIC) for i, pixels in enumerate(small)]


def opened(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def wanted_of(student, images):
    """Candidates, probabilities and map."""
    with torch.no_grad():
        raw = student(images)
    return [*student.heads["detection"].boxes_and_probs(raw["detection"]), raw["segmentation"]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with a checkpoint `best` and `best.onnx`, the student, and how they compared."""
    folder = tmp_path_factory.mktemp("plain")
    student = saved(folder / "best")
    return folder, student, export_onnx(folder / "best", folder / "best.onnx")


def test_an_exported_student_answers_as_pytorch_does(plain):
    folder, student, parity = plain
    onnx.checker.check_model(folder / "best.onnx", full_check=True)
    session = opened(folder / "best.onnx")
    for many in (1, 3):
        images = torch.rand(many, 3, 64, 64)
        found = session.run(["detection_candidates", "detection_probs", "segmentation_map"], {"images": images.numpy()})
        for got, want in zip(found, wanted_of(student, images), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    about = session.get_modelmeta().custom_metadata_map
    names = ["background", "cat", "dog"]
    assert json.loads(about["tasks"]) == {
        "detection": {"kind": "detection", "names": names, "decode": LIMITS},
        "segmentation": {"kind": "segmentation", "names": names},
    }
    outputs = json.loads(about["outputs"])
    assert list(outputs) == ["detection_candidates", "detection_probs", "segmentation_map"]
    assert outputs["segmentation_map"].startswith("float32 ['B', 3, 8, 8]: ")
    assert json.loads(about["checked"])["sample"] == parity.sample == "noise: the run's images are not here"
    assert about["precision"] == "float32" and "64 x 64" in about["preprocessing"]
    assert parity.final == {} and max(parity.differences.values()) < 1e-3


def test_boxes_and_mask_in_the_graph_are_those_of_decode(tmp_path):
    student = saved(tmp_path / "best")
    parity = export_onnx(tmp_path / "best", tmp_path / "best.onnx", Options(nms=True, mask=True))
    assert parity.differences == {} and parity.final["segmentation"] == (0, 8 * 64 * 64)
    onnx.checker.check_model(tmp_path / "best.onnx", full_check=True)
    session = opened(tmp_path / "best.onnx")
    shapes = {"boxes": [25, 4], "scores": [25], "classes": [25], "count": []}
    wanted = {f"detection_{name}": ["batch", *shape] for name, shape in shapes.items()}
    wanted["segmentation_mask"] = ["batch", 64, 64]
    assert {output.name: output.shape for output in session.get_outputs()} == wanted
    for many in (1, 3):
        images = preprocess(made_pictures(many), 64)
        with torch.no_grad():
            raw = student(images)
        wanted, masks = (student.heads[task].decode(raw[task], [(64, 64)] * many) for task in ALL)
        assert min(compared(session, images, wanted)) > 5
        (found,) = session.run(["segmentation_mask"], {"images": images.numpy()})
        assert all(np.array_equal(got, want.mask) for got, want in zip(found, masks, strict=True))


def compared(session, images, wanted):
    """Assert that a graph's final boxes are these; how many boxes each image has."""
    names = ["detection_boxes", "detection_scores", "detection_classes", "detection_count"]
    *tables, counts = session.run(names, {"images": images.numpy()})
    for want, boxes, scores, classes, count in zip(wanted, *tables, counts, strict=True):
        assert count == len(want.scores)
        np.testing.assert_allclose(boxes[:count], want.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(scores[:count], want.scores, atol=1e-5)
        assert classes[:count].tolist() == want.classes.tolist()
        assert not any(rest[count:].any() for rest in (boxes, scores, classes))
    return [int(count) for count in counts]


def test_half_precision_keeps_its_types_and_stays_near(tmp_path):
    student = saved(tmp_path / "best")
    half = export_onnx(tmp_path / "best", tmp_path / "half.onnx", Options(mask=True, half=True))
    session = opened(tmp_path / "half.onnx")
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(float)"
    assert session.get_modelmeta().custom_metadata_map["precision"] == "float16, inputs and outputs float32"
    weights = sum(each.numel() * 4 for each in student.state_dict().values())
    assert (tmp_path / "half.onnx").stat().st_size < 0.65 * weights
    assert half.tolerance == 1e-2
    assert all(1e-6 < half.differences[name] <= 1e-2 * max(1, half.largest[name]) for name in half.differences)
    assert half.final["segmentation"][0] < 0.01 * half.final["segmentation"][1] == 0.01 * 8 * 64 * 64


def test_a_program_of_torch_export_answers_as_the_student(tmp_path):
    student = saved(tmp_path / "best")
    export_program(tmp_path / "best", tmp_path / "best.pt2")
    kept = {ABOUT: ""}
    loaded = torch.export.load(tmp_path / "best.pt2", extra_files=kept).module()
    for many in (1, 3):
        images = torch.rand(many, 3, 64, 64)
        with torch.no_grad():
            found = loaded(images)
        for got, want in zip(found, wanted_of(student, images), strict=True):
            torch.testing.assert_close(got, want, atol=1e-4 * max(1, float(want.abs().max())), rtol=0)
    about = json.loads(kept[ABOUT])
    assert json.loads(about["tasks"])["detection"]["names"] == ["background", "cat", "dog"]
    assert about["precision"] == "float32" and json.loads(about["checked"])["tolerance"] == 1e-4


@pytest.mark.parametrize(
    ("option", "output", "message"),
    [
        ("", "segmentation_map", r"segmentation_map differ from PyTorch's by up to 0\.01, .* on noise"),
        ("nms", "detection_scores", r"final answers for detection [0-9]+ differ from PyTorch's [0-9]+, on noise"),
        ("mask", "segmentation_mask", "final answers for segmentation [0-9]+ differ from PyTorch's 32768, on noise"),
    ],
)
def test_other_answers_than_pytorch_s_are_refused(tmp_path, option, output, message):
    student = saved(tmp_path / "best")
    reference, network = (Network(student, ALL, Options(**given)) for given in ({}, {option: True} if option else {}))
    session = opened(trace(network).SerializeToString())

    def answer(images, change):
        found = dict(zip(network.names, session.run(None, {"images": images.numpy()}), strict=True))
        found[output] = found[output] + change if found[output].dtype == np.uint8 else found[output] + change * 0.01
        return found

    sample = choose_sample(make_config({"data": {"train": "voc:somewhere"}, "student": SHAPE}), [])
    check(reference, network, lambda images: answer(images, 0), sample)
    with pytest.raises(NotEqualError, match=message):
        check(reference, network, lambda images: answer(images, 1), sample)


def test_tasks_that_were_not_taught_are_left_out(tmp_path, capsys):
    saved(tmp_path / "boxes", tasks={"segmentation": {"policy": "none"}})
    export_onnx(tmp_path / "boxes", tmp_path / "boxes.onnx")
    session = opened(tmp_path / "boxes.onnx")
    assert [output.name for output in session.get_outputs()] == ["detection_candidates", "detection_probs"]
    assert list(json.loads(session.get_modelmeta().custom_metadata_map["tasks"])) == ["detection"]
    with pytest.raises(InputError, match="boxes: no task that was taught gives maps; export it without mask"):
        export_onnx(tmp_path / "boxes", tmp_path / "x.onnx", Options(mask=True))
    assert main(["export", str(tmp_path / "boxes"), "--to", "torch", "--nms", "--out", str(tmp_path / "x.pt2")]) == 2
    assert "--nms and --mask are ONNX's" in capsys.readouterr().err


def test_ten_lines_without_us_give_what_predict_gives(tmp_path):
    saved(tmp_path / "best")
    picture = made_pictures(6)[-1].resize((333, 217))
    picture.save(tmp_path / "straight.png")
    picture.save(tmp_path / "turned.png", exif=turned(6))
    example_is_predict(tmp_path, [tmp_path / "straight.png", tmp_path / "turned.png"])
    lines = example().split('"""\n\n', 1)[1]
    assert lines in (ROOT / "docs" / "export.md").read_text()
    modules = [line.split()[1] for line in lines.splitlines() if line.startswith(("import ", "from "))]
    assert modules == ["json", "sys", "numpy", "onnxruntime", "PIL"]
    assert len(lines.split("\n\n", 2)[2].splitlines()) == 10


def example():
    return (ROOT / "docs" / "examples" / "onnx_only.py").read_text()


def example_is_predict(folder, pictures):
    """Export `folder/best` and assert that the example says of each picture what `tutored predict` says."""
    checkpoint, file, given = str(folder / "best"), str(folder / "best.onnx"), [str(picture) for picture in pictures]
    assert main(["export", checkpoint, "--nms", "--out", file, "--images", *given]) == 0
    assert main(["predict", checkpoint, *given, "--out", str(folder / "ours"), "--device", "cpu"]) == 0
    every = json.loads((folder / "ours" / "predictions.json").read_text())
    for picture in pictures:
        command = [sys.executable, "-c", example(), file, str(picture), str(folder / "mask.png")]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        expected = [entry for entry in every if "bbox" in entry and entry["image_id"] == picture.stem]
        assert len(lines) == len(expected) > 10
        for line, entry in zip(lines, expected, strict=True):
            name, *numbers = line.split()
            score, x1, y1, x2, y2 = map(float, numbers)
            assert name == entry["category"] and score == pytest.approx(entry["score"], abs=1e-3)
            assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(entry["bbox"], abs=0.03)
        own = folder / "ours" / f"{picture.stem}.segmentation.predicted.png"
        ours, theirs = (np.array(Image.open(path)) for path in (own, folder / "mask.png"))
        assert ours.shape == theirs.shape and len(np.unique(ours)) > 1
        assert (ours != theirs).mean() < 1e-4


@pytest.mark.parametrize("options", [Options(), Options(nms=True, mask=True)])
def test_an_exported_file_is_loaded_as_its_checkpoint(tmp_path, options):
    """Boxes and the raw map are the same; a final map of 64 x 64 pixels is enlarged, so that outlines differ."""
    student = saved(tmp_path / "best", tasks=DEPTH)
    student.scores["detection"] = 0.35
    save_checkpoint(tmp_path / "best", student, load_checkpoint(tmp_path / "best")[1])
    export_onnx(str(tmp_path / "best"), str(tmp_path / "best.onnx"), options)
    pictures = made_pictures(3)
    one, other = (tutored.load(tmp_path / name, device="cpu") for name in ("best", "best.onnx"))
    assert one.scores == other.scores == {"detection": 0.35, "segmentation": 0.5, "depth": 0.5}
    for want, got in zip(one(pictures), other(pictures), strict=True):
        boxes, found = want.tasks["detection"], got.tasks["detection"]
        assert len(boxes.scores) > 5 and boxes.classes.tolist() == found.classes.tolist()
        torch.testing.assert_close(found.boxes_xyxy, boxes.boxes_xyxy, atol=1e-2, rtol=1e-4)
        same = (want.tasks["segmentation"].mask == got.tasks["segmentation"].mask).float().mean()
        assert same > (0.9 if options.mask else 0.999) and got.size == want.size
        depth, found = (each.tasks["depth"].values for each in (want, got))
        assert 9 < depth.min() < depth.max() < 11 and (depth - found).abs().max() < (0.1 if options.mask else 1e-3)
        boxes = [each.without("segmentation").told() for each in (want, got)]
        assert boxes[0] == boxes[1] and got.plot().size == want.plot().size


def test_a_foreign_network_is_no_student(plain, tmp_path):
    with pytest.raises(InputError, match=r"gone\.onnx: no student that `tutored export` wrote"):
        tutored.load(tmp_path / "gone.onnx")
    made_pictures(1)[0].save(tmp_path / "a.png")
    assert main(["predict", f"{plain[0]}/best.onnx", f"{tmp_path}/a.png", "--out", f"{tmp_path}/seen"]) == 0
    assert (tmp_path / "seen" / "a.predicted.jpg").is_file()
    with pytest.raises(InputError, match=r"best\.onnx: precision bf16 is for checkpoints"):
        tutored.load(plain[0] / "best.onnx", precision="bf16")
    model = onnx.load(plain[0] / "best.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign\.onnx: no student that .* another network can be a tutor"):
        tutored.load(tmp_path / "foreign.onnx")


class ScatteredHead(nn.Module):
    """Gives the boxes and probabilities of 90 candidates; a fifth of them lie outside."""

    def __init__(self, task: Detection) -> None:
        super().__init__()
        self.task, drawn = task, torch.Generator().manual_seed(0)
        corners = torch.rand(90, 2, generator=drawn) * 10 - 1
        corners[::5] += 12
        self.register_buffer("corners", torch.cat([corners, corners + torch.rand(90, 2, generator=drawn) * 4 + 1], 1))

    def boxes_and_probs(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self.corners + raw[..., :4].tanh(), raw[..., 4:].softmax(dim=-1)


class Scattered(Student):
    """A linear function of 8 x 8 images."""

    def __init__(self, limits: dict[str, float]) -> None:
        task = two_tasks(PETS, {"decode": limits})["detection"]
        super().__init__(BlitzNetSection(kind="blitznet", size=8), {"detection": task})
        self.heads["detection"] = ScatteredHead(task)
        weights = torch.randn(3 * 8 * 8, 90 * 7, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"detection": (images.flatten(1) @ self.weights).reshape(-1, 90, 7) / 8}


def test_every_limit_of_decoding_is_in_the_graph():
    from tutored.tasks.detection.decode import keep

    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loose = {"score_floor": 0.0, "nms_iou": 0.9, "top_k": 1000, "per_class": 1000, "total": 1000}
    counts = {}
    for name, value in {"": 0, "score_floor": 0.5, "nms_iou": 0.2, "top_k": 9, "per_class": 7, "total": 3}.items():
        student = Scattered(loose | ({name: value} if name else {}))
        session = opened(trace(Network(student, ("detection",), Options(nms=True))).SerializeToString())
        head: Any = student.heads["detection"]
        found = keep(*head.boxes_and_probs(student(images)["detection"]), [(8, 8)] * 3, head.task.section.decode, 8)
        counts[name] = max(compared(session, images, [each.boxes.final() for each in found]))
    assert 100 < counts[""] <= 2 * 90 * 4 // 5
    assert 9 < counts["top_k"] <= 2 * 9 and counts["per_class"] == 2 * 7 and counts["total"] == 3
    assert 0 < counts["score_floor"] < counts[""] > counts["nms_iou"] > 0


def test_a_student_that_can_t_be_equal_is_not_written(tmp_path, capsys):
    student = saved(tmp_path / "best")
    torch.nn.init.constant_(student.heads["segmentation"].network.logits.bias, torch.nan)
    save_checkpoint(tmp_path / "best", student, make_config({"data": {"train": "voc:somewhere"}, "student": SHAPE}))
    assert main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "best.onnx")]) == 1
    assert "segmentation_map differ from PyTorch's by up to inf" in capsys.readouterr().err
    assert not (tmp_path / "best.onnx").exists()


def test_it_is_checked_on_given_pictures_or_the_run_s(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 3, "val": ("both",)})
    data = {"train": f"voc:{folder}"}
    (picture,) = made_pictures(1)
    picture.save(tmp_path / "one.png")
    for keys, files, words in (
        (data, [], "1 image(s) of voc:voc/val"),
        (data | {"held_out": 0.5}, [], "3 image(s) of voc:voc/train"),
        (data, [tmp_path / "one.png"], "1 picture(s)"),
        ({"train": "voc:elsewhere"}, [], "noise: the run's images are not here"),
    ):
        sample = choose_sample(make_config({"data": keys}), files)
        assert sample.words == words
        assert len(next(iter(sample.batches(8)))) == 1
