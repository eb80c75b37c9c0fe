"""Pixels of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SmallFiles
from tutored.labels import VOC, LabelSpace
from tutored.structures import GroundTruth, Prediction
from tutored.visualise import SIDE, draw, grid, mask_image, save_mask, voc_palette

GREY = (100, 100, 100)
DOG = VOC.index("dog")
DOG_COLOUR = (64, 0, 128)


def picture(width: int = 400, height: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def boxes(rows: list[list[float]], number: int = DOG, score: float = 0.9) -> dict[str, torch.Tensor]:
    return {
        "boxes_xyxy": torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
        "classes": torch.full((len(rows),), number),
        "scores": torch.full((len(rows),), score),
    }


def changed(drawn: Image.Image, plain: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) != np.asarray(plain)).any(axis=2)


def test_the_palette_is_pascals() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 12: DOG_COLOUR, 15: (192, 128, 128), 20: (0, 64, 128)}
    for number, colour in (known | {255: (224, 224, 192)}).items():
        assert tuple(palette[number]) == colour


def test_a_saved_mask_reads_back_as_classes_and_as_colours(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 12, 255], [20, 1, 15]], dtype=torch.uint8)
    path = tmp_path / "masks" / "a.png"
    save_mask(mask, path)
    saved = Image.open(path)
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.asarray(saved), mask.numpy())
    assert saved.convert("RGB").getpixel((1, 0)) == DOG_COLOUR
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_a_mask_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, small_files: SmallFiles) -> None:
    path = tmp_path / "a.png"
    save_mask(torch.zeros((2, 2), dtype=torch.uint8), path)
    before = path.read_bytes()
    noise = torch.randint(0, 256, (100, 100), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with pytest.raises(OSError, match=r"a\.png: can't be written \(File too large\)"), small_files():
        save_mask(noise, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_box_is_framed_in_its_classes_colour() -> None:
    mask = torch.zeros((200, 400), dtype=torch.uint8)
    drawn = draw(picture(), Prediction(size=(200, 400), **boxes([[100, 50, 300, 150]]), mask=mask), VOC)
    assert drawn.size == (400, 200)
    assert [drawn.getpixel((100, 100)), drawn.getpixel((200, 149))] == [DOG_COLOUR, DOG_COLOUR]
    assert drawn.getpixel((200, 100)) == GREY
    # The tag lies on the box's upper edge, and nothing else leaves the frame's pale line of one pixel.
    outside = changed(drawn, picture())
    assert outside[40, 105]
    outside[49:151, 99:301] = False
    assert outside.any() and outside.nonzero()[0].min() >= 25 and outside.nonzero()[1].max() < 200


def test_the_map_lies_over_the_image() -> None:
    mask = torch.zeros((200, 400), dtype=torch.uint8)
    mask[50:150, 100:300] = DOG
    mask[180:] = 255
    drawn = draw(picture(), GroundTruth(size=(200, 400), **without_scores(boxes([])), mask=mask), VOC)
    assert drawn.getpixel((200, 100)) == tuple(round(0.45 * 100 + 0.55 * value) for value in DOG_COLOUR)
    assert drawn.getpixel((200, 50)) == (159, 127, 191)
    assert drawn.getpixel((50, 100)) == GREY
    assert drawn.getpixel((50, 195)) == tuple(round(0.3 * 100 + 0.7 * value) for value in (224, 224, 192))


def without_scores(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "boxes_xyxy": found["boxes_xyxy"],
        "classes": found["classes"],
        "difficult": torch.zeros_like(found["classes"], dtype=torch.bool),
    }


def test_small_images_are_enlarged_with_their_boxes() -> None:
    drawn = draw(picture(40, 20), Prediction(size=(20, 40), **boxes([[10, 5, 30, 15]])), VOC)
    assert drawn.size == (SIDE, SIDE // 2)
    assert drawn.getpixel((100, 100)) == DOG_COLOUR
    assert drawn.getpixel((200, 100)) == GREY


def test_what_is_missing_is_noted_and_nothing_there_is_not() -> None:
    size = (200, 400)
    empty, mask = without_scores(boxes([])), torch.zeros(size, dtype=torch.uint8)
    assert not changed(draw(picture(), GroundTruth(size=size, **empty, mask=mask), VOC), picture()).any()
    widths = []
    for known in ({"mask": mask}, empty, {}):
        note = changed(draw(picture(), GroundTruth(size=size, **known), VOC), picture()).nonzero()
        assert note[0].min() > 170 and note[1].min() == 0
        widths.append(note[1].max())
    assert widths[2] > 1.5 * max(widths[:2])


def test_tags_keep_off_each_other_and_inside_the_picture() -> None:
    box = [0.0, 0.0, 399.0, 199.0]
    one = changed(draw(picture(), Prediction(size=(200, 400), **boxes([box])), VOC), picture())
    two = changed(draw(picture(), Prediction(size=(200, 400), **boxes([box, box])), VOC), picture())
    assert two.sum() > one.sum() + 300


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3)])
def test_odd_images_and_boxes_can_be_drawn(size: tuple[int, int]) -> None:
    rows = [[-50.0, -50.0, 900.0, 900.0], [0.0, 0.0, 0.5, 0.5], [2000.0, 2000.0, 2010.0, 2010.0]]
    plain = picture(size[1], size[0])
    drawn = draw(plain, Prediction(size=size, **boxes(rows, VOC.index("diningtable"))), VOC)
    assert max(drawn.size) == max(SIDE, *size)


def test_a_grid_puts_pictures_under_their_titles() -> None:
    red, blue, wide = (Image.new("RGB", (80, 80), name) for name in ("red", "blue", "lime"))
    wide = wide.resize((160, 80))
    sheet = grid([[red, blue], [wide]])
    assert sheet.size == (2 * SIDE + 3 * 8, SIDE + SIDE // 2 + 3 * 8)
    assert sheet.getpixel((8, 8)) == sheet.getpixel((7 + SIDE, 7 + SIDE)) == (255, 0, 0)
    assert sheet.getpixel((16 + SIDE, 8)) == (0, 0, 255)
    assert sheet.getpixel((8, 16 + SIDE)) == (0, 255, 0)
    assert sheet.getpixel((16 + SIDE, 16 + SIDE)) == (255, 255, 255)

    titled = grid([[red, blue], [wide]], ["first", "second"])
    assert titled.width == sheet.width and titled.height > sheet.height + 15
    assert (np.asarray(titled)[8 : titled.height - sheet.height] < 255).any(), "letters"


def test_mask_image_takes_what_a_prediction_holds() -> None:
    assert mask_image(torch.full((3, 5), 7, dtype=torch.uint8)).size == (5, 3)


def test_classes_beyond_the_palette_have_its_colours_again() -> None:
    many = LabelSpace.of([f"c{number}" for number in range(1, 301)])
    found = Prediction(size=(200, 400), **boxes([[50, 50, 150, 150]], number=256 + DOG))
    drawn = np.asarray(draw(picture(), found, many))
    assert (drawn == DOG_COLOUR).all(axis=-1).any()
