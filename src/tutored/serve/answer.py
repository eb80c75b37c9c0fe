"""One uploaded picture and its answer."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tutored.data.pictures import FORMATS, as_rgb, orientation, upright
from tutored.labels import LabelSpace
from tutored.predict import box_entries
from tutored.structures import Prediction
from tutored.visualise import mask_image

PIXELS = 50_000_000
"""Of a picture; more are refused before they are decoded."""
SIDE = 1600
"""The network is shown larger pictures shrunk to this long side, so that an answer's memory has a bound."""

Predict = Callable[[Image.Image], Prediction]


class RefusedError(Exception):
    """Why a picture is not answered, for its sender: an HTTP status and a sentence."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status, self.told = status, told


def answer(predict: Predict, labels: LabelSpace, data: bytes) -> dict[str, Any]:
    """What the page is told of a picture.

    Args:
        data: a file of one of `FORMATS`, whatever it is called.

    Returns:
        `width` and `height` of the picture, turned upright where it says how; `boxes` in its pixels (see
        `box_entries`); `mask`, a palette PNG of its size in base64, whose pixels are class numbers and whose background
        is transparent; `areas`, the share of its pixels of each class in the mask, largest first; `seconds` spent.
        `boxes`, `mask` and `areas` are None where the student was not taught to give them.

    Raises:
        RefusedError: the picture is of another format, too large or broken.
    """
    started = time.perf_counter()
    image, size = read_upload(data)
    prediction = predict(image)
    if prediction.boxes_xyxy is not None:
        zoom = torch.tensor([size[0] / image.width, size[1] / image.height] * 2)
        prediction = replace(prediction, boxes_xyxy=prediction.boxes_xyxy * zoom)
    return {
        "width": size[0],
        "height": size[1],
        "boxes": box_entries(prediction, labels),
        "mask": None if prediction.mask is None else _png(prediction.mask, size),
        "areas": None if prediction.mask is None else _areas(prediction.mask, labels),
        "seconds": round(time.perf_counter() - started, 3),
    }


def read_upload(data: bytes) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, RGB, upright, of at most `SIDE` pixels, and the (width, height) that it has itself.

    Raises:
        RefusedError: see `answer`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                raise Image.DecompressionBombError
            size = picture.size
            if orientation(picture) >= 5:
                size = size[::-1]
            picture.draft("RGB", (SIDE, SIDE))
            image = as_rgb(upright(picture))
    except Image.DecompressionBombError:
        raise RefusedError(
            413, f"the picture has more than {PIXELS // 1_000_000} million pixels; make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise RefusedError(415, f"not a picture that can be read; possible: {', '.join(FORMATS)}") from None
    except Exception:  # decoders raise all sorts of errors on broken bytes
        raise RefusedError(422, "the picture is broken; send another copy") from None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    return image, size


def _png(mask: Tensor, size: tuple[int, int]) -> str:
    written = io.BytesIO()
    picture = mask_image(mask).resize(size, Image.Resampling.NEAREST)
    picture.save(written, format="PNG", transparency=0)
    return base64.b64encode(written.getvalue()).decode()


def _areas(mask: Tensor, labels: LabelSpace) -> list[dict[str, Any]]:
    counts = torch.bincount(mask.flatten(), minlength=len(labels)).tolist()
    found = [
        {"category_id": number, "category": labels.names[number], "share": round(count / mask.numel(), 5)}
        for number, count in enumerate(counts)
        if number and count
    ]
    return sorted(found, key=lambda area: -area["share"])
