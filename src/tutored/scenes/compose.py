"""One scene: cut-outs placed before a backdrop, and what can be seen of them as ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tutored.scenes.backdrops import foreign, landscape
from tutored.scenes.cutouts import Cutout, Domain
from tutored.structures import IGNORE

Box = tuple[int, int, int, int]

SEEN = 0.2
"""An object of which less than this share is visible is not annotated; its pixels are "ignore"."""
EASY = 0.4
"""An annotated object of which less than this share is visible is `difficult`."""
SEEN_PIXELS = 30
"""Nor is an object annotated with fewer visible pixels than this."""
SCENERY_SCALE = 0.8
"""Scenery is this much smaller than objects, so that it does not outshine them."""
SHADE = Image.radial_gradient("L").point(lambda value: max(0, 255 - 2 * value)).resize((64, 16))
"""A soft disc."""
SOLID = 128
"""From this alpha on a pixel belongs to the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a domain looks. Ranges are (least, most).

    Attributes:
        backdrop: draws the background of a (width, height) and gives its horizon's row, if any.
        side: an object's longer side, as a share of the image's shorter one.
        turn: largest rotation in degrees.
        hue: largest rotation of the colours in radians.
        light: factor on the colours.
        shadow: darkness under what stands on the ground, 0 to 1.
        blur: largest radius in pixels of a blur over the whole image.
    """

    backdrop: Callable[[Generator, tuple[int, int]], tuple[Image.Image, int | None]]
    side: tuple[float, float]
    turn: float
    hue: float
    light: tuple[float, float]
    shadow: float
    blur: float


STYLES: dict[Domain, Style] = {
    "student": Style(backdrop=landscape, side=(0.3, 0.62), turn=8, hue=0.15, light=(0.8, 1.1), shadow=0.4, blur=0),
    "tutor": Style(backdrop=foreign, side=(0.28, 0.68), turn=10, hue=0.2, light=(0.75, 1.15), shadow=0, blur=0.5),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """An annotated object: class number, box (x1, y1, x2, y2) of its visible pixels with x2 and y2 past the last
    one, and whether little of it is visible."""

    label: int
    box_xyxy: Box
    difficult: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture (RGB), its annotated objects, and its mask (uint8 [H, W], 255 = ignore)."""

    picture: Image.Image
    objects: list[Seen]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Actor:
    """A cut-out with its final look: RGBA picture without empty borders, and the place of its top left corner."""

    cutout: Cutout
    picture: Image.Image
    left: int
    top: int

    @property
    def box(self) -> Box:
        return self.left, self.top, self.left + self.picture.width, self.top + self.picture.height


def compose(
    rng: Generator,
    style: Style,
    size: tuple[int, int],
    objects: Mapping[str, Sequence[Cutout]],
    scenery: Sequence[Cutout],
    labels: Mapping[str, int],
    count: int | None = None,
) -> Scene:
    """Compose a scene of `size` (width, height).

    Args:
        objects, scenery: as `load_cutouts` gives them.
        labels: class number of each key of `objects`.
        count: objects in the scene; None: one to five.
    """
    canvas, horizon = style.backdrop(rng, size)
    count = count or int(rng.choice(5, p=(0.2, 0.3, 0.25, 0.15, 0.1))) + 1
    names = rng.choice(list(objects), count)
    cast = [_pick(rng, objects[name]) for name in names] + [_pick(rng, scenery) for _ in range(rng.integers(3))]
    actors: list[_Actor] = []
    for cutout in cast:
        actors.append(_place(rng, style, size, horizon, cutout, actors))
    actors.sort(key=lambda actor: (not actor.cutout.flies, actor.box[3]))

    owner = np.zeros((size[1], size[0]), np.uint8)
    areas, classes = [], []
    for number, actor in enumerate(actors, start=1):
        if style.shadow and not actor.cutout.flies:
            _shade(canvas, actor.box, style.shadow)
        canvas.paste(actor.picture, (actor.left, actor.top), actor.picture)
        areas.append(_claim(owner, actor, number))
        classes.append(labels[actor.cutout.name] if actor.cutout.name else 0)
    if style.blur:
        canvas = canvas.filter(ImageFilter.BoxBlur(rng.uniform(style.blur / 3, style.blur)))
    found, mask = annotate(owner, areas, classes)
    return Scene(canvas, found, mask)


