"""The page and its answers, as an ASGI application: limits on what is sent, one picture at a time."""

import base64
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import anyio
import h11
import uvicorn
import yaml
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tutored.errors import printable
from tutored.pages import render, uri
from tutored.pictures import FORMATS, LONGEST, as_rgb, orientation, refuse_long, refuse_odd, upright, voc_palette
from tutored.predict import Result, load
from tutored.serve import AUTO
from tutored.students import Precision
from tutored.students import answer as ask_student

CONNECTIONS = 64
"""At once; requests on more are told to come again."""
MOST_CONNECTIONS = 4 * CONNECTIONS
"""More are closed without a word."""
HEADERS = 10.0
"""Seconds within which a connection must bring a request."""
REQUEST = 180.0
"""Seconds after which a request has ended, its answer read."""
GRACE = 3
"""Seconds that a request has to end when the server is stopped."""
BUSY = "too many ask at once; send the picture again in a moment"


def settings(app: Any) -> uvicorn.Config:
    """How uvicorn serves the page."""
    return uvicorn.Config(
        app,
        http=Limited,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )


class Limited(H11Protocol):
    """One connection."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._whole_app, self.app = self.app, self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        app: Any = self._whole_app
        if len(self.connections) > CONNECTIONS:
            app = JSONResponse({"error": BUSY}, 503, {"Retry-After": "5", "Connection": "close"})
        await app(scope, receive, send)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._look(None, self.loop.time())

    def _look(self, seen: Any, since: float) -> None:
        """Once a second: end the connection if what it does has lasted too long. `seen` is the request of the last
        look, or None.
        """
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.cycle is not seen:
            seen, since = self.cycle, now
        is_idle = self.cycle is None or self.cycle.response_complete
        if now - since < (HEADERS if is_idle else REQUEST):
            self.loop.call_later(1, self._look, seen, since)
        else:
            self.transport.close()
            self.loop.call_later(HEADERS, self.transport.abort)  # nobody reads what is still to be sent

    def send_400_response(self, msg: str) -> None:
        content = json.dumps({"error": msg}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


PIXELS = 50_000_000
"""Of a picture; more are refused before they are decoded."""
SIDE = 1600
"""A picture whose drawing is asked for is shrunk to this long side."""
FINER = 2
"""A JPEG is decoded at the smallest of its scales (1/8, 1/4, 1/2, 1) that leaves so many times the network's side."""

Predict = Callable[[Image.Image, tuple[int, int]], Result]
"""What is in a picture that may be shrunk, in the pixels of (height, width)."""


def load_answer(
    checkpoint: Path | str, device: str | None, precision: Precision = "fp32"
) -> tuple[Mapping[str, Sequence[str]], Callable[..., dict[str, Any]]]:
    """The classes of a checkpoint's tasks, and `answer` with its student. Raises InputError as `predict.load`."""
    model = load(checkpoint, device, precision=precision)

    def predict(image: Image.Image, size: tuple[int, int]) -> Result:
        (found,) = ask_student(model.student, [image], model.device, tuple(model.tasks), [size])
        return Result(found.size, found.tasks, known=model.tasks, scores=model.scores, source=image)

    classes = {name: task.labels.classes for name, task in model.tasks.items()}
    return classes, partial(answer, predict, FINER * model.student.size)


