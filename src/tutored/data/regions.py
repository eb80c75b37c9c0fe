"""The pixels of one instance, from polygons or run lengths as COCO writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from tutored.errors import InputError

Region = np.ndarray[Any, np.dtype[np.bool_]]


def decode_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> Region:
    """The pixels of one instance, bool [H, W], from polygons or from compressed or plain run lengths.

    Polygons of fewer than three points cover nothing.

    Raises:
        InputError: beginning with `what`; a polygon that is none or lies far outside, or runs that don't fit the image.
    """
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(points, 2 * max(size)) for points in segmentation):
            raise InputError(f"{what}: a polygon is a list x, y, x, y, ... within its image of {width}x{height} pixels")
        segmentation = [points for points in segmentation if len(points) >= 6]
        if not segmentation:
            return np.zeros(size, np.bool_)
    elif not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise InputError(f"{what}: run lengths must state the size {[height, width]} of the image, height first")
    try:
        region: Region = rle.decode(rle.segmToRle(segmentation, width, height)).astype(np.bool_)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{what}: its segmentation can't be decoded ({error})") from error
    return region


def _is_polygon(points: Any, far: float) -> bool:
    return isinstance(points, list) and len(points) % 2 == 0 and all(is_number(value, far) for value in points)


def is_number(value: Any, far: float) -> bool:
    return isinstance(value, int | float) and abs(value) <= far
