"""What all tutors share: how they are opened and told their options, and the steps from raw outputs to answers."""

import math
import os
from pathlib import Path
from threading import Barrier

import click
import pytest
import torch
from PIL import Image

from made import refused
from tutored.cli import commands
from tutored.errors import InputError
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import KINDS, ForeignOptions, open_tutor
from tutored.tutors.outputs import NetworkTutor, select, soft_boxes, with_masks

REAL = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[1].parent / "shared"))
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL}; set TUTORED_REAL")


# Options


def test_a_command_line_can_be_built_from_the_options():
    label, context = commands.commands["label"], click.Context(commands)
    assert isinstance(label, click.Group)
    found = {kind: label.get_command(context, kind) for kind in KINDS}
    told = {kind: {each.opts[0]: each for each in of.params} for kind, of in found.items() if of}
    assert all(each.help for of in told.values() for each in of.values()) and list(told) == list(KINDS)
    weights, floor, flip, scales = (told["onnx"][flag] for flag in ("--weights", "--score-floor", "--flip", "--scales"))
    assert (weights.type.name, weights.required, weights.metavar) == ("path", True, "FILE")
    assert (floor.name, floor.type.name, floor.required) == ("score_floor", "float", False)
    assert floor.help == "Weaker boxes are dropped.  [default: 0.01]"
    assert flip.is_flag and "default" not in flip.help
    assert scales.type.convert("0.75,1", None, None) == (0.75, 1.0) and not scales.multiple
    folders, missing = told["files"]["--from"], told["files"]["--missing"]
    assert (folders.name, folders.multiple, folders.metavar) == ("folders", True, "FOLDER...")
    assert list(missing.type.choices) == ["refuse", "allow"] and missing.help.endswith("[default: refuse]")
    short = [kind for kind, section in KINDS.items() if section.FIRST]
    assert short == ["onnx", "torchvision", "hf", "python", "student", "files"]


def test_what_a_tutor_can_not_be_told_is_refused():
    refused("unknown tutor 'keras'; possible: onnx, torchvision, hf, python, student", open_tutor, "keras")
    refused("tutor onnx: weights: Field required", open_tutor, "onnx")
    refused(r"hf: modl: unknown; possible: .*model.*instances", open_tutor, "hf:x", modl="y")
    refused("score_floor: Input should be less than or equal to 1, got 2", open_tutor, "hf:x", score_floor=2)
    refused("flip: unknown; possible: join, shares", open_tutor, "joined", join=["a", "b"], flip=True)
    refused("the tutor `joined` has no short form", open_tutor, "joined:folder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolo.pt", r"yolo\.pt: \.pt is not read .*pickles are never loaded; export it: `yolo export"),
        ("net.PTH", r"`torch\.onnx\.export\(network, torch\.zeros\(1, 3, HEIGHT, WIDTH\), 'NAME\.onnx'\)`"),
        ("yolo.engine", "TensorRT made this engine of an ONNX file: give that one"),
        ("net.tflite", r"`python -m tf2onnx\.convert --tflite \S*net\.tflite --output NAME\.onnx`"),
        ("net.mlmodel", "from the network that was converted to Core ML"),
        ("net.safetensors", "or give the folder of a model of transformers, hf:FOLDER"),
    ],
)
def test_other_networks_are_to_be_exported(name, message, tmp_path):
    for given in (str(tmp_path / name), f"onnx:{tmp_path / name}"):
        refused(message, open_tutor, given)


# From raw outputs to answers


def test_selection_by_hand():
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60.0]])
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.4], [0.2, 0.005]])
    # Box 1 loses to box 0 in class 0 (IoU 9 / 11) and wins in class 1, so both stand, one class each.
    rows, columns = select(boxes, scores, ForeignOptions(), nms_iou=0.5)
    assert rows.tolist() == [0, 1, 2] and columns.tolist() == [0, 1, 0]
    rows, columns = select(boxes, scores, ForeignOptions(max_boxes=2), nms_iou=0.5)
    assert rows.tolist() == [0, 1]
    assert len(select(boxes, scores, ForeignOptions(), nms_iou=None)[0]) == 5, "nothing is suppressed"
    levels = torch.tensor([[0], [0], [1]])
    rows, _ = select(boxes, scores, ForeignOptions(), nms_iou=0.5, groups=levels, group_limit=1)
    assert rows.tolist() == [0, 2], "one candidate of each level"
    rows, _ = select(boxes, scores, ForeignOptions(score_floor=1), nms_iou=0.5, groups=levels, group_limit=1)
    assert rows.tolist() == []


def test_the_kept_class_keeps_its_score_beside_sigmoids():
    scores = torch.tensor([[0.5, 0.2, 0.1], [0.8, 0.6, 0.2]])
    probs = soft_boxes(torch.tensor([[0, 0, 9, 9.0]] * 2), scores, torch.tensor([0, 1]), (9, 9)).probs
    assert torch.allclose(probs[0], torch.tensor([0.2, 0.5, 0.2, 0.1]))
    # .8 and .2 share the .4 that .6 leaves.
    assert torch.allclose(probs[1], torch.tensor([0, 0.32, 0.6, 0.08]))
    assert probs[1, 2] == scores[1, 1], "to the bit"


class Slow(NetworkTutor):
    """Answers an image only while it has another one, too."""

    def __init__(self):
        self.both = Barrier(2, timeout=10)

    def answers(self, image):
        self.both.wait()
        if image.width == 9:
            raise InputError("too wide")
        return (SoftMap(map=torch.full((2, 1, 1), image.width / 10)),)


def test_a_network_has_one_image_while_others_are_laid_out():
    images = [Image.new("RGB", (width, 4)) for width in range(1, 9)]
    found = Slow()(images, [str(each.width) for each in images])
    assert [round(float(each.tasks["segmentation"].map[0]), 1) for each in found] == [n / 10 for n in range(1, 9)]
    with pytest.raises(InputError, match="image b: too wide"):
        Slow()([images[0], Image.new("RGB", (9, 4))], ["a", "b"])


def test_values_that_are_not_finite_are_refused():
    boxes, scores = torch.tensor([[0, 0, 10, 10.0], [0, 0, 10, math.inf]]), torch.tensor([[0.9], [0.001]])
    options, how = ForeignOptions(), {"nms_iou": 0.5}
    assert select(boxes, scores, options, **how)[0].tolist() == [0], "a box below the floor may be anything"
    refused("1 of the network's 4 box sides are NaN or infinite", select, boxes[1:], scores[:1], options, **how)
    with pytest.raises(InputError, match="1 of the network's 2 scores are NaN or infinite; take other weights"):
        select(boxes, torch.tensor([[0.9], [math.nan]]), options, **how)
    with pytest.raises(InputError, match="4 of the network's 4 mask values are NaN"):
        with_masks(soft_boxes(boxes[:1], scores[:1], torch.tensor([0]), (20, 20)), torch.full((1, 2, 2), math.nan))
