"""Masks on a picture, and as run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from tutored.pictures import borders, colour_of
from tutored.tasks.instances.types import InstanceMasks, Objects

FILL = 0.5
"""How much of its colour lies over an object's pixels."""


def draw_masks(picture: Image.Image, shown: Objects | InstanceMasks) -> Image.Image:
    """Each object's pixels in its class' colour with a light outline, large ones below small ones.

    Args:
        picture: RGB, of any size.
    """
    mixed = np.asarray(picture).astype(np.float32)
    for row in (shown.masks == 1).sum(dim=(1, 2)).argsort(descending=True, stable=True).tolist():
        plane = Image.fromarray((shown.masks[row] == 1).numpy().astype(np.uint8))
        there = np.asarray(plane.resize(picture.size, Image.Resampling.NEAREST))
        colour = np.array(colour_of(int(shown.classes[row])), np.float32)
        mixed[there > 0] = mixed[there > 0] * (1 - FILL) + colour * FILL
        mixed[borders(there) & (there > 0)] = colour / 2 + 127
    return Image.fromarray(mixed.round().astype(np.uint8))


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """A mask, bool [H, W], as COCO's compressed run lengths, ready for JSON."""
    from faster_coco_eval.core import mask as rle  # slow to import

    runs = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": [*mask.shape], "counts": runs["counts"].decode("ascii")}
