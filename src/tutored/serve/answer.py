"""What a model says about an uploaded picture, ready to be sent; every fault is told by an HTTPException."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException

from tutored.pages import uri
from tutored.pictures import FORMATS, LONGEST, as_rgb, orientation, refuse_long, refuse_odd, upright
from tutored.predict import Result, load
from tutored.serve import AUTO
from tutored.students import answer as ask_student

PIXELS = 50_000_000
"""Of a picture; more are refused before they are decoded."""
SIDE = 1600
"""A picture whose drawing is asked for is shrunk to this long side."""
FINER = 2
"""A JPEG is decoded at the smallest of its scales (1/8, 1/4, 1/2, 1) that leaves so many times the network's side."""

Predict = Callable[[Image.Image, tuple[int, int]], Result]
"""What is in a picture that may be shrunk, in the pixels of (height, width)."""


def load_answer(
    checkpoint: Path | str, device: str | None
) -> tuple[Mapping[str, Sequence[str]], Callable[..., dict[str, Any]]]:
    """The classes of a checkpoint's tasks, and `answer` with its student. Raises InputError as `predict.load`."""
    model = load(checkpoint, device)

    def predict(image: Image.Image, size: tuple[int, int]) -> Result:
        (found,) = ask_student(model.student, [image], model.device, tuple(model.tasks), [size])
        return Result(found.size, found.tasks, known=model.tasks, scores=model.scores, source=image)

    classes = {name: task.labels.classes for name, task in model.tasks.items()}
    return classes, partial(answer, predict, FINER * model.student.size)


def answer(
    predict: Predict, least: int, data: bytes, score: float | str | None = None, drawn: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known about a picture, a file of one of `FORMATS`.

    Args:
        least: pixels of each side below which a picture is not shrunk while it is decoded.

    Returns:
        `width` and `height` of the picture, turned upright as its EXIF asks, and where it is drawn of at most `SIDE`
        pixels; `entries` by task, in its pixels (see `Task.describe`), and what of them is `found`, in words; `seconds`
        spent; and the `drawing` of some tasks from a score on, a JPEG, with this `score`, or without a score `files` by
        name (see `Task.save`), in base64.

    Raises:
        HTTPException: the picture is of another format, too large or broken.
    """
    started = time.perf_counter()
    image, size = read_upload(data, least if score is None else SIDE)
    if score is not None:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
        size = (image.height, image.width)
    result = predict(image, size)
    from_: Any = score
    if score == AUTO:
        from_ = min((min(result.scores[name], best) for name, best in result.best.items()), default=None)
    found = {"width": size[1], "height": size[0], "entries": result.entries(), "found": result.told(from_)}
    if score is not None:
        known = {name: result.known[name] for name in drawn}
        found |= {"score": from_, "drawing": uri(replace(result, known=known).plot(from_))}
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, each in result.tasks.items():
                result.known[name].save(each, Path(folder) / name)
            written = sorted(Path(folder).iterdir())
            found["files"] = {file.name: base64.b64encode(file.read_bytes()).decode() for file in written}
    return found | {"seconds": round(time.perf_counter() - started, 3)}


def read_upload(data: bytes, least: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, RGB, upright, and its (height, width), which a JPEG's decoder may shrink as far as `least`.

    Only here pixels may differ by that: a sender waits, and memory is bounded. Labelling, training and `predict` read
    what was stored. Raises HTTPException as `answer`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                raise Image.DecompressionBombError
            refuse_long(picture)
            refuse_odd(picture)
            width, height = picture.size
            picture.draft("RGB", (least, least))
            return as_rgb(upright(picture)), (width, height) if orientation(picture) > 4 else (height, width)
    except Image.DecompressionBombError:
        most = f"{PIXELS // 10**6} million pixels, or a side of more than {LONGEST:,}"
        raise HTTPException(413, f"the picture has more than {most}; shrink it") from None
    except UnidentifiedImageError:
        raise HTTPException(415, f"not a picture that can be read; possible: {', '.join(FORMATS)}") from None
    except Exception:  # decoders raise all sorts of errors on broken bytes
        raise HTTPException(422, "the picture is broken; send another copy") from None
