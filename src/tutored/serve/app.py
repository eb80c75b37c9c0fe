"""The page and its two answers, as an ASGI application: limits on what is sent, one picture at a time."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import files

import anyio
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutored.data.pictures import FORMATS
from tutored.labels import LabelSpace
from tutored.page import render
from tutored.palette import voc_palette
from tutored.serve.answer import Predict, RefusedError, answer

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a browser on this machine asks; any other may be a foreign page's (DNS rebinding)."""
FORM = 10_000
"""Bytes that a request may hold beside its picture."""
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
UPLOAD = "send multipart/form-data with one picture as `image`, such as curl -F image=@picture.jpg"


def make_app(
    predict: Predict, labels: LabelSpace, *, hosts: Sequence[str] | None = (), megabytes: float = 10
) -> Starlette:
    """`GET /` is the page, `POST /predict` answers a picture (see `answer`), `GET /health` says who answers.

    Faults are `{"error": "..."}` with a status from 400 on. No picture is kept.

    Args:
        predict: is asked about one RGB picture at a time.
        hosts: names that requests may give this server, beside `LOOPBACK`; None takes any.
        megabytes: larger files are refused, in millions of bytes.
    """
    most = round(megabytes * 1e6)
    script = files("tutored.serve").joinpath("page.js").read_text()
    page = _page(script, labels, megabytes)
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{seal}'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    alone = anyio.CapacityLimiter(1)

    async def show(_request: Request) -> Response:
        return HTMLResponse(page, headers=SAFE | {"Content-Security-Policy": policy})

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": version("tutored"), "classes": labels.classes}, headers=SAFE)

    async def ask(request: Request) -> Response:
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise HTTPException(403, "another site's page may not ask")
        data = await _uploaded(request, most)
        try:
            found = await anyio.to_thread.run_sync(partial(answer, predict, labels, data), limiter=alone)
        except RefusedError as refused:
            raise HTTPException(refused.status, refused.told) from refused
        except Exception as error:
            _report(error)
            raise HTTPException(500, "the model failed on this picture; the terminal says more") from error
        return JSONResponse(found, headers=SAFE)

    names = ["*"] if hosts is None else [*LOOPBACK, *hosts]
    return Starlette(
        routes=[Route("/", show), Route("/health", health), Route("/predict", ask, methods=["POST"])],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
            Middleware(BodyLimit, most=most + FORM),
        ],
        exception_handlers={HTTPException: _refuse, ClientDisconnect: _leave},
    )


class BodyLimit:
    """Refuses a request while it is read, as soon as its body is too large."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.most:
                raise _too_large(self.most - FORM)
            return message

        await self.app(scope, counted, send)


async def _uploaded(request: Request, most: int) -> bytes:
    async with request.form(max_files=1, max_fields=10) as form:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise HTTPException(400, f"there is no picture; {UPLOAD}")
        data = await image.read()
    if len(data) > most:
        raise _too_large(most)
    return data


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the file is larger than {most / 1e6:g} MB; make the picture smaller")


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=SAFE | dict(error.headers or {}))


def _leave(_request: Request, _error: Exception) -> Response:
    """Who asked is gone, in the middle of an upload; nobody hears the answer."""
    return Response(status_code=400)


def _report(error: Exception) -> None:
    """A line in the terminal; the sender learns nothing of our insides."""
    if os.environ.get("TUTORED_DEBUG"):
        traceback.print_exception(error)
    else:
        told = f"{type(error).__name__}: {error} (TUTORED_DEBUG=1 shows where)"
        print(f"tutored: a picture was not answered: {told}", file=sys.stderr, flush=True)


def _page(script: str, labels: LabelSpace, megabytes: float) -> str:
    palette = ["#" + bytes(colour).hex() for colour in voc_palette()]
    colours = [palette[number % len(palette)] for number in range(len(labels))]
    values = {"script": script, "colours": colours, "classes": labels.classes, "megabytes": megabytes}
    return render("tutored.serve", "page.html.j2", values | {"formats": FORMATS})
