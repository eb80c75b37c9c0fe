"""One random geometry that moves image, boxes, mask and soft map together; and maps enlarged to their image.

Zoom-out, crop, flip and resize are one window of the image, possibly larger than it, stretched to the network's
square input. Everything is resampled once, from the un-augmented original (SSD's augmentation; specification 4.3).
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config import Augment

Array = npt.NDArray[Any]
Window = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of an image, and perhaps beyond it."""

MEAN_COLOUR = (123, 116, 103)
"""What padding looks like: ImageNet's mean, RGB."""
MIN_COVERED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SMALLEST_BOX = 2.0
"""Boxes with a side under this many input pixels are dropped (specification 4.3, 8)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A window of the image, in its pixels and possibly reaching beyond it, stretched to a square of `size` pixels."""

    window_xyxy: Window
    flip: bool
    size: int
    on_pixels: bool = False
    """What is seen of the image begins and ends on whole pixels, of itself and of the input: it is cut and resized in a
    fourth of the time, with the same result but for rounding."""

    def image(self, picture: Tensor, change: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
        """The window of a picture, uint8 [H, W, 3], as uint8 [S, S, 3]; what shows the picture is changed by `change`.

        Only output pixels that lie wholly in the image are filled, from exactly the part of the image they show, so
        that boxes stay where the pixels are.
        """
        size = picture.shape[1::-1]
        canvas = _padding(self.size).clone()
        (left, right), (top, bottom) = sides = self._inside(0, size[0]), self._inside(1, size[1])
        if left < right and top < bottom:
            ends = [self._source(axis, np.array(each, np.float32)) for axis, each in enumerate(sides)]
            (x1, x2), (y1, y2) = (each.clip(0, side).tolist() for each, side in zip(ends, size, strict=True))
            if self.on_pixels:
                part = picture[round(y1) : round(y2), round(x1) : round(x2)].contiguous().permute(2, 0, 1)[None]
                part = F.interpolate(part, size=(bottom - top, right - left), mode="bilinear", antialias=True)
                part = part[0].permute(1, 2, 0)
            else:  # Pillow alone can cut between pixels
                whole = Image.fromarray(picture.numpy())
                resized = whole.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2))
                part = torch.from_numpy(np.array(resized))
            canvas[top:bottom, left:right] = change(part)
        return canvas.flip(1) if self.flip else canvas

    def inside(self, size: tuple[int, int], side: int) -> Tensor:
        """bool [side, side]: which cells of a map have their centre in the image of `size` (height, width)."""
        return torch.from_numpy(self._covers(size, side))

    def nearest(self, plane: Tensor, side: int, outside: float) -> Tensor:
        """[side, side] of the type of `plane` [H, W]: its nearest pixel at each cell's centre, `outside` in padding."""
        size = (plane.shape[0], plane.shape[1])
        rows, columns = self._nearest(size, side)
        values = plane.numpy()[rows[:, None], columns]
        return torch.from_numpy(np.where(self._covers(size, side), values, values.dtype.type(outside)))

    def soft_map(self, soft: Tensor, size: tuple[float, float], side: int) -> Tensor:
        """float32 [C, side, side]: a map [C, h, w] over an image of `size`, at each cell's centre; 0 in padding.

        A map at the image's own resolution is sampled as the mask is; a coarser one bilinearly, probabilities staying
        probabilities.
        """
        grid = (soft.shape[1], soft.shape[2])
        if grid == size:
            rows, columns = self._nearest(size, side)
            return torch.from_numpy(soft.numpy()[:, rows[:, None], columns] * self._covers(size, side))
        down, across = (
            torch.from_numpy(interpolation(centres, length, cells))
            for centres, length, cells in zip(self._centres(side), size, grid, strict=True)
        )
        return down @ soft @ across.T

    def boxes(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [K, 4] in input pixels, cut at the window, and bool [K]: the centre is in it and enough is left."""
        x1, y1, x2, y2 = self.window_xyxy
        scale = np.array([self.size / (x2 - x1), self.size / (y2 - y1)] * 2, np.float32)
        moved = (boxes_xyxy.numpy() - np.array([x1, y1, x1, y1], np.float32)) * scale
        if self.flip:
            moved = np.stack([self.size - moved[:, 2], moved[:, 1], self.size - moved[:, 0], moved[:, 3]], axis=1)
        centre = (moved[:, :2] + moved[:, 2:]) / 2
        cut = moved.clip(0, self.size)
        kept = ((centre >= 0) & (centre < self.size) & (cut[:, 2:] - cut[:, :2] >= SMALLEST_BOX)).all(axis=1)
        return torch.from_numpy(cut), torch.from_numpy(kept)

    def _source(self, axis: int, target: Array) -> Array:
        start, end = self.window_xyxy[axis], self.window_xyxy[axis + 2]
        return start + target * (end - start) / self.size

    def _inside(self, axis: int, length: int) -> tuple[int, int]:
        start, end = self.window_xyxy[axis], self.window_xyxy[axis + 2]
        scale = self.size / (end - start)
        first = math.ceil(round(-start * scale, 6))
        last = math.floor(round((length - start) * scale, 6))
        return max(first, 0), min(last, self.size)

    def _centres(self, side: int) -> tuple[Array, Array]:
        cells = (np.arange(side) + 0.5) * self.size / side
        x = self._source(0, cells)
        return self._source(1, cells), x[::-1] if self.flip else x

    def _covers(self, size: tuple[float, float], side: int) -> Array:
        (y, x), (height, width) = self._centres(side), size
        return ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))

    def _nearest(self, size: tuple[float, float], side: int) -> tuple[Array, Array]:
        y, x = (
            np.floor(centres).astype(np.int64).clip(0, int(length) - 1)
            for centres, length in zip(self._centres(side), size, strict=True)
        )
        return y, x


def _on_pixels(window: Window, size: tuple[int, int], target: int) -> Window:
    """The window widened by a pixel at most so that what it shows of an image is whole pixels of image and input."""
    ends = []
    for axis, length in enumerate(size[::-1]):
        start, end = window[axis::2]
        scale = target / (end - start)
        first, last = max(math.floor(start), 0), min(math.ceil(end), length)
        low, high = max(math.floor(-start * scale), 0), min(math.ceil((length - start) * scale), target)
        if first < last and low < high:
            step = (last - first) / (high - low)
            start, end = first - low * step, last + (target - high) * step
        ends.append((start, end))
    (x1, x2), (y1, y2) = ends
    return x1, y1, x2, y2


@cache
def _padding(side: int) -> Tensor:
    return torch.tensor(MEAN_COLOUR, dtype=torch.uint8).repeat(side, side, 1)


def whole(size: tuple[int, int], target: int) -> Geometry:
    """The whole image and nothing else, not augmented."""
    return Geometry((0.0, 0.0, float(size[1]), float(size[0])), flip=False, size=target)


def draw_geometry(
    size: tuple[int, int], guides_xyxy: Tensor, target: int, config: Augment, rng: random.Random, *, zoom_out: bool
) -> Geometry:
    """Draw zoom-out (where it is asked for), crop and flip for an image of `size` (height, width).

    A crop must cover one of the guides, float32 [K, 4], to the share that it drew; K may be 0.
    """
    height, width = size
    window = (0.0, 0.0, float(width), float(height))
    if zoom_out:
        factor = rng.uniform(1.05, config.zoom_out_max)
        left, top = rng.uniform(0, (factor - 1) * width), rng.uniform(0, (factor - 1) * height)
        window = (-left, -top, factor * width - left, factor * height - top)
    if config.crop:
        window = _crop(window, guides_xyxy, rng)
    if not config.as_specified:
        window = _on_pixels(window, size, target)
    return Geometry(window, rng.random() < config.flip_share, target, on_pixels=not config.as_specified)


def _crop(window: Window, guides_xyxy: Tensor, rng: random.Random) -> Window:
    """A part of the window: .3 to 1 of its area, aspect 1/2 to 2, one guide covered; the window after 50 misses."""
    covered = rng.choice(MIN_COVERED)
    width, height = window[2] - window[0], window[3] - window[1]
    for _ in range(50):
        area, ratio = rng.uniform(0.3, 1.0) * width * height, rng.uniform(0.5, 2.0)
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w > width or h > height:
            continue
        left, top = window[0] + rng.uniform(0, width - w), window[1] + rng.uniform(0, height - h)
        crop = (left, top, left + w, top + h)
        if len(guides_xyxy) == 0 or bool((_covered(guides_xyxy, crop) >= covered).any()):
            return crop
    return window


def _covered(boxes_xyxy: Tensor, window: Window) -> Tensor:
    x1, y1, x2, y2 = window
    low = boxes_xyxy.new_tensor([x1, y1])
    high = boxes_xyxy.new_tensor([x2, y2])
    sides = (torch.minimum(boxes_xyxy[:, 2:], high) - torch.maximum(boxes_xyxy[:, :2], low)).clamp(min=0)
    return sides.prod(dim=1) / boxes.area(boxes_xyxy)


AT_ONCE = 2**18
"""Enlarged values at once (1 MB, which stays in a processor's cache); of 12 megapixels in 21 classes there are a
thousand times as many."""


def likeliest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel: bilinear (half-pixel centres), then the argmax. Returns uint8 [H, W]. `scores`
    is float32 [C+1, h, w], logits or probabilities.
    """
    (height, width), rows = size, scores.shape[1]
    possible = _possible(scores)
    classes = possible.any(dim=1).nonzero()[:, 0]
    possible, plain = possible[classes], scores[classes][None].contiguous()  # a class after the other
    broad = F.interpolate(plain, size=(rows, width), mode="bilinear", align_corners=False)[0]
    weights = torch.from_numpy(interpolation(np.arange(height) + 0.5, height, rows)).to(scores.device)
    found = []
    for strip in torch.split(weights, max(1, AT_ONCE // (len(classes) * width))):
        seen = strip.any(dim=0).nonzero()
        first, end = int(seen[0]), int(seen[-1]) + 1
        chosen = possible[:, first : max(end - 1, first + 1)].any(dim=1)
        found.append(_first_best(strip[:, first:end] @ broad[chosen, first:end], classes[chosen]))
    return torch.cat(found)


def _possible(scores: Tensor) -> Tensor:
    """bool [C+1, h]: the classes that may be the likeliest one somewhere between a row of cells and the next.

    Between four cells a class is at most its largest score there, and one of the classes at least its smallest; a
    millionth is for rounding.
    """
    corners = F.pad(scores[None], (0, 1, 0, 1), mode="replicate")[0]
    above, below = corners[:, :-1], corners[:, 1:]
    most, least = torch.maximum(above, below), torch.minimum(above, below)
    most, least = torch.maximum(most[..., :-1], most[..., 1:]), torch.minimum(least[..., :-1], least[..., 1:])
    return ~(most < least.amax(dim=0) - 1e-6 * scores.abs().amax()).all(dim=2)


def interpolation(centres: NDArray[Any], length: float, cells: int) -> NDArray[np.float32]:
    """float32 [n, cells]: rows of linear-interpolation weights; the border is continued, and zero beyond `length`."""
    position = (centres * cells / length - 0.5).clip(0, cells - 1)
    weights = (1 - np.abs(position[:, None] - np.arange(cells))).clip(0)
    return (weights * ((centres >= 0) & (centres < length))[:, None]).astype(np.float32)


def _first_best(planes: Tensor, classes: Tensor) -> Tensor:
    """uint8 [rows, W]: `classes[planes.argmax(0)]`; on a CPU, class by class, it takes a third of the time."""
    if not planes.is_cpu:
        return classes[planes.argmax(dim=0)].to(torch.uint8)
    best, *others = planes.numpy()
    number, *numbers = classes.numpy().astype(np.uint8)
    found = np.full(best.shape, number)
    for number, plane in zip(numbers, others, strict=True):
        np.maximum(found, (plane > best) * number, out=found)
        np.maximum(best, plane, out=best)
    return torch.from_numpy(found)


def channels_last(scores: Tensor) -> Tensor:
    """One map, [C, h, w], as a batch of one whose classes lie side by side in memory: enlarged four times as fast.

    Of `scores[None]`, PyTorch's kernels do not recognize that layout where `scores` is a slice of a channels-last
    batch, because its first stride is too small; `contiguous(memory_format=torch.channels_last)` leaves that as it is.
    """
    return scores.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
