"""Functions of a user's own as tutors, named by import path."""

import sys

import numpy as np
import pytest
from PIL import Image

from made import ask, ask_boxes, ask_map, blank
from tutored.errors import InputError
from tutored.tutors import open_tutor

NAMES = ["background", "cat", "dog"]
BOXES = {"names": NAMES, "boxes": [[8, 8, 24, 24]], "scores": [0.75], "labels": ["dog"]}


def answers(**given):
    """A tutor that always answers the same."""
    return open_tutor("python", function=lambda image: given)


def test_boxes_by_hand():
    for labels in (["dog"], np.array([2]), np.array([2.0])):
        found = ask_boxes(answers(**BOXES | {"labels": labels}), blank(32, 32))
        assert found.boxes_xyxy.tolist() == [[8, 8, 24, 24]] and found.classes.tolist() == [2]
        assert found.probs.tolist() == [[0.25, 0, 0.75]]
    whole = {"names": NAMES, "boxes": [[8, 8, 24, 24]], "scores": [[0.25, 0.5, 0.25]]}
    found = ask_boxes(answers(**whole), blank(32, 32))
    assert found.classes.tolist() == [1, 2] and found.probs.tolist() == [[0.25, 0.5, 0.25]] * 2
    nothing = {"names": NAMES, "boxes": [], "scores": [], "labels": []}
    assert len(ask_boxes(answers(**nothing), blank(32, 32)).boxes_xyxy) == 0


def test_maps_by_hand():
    numbers = np.full((16, 32), 2)
    numbers[:, 8:], numbers[:, 16:] = 0, 255
    found = ask_map(answers(names=NAMES, map=numbers), blank(16, 32))
    assert found[:, 0].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], "255 says nothing"
    found = ask_map(answers(names=["cat", "dog"], map=np.full((2, 1, 1), 0.25)), blank(16, 32))
    assert found.flatten().tolist() == [0.5, 0.25, 0.25], "what is left is background"


def test_masks_lie_over_the_picture():
    masks = np.zeros((1, 32, 32), bool)
    masks[0, :, 16:] = True
    found = ask(answers(**BOXES, masks=masks), blank(32, 32)).tasks["instances"]
    assert found.scores.tolist() == [0.75] and found.masks.shape == (1, 28, 28)
    assert found.masks[0, :, :13].max() == 0 and found.masks[0, :, 15:].min() == 1


MODULE = """
import numpy as np

def seen(image: np.ndarray) -> dict:
    assert image.dtype == np.uint8
    names, height = ["light", "dark"], image.shape[0]
    return {"names": names, "map": np.full((height, image.shape[1]), int(image.mean() < 128))}

class Loaded:
    def __call__(self, image):
        return {"names": ["cat"], "boxes": np.array([[0, 0, *image.size]]), "scores": [1], "labels": [0]}
"""


def test_a_function_is_named_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "mine_for_tests.py").write_text(MODULE)
    (tmp_path / "net.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    tutor = open_tutor("python:mine_for_tests:seen", weights="net.pt", stride=16)
    assert ask_map(tutor, Image.new("RGB", (32, 16), (255, 255, 255)))[:, 0].tolist() == [[0, 0], [1, 1], [0, 0]]
    told = tutor.identity
    assert (told["tutor"], told["weights"], told["map_stride"]) == ("mine_for_tests:seen", "net.pt", 16)
    assert told["score_floor"] is None and len(told["code_sha256"]) == len(told["weights_sha256"]) == 64
    whole = ask_boxes(open_tutor("python:mine_for_tests:Loaded"), blank(16, 32))
    assert whole.boxes_xyxy.tolist() == [[0, 0, 32, 16]]
    with pytest.raises(InputError, match=r"tutor 'mine_for_tests:none': can't be imported .*; give module:name, of a"):
        open_tutor("python:mine_for_tests:none")
    with pytest.raises(InputError, match="score_floor: the tutor mine_for_tests:seen has no use for this option"):
        open_tutor("python:mine_for_tests:seen", score_floor=0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": [[8, 8, 24]]}, r"`boxes`: int64 \[1, 3\], expected numbers \[any, 4\]"),
        ({"boxes": [[24, 8, 8, 24]]}, "`boxes`: x1 above x2 or y1 above y2; expected x1, y1, x2, y2 in pixels"),
        ({"scores": [75]}, "`scores`: from 75 to 75, expected 0 to 1"),
        ({"scores": None}, r"`scores`: object \[\], expected numbers \[1\]"),
        ({"labels": ["wolf"]}, "`labels`: 'wolf', which is not among `names`"),
        ({"labels": [3]}, "`labels`: 3, expected positions in the 3 `names`, from 0"),
        ({"names": 3}, "`names`: 3, expected a list of the names of all classes"),
        ({"names": ["background"]}, "its outputs are background; none is a class"),
        ({"masks": np.ones((2, 4, 4))}, r"`masks`: float64 \[2, 4, 4\], expected numbers \[1, any, any\]"),
        ({"map": np.full((4, 4), 7)}, "`map`: 7, expected positions in the 3 `names`"),
        ({"map": np.full((2, 4, 4), 0.5)}, r"`map`: float64 \[2, 4, 4\], expected numbers \[3, any, any\]"),
        ({"map": np.full((3, 4, 4), 0.5)}, "`map`: sums to 1.5 in a cell, expected probabilities"),
        ({"box": []}, "gives the keys names, boxes, scores, labels, box, expected a dictionary with boxes or map, of"),
    ],
)
def test_impossible_answers_are_refused(given, message):
    with pytest.raises(InputError, match=r"test_tutor_python:answers\.<locals>\.<lambda>|none is a class") as caught:
        answers(**BOXES | given)
    assert caught.match(message)


def test_what_fails_later_names_the_image():
    def whimsical(image):
        if image.width == 64:
            return BOXES
        return {1: BOXES | {"names": ["cat"]}, 2: BOXES | {"map": [[0]]}, 3: None}[image.width]

    tutor = open_tutor("python", function=whimsical)
    told = ("keys .* the same `names` too", "the keys boxes, labels, map, names, scores, for", "gives NoneType", "KeyE")
    for width, message in enumerate(told, start=1):
        with pytest.raises(InputError, match=rf"image a: test_tutor_python:.*whimsical.*{message}"):
            ask(tutor, blank(1, width))
    with pytest.raises(InputError, match="THREE: no function, but 3; docs/extend.md shows one"):
        open_tutor("python", function="test_tutor_python:THREE")
    with pytest.raises(InputError, match="`masks`: of no `boxes`"):
        answers(names=NAMES, map=[[0]], masks=[[[1]]])


THREE = 3
