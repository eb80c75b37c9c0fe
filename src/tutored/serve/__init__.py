"""A small local page on which a picture is dropped and answered."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tutored.errors import InputError

__all__ = ["is_loopback", "serve"]

AUTO = "auto"
"""In the place of a score: the one from which on something is seen."""
SECONDS = 30.0
"""That an answer may take."""


def serve(
    checkpoint: Path | str,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    megabytes: float = 10,
    device: str | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer pictures over HTTP until Ctrl-C; see `make_app`.

    Args:
        host: an address or name of this machine. Bound to loopback, requests under other names are refused.
        port: 0 takes a free one.
        megabytes: larger files are refused.
        ready: is called with the page's address once it listens.

    Raises:
        InputError: Starlette or uvicorn is missing, no checkpoint, no such device, or the address can't be had.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(f"serving needs {error.name}; run `pip install 'tutored[serve]'`") from error
    from tutored.serve.worker import Worker

    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host} port {port}: can't listen there ({error}); give another --port or --host") from error
    with listener:
        worker = Worker(partial(_load, checkpoint, device), SECONDS)
        from tutored.serve.app import make_app  # meanwhile, because it is slow to import
        from tutored.serve.http import settings

        app = make_app(worker, worker.load(), hosts=(host,) if is_loopback(host) else None, megabytes=megabytes)
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listener.getsockname()[1]}")
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(settings(app)).run(sockets=[listener])
        finally:
            worker.end()


def _load(checkpoint: Path | str, device: str | None) -> Any:
    from tutored.serve.answer import load_answer

    return load_answer(checkpoint, device)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
