"""What scenes stand before: landscapes for the student's domain, patterns and strange landscapes for the tutor's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

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


def landscape(rng: Generator, size: tuple[int, int]) -> tuple[Image.Image, int]:
    """A textured landscape of `size` (width, height) and the row of its horizon."""
    width, height = size
    horizon = int(height * rng.uniform(0.25, 0.45))
    sky, ground = (_gradient(colours) for colours in LANDSCAPES[rng.integers(len(LANDSCAPES))])
    rows = np.arange(height, dtype=np.float32)
    upper, lower = sky(rows / horizon), ground((rows - horizon) / (height - horizon))
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


def _gradient(colours: str) -> Callable[[NDArray[np.floating]], Floats]:
    first, last = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)], np.float32) for c in colours.split())
    return lambda share: (first + (last - first) * np.clip(share, 0, 1)[:, None]).astype(np.float32)


def _noise(rng: Generator, size: tuple[int, int], cells: int) -> Floats:
    """Smooth values of 0 to 1, [height, width]: random ones on a coarse grid, interpolated."""
    width, height = size
    grid = rng.random((max(2, cells * height // width), cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def _image(canvas: Floats) -> Image.Image:
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
