"""Pictures for people: boxes and class maps over an image, grids of such pictures, masks as palette files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from tutored.files import write_encoded
from tutored.labels import LabelSpace
from tutored.palette import voc_palette
from tutored.structures import BACKGROUND, IGNORE, GroundTruth, Prediction

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIDE = 400
"""Smaller pictures are enlarged to this long side, so that labels can be read; also the side of a grid's cells."""
LETTERS = 1 / 30
"""Size of letters as a share of the picture's long side."""
FILL, VOID_FILL = 0.55, 0.7
"""How much of its colour lies over a class' pixels, and over void."""
GAP = 8
GROUND: Colour = (238, 238, 238)
INK: Colour = (33, 33, 33)
PAPER: Colour = (255, 255, 255)


def mask_image(mask: Tensor) -> Image.Image:
    """A class map, uint8 [H, W], as a picture whose pixels are the class numbers, with VOC's palette."""
    picture = Image.fromarray(mask.cpu().numpy())
    picture.putpalette(voc_palette().tobytes())
    return picture


def save_mask(mask: Tensor, path: Path) -> None:
    """Write a class map, uint8 [H, W], as a palette PNG, whole or not at all."""
    write_encoded(path, partial(mask_image(mask).save, format="PNG"))


def draw(image: Image.Image, shown: Prediction | GroundTruth, labels: LabelSpace) -> Image.Image:
    """The image with boxes, names, scores and class map over it, in VOC's colours; a small image is enlarged.

    Void is pale. What is not there at all (None: not annotated, not predicted) is noted in the lower left corner.

    Returns:
        RGB, `SIDE` pixels or more on its long side.
    """
    assert (image.height, image.width) == shown.size, "image and boxes are not of the same size"
    zoom = max(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if shown.mask is not None:
        classes = np.asarray(mask_image(shown.mask).resize(size, Image.Resampling.NEAREST))
        picture = _overlaid(picture, classes)
    if shown.boxes_xyxy is not None:
        _draw_boxes(picture, shown, labels, zoom)
    missing = [name for name, there in (("no boxes", shown.boxes_xyxy), ("no mask", shown.mask)) if there is None]
    if missing:
        note, font = ", ".join(missing), _font(max(size))
        width, height = _tag_size(note, font)
        _draw_tag(ImageDraw.Draw(picture), (0, size[1] - height, width, size[1]), note, INK, font)
    return picture


def draw_small(
    image: Image.Image | None, shown: Prediction | GroundTruth, labels: LabelSpace, side: int
) -> Image.Image:
    """As `draw`, at most `side` pixels on its long side; without an image, on a plain ground."""
    drawn = draw(image or Image.new("RGB", shown.size[::-1], GROUND), shown, labels)
    drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
    return drawn


def grid(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str] = ()) -> Image.Image:
    """Pictures in rows and columns, each fitted into a cell of `SIDE` pixels.

    Args:
        titles: one over each column, or none.

    Returns:
        RGB, on white.
    """
    fitted = [[ImageOps.contain(picture, (SIDE, SIDE)) for picture in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in fitted]
    columns = max(len(row) for row in fitted)
    font = _font(1.3 * SIDE)
    top = GAP + (round(_tag_size("", font)[1]) + GAP if titles else 0)
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), top + sum(heights) + len(heights) * GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((GAP + column * (SIDE + GAP) + SIDE / 2, top / 2), title, INK, font, anchor="mm")
    for row, height in enumerate(heights):
        for column, picture in enumerate(fitted[row]):
            x, y = GAP + column * (SIDE + GAP) + (SIDE - picture.width) // 2, top + (height - picture.height) // 2
            sheet.paste(picture, (x, y))
        top += height + GAP
    return sheet