def answer(
    predict: Predict, least: int, data: bytes, score: float | str | None = None, drawn: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known about a picture, a file of one of `FORMATS`. Raises HTTPException: the picture is of another
    format, too large or broken. Returns `width` and `height` of the picture, turned upright as its EXIF asks, and where
    it is drawn of at most `SIDE` pixels; `entries` by task, in its pixels (see `Task.describe`), and what of them is
    `found`, in words; `seconds` spent; and the `drawing` of some tasks from a score on, a JPEG, with this `score`, or
    without a score `files` by name (see `Task.save`), in base64. Decoding shrinks no side below `least` pixels.
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


LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names under which a browser on this machine asks; any other may be a foreign page's (DNS rebinding)."""
UPLOAD, WAIT = 20.0, 30.0
"""Seconds that a body may take to arrive, and a request may wait for its turn."""
WAITING = 8
"""Requests that may wait for their turn; more are told to come again."""
AGAIN = {"Retry-After": "5"}
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Ask = Callable[[bytes, float | str | None, Sequence[str]], dict[str, Any]]


def make_app(
    ask_model: Ask, classes: Mapping[str, Sequence[str]], *, hosts: Sequence[str] | None = (), megabytes: float = 10
) -> Starlette:
    """`GET /` is the page, `POST /predict` answers a picture (see `answer.answer`), `GET /health` says who answers.

    `GET /openapi.json` describes these to programs. The body of the request is the picture's file. `?draw=0.5` asks for
    a drawing with what scores at least that much, `?draw=auto` for one on which something is seen, of all tasks or
    those in `&tasks=`, names with commas. Faults are `{"error": "..."}` with a status from 400 on. No picture is kept.

    Args:
        ask_model: `answer.answer` with a model; it is called with one picture at a time, in a thread, and may raise
            TimeoutError.
        classes: of each task that it answers, by the task's name.
        hosts: names that requests may give this server, beside `LOOPBACK`; None takes any.
        megabytes: larger files are refused, in millions of bytes.
    """
    page = _page(classes, megabytes)
    description = JSONResponse(yaml.safe_load(_text("openapi.yaml")), headers=SAFE)
    alone = anyio.Lock()

    async def show(_request: Request) -> Response:
        return page

    async def describe(_request: Request) -> Response:
        return description

    async def health(_request: Request) -> Response:
        known = {name: list(names) for name, names in classes.items()}
        return JSONResponse({"status": "ok", "version": version("tutored"), "classes": known}, headers=SAFE)

    async def ask(request: Request) -> Response:
        _refuse_foreign(request)
        score, drawn = _asked(request, classes)
        data = await _body(request, megabytes)
        if alone.statistics().tasks_waiting >= WAITING:
            raise HTTPException(503, BUSY, AGAIN)
        try:
            with anyio.fail_after(WAIT):
                await alone.acquire()
        except TimeoutError:
            raise HTTPException(503, BUSY, AGAIN) from None
        try:
            asked = partial(ask_model, data, score, drawn)
            return JSONResponse(await anyio.to_thread.run_sync(asked, abandon_on_cancel=True), headers=SAFE)
        except HTTPException:
            raise
        except TimeoutError:
            raise HTTPException(503, "the model took too long for this picture; send a smaller one") from None
        except Exception as error:
            # A line in the terminal; the sender learns nothing of our insides.
            if os.environ.get("TUTORED_DEBUG"):
                traceback.print_exception(error)
            told = f"{type(error).__name__}: {error} (TUTORED_DEBUG=1 shows where)"
            print(printable(f"tutored: a picture was not answered: {told}"), file=sys.stderr, flush=True)
            raise HTTPException(500, "the model failed on this picture; the terminal says more") from error
        finally:
            alone.release()

    names = None if hosts is None else {*LOOPBACK, *hosts}
    routes = [Route("/", show), Route("/health", health), Route("/openapi.json", describe)]
    app = Starlette(
        routes=[*routes, Route("/predict", ask, methods=["POST"])],
        middleware=[Middleware(_Named, names=names)],
        exception_handlers={HTTPException: _refuse, ClientDisconnect: _refuse},
    )
    app.router.redirect_slashes = False  # an answer without words
    return app


class _Named:
    """Refuses requests that give this server another name, as after DNS rebinding. `names` None: it may have any."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else None
        if host is not None and self.names is not None and _split(f"//{host}").hostname not in self.names:
            app = JSONResponse({"error": f"this server is not called {host!r}"}, 400, headers=SAFE)
        await app(scope, receive, send)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _refuse_foreign(request: Request) -> None:
    """Raise HTTPException where a browser asks for another site's page."""
    headers = request.headers
    foreign = "origin" in headers and _split(headers["origin"]).netloc.lower() != headers.get("host", "").lower()
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise HTTPException(403, "another site's page may not ask")


async def _body(request: Request, megabytes: float) -> bytes:
    """The picture's file. Raises HTTPException where it is too large or too slow."""
    data = bytearray()
    try:
        with anyio.fail_after(UPLOAD):
            async for piece in request.stream():
                data += piece
                if len(data) > megabytes * 1e6:
                    raise HTTPException(413, f"the file is larger than {megabytes:g} MB; make the picture smaller")
    except TimeoutError:
        raise HTTPException(408, f"the picture took more than {UPLOAD:g} seconds to arrive; send it again") from None
    return bytes(data)


def _page(classes: Mapping[str, Sequence[str]], megabytes: float) -> Response:
    script = _text("page.js")
    values = {
        "script": script,
        "classes": classes,
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


def _text(name: str) -> str:
    return files("tutored.serve").joinpath(name).read_text(encoding="utf-8")


def _asked(request: Request, tasks: Collection[str]) -> tuple[float | str | None, list[str]]:
    """From which score on an answer is to be drawn (None: it is not; see `AUTO`), and of which tasks."""
    asked = request.query_params
    drawn = asked["tasks"].split(",") if "tasks" in asked else list(tasks)
    if unknown := [name for name in drawn if name and name not in tasks]:
        raise HTTPException(400, f"there is no task {unknown[0]!r}; possible: {', '.join(tasks)}")
    score: Any = asked.get("draw")
    try:
        score = score if score in (None, AUTO) else float(score)
    except ValueError:
        score = math.nan
    if score not in (None, AUTO) and not 0 <= score <= 1:
        raise HTTPException(400, f"draw={asked['draw']} is no score; give a number from 0 to 1, or {AUTO}")
    return score, list(filter(None, drawn))


def _refuse(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # the sender is gone, in the middle of an upload; nobody hears the answer
        return Response(status_code=400)
    return JSONResponse({"error": error.detail}, error.status_code, headers=SAFE | dict(error.headers or {}))
