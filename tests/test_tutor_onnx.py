"""Networks in ONNX files: YOLOX, what a file beside them declares, and our own exports."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from PIL import Image

from made import ask, ask_boxes, ask_map, blank, onnx_model, refused, yolox
from tutored.errors import InputError
from tutored.labels import COCO, VOC
from tutored.tutors import open_tutor
from tutored.tutors.onnx import place
from tutored.tutors.onnx_families import Declaration, Picture

# YOLOX


def opened(weights, **options):
    return open_tutor("onnx", weights=weights, **options)


def test_a_yolox_head_by_hand(tmp_path):
    # Row 1: stride 8, cell (1, 0), centre (12, 4), side 8. Row 16: stride 16, cell (0, 0), centre (8, 8), 16 x 8.
    rows = {1: [0.5, 0.5, 0, 0, 0.8, 0.5, 0.25], 16: [0.5, 0.5, 0, -math.log(2), 1, 0.9, 0.9]}
    tutor = opened(yolox(tmp_path / "m.onnx", rows, names="{0: 'cat', 1: 'dog'}"))
    assert tutor.labels.classes == ("cat", "dog")
    # An image of 64 x 32 pixels is halved: boxes double, and come as (box, class) pairs by falling score.
    found = ask_boxes(tutor, blank(32, 64))
    assert found.boxes_xyxy.tolist() == [[0, 8, 32, 24], [0, 8, 32, 24], [16, 0, 32, 16], [16, 0, 32, 16]]
    assert found.classes.tolist() == [1, 2, 1, 2]
    assert torch.allclose(found.scores, torch.tensor([0.9, 0.9, 0.4, 0.2]))
    assert torch.allclose(found.probs[0], torch.tensor([0, 0.9, 0.1]), atol=1e-6), "the other class shrinks"
    assert torch.allclose(found.probs[3], torch.tensor([0.4, 0.4, 0.2]))


def test_onnx_models_that_are_refused(tmp_path):
    two = yolox(tmp_path / "two.onnx", {})
    refused("2 outputs, but no names are known; give labels=FILE", opened, two)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert opened(two, labels=tmp_path / "names.txt").labels.classes == ("cat", "dog")
    refused("2 outputs, but 20 names are given", opened, two, labels="voc")
    assert opened(yolox(tmp_path / "coco.onnx", {}, classes=80)).labels == COCO
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    refused(r"broken\.onnx: not an ONNX model", opened, tmp_path / "broken.onnx")
    refused(r"there is no file or folder '.*absent\.onnx'", opened, tmp_path / "absent.onnx")
    refused("device tpu", opened, two, device="tpu", labels=tmp_path / "names.txt")


def test_a_yolox_of_another_input(tmp_path):
    rows, names = {0: [0.5, 0.5, 0, 0, 0.8, 0.5, 0.25]}, {"names": "['cat', 'dog']"}
    tutor = opened(yolox(tmp_path / "half.onnx", rows, half=True, **names))
    found = ask_boxes(tutor, blank(32, 32))
    assert found.boxes_xyxy[0].tolist() == [0, 0, 8, 8] and found.scores.tolist() == pytest.approx([0.4, 0.2])
    for changes in ({"batch": 4}, {"more": ("sizes",)}):
        file = yolox(tmp_path / "m.onnx", rows, **changes, **names)
        refused(r"m\.onnx: does not take \[1, 3, 32, 32\] as images alone .*with one", opened, file)


def test_a_yolox_of_pixels_or_logits_is_refused(tmp_path):
    # The 21 cells of 32 x 32 pixels by their centres: 16 of stride 8, 4 of 16, 1 of 32.
    centres = [(stride * (x + 0.5), stride * (y + 0.5)) for stride in (8, 16, 32)
               for y in range(32 // stride) for x in range(32 // stride)]  # fmt: skip
    decoded = {row: [*centre, 8, 8, 0.9, 0.9, 0.1] for row, centre in enumerate(centres)}
    names = {"names": "['cat', 'dog']"}
    with pytest.raises(InputError, match="half of its boxes are 16 strides or more .* without --decode_in_inference"):
        opened(yolox(tmp_path / "m.onnx", decoded, **names))
    with pytest.raises(InputError, match="scores from 0 to 2 are no probabilities; export the head with its sigmoids"):
        opened(yolox(tmp_path / "m.onnx", {0: [0, 0, 0, 0, 2, 0.1, 0.1]}, **names))
    with pytest.raises(InputError, match="1 of the network's 63 scores are NaN"):
        opened(yolox(tmp_path / "m.onnx", {0: [0, 0, 0, 0, math.nan, 0, 0]}, **names))
    tutor = opened(yolox(tmp_path / "m.onnx", {0: [math.nan, 0, 0, 0, 1, 0.5, 0]}, **names))
    with pytest.raises(InputError, match="image a: 2 of the network's 4 box sides are NaN"):
        ask(tutor, blank(32, 32))


# Declared


def model(path, outputs, shape=None, **metadata):
    """A model that answers with these arrays, whatever it sees."""
    outputs = {name: np.asarray(array, np.float32) for name, array in outputs.items()}
    return onnx_model(path, {"images": shape or [1, 3, 32, 32]}, outputs, **metadata)


def declare(path, **content):
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
    return path


def declared(folder, outputs, **content):
    return declare(model(folder / "m.onnx", outputs), **content)


BOXES = [[[8, 8, 24, 24], [8, 9, 24, 25], [0, 0, 8, 8.0]]]
SCORES = [[[0.9, 0.1], [0.7, 0.05], [0.0, 0.5]]]
RAW = {"kind": "boxes_scores", "boxes": "boxes", "scores": "scores"}


def test_declared_boxes_by_hand(tmp_path):
    file = model(tmp_path / "m.onnx", {"boxes": BOXES, "scores": SCORES}, names="['cat', 'dog']")
    tutor = open_tutor(f"onnx:{declare(file, detection=RAW)}", score_floor=0.06)
    assert tutor.labels.classes == ("cat", "dog") and tutor.identity["nms_iou"] == 0.5
    found = ask_boxes(tutor, blank(96, 64))  # stretched to 32 x 32: twice as wide, thrice as high
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
def test_ways_to_write_one_box(tmp_path, boxes, scores, changes):
    file = declared(tmp_path, {"boxes": boxes, "scores": scores}, labels=["cat", "dog"], detection=RAW | changes)
    found = ask_boxes(opened(file, max_boxes=1), blank(32, 32))
    assert found.boxes_xyxy.tolist() == [[8, 8, 24, 24]] and found.scores.tolist() == pytest.approx([0.9], abs=1e-6)


FINAL = [[[8, 8, 24, 24, 0.9, 1], [0, 0, 8, 8, 0.4, 0], [0, 0, 0, 0, 0, 0.0]]]


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat", "dog", "cow"]])
def test_final_boxes_are_declared_or_refused(tmp_path, names):
    file = model(tmp_path / "m.onnx", {"output0": FINAL}, names=str(names))
    declare(file, detection=RAW | {"boxes": "output0", "scores": "output0"})
    refused(r"m\.onnx: the last column of output0 holds class numbers.*kind: final_boxes", opened, file)
    found = ask_boxes(opened(declare(file, detection={"kind": "final_boxes", "boxes": "output0"})), blank(64, 64))
    assert found.boxes_xyxy.tolist() == [[16, 16, 48, 48], [0, 0, 16, 16]] and found.classes.tolist() == [2, 1]
    assert found.probs[:, :3].numpy() == pytest.approx(np.array([[0.1, 0, 0.9], [0.6, 0.4, 0]]))


def test_weights_beside_a_model_belong_to_its_identity(tmp_path):
    file = declared(tmp_path, {"boxes": BOXES, "scores": SCORES}, labels=["cat", "dog"], detection=RAW)
    assert opened(file).identity["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    loaded = onnx.load(file)
    for each in loaded.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each), each.name))
    onnx.save(loaded, file, save_as_external_data=True, location="m.data", size_threshold=0)
    model_bytes, seen = file.read_bytes(), set()
    for share in (1, 2, 2):
        seen.add(opened(file).identity["weights_sha256"])
        (np.fromfile(tmp_path / "m.data", np.float32) / share).tofile(tmp_path / "m.data")
    assert len(seen) == 2 and file.read_bytes() == model_bytes, "the first two are of the same weights"


def test_declared_logits_are_a_map(tmp_path):
    probs = np.zeros((1, 21, 4, 4)) + 1e-9
    probs[0, 0, :, :2], probs[0, 8, :, 2:] = 1, 1
    file = declared(tmp_path, {"out": np.log(probs)}, labels="voc", segmentation={"logits": "out"})
    tutor = opened(file)
    found = ask_map(tutor, blank(16, 64))
    assert tutor.labels == VOC and found.shape == (21, 2, 4)
    assert found[[0, 8], 0].tolist() == pytest.approx(np.array([[1, 1, 0, 0], [0, 0, 1, 1]]), abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "values", "cells"),
    [
        ("sigmoid", [np.log(3)], [0.25, 0.75]),
        ("none", [0.01], [0.99, 0.01]),
        ("sigmoid", [np.log(3), 0], [0, 0.6, 0.4]),  # .75 and .5 exceed one
        ("none", [0.3, 0.2], [0.5, 0.3, 0.2]),
    ],
)
def test_the_rest_of_a_maps_sum_is_background(tmp_path, activation, values, cells):
    outputs = {"out": np.array(values)[None, :, None, None] + np.zeros((1, 1, 4, 4))}
    head = {"logits": "out", "activation": activation}
    file = declared(tmp_path, outputs, labels=["cat", "dog"][: len(values)], segmentation=head)
    found = ask_map(opened(file), blank(32, 32))
    assert torch.allclose(found, torch.tensor(cells)[:, None, None].expand(-1, 4, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "values", "message"),
    [
        ("softmax", [-5], r"m\.onnx: a softmax over one output is 1 everywhere; declare `activation: sigmoid`"),
        ("none", [0.8, 0.8], r"m\.onnx: out sums to 1\.6 in a cell, not to one; export what its activation takes"),
        ("softmax", [np.nan, 0], "32 of the network's 32 scores are NaN"),
    ],
)
def test_maps_that_are_no_probabilities_are_refused(tmp_path, activation, values, message):
    outputs = {"out": np.array(values)[None, :, None, None] + np.zeros((1, 1, 4, 4))}
    head = {"logits": "out", "activation": activation}
    file = declared(tmp_path, outputs, labels=["cat", "dog"][: len(values)], segmentation=head)
    refused(message, opened, file)


def test_a_picture_is_placed_as_declared():
    image = Image.new("RGB", (64, 32), (255, 0, 51))
    numbers = {"fill": 102.0, "mean": (0.1, 0.2, 0.3), "deviation": (2, 1, 1)}
    how = Picture(fit="letterbox", corner="centre", colours="bgr", **numbers)
    pixels, placed = place(image, (32, 32), how)
    assert placed.corner == (0, 8) and placed.inner == (16, 32) and placed.scale == (0.5, 0.5)
    assert pixels[0, :, 16, 0].tolist() == pytest.approx([0.05, -0.2, 0.7]), "BGR; (value - mean) / deviation"
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([0.15, 0.2, 0.1]), "102 is .4"
    pixels, placed = place(image, (8, 8), Picture(layout="nhwc", white=255, antialias=False))
    assert pixels.shape == (1, 8, 8, 3) and pixels[0, 0, 0].tolist() == [255, 0, 51] and placed.scale == (0.125, 0.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"detection": RAW, "labels": ["cat"]}, "2 outputs, but 1 names are given; .* or declare `labels`"),
        ({"detection": RAW}, "2 outputs, but no names are known"),
        ({"detection": RAW | {"scores": "score"}}, "no output 'score'; possible: boxes, scores"),
        ({"detection": RAW | {"transposed": True}}, r"expected \[1, A, 4\]"),
        ({"detection": RAW | {"kind": "yolo"}}, r"m\.yaml: detection: .*'yolox', 'nanodet', 'boxes_scores'"),
        ({"detection": RAW | {"colour": "bgr"}}, r"m\.yaml: detection.boxes_scores.colour: Extra inputs"),
        ({"labels": "voc"}, r"inputs images \[1, 3, 32, 32\]; outputs boxes \[1, 3, 4\], scores \[1, 3, 2\]; say in "),
        ({"detection": RAW, "input": {"size": [64, 64]}}, r"input images is 32 x 32, declared \(64, 64\)"),
        ({"detection": RAW, "input": {"name": "x"}}, "declare the name of the picture's"),
        ({"segmentation": {"logits": "scores"}}, r"logits \[1, 3, 2\], expected"),
    ],
)  # fmt: skip
def test_declarations_that_are_refused(tmp_path, content, message):
    file = declared(tmp_path, {"boxes": BOXES, "scores": SCORES}, **content)
    refused(message, opened, file)


def test_a_size_that_the_model_leaves_open_is_declared(tmp_path):
    outputs = {"boxes": BOXES, "scores": SCORES}
    file = model(tmp_path / "m.onnx", outputs, shape=[1, 3, "h", "w"], names="{0: 'cat', 1: 'dog'}")
    with pytest.raises(InputError, match="no fixed size; export it with one, or declare `input.size"):
        opened(declare(file, detection=RAW))
    tutor = opened(declare(file, detection=RAW, input={"size": [64, 32]}), max_boxes=1)
    assert ask_boxes(tutor, blank(32, 32)).boxes_xyxy.tolist() == [[8, 4, 24, 12]]


def exported(path, *outputs, map_names=("background", "cat", "dog")):
    """An export of ours with the tasks `boxes` and `map`, and some of their outputs."""
    boxes, probs = [[[8, 8, 24, 24]]], [[[0.2, 0.7, 0.1]]]
    arrays = {"boxes_candidates": boxes, "boxes_probs": probs, "map_map": np.zeros((1, 3, 4, 4)), "map_mask": [[[0]]]}
    tasks = {"boxes": {"kind": "detection", "names": ["background", "cat", "dog"]}}
    tasks["map"] = {"kind": "segmentation", "names": list(map_names)}
    outputs = {name: arrays[name] for name in outputs}
    return model(path, outputs, tasks=json.dumps(tasks), made_by="tutored 0.1")


def test_our_own_exports_need_no_declaration(tmp_path):
    boxes = ("boxes_candidates", "boxes_probs")
    tutor = opened(exported(tmp_path / "m.onnx", *boxes, "map_map"))
    found = ask(tutor, blank(32, 32)).tasks
    assert tutor.labels.classes == ("cat", "dog") and set(found) == {"detection", "segmentation"}
    assert found["detection"].boxes_xyxy[0].tolist() == [8, 8, 24, 24]
    assert torch.allclose(found["detection"].probs[0], torch.tensor([0.2, 0.7, 0.1]), atol=1e-6)
    assert torch.allclose(found["segmentation"].map, torch.full((3, 4, 4), 1 / 3), atol=1e-6)
    masked = exported(tmp_path / "n.onnx", *boxes, "map_mask")
    assert set(ask(opened(masked), blank(32, 32)).tasks) == {"detection"}, "a mask is not soft"


def test_an_export_without_soft_answers_is_no_tutor(tmp_path):
    with pytest.raises(InputError, match=r"exported with --nms or --mask.*export it without, or label with the check"):
        opened(exported(tmp_path / "m.onnx", "map_mask"))
    soft = ("boxes_candidates", "boxes_probs", "map_map")
    with pytest.raises(InputError, match="tasks with other classes; label with the checkpoint"):
        opened(exported(tmp_path / "n.onnx", *soft, map_names=("background", "cat")))


def test_the_declarations_in_the_manual_are_possible():
    page = (Path(__file__).parents[1] / "docs" / "tutors.md").read_text()
    text = page.partition("## ONNX files")[2].partition("\n## ")[0]
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml")[1:]]
    known = {"detection": {"kind": "yolox"}}  # the first block adds to what is known
    kinds = [Declaration.model_validate(block if number else known | block) for number, block in enumerate(blocks)]
    assert [bool(kind.detection) for kind in kinds] == [True] * 4 + [False] and kinds[4].segmentation is not None
