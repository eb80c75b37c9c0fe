"""Pixels of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SmallFiles
from made import two_tasks
from tutored.labels import VOC, LabelSpace
from tutored.pictures import voc_palette
from tutored.tasks import Task
from tutored.tasks.detection import Boxes, Detection, Detections
from tutored.tasks.segmentation import ClassMap, ClassMask, Segmentation, save_mask
from tutored.types import GroundTruth, Prediction
from tutored.visualise import SIDE, draw, grid

GREY = (100, 100, 100)
DOG = VOC.index("dog")
DOG_COLOUR = (64, 0, 128)
TASKS = two_tasks(VOC)
BOXES = {"detection": TASKS["detection"]}
NOTHING = ClassMask(mask=torch.zeros((200, 400), dtype=torch.uint8))


def picture(width: int = 400, height: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def found(*rows: list[float], number: int = DOG, score: float = 0.9, size: tuple[int, int] = (200, 400)) -> Prediction:
    boxes = Detections(
        boxes_xyxy=torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
        classes=torch.full((len(rows),), number),
        scores=torch.full((len(rows),), score),
    )
    return Prediction.of(size, boxes)


def changed(drawn: Image.Image) -> np.ndarray:
    """Where a drawing of 400 x 200 pixels is not grey."""
    return (np.asarray(drawn) != GREY).any(axis=2)


def test_the_palette_is_pascals() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 12: DOG_COLOUR, 15: (192, 128, 128), 20: (0, 64, 128)}
    for number, colour in (known | {255: (224, 224, 192)}).items():
        assert tuple(palette[number]) == colour


def test_a_saved_mask_reads_back_as_classes_and_colours(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 12, 255], [20, 1, 15]], dtype=torch.uint8)
    path = Segmentation("maps", VOC).save(ClassMap(mask=mask), tmp_path / "masks" / "a.v2")
    assert [file.name for file in path.parent.iterdir()] == ["a.v2.png"]
    saved = Image.open(path)
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.asarray(saved), mask.numpy())
    assert saved.convert("RGB").getpixel((1, 0)) == DOG_COLOUR


def test_a_mask_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, small_files: SmallFiles) -> None:
    path = tmp_path / "a.png"
    save_mask(torch.zeros((2, 2), dtype=torch.uint8), path)
    before = path.read_bytes()
    noise = torch.randint(0, 256, (100, 100), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with pytest.raises(OSError, match=r"a\.png: can't be written \(File too large\)"), small_files():
        save_mask(noise, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_map_is_described_by_shares_of_the_picture() -> None:
    mask = torch.zeros((2, 4), dtype=torch.uint8)
    mask[0] = 12
    mask[1, 0] = 3
    entries = Segmentation("maps", VOC).describe(ClassMap(mask=mask))
    assert [(entry["category"], entry["category_id"], entry["share"]) for entry in entries] == [
        ("dog", 12, 0.5),
        ("bird", 3, 0.125),
    ]


def test_a_box_is_framed_in_its_classes_colour() -> None:
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


def test_the_map_lies_over_the_image_and_under_the_boxes() -> None:
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


def test_a_second_map_has_a_panel_of_its_own() -> None:
    tasks: dict[str, Task] = {**TASKS, "parts": Segmentation("parts", VOC)}
    whole, part = torch.zeros((200, 400), dtype=torch.uint8), torch.full((200, 400), DOG, dtype=torch.uint8)
    answers = {"parts": ClassMap(mask=part), "segmentation": ClassMap(mask=whole), **found([0, 0, 99, 99]).tasks}
    drawn = draw(picture(), Prediction((200, 400), answers), tasks)
    assert drawn.size == (800, 200)
    # In the order of the answers; the boxes are on the first.
    assert drawn.getpixel((300, 150)) != GREY and drawn.getpixel((700, 150)) == GREY
    assert drawn.getpixel((0, 50)) == DOG_COLOUR and drawn.getpixel((400, 50)) == GREY
    assert draw(picture(), Prediction((200, 400), answers), tasks, at_most=200).size == (200, 50)


def test_small_images_are_enlarged_and_large_ones_shrunk() -> None:
    drawn = draw(picture(40, 20), found([10, 5, 30, 15], size=(20, 40)), BOXES)
    assert drawn.size == (SIDE, SIDE // 2)
    assert drawn.getpixel((100, 100)) == DOG_COLOUR
    assert drawn.getpixel((200, 100)) == GREY
    shrunk = draw(picture(), found([100, 50, 300, 150]), BOXES, at_most=200)
    assert shrunk.size == (200, 100) and shrunk.getpixel((50, 60)) == DOG_COLOUR
    assert draw(None, found(), BOXES).getcolors() == [(80_000, (238, 238, 238))], "without an image, a plain ground"


def test_missing_answers_are_named_and_empty_ones_are_not() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    empty = Boxes(boxes_xyxy=torch.zeros(0, 4), classes=none, difficult=none.bool())
    assert not changed(draw(picture(), GroundTruth.of((200, 400), empty, NOTHING), TASKS)).any()
    widths = []
    for known in (NOTHING, empty, None):
        note = changed(draw(picture(), GroundTruth.of((200, 400), known), TASKS)).nonzero()
        assert note[0].min() > 170 and note[1].min() == 0
        widths.append(note[1].max())
    assert widths[2] > 1.5 * max(widths[:2])


def test_tags_keep_off_each_other_and_inside_the_picture() -> None:
    box = [0.0, 0.0, 399.0, 199.0]
    one, two = (changed(draw(picture(), found(*[box] * count), BOXES)).sum() for count in (1, 2))
    assert two > one + 300


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3)])
def test_odd_images_and_boxes_can_be_drawn(size: tuple[int, int]) -> None:
    rows = [[-50.0, -50.0, 900.0, 900.0], [0.0, 0.0, 0.5, 0.5], [2000.0, 2000.0, 2010.0, 2010.0]]
    drawn = draw(picture(size[1], size[0]), found(*rows, number=VOC.index("diningtable"), size=size), BOXES)
    assert max(drawn.size) == max(SIDE, *size)


def test_a_grid_puts_pictures_under_their_titles() -> None:
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


def test_classes_beyond_the_palette_have_its_colours_again() -> None:
    many = Detection("detection", LabelSpace.of([f"c{number}" for number in range(1, 301)]))
    drawn = draw(picture(), found([50, 50, 150, 150], number=256 + DOG), {"detection": many})
    assert (np.asarray(drawn) == DOG_COLOUR).all(axis=-1).any()
