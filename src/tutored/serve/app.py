"""The page and its answers, as an ASGI application: limits on what is sent, one picture at a time."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tutored.errors import printable
from tutored.pages import render, uri
from tutored.palette import voc_palette
from tutored.pictures import FORMATS, as_rgb, upright
from tutored.predict.predictor import describe
from tutored.tasks import Task
from tutored.types import Prediction
from tutored.visualise import draw

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a browser on this machine asks; any other may be a foreign page's (DNS rebinding)."""
PIXELS = 50_000_000
"""Of a picture; more are refused before they are decoded."""
SIDE = 1600
"""A picture whose drawing is asked for is shrunk to this long side."""
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Predict = Callable[[Image.Image], Prediction]


def make_app(
    predict: Predict, tasks: Mapping[str, Task], *, hosts: Sequence[str] | None = (), megabytes: float = 10
) -> Starlette:
    """`GET /` is the page, `POST /predict` answers a picture (see `answer`), `GET /health` says who answers.

    The body of the request is the picture's file. `?draw=0.5` asks for a drawing with what scores at least that much,
    of all tasks or those in `&tasks=`, names with commas. Faults are `{"error": "..."}` with a status from 400 on. No
    picture is kept.

    Args:
        predict: is asked about one RGB picture at a time.
        tasks: those that it answers, by name.
        hosts: names that requests may give this server, beside `LOOPBACK`; None takes any.
        megabytes: larger files are refused, in millions of bytes.
    """
    page = _page(tasks, megabytes)
    alone = anyio.CapacityLimiter(1)

    async def show(_request: Request) -> Response:
        return page

    async def health(_request: Request) -> Response:
        known = {name: task.labels.classes for name, task in tasks.items()}
        return JSONResponse({"status": "ok", "version": version("tutored"), "classes": known}, headers=SAFE)

    async def ask(request: Request) -> Response:
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise HTTPException(403, "another site's page may not ask")
        score, drawn = _asked(request, tasks)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > megabytes * 1e6:
                raise HTTPException(413, f"the file is larger than {megabytes:g} MB; make the picture smaller")
        try:
            asked = partial(answer, predict, tasks, bytes(data), score, drawn)
            return JSONResponse(await anyio.to_thread.run_sync(asked, limiter=alone), headers=SAFE)
        except HTTPException:
            raise
        except Exception as error:
            # A line in the terminal; the sender learns nothing of our insides.
            if os.environ.get("TUTORED_DEBUG"):
                traceback.print_exception(error)
            told = f"{type(error).__name__}: {error} (TUTORED_DEBUG=1 shows where)"
            print(printable(f"tutored: a picture was not answered: {told}"), file=sys.stderr, flush=True)
            raise HTTPException(500, "the model failed on this picture; the terminal says more") from error

    names = ["*"] if hosts is None else [*LOOPBACK, *hosts]
    return Starlette(
        routes=[Route("/", show), Route("/health", health), Route("/predict", ask, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)],
        exception_handlers={HTTPException: _refuse, ClientDisconnect: _leave},
    )


def _page(tasks: Mapping[str, Task], megabytes: float) -> Response:
    script = files("tutored.serve").joinpath("page.js").read_text(encoding="utf-8")
    values = {
        "script": script,
        "classes": {name: task.labels.classes for name, task in tasks.items()},
        "colours": ["#" + bytes(colour).hex() for colour in voc_palette()],
        "megabytes": megabytes,
        "formats": FORMATS,
    }
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{seal}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page = render("tutored.serve", "page.html.j2", values)
    return HTMLResponse(page, headers=SAFE | {"Content-Security-Policy": policy})


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
            if side:
                picture.draft("RGB", (side, side))
            image = as_rgb(upright(picture))
    except Image.DecompressionBombError:
        raise HTTPException(413, f"the picture has more than {PIXELS // 10**6} million pixels; shrink it") from None
    except UnidentifiedImageError:
        raise HTTPException(415, f"not a picture that can be read; possible: {', '.join(FORMATS)}") from None
    except Exception:  # decoders raise all sorts of errors on broken bytes
        raise HTTPException(422, "the picture is broken; send another copy") from None
    if side:
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return image


def _asked(request: Request, tasks: Mapping[str, Task]) -> tuple[float | None, list[str]]:
    """From which score on an answer is to be drawn (None: it is not), and of which tasks."""
    asked = request.query_params
    drawn = asked["tasks"].split(",") if "tasks" in asked else list(tasks)
    if unknown := [name for name in drawn if name and name not in tasks]:
        raise HTTPException(400, f"there is no task {unknown[0]!r}; possible: {', '.join(tasks)}")
    try:
        return float(asked["draw"]) if "draw" in asked else None, list(filter(None, drawn))
    except ValueError:
        raise HTTPException(400, f"draw={asked['draw']} is no score; give a number from 0 to 1") from None


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=SAFE | dict(error.headers or {}))


def _leave(_request: Request, _error: Exception) -> Response:
    """The sender is gone, in the middle of an upload; nobody hears the answer."""
    return Response(status_code=400)
