"""The pixels of one instance, from polygons or run lengths as COCO writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from tutored.errors import InputError

Region = np.ndarray[Any, np.dtype[np.bool_]]


def has_pixels(segmentation: Any) -> bool:
    """Whether anything is drawn: run lengths, or a polygon of three points or more."""
    return bool(segmentation) and (not isinstance(segmentation, list) or any(map(_is_area, segmentation)))


def encode_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> tuple[dict[str, Any], int]:
    """One instance of an image of `size` (H, W), from polygons or run lengths of either kind.

    Polygons of fewer than three points cover nothing.

    Returns:
        Compressed run lengths, and how many pixels it has.

    Raises:
        InputError: beginning with `what`; a polygon that is none or lies far outside, or runs that don't fit the image.
    """
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(points, 2 * max(size)) for points in segmentation):
            raise InputError(f"{what}: a polygon is a list x, y, x, y, ... within its image of {width}x{height} pixels")
        segmentation = list(filter(_is_area, segmentation)) or {"size": [height, width], "counts": [height * width]}
    elif not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise InputError(f"{what}: run lengths must state the size {[height, width]} of the image, height first")
    with _named(what):
        runs: dict[str, Any] = rle.segmToRle(segmentation, width, height)
        return runs, int(rle.area(runs))


def decode_runs(runs: Mapping[str, Any], what: str) -> Region:
    """The pixels, bool [H, W], of what `encode_segmentation` gave. Raises InputError, beginning with `what`."""
    with _named(what):
        region: Region = rle.decode(runs).astype(np.bool_)
        return region


def decode_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> Region:
    """The pixels of one instance, bool [H, W]. Arguments and errors as `encode_segmentation`."""
    return decode_runs(encode_segmentation(segmentation, size, what)[0], what)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{what}: its segmentation can't be decoded ({error})") from error


def _is_area(points: Any) -> bool:
    return not isinstance(points, list) or len(points) >= 6


def _is_polygon(points: Any, far: float) -> bool:
    return isinstance(points, list) and len(points) % 2 == 0 and all(is_number(value, far) for value in points)


def is_number(value: Any, far: float) -> bool:
    return isinstance(value, int | float) and abs(value) <= far
