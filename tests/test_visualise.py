"""Pixels of drawn pictures."""

import numpy as np
import torch
from PIL import Image

from made import boxed, two_tasks
from tutored.labels import VOC
from tutored.tasks.detection import Detections
from tutored.tasks.segmentation import ClassMap, ClassMask, Segmentation
from tutored.types import GroundTruth, Prediction
from tutored.visualise import SIDE, draw, grid

GREY = (100, 100, 100)
DOG = VOC.index("dog")
DOG_COLOUR = (64, 0, 128)
TASKS = two_tasks(VOC)
BOXES = {"detection": TASKS["detection"]}


def picture(width=400, height=200):
    return Image.new("RGB", (width, height), GREY)


def found(*rows, number=DOG, score=0.9, size=(200, 400)):
    return Prediction.of(size, boxed(Detections, rows, [number] * len(rows), scores=[score] * len(rows)))


def changed(drawn):
    """Where a drawing of 400 x 200 pixels is not grey."""
    return (np.asarray(drawn) != GREY).any(axis=2)


def test_a_saved_mask_reads_back_as_classes_and_colours(tmp_path):
    mask = torch.tensor([[0, 12, 255], [20, 1, 15]], dtype=torch.uint8)
    path = Segmentation("maps", VOC).save(ClassMap(mask=mask), tmp_path / "masks" / "a.v2")
    assert [file.name for file in path.parent.iterdir()] == ["a.v2.png"]
    saved = Image.open(path)
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.asarray(saved), mask.numpy())
    assert saved.convert("RGB").getpixel((1, 0)) == DOG_COLOUR


def test_a_box_is_framed_in_its_classes_colour():
    drawn = draw(picture(), found([100, 50, 300, 150]), BOXES)
    assert drawn.size == (400, 200)
    assert [drawn.getpixel((100, 100)), drawn.getpixel((200, 149))] == [DOG_COLOUR, DOG_COLOUR]
    assert drawn.getpixel((200, 100)) == GREY
    # The tag lies on the box's upper edge, and nothing else leaves the frame's pale line of one pixel.
    outside = changed(drawn)
    assert outside[40, 105]
    outside[49:151, 99:301] = False
    assert outside.any() and outside.nonzero()[0].min() >= 25 and outside.nonzero()[1].max() < 200
    assert not changed(draw(picture(), found([100, 50, 300, 150]).above(0.95), BOXES)).any(), "its score is .9"


def test_the_map_lies_over_the_image_and_under_the_boxes():
    mask = torch.zeros((200, 400), dtype=torch.uint8)
    mask[50:150, 100:300] = DOG
    mask[180:] = 255
    drawn = draw(picture(), GroundTruth.of((200, 400), ClassMask(mask=mask)), {"segmentation": TASKS["segmentation"]})
    assert drawn.getpixel((200, 100)) == tuple(round(0.45 * 100 + 0.55 * value) for value in DOG_COLOUR)
    assert drawn.getpixel((200, 50)) == (159, 127, 191)
    assert drawn.getpixel((50, 100)) == GREY
    assert drawn.getpixel((50, 195)) == tuple(round(0.3 * 100 + 0.7 * value) for value in (224, 224, 192))
    boxes = found([150, 60, 250, 140]).tasks["detection"]
    both = draw(picture(), Prediction.of((200, 400), boxes, ClassMap(mask=mask)), TASKS)
    assert both.getpixel((150, 100)) == DOG_COLOUR


def test_a_second_map_has_a_panel_of_its_own():
    tasks = {**TASKS, "parts": Segmentation("parts", VOC)}
    whole, part = torch.zeros((200, 400), dtype=torch.uint8), torch.full((200, 400), DOG, dtype=torch.uint8)
    answers = {"parts": ClassMap(mask=part), "segmentation": ClassMap(mask=whole), **found([0, 0, 99, 99]).tasks}
    drawn = draw(picture(), Prediction((200, 400), answers), tasks)
    assert drawn.size == (800, 200)
    # In the order of the answers; the boxes are on the first.
    assert drawn.getpixel((300, 150)) != GREY and drawn.getpixel((700, 150)) == GREY
    assert drawn.getpixel((0, 50)) == DOG_COLOUR and drawn.getpixel((400, 50)) == GREY
    assert draw(picture(), Prediction((200, 400), answers), tasks, at_most=200).size == (200, 50)


def test_a_grid_puts_pictures_under_their_titles():
    red, blue, wide = (Image.new("RGB", (80, 80), name) for name in ("red", "blue", "lime"))
    wide = wide.resize((160, 80))
    sheet = grid([[red, blue], [wide]])
    assert sheet.size == (2 * SIDE + 3 * 8, 2 * SIDE + 3 * 8)
    assert sheet.getpixel((8, 8)) == sheet.getpixel((7 + SIDE, 7 + SIDE)) == (255, 0, 0)
    assert sheet.getpixel((16 + SIDE, 8)) == (0, 0, 255)
    assert sheet.getpixel((8, 16 + SIDE + SIDE // 2)) == (0, 255, 0)
    assert sheet.getpixel((16 + SIDE, 16 + SIDE)) == sheet.getpixel((8, 16 + SIDE)) == (255, 255, 255)
    titled = grid([[red, blue], [wide]], ["first", "second"])
    assert titled.width == sheet.width and titled.height > sheet.height + 15
    assert (np.asarray(titled)[8 : titled.height - sheet.height] < 255).any(), "letters"