def annotate(
    owner: NDArray[np.uint8], areas: Sequence[int], classes: Sequence[int]
) -> tuple[list[Seen], NDArray[np.uint8]]:
    """What a person would annotate, by the visible area of each object.

    Args:
        owner: [H, W], which object is seen at each pixel: 0 none, k the k-th of `areas` and `classes`.
        areas: pixels of each object if nothing hid it, those outside the image counted.
        classes: class number of each object, 0 for what is background.

    Returns:
        The annotated objects, and the mask [H, W].
    """
    found: list[Seen] = []
    lookup = np.zeros(len(areas) + 1, np.uint8)
    for number, (area, label) in enumerate(zip(areas, classes, strict=True), start=1):
        visible = owner == number
        pixels = int(visible.sum())
        if label and (pixels < SEEN * area or pixels < SEEN_PIXELS):
            lookup[number] = IGNORE
        elif label:
            lookup[number] = label
            found.append(Seen(label, _extent(visible), pixels < EASY * area))
    return found, lookup[owner]


def _extent(visible: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _pick(rng: Generator, cutouts: Sequence[Cutout]) -> Cutout:
    return cutouts[int(rng.integers(len(cutouts)))]


def _place(
    rng: Generator,
    style: Style,
    size: tuple[int, int],
    horizon: int | None,
    cutout: Cutout,
    others: Sequence[_Actor],
) -> _Actor:
    """Dress a cut-out and put it where it overlaps the others least, of one to six random places.

    Before a horizon, what stands on the ground is larger the nearer it is.
    """
    width, height = size
    near = rng.random()
    side = min(size) * (style.side[0] + (style.side[1] - style.side[0]) * near) * (1 if cutout.name else SCENERY_SCALE)
    picture = _dress(rng, style, cutout.picture, side)
    places = []
    for _ in range(rng.integers(1, 7)):
        left = rng.uniform(-0.2 * picture.width, width - 0.8 * picture.width)
        if horizon is None:
            bottom = rng.uniform(0.85 * picture.height, height + 0.15 * picture.height)
        elif cutout.flies:
            bottom = rng.uniform(0.8 * picture.height, max(0.85 * picture.height, 1.3 * horizon))
        else:
            bottom = horizon + (height * 1.03 - horizon) * (0.15 + 0.85 * near) + rng.uniform(-3, 3)
        places.append(_Actor(cutout, picture, round(left), round(bottom) - picture.height))
    return min(places, key=lambda place: sum(_shared(place.box, other.box) for other in others))


def _shared(a: Box, b: Box) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _dress(rng: Generator, style: Style, picture: Image.Image, side: float) -> Image.Image:
    """Mirror, turn, scale and recolour; the longer side becomes `side` pixels."""
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(rng.uniform(-style.turn, style.turn), Image.Resampling.BILINEAR, expand=True)
    picture = picture.crop(picture.getbbox())
    scale = side / max(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    alpha = picture.getchannel("A")
    picture = picture.convert("RGB").convert("RGB", _recolour(rng, style))
    picture.putalpha(alpha)
    return picture


def _recolour(rng: Generator, style: Style) -> tuple[float, ...]:
    """A 3 x 4 matrix for `Image.convert`: a turn about the axis of greys, a factor, and an offset."""
    angle, gain = rng.uniform(-style.hue, style.hue), rng.uniform(*style.light)
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    matrix = gain * (cos * np.eye(3) + (1 - cos) / 3 + sin * cross)
    offset = rng.uniform(-12, 12, (3, 1))
    return tuple(np.hstack([matrix, offset]).ravel().tolist())


def _shade(canvas: Image.Image, box: Box, darkness: float) -> None:
    width = box[2] - box[0]
    height = max(4, width // 5)
    shade = SHADE.resize((width, height), Image.Resampling.BILINEAR).point(lambda value: darkness * value)
    canvas.paste((20, 25, 20), (box[0], box[3] - height // 2), shade)


def _claim(owner: NDArray[np.uint8], actor: _Actor, number: int) -> int:
    """Give the actor its pixels; returns how many it has, those outside the image counted."""
    solid = np.asarray(actor.picture.getchannel("A")) >= SOLID
    left, top = max(actor.left, 0), max(actor.top, 0)
    inside = solid[top - actor.top : owner.shape[0] - actor.top, left - actor.left : owner.shape[1] - actor.left]
    owner[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = number
    return int(solid.sum())
