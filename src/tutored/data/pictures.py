"""Reading pictures and class-index masks from files, and fitting boxes into them; every fault names its file."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import IGNORE

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MOST_BYTES = 100_000_000
"""No photograph from an address is larger."""

Box = tuple[float, float, float, float]


def read_picture(path: Path | str) -> Image.Image:
    """The RGB picture of a file, or of an address that fsspec opens (`https://...`, `s3://...`), decoded.

    The pixels are those stored in the file: an EXIF orientation is not applied, because the boxes and masks of VOC
    and COCO were drawn on the stored pixels.

    Raises:
        InputError: the file is missing, broken, cut short, of another format or absurdly large.
    """
    return _read(path, decode=True).convert("RGB")


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of a picture from its header alone. Raises InputError as `read_picture` does."""
    picture = _read(path, decode=False)
    return picture.height, picture.width


def read_mask(path: Path, size: tuple[int, int], labels: LabelSpace) -> Tensor:
    """A mask of class indices: a PNG of mode P (its indices, not its colours) or L.

    Returns:
        uint8 [H, W], 0..C of `labels` and 255 = ignore.

    Raises:
        InputError: the file is unreadable, of another mode, not of `size`, or holds a value outside `labels`.
    """
    picture = _read(path, decode=True)
    if picture.mode not in ("P", "L"):
        raise InputError(
            f"{path}: a mask holds one class index per pixel (palette or 8-bit grey PNG), got mode {picture.mode}; "
            "save the indices, not their colours"
        )
    if (picture.height, picture.width) != size:
        raise InputError(
            f"{path}: the mask is {picture.width}x{picture.height} pixels, its image {size[1]}x{size[0]}; "
            "make both the same size"
        )
    mask = np.array(picture)
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = [int(value) for value in values if value >= len(labels) and value != IGNORE]
    if wrong:
        raise InputError(
            f"{path}: mask values {wrong} are no classes; possible: 0 (background), 1 to {len(labels) - 1} "
            f"({labels.names[-1]}), {IGNORE} (ignore)"
        )
    return torch.from_numpy(mask)


def fit_box(box: Box, size: tuple[int, int], what: str, slack: float = math.inf) -> Box:
    """Cut a box (x1, y1, x2, y2) at the borders of an image of `size` (height, width).

    Args:
        what: names file and object in the message.
        slack: how many pixels the box may stick out.

    Raises:
        InputError: it sticks out by more, or no area is left.
    """
    x1, y1, x2, y2 = box
    height, width = size
    if not max(-x1, -y1, x2 - width, y2 - height) <= slack:
        raise InputError(f"{what}: the box {box} lies outside its image of {width}x{height} pixels; correct it")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if is_empty(inside):
        raise InputError(f"{what}: the box {box} has no area in its image of {width}x{height} pixels; correct it")
    return inside


def is_empty(box: Box) -> bool:
    """Whether a box is thinner than float32 can tell from no area."""
    return not (box[2] - box[0] >= 0.01 and box[3] - box[1] >= 0.01)


def _read(path: Path | str, *, decode: bool) -> Image.Image:
    try:
        with Image.open(_source(path), formats=FORMATS) as picture:
            if decode:
                picture.load()
            return picture
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such picture; add it or take it off the list") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels for a photograph; make it smaller ({error})") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a picture; possible: {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise all sorts of errors on broken bytes
        raise InputError(f"{path}: the picture can't be read ({error}); fetch it again") from error


def _source(path: Path | str) -> Path | str | IO[bytes]:
    if "://" not in str(path):
        return path
    import fsspec

    with fsspec.open(str(path), "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 1_000_000} MB")
    return io.BytesIO(content)
