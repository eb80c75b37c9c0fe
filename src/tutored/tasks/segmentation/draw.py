"""Class maps on a picture, as files, and as shares of the picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutored.files import write_encoded
from tutored.labels import LabelSpace
from tutored.palette import borders, voc_palette
from tutored.tasks.segmentation.types import ClassMap, ClassMask
from tutored.types import BACKGROUND, IGNORE

FILL, VOID_FILL = 0.55, 0.7
"""How much of its colour lies over a class' pixels, and over void."""


def draw(picture: Image.Image, shown: ClassMask | ClassMap, labels: LabelSpace, zoom: float) -> Image.Image:
    """Each class' colour over its pixels, with a light outline; background stays as it is, void is pale.

    Args:
        picture: RGB, of any size.
        labels, zoom: not needed here; every kind's drawing has them.
    """
    classes = np.asarray(mask_image(shown.mask).resize(picture.size, Image.Resampling.NEAREST))
    opacity = np.full(256, FILL, np.float32)
    opacity[BACKGROUND], opacity[IGNORE] = 0, VOID_FILL
    share, colours = opacity[classes][..., None], voc_palette()[classes]
    mixed = np.asarray(picture) * (1 - share) + colours * share
    # Half white, so that the dark colours' borders show on dark objects too.
    outline = borders(classes) & (classes != BACKGROUND) & (classes != IGNORE)
    mixed[outline] = colours[outline] / 2 + 127
    return Image.fromarray(mixed.round().astype(np.uint8))


def mask_image(mask: Tensor) -> Image.Image:
    """A class map, uint8 [H, W], as a picture whose pixels are the class numbers, with VOC's palette."""
    picture = Image.fromarray(mask.cpu().numpy())
    picture.putpalette(voc_palette().tobytes())
    return picture


def save_mask(mask: Tensor, path: Path) -> None:
    """Write a class map, uint8 [H, W], as a palette PNG, whole or not at all."""
    write_encoded(path, partial(mask_image(mask).save, format="PNG"))


def save(prediction: ClassMap, path: Path) -> Path:
    """Write a palette PNG of class numbers, `path` with `.png` added."""
    file = path.with_name(f"{path.name}.png")
    save_mask(prediction.mask, file)
    return file


def describe(prediction: ClassMap, labels: LabelSpace) -> list[dict[str, Any]]:
    """An entry for each class in the map: `category_id` (1..C), `category`, `share` of the pixels, largest first."""
    mask = prediction.mask
    counts = torch.bincount(mask.flatten(), minlength=len(labels)).tolist()
    found = [
        {"category_id": number, "category": labels.names[number], "share": round(count / mask.numel(), 5)}
        for number, count in enumerate(counts)
        if number and count
    ]
    return sorted(found, key=lambda entry: -entry["share"])
