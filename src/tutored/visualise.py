"""Pictures for people: the answers of all tasks drawn over an image, and grids of such pictures."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageOps

from tutored.pictures import INK, PAPER, Colour, draw_tag, font_for, has_letters, tag_size
from tutored.tasks import DenseTask, Task
from tutored.types import PerTask

SIDE = 400
"""Smaller pictures are enlarged to this long side, so that tags can be read; also the side of a grid's cells."""
GAP = 8
GROUND: Colour = (238, 238, 238)


def lacking_letters(tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """A sentence on the classes whose names the font can't write, if there are some: `draw` shows their numbers."""
    numbers = {
        f"{number} ({name})": None
        for task in tasks.values()
        for number, name in enumerate(task.labels.names)
        if not has_letters(name)
    }
    if not numbers:
        return ()
    return (f"the font of drawings lacks letters of class names, so that numbers stand for them: {', '.join(numbers)}",)


def draw(
    image: Image.Image | None,
    shown: PerTask,
    tasks: Mapping[str, Task],
    *,
    at_least: int = SIDE,
    at_most: float = math.inf,
) -> Image.Image:
    """The image with what is known about it: maps first, and boxes over them.

    Each map beyond the first has a panel of its own, to the right. Tasks without an answer (not annotated, not
    predicted) are named in the lower left corner. Returns RGB.

    Args:
        image: None: the answers lie on a plain ground.
        tasks: by name; other answers are left out.
        at_least: pixels that the long side of each panel has; a small image is enlarged.
        at_most: pixels that the long side of the drawing has; a large image is shrunk.
    """
    height, width = shown.size
    assert image is None or image.size == (width, height), "image and answers are not of the same size"
    answers = {name: answer for name, answer in shown.tasks.items() if name in tasks}
    maps = [name for name in answers if isinstance(tasks[name], DenseTask)]
    zoom = max(1.0, at_least / max(width, height))
    zoom = min(zoom, at_most / max(width * max(1, len(maps)), height))
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    ground = Image.new("RGB", size, GROUND)
    if image is not None:
        ground = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    panels = [tasks[name].draw(ground.copy(), answers[name], zoom) for name in maps] or [ground]
    for name in (name for name in answers if name not in maps):
        panels[0] = tasks[name].draw(panels[0], answers[name], zoom)
    if missing := [f"no {name}" for name in tasks if name not in answers]:
        font = font_for(max(size))
        corner = (0, size[1] - tag_size("", font)[1])
        draw_tag(ImageDraw.Draw(panels[0]), corner, ", ".join(missing), INK, font)
    return panels[0] if len(panels) == 1 else _sheet([panels], size, 0)


def grid(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str] = ()) -> Image.Image:
    """Pictures in rows and columns, each fitted into a cell of `SIDE` pixels. Returns RGB, on white. `titles`, if any,
    stand over the columns.
    """
    fitted = [[ImageOps.contain(picture, (SIDE, SIDE)) for picture in row] for row in rows]
    sheet = _sheet(fitted, (SIDE, max(picture.height for row in fitted for picture in row)), GAP)
    if not titles:
        return sheet
    font = font_for(1.3 * SIDE)
    top = round(tag_size("", font)[1]) + GAP
    titled = Image.new("RGB", (sheet.width, sheet.height + top), PAPER)
    titled.paste(sheet, (0, top))
    pen = ImageDraw.Draw(titled)
    for column, title in enumerate(titles):
        pen.text((GAP + column * (SIDE + GAP) + SIDE / 2, (top + GAP) / 2), title, INK, font, anchor="mm")
    return titled


def _sheet(rows: Sequence[Sequence[Image.Image]], cell: tuple[int, int], gap: int) -> Image.Image:
    """Pictures in the middle of cells of (width, height), on white."""
    steps = (cell[0] + gap, cell[1] + gap)
    sheet = Image.new("RGB", (gap + max(map(len, rows)) * steps[0], gap + len(rows) * steps[1]), PAPER)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            x, y = gap + column * steps[0], gap + row * steps[1]
            sheet.paste(picture, (x + (cell[0] - picture.width) // 2, y + (cell[1] - picture.height) // 2))
    return sheet
