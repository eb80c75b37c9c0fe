"""What a model says about an uploaded picture, ready to be sent; every fault is told by an HTTPException."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException

from tutored.pages import uri
from tutored.pictures import FORMATS, as_rgb, refuse_odd, upright
from tutored.predict import load
from tutored.predict.predictor import describe
from tutored.tasks import Task
from tutored.types import Prediction
from tutored.visualise import draw

PIXELS = 50_000_000
"""Of a picture; more are refused before they are decoded."""
LONGEST = 30_000
"""Pixels of a picture's side; a thin one of 50 million pixels would take gigabytes to answer."""
SIDE = 1600
"""A picture whose drawing is asked for is shrunk to this long side."""

Predict = Callable[[Image.Image], Prediction]


def load_answer(
    checkpoint: Path | str, device: str | None
) -> tuple[Mapping[str, Sequence[str]], Callable[..., dict[str, Any]]]:
    """The classes of a checkpoint's tasks, and `answer` with its student. Raises InputError as `predict.load`."""
    model = load(checkpoint, device)
    return {name: task.labels.classes for name, task in model.tasks.items()}, partial(answer, model, model.tasks)


def answer(
    predict: Predict, tasks: Mapping[str, Task], data: bytes, score: float | None = None, drawn: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known about a picture, a file of one of `FORMATS`.

    Returns:
        `width` and `height` of the picture, turned upright as its EXIF asks, and where it is drawn of at most `SIDE`
        pixels; `entries` by task, in its pixels (see `Task.describe`); `seconds` spent; and the `drawing` of some tasks
        from a score on, a JPEG, or without a score `files` by name (see `Task.save`), in base64.

    Raises:
        HTTPException: the picture is of another format, too large or broken.
    """
    started = time.perf_counter()
    image = read_upload(data, None if score is None else SIDE)
    prediction = predict(image)
    found: dict[str, Any] = {"width": image.width, "height": image.height, "entries": describe(prediction, tasks)}
    if score is not None:
        found["drawing"] = uri(draw(image, prediction, {name: tasks[name] for name in drawn}, score=score))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, each in prediction.tasks.items():
                tasks[name].save(each, Path(folder) / name)
            written = sorted(Path(folder).iterdir())
            found["files"] = {file.name: base64.b64encode(file.read_bytes()).decode() for file in written}
    return found | {"seconds": round(time.perf_counter() - started, 3)}


def read_upload(data: bytes, side: int | None) -> Image.Image:
    """The picture, RGB, upright, with at most `side` pixels on its long side. Raises HTTPException as `answer`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                raise Image.DecompressionBombError
            if max(picture.size) > LONGEST:
                raise HTTPException(413, f"a side of the picture has more than {LONGEST:,} pixels; shrink it")
            refuse_odd(picture)
            if side:
                picture.draft("RGB", (side, side))
            image = as_rgb(upright(picture))
    except HTTPException:
        raise
    except Image.DecompressionBombError:
        raise HTTPException(413, f"the picture has more than {PIXELS // 10**6} million pixels; shrink it") from None
    except UnidentifiedImageError:
        raise HTTPException(415, f"not a picture that can be read; possible: {', '.join(FORMATS)}") from None
    except Exception:  # decoders raise all sorts of errors on broken bytes
        raise HTTPException(422, "the picture is broken; send another copy") from None
    if side:
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return image
