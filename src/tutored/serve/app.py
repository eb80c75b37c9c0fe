"""The page and its answers, as an ASGI application: limits on what is sent, one picture at a time."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, urlsplit

import anyio
import yaml
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tutored.errors import printable
from tutored.pages import render
from tutored.pictures import FORMATS, voc_palette
from tutored.serve import AUTO
from tutored.serve.http import BUSY

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
    those in `&tasks=`, names with commas. Faults are
    `{"error": "..."}` with a status from 400 on. No picture is kept.

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
        exception_handlers={HTTPException: _refuse, ClientDisconnect: _leave},
    )
    app.router.redirect_slashes = False  # an answer without words
    return app


class _Named:
    """Refuses requests that give this server another name, as after DNS rebinding.

    Args:
        names: that it has; None: any.
    """

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
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=SAFE | dict(error.headers or {}))


def _leave(_request: Request, _error: Exception) -> Response:
    """The sender is gone, in the middle of an upload; nobody hears the answer."""
    return Response(status_code=400)
