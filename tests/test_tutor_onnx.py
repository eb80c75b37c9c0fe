"""ONNX networks that a file beside them declares, and our own exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from PIL import Image

from tutored.errors import InputError
from tutored.labels import VOC
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor
from tutored.tutors.onnx_declaration import Declaration, Picture
from tutored.tutors.onnx_declared import place


def model(path: Path, outputs: dict[str, Any], shape: list[Any] | None = None, **metadata: str) -> Path:
    """A model that answers with these arrays, whatever it sees."""
    arrays = {name: np.asarray(array, np.float32) for name, array in outputs.items()}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"fixed_{name}"], [name]) for name in arrays],
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape or [1, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items()],
        [
            helper.make_tensor(f"fixed_{name}", TensorProto.FLOAT, array.shape, array.ravel())
            for name, array in arrays.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(made, metadata)
    onnx.save(made, path)
    return path


def declare(path: Path, **content: Any) -> Path:
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
    return path


def ask(tutor: Any, image: Image.Image) -> SoftLabels:
    (found,) = tutor([image], ["a"])
    return found


BOXES = [[[8, 8, 24, 24], [8, 9, 24, 25], [0, 0, 8, 8.0]]]
SCORES = [[[0.9, 0.1], [0.7, 0.05], [0.0, 0.5]]]
RAW = {"kind": "boxes_scores", "boxes": "boxes", "scores": "scores"}


def test_declared_boxes_by_hand(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"boxes": BOXES, "scores": SCORES}, names="['cat', 'dog']")
    tutor = open_tutor(f"onnx:{declare(file, detection=RAW)}", score_floor=0.06)
    assert tutor.labels.classes == ("cat", "dog") and tutor.identity["nms_iou"] == 0.5
    found = ask(tutor, Image.new("RGB", (64, 96)))  # stretched to 32 x 32: twice as wide, thrice as high
    assert found.boxes_xyxy.tolist() == [[16, 24, 48, 72], [0, 0, 16, 24], [16, 24, 48, 72]], "the second is suppressed"
    assert found.classes.tolist() == [1, 2, 2] and torch.allclose(found.scores, torch.tensor([0.9, 0.5, 0.1]))
    assert torch.allclose(found.probs[0], torch.tensor([0, 0.9, 0.1]), atol=1e-6)


@pytest.mark.parametrize(
    ("boxes", "scores", "changes"),
    [
        ([[[16, 16, 16, 16.0]]], [[[0.9, 0.1]]], {"format": "cxcywh"}),
        ([[[8, 8, 16, 16.0]]], [[[0.9, 0.1]]], {"format": "xywh"}),
        ([[[0.5, 0.5, 0.5, 0.5]]], [[[0.9, 0.1]]], {"format": "cxcywh", "unit": "normalised"}),
        ([[[8], [8], [24], [24]]], [[[0.9], [0.1]]], {"transposed": True}),
        (BOXES, [[[np.log(9), -np.log(9)], [-9, -9], [-9, -9]]], {"activation": "sigmoid"}),
    ],
)
def test_ways_to_write_one_box(tmp_path: Path, boxes: Any, scores: Any, changes: dict[str, Any]) -> None:
    file = declare(
        model(tmp_path / "m.onnx", {"boxes": boxes, "scores": scores}), labels=["cat", "dog"], detection=RAW | changes
    )
    found = ask(open_tutor("onnx", weights=file, max_boxes=1), Image.new("RGB", (32, 32)))
    assert found.boxes_xyxy.tolist() == [[8, 8, 24, 24]] and found.scores.tolist() == pytest.approx([0.9], abs=1e-6)


def test_a_declaration_in_yml_is_one_too(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"boxes": BOXES, "scores": SCORES})
    declare(file, labels=["cat", "dog"], inputs={"white": 255}, detection=RAW)
    file.with_suffix(".yaml").rename(file.with_suffix(".yml"))
    with pytest.raises(InputError, match=r"m\.yml: inputs: Extra inputs"):
        open_tutor(f"onnx:{file}")


def test_a_file_of_names_lies_where_who_names_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    file = declare(
        model(tmp_path / "models" / "m.onnx", {"boxes": BOXES, "scores": SCORES}), labels="names.txt", detection=RAW
    )
    for folder, names in (("models", "wolf\nfox\n"), (".", "cat\ndog\n")):
        (tmp_path / folder / "names.txt").write_text(names)
    monkeypatch.chdir(tmp_path)
    assert open_tutor("onnx", weights=file).labels.classes == ("wolf", "fox"), "the declaration's lies beside it"
    assert open_tutor("onnx", weights=file, labels="names.txt").labels.classes == ("cat", "dog")


def test_a_file_names_outputs_in_their_order(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"boxes": [[[8, 8, 24, 24]]], "scores": [[[0.6, 0.3, 0.1]]]})
    declare(file, labels="names.txt", detection=RAW)
    for lines, probs in (("cat\nN/A\nbackground\n", [0.4, 0.6]), ("cat\ndog\n", [0.6, 0.3, 0.1])):
        (tmp_path / "names.txt").write_text(lines)
        found = ask(open_tutor("onnx", weights=file), Image.new("RGB", (32, 32)))
        assert found.probs[0].tolist() == pytest.approx(probs), "of two lines for three outputs background is in front"


def test_one_output_of_boxes_and_scores_as_newer_yolos_have_it(tmp_path: Path) -> None:
    rows = np.concatenate([np.array(BOXES), np.array(SCORES)], axis=2).transpose(0, 2, 1)
    file = model(tmp_path / "m.onnx", {"output0": rows})
    head = RAW | {"boxes": "output0", "scores": "output0", "transposed": True}
    tutor = open_tutor("onnx", weights=declare(file, labels=["cat", "dog"], detection=head), score_floor=0.3)
    assert ask(tutor, Image.new("RGB", (32, 32))).boxes_xyxy.tolist() == [BOXES[0][0], BOXES[0][2]]


def test_a_softmax_with_no_object_last_is_a_whole_distribution(tmp_path: Path) -> None:
    logits = np.log([[[0.6, 0.3, 0.1]]])
    file = model(tmp_path / "m.onnx", {"boxes": [[[0, 0, 8, 8]]], "scores": logits})
    head = RAW | {"activation": "softmax", "nms_iou": None}
    tutor = open_tutor("onnx", weights=declare(file, labels=["cat", "dog", "background"], detection=head))
    found = ask(tutor, Image.new("RGB", (32, 32)))
    assert tutor.labels.classes == ("cat", "dog") and tutor.identity["nms_iou"] is None
    assert torch.allclose(found.probs, torch.tensor([[0.1, 0.6, 0.3]] * 2), atol=1e-6)


def test_declared_logits_are_a_map(tmp_path: Path) -> None:
    probs = np.zeros((1, 21, 4, 4)) + 1e-9
    probs[0, 0, :, :2], probs[0, 8, :, 2:] = 1, 1
    file = declare(model(tmp_path / "m.onnx", {"out": np.log(probs)}), labels="voc", segmentation={"logits": "out"})
    tutor = open_tutor("onnx", weights=file)
    found = ask(tutor, Image.new("RGB", (64, 16)))
    assert tutor.labels == VOC and found.boxes_xyxy is None and found.map.shape == (21, 2, 4)
    assert found.map[[0, 8], 0].tolist() == pytest.approx(np.array([[1, 1, 0, 0], [0, 0, 1, 1]]), abs=1e-6)


def test_of_a_letterboxed_map_only_the_picture_counts(tmp_path: Path) -> None:
    probs = np.zeros((1, 2, 4, 4)) + 1e-9
    probs[0, 0, 2:], probs[0, 1, :2] = 1, 1  # the lower half lies on padding
    file = declare(
        model(tmp_path / "m.onnx", {"out": np.log(probs)}),
        labels=["background", "cat"], segmentation={"logits": "out"}, input={"fit": "letterbox"},
    )  # fmt: skip
    found = ask(open_tutor("onnx", weights=file, stride=16), Image.new("RGB", (64, 32)))
    assert found.map.shape == (2, 2, 4) and found.map[1, 0].min() > 0.999
    assert found.map[1, 1].min() > 0.75, "but for the bilinear enlargement at its lower edge"


def test_cells_on_the_corners_of_the_input(tmp_path: Path) -> None:
    probs = np.zeros((1, 2, 2, 2))
    probs[0, 0, :, 0], probs[0, 1, :, 1] = 1, 1
    head = {"logits": "out", "activation": "none", "align_corners": True}
    file = declare(model(tmp_path / "m.onnx", {"out": probs}), labels=["background", "cat"], segmentation=head)
    found = ask(open_tutor("onnx", weights=file, stride=8), Image.new("RGB", (32, 32)))
    # Pixel x of 32 is x / 31; means over eight of them.
    assert found.map[1, 0].tolist() == pytest.approx([3.5 / 31, 11.5 / 31, 19.5 / 31, 27.5 / 31])


@pytest.mark.parametrize(
    ("activation", "values", "cells"),
    [
        ("sigmoid", [np.log(3)], [0.25, 0.75]),
        ("none", [0.01], [0.99, 0.01]),
        ("sigmoid", [np.log(3), 0], [0, 0.6, 0.4]),  # .75 and .5 exceed one
        ("none", [0.3, 0.2], [0.5, 0.3, 0.2]),
    ],
)
def test_what_outputs_of_a_map_leave_is_background(tmp_path: Path, activation, values, cells) -> None:
    outputs = {"out": np.array(values)[None, :, None, None] + np.zeros((1, 1, 4, 4))}
    head = {"logits": "out", "activation": activation}
    file = declare(model(tmp_path / "m.onnx", outputs), labels=["cat", "dog"][: len(values)], segmentation=head)
    found = ask(open_tutor("onnx", weights=file), Image.new("RGB", (32, 32))).map
    assert torch.allclose(found, torch.tensor(cells)[:, None, None].expand(-1, 4, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "values", "message"),
    [
        ("softmax", [-5], r"m\.onnx: a softmax over one output is 1 everywhere; declare `activation: sigmoid`"),
        ("none", [0.8, 0.8], r"m\.onnx: out sums to 1\.6 in a cell, not to one; export what its activation takes"),
        ("softmax", [np.nan, 0], "32 of the network's 32 scores are NaN"),
    ],
)
def test_maps_that_are_no_probabilities_are_refused(tmp_path: Path, activation, values, message: str) -> None:
    outputs = {"out": np.array(values)[None, :, None, None] + np.zeros((1, 1, 4, 4))}
    head = {"logits": "out", "activation": activation}
    file = declare(model(tmp_path / "m.onnx", outputs), labels=["cat", "dog"][: len(values)], segmentation=head)
    with pytest.raises(InputError, match=message):
        open_tutor("onnx", weights=file)


def test_scores_that_rounding_took_above_one_are_one(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"boxes": [[[8, 8, 24, 24]]], "scores": [[[1.0005, 0.3]]]})
    found = ask(
        open_tutor("onnx", weights=declare(file, labels=["cat", "dog"], detection=RAW)), Image.new("RGB", (8, 8))
    )
    assert found.probs[0].tolist() == [0, 1, 0], "no distribution has a negative entry"


def test_boxes_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"boxes": [[[8, 8, np.nan, 24]]], "scores": [[[0.9]]]})
    tutor = open_tutor("onnx", weights=declare(file, labels=["cat"], detection=RAW))
    with pytest.raises(InputError, match="image a: 1 of the network's 4 box sides are NaN"):
        ask(tutor, Image.new("RGB", (32, 32)))


def test_a_declared_yolox_gives_probabilities(tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", {"output": np.full((1, 21, 7), 2.0)})
    with pytest.raises(InputError, match="scores from 2 to 2 are no probabilities; export the head with its sigmoids"):
        open_tutor("onnx", weights=declare(file, labels=["cat", "dog"], detection={"kind": "yolox"}))


def test_a_picture_is_placed_as_declared() -> None:
    image = Image.new("RGB", (64, 32), (255, 0, 51))
    how = Picture(
        fit="letterbox", corner="centre", colours="bgr", fill=102.0, mean=(0.1, 0.2, 0.3), deviation=(2, 1, 1)
    )
    pixels, placed = place(image, (32, 32), how)
    assert placed.corner == (0, 8) and placed.inner == (16, 32) and placed.scale == (0.5, 0.5)
    assert pixels[0, :, 16, 0].tolist() == pytest.approx([0.05, -0.2, 0.7]), "BGR; (value - mean) / deviation"
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([0.15, 0.2, 0.1]), "102 is .4"
    pixels, placed = place(image, (8, 8), Picture(layout="nhwc", white=255, antialias=False))
    assert pixels.shape == (1, 8, 8, 3) and pixels[0, 0, 0].tolist() == [255, 0, 51] and placed.scale == (0.125, 0.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"detection": RAW, "labels": ["cat"]}, "2 outputs, but 1 names are given; declare `labels`"),
        ({"detection": RAW}, "2 outputs, but no names are known"),
        ({"detection": RAW | {"scores": "score"}}, "no output 'score'; possible: boxes, scores"),
        ({"detection": RAW | {"transposed": True}}, r"expected \[1, A, 4\]"),
        ({"detection": RAW | {"kind": "yolo"}}, r"m\.yaml: detection: .*'yolox', 'boxes_scores'"),
        ({"detection": RAW | {"colour": "bgr"}}, r"m\.yaml: detection.boxes_scores.colour: Extra inputs"),
        ({"labels": "voc"}, "declare `detection`, `segmentation` or both"),
        ({"detection": RAW, "input": {"size": [64, 64]}}, r"input images is 32 x 32, declared \(64, 64\)"),
        ({"detection": RAW, "input": {"name": "x"}}, "declare the name of the picture's"),
        ({"segmentation": {"logits": "scores"}}, r"logits \[1, 3, 2\], expected"),
    ],
)  # fmt: skip
def test_declarations_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    file = declare(model(tmp_path / "m.onnx", {"boxes": BOXES, "scores": SCORES}), **content)
    with pytest.raises(InputError, match=message):
        open_tutor("onnx", weights=file)


def test_a_size_that_the_model_leaves_open_is_declared(tmp_path: Path) -> None:
    outputs = {"boxes": BOXES, "scores": SCORES}
    file = model(tmp_path / "m.onnx", outputs, shape=[1, 3, "h", "w"], names="{0: 'cat', 1: 'dog'}")
    with pytest.raises(InputError, match="no fixed size; declare `input.size"):
        open_tutor("onnx", weights=declare(file, detection=RAW))
    tutor = open_tutor("onnx", weights=declare(file, detection=RAW, input={"size": [64, 32]}), max_boxes=1)
    assert ask(tutor, Image.new("RGB", (32, 32))).boxes_xyxy.tolist() == [[8, 4, 24, 12]]


def test_our_own_exports_need_no_declaration(tmp_path: Path) -> None:
    logits = np.log(np.array([[[0.2, 0.7, 0.1]]]))
    drawn = np.zeros((1, 3, 4, 4))
    file = model(
        tmp_path / "m.onnx", {"boxes": [[[8, 8, 24, 24]]], "logits": logits, "map_logits": drawn},
        names='["background", "cat", "dog"]', made_by="tutored 0.1",
    )  # fmt: skip
    tutor = open_tutor("onnx", weights=file)
    found = ask(tutor, Image.new("RGB", (32, 32)))
    assert tutor.labels.classes == ("cat", "dog") and found.boxes_xyxy[0].tolist() == [8, 8, 24, 24]
    assert torch.allclose(found.probs[0], torch.tensor([0.2, 0.7, 0.1]), atol=1e-6)
    assert torch.allclose(found.map, torch.full((3, 4, 4), 1 / 3), atol=1e-6)


@pytest.mark.parametrize(("taught", "tasks"), [("detection", (True, False)), ("segmentation", (False, True))])
def test_an_export_answers_the_tasks_that_its_student_was_taught(tmp_path: Path, taught, tasks) -> None:
    outputs = {"boxes": [[[8, 8, 24, 24]]], "logits": np.zeros((1, 1, 3)), "map_logits": np.zeros((1, 3, 4, 4))}
    names = {"names": '["background", "cat", "dog"]', "made_by": "tutored 0.1", "tasks": f'["{taught}"]'}
    found = ask(open_tutor("onnx", weights=model(tmp_path / "m.onnx", outputs, **names)), Image.new("RGB", (32, 32)))
    assert (found.boxes_xyxy is not None, found.map is not None) == tasks


def test_an_export_with_final_answers_is_no_tutor(tmp_path: Path) -> None:
    outputs = {"boxes": [[[8, 8, 24, 24]]], "scores": [[0.5]], "map_logits": np.zeros((1, 3, 4, 4))}
    file = model(tmp_path / "m.onnx", outputs, names='["background", "cat", "dog"]', made_by="tutored 0.1")
    with pytest.raises(InputError, match=r"exported with --nms or --mask.*export it without, or label with the check"):
        open_tutor("onnx", weights=file)


def test_the_declarations_in_the_manual_are_possible() -> None:
    text = (Path(__file__).parents[1] / "docs" / "tutors.md").read_text().partition("## ONNX files")[2]
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml")[1:]]
    kinds = [Declaration.model_validate(block) for block in blocks]
    assert [(bool(kind.detection), bool(kind.segmentation)) for kind in kinds] == [(True, False)] * 2 + [
        (False, True),
        (True, False),
    ]
