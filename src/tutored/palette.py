"""What all drawings share: VOC's colours, letters, and tags with a text on coloured ground."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK: Colour = (33, 33, 33)
PAPER: Colour = (255, 255, 255)
LETTERS = 1 / 30
"""Size of letters as a share of a picture's long side."""


def voc_palette() -> NDArray[np.uint8]:
    """PASCAL VOC's colours, uint8 [256, 3]: a class number's bits, dealt to red, green and blue in turn."""
    numbers = np.arange(256)
    channels = [sum(((numbers >> (3 * bit + first)) & 1) << (7 - bit) for bit in range(3)) for first in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def borders(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another class to their left, right, top or bottom."""
    found = np.zeros(classes.shape, np.bool_)
    for ours, theirs in ((found, classes), (found.T, classes.T)):
        change = theirs[1:] != theirs[:-1]
        ours[1:] |= change
        ours[:-1] |= change
    return found


def colour_of(number: int) -> Colour:
    """The colour of a class; those beyond the palette have its colours again."""
    red, green, blue = voc_palette()[number % 256].tolist()
    return red, green, blue


@lru_cache(maxsize=8)
def font_for(side: float) -> Font:
    """The font for a picture whose long side has so many pixels: matplotlib's, or Pillow's, which has Latin alone."""
    size = max(12, side * LETTERS)
    found = find_spec("matplotlib")
    if found and found.origin:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


@cache
def has_letters(text: str) -> bool:
    """Whether the font has all letters of a text; for others it draws an empty box."""
    font = font_for(0)
    absent = bytes(font.getmask("\U0010fffe"))
    return all(letter.isspace() or bytes(font.getmask(letter)) != absent for letter in text)


def shown_name(name: str, number: int) -> str:
    """A class's name, or its number where the font lacks the letters."""
    return name if has_letters(name) else str(number)


def tag_size(text: str, font: Font) -> tuple[float, float]:
    """Width and height of a tag; all tags of one font are equally high."""
    upper, lower = font.getbbox("lÅ")[1], font.getbbox("lg")[3]
    height = float(lower - upper) * 1.3
    return font.getlength(text) + height / 2, height


def draw_tag(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: Colour, font: Font) -> None:
    """A text on a ground of this colour, from the upper left corner (x, y) on."""
    (x, y), (width, height) = corner, tag_size(text, font)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    pen.text((x + width / 2, y + height / 2), text, INK if bright else PAPER, font, anchor="mm")