def _overlaid(picture: Image.Image, classes: NDArray[np.uint8]) -> Image.Image:
    opacity = np.full(256, FILL)
    opacity[BACKGROUND], opacity[IGNORE] = 0, VOID_FILL
    share, colours = opacity[classes][..., None], voc_palette()[classes]
    mixed = np.asarray(picture) * (1 - share) + colours * share
    # Half white, so that the dark colours' borders show on dark objects too.
    outline = _borders(classes) & (classes != BACKGROUND) & (classes != IGNORE)
    mixed[outline] = colours[outline] / 2 + 127
    return Image.fromarray(mixed.round().astype(np.uint8))


def _borders(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another class to their left, right, top or bottom."""
    borders = np.zeros(classes.shape, np.bool_)
    for axis in (0, 1):
        change = np.diff(classes, axis=axis) != 0
        borders |= np.pad(change, [(int(axis == 0), 0), (int(axis == 1), 0)])
        borders |= np.pad(change, [(0, int(axis == 0)), (0, int(axis == 1))])
    return borders


def _draw_boxes(picture: Image.Image, shown: Prediction | GroundTruth, labels: LabelSpace, zoom: float) -> None:
    assert shown.boxes_xyxy is not None and shown.classes is not None
    numbers = shown.classes.tolist()
    texts = [labels.names[number] for number in numbers]
    best_first = list(range(len(texts)))
    if isinstance(shown, Prediction) and shown.scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, shown.scores.tolist(), strict=True)]
        best_first = shown.scores.argsort(descending=True, stable=True).tolist()
    elif isinstance(shown, GroundTruth) and shown.difficult is not None:
        texts = [text + " (difficult)" * hard for text, hard in zip(texts, shown.difficult.tolist(), strict=True)]
    boxes = [(x1 * zoom, y1 * zoom, x2 * zoom, y2 * zoom) for x1, y1, x2, y2 in shown.boxes_xyxy.tolist()]

    pen, font = ImageDraw.Draw(picture), _font(max(picture.size))
    for index in reversed(best_first):
        _draw_frame(pen, boxes[index], _colour(numbers[index]), picture.size)
    taken: list[Box] = []
    for index in best_first:
        taken.append(_free_place(boxes[index], _tag_size(texts[index], font), picture.size, taken))
    for index, place in reversed(list(zip(best_first, taken, strict=True))):
        _draw_tag(pen, place, texts[index], _colour(numbers[index]), font)


def _draw_frame(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, size: tuple[int, int]) -> None:
    """A frame in the class' colour between two thin pale ones, so that it shows on dark and light ground alike."""
    width = max(2, round(max(size) / 180))
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    x2, y2 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    if x2 - x1 < 2 * width or y2 - y1 < 2 * width:
        width = 1
    pen.rectangle((x1 - 1, y1 - 1, max(x1, x2) + 1, max(y1, y2) + 1), outline=PAPER, width=width + 2)
    pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)


def _free_place(box: Box, tag: tuple[float, float], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a box's tag goes: over, in or under the box, at the first place without another tag; else over it."""
    width, height = tag
    places = []
    for y in (box[1] - height, box[1], box[3] - height, box[3]):
        for x in (box[0], box[2] - width):
            left = min(max(x, 0), max(size[0] - width, 0))
            upper = min(max(y, 0), max(size[1] - height, 0))
            places.append((left, upper, left + width, upper + height))
    return next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_tag(pen: ImageDraw.ImageDraw, place: Box, text: str, colour: Colour, font: Font) -> None:
    pen.rectangle(place, fill=colour)
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    pen.text(middle, text, INK if bright else PAPER, font, anchor="mm")


def _tag_size(text: str, font: Font) -> tuple[float, float]:
    """Width and height of a text with its margin; texts of one font are equally high."""
    upper, lower = font.getbbox("lÅ")[1], font.getbbox("lg")[3]
    height = float(lower - upper) * 1.3
    return font.getlength(text) + height / 2, height


def _colour(number: int) -> Colour:
    red, green, blue = voc_palette()[number % 256].tolist()
    return red, green, blue


def _font(side: float) -> Font:
    return ImageFont.load_default(size=max(12, side * LETTERS))
