"""A small local page on which a picture is dropped and answered."""

import ipaddress
import multiprocessing
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tutored.errors import InputError, needing

Answer = Callable[..., Any]
LOADING = 300.0
"""Seconds that a process may take to load its model."""


class Worker:
    """A function in a process of its own, which begins at once. One thread at a time may use it.

    Args:
        make: a picklable function without arguments, called in the process; it gives what should be known of the
            function, and the function.
        seconds: an answer may take.
    """

    def __init__(self, make: Callable[[], tuple[Any, Answer]], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._begin()

    def load(self) -> Any:
        """Wait until the process is ready, and say what is known of its function; once after each beginning. Raises
        Exception: what `make` raises; RuntimeError where the process ends by itself.
        """
        return self._hear(LOADING)

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._make), daemon=True)
        self._process.start()
        theirs.close()

    def _hear(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise TimeoutError
            found = self._pipe.recv()
        except (TimeoutError, EOFError, OSError) as error:
            self.end()
            if isinstance(error, TimeoutError):
                raise
            raise RuntimeError("the process that answers pictures ended; was there too little memory?") from error
        if isinstance(found, Exception):
            raise found
        return found

    def __call__(self, *given: Any) -> Any:
        """The function's answer. Raises TimeoutError: it took too long. The process is ended; the next call begins
        another. Raises RuntimeError: the process ended by itself. Raises Exception: what the function raises.
        """
        if not self._process.is_alive():
            self._begin()
            self.load()
        self._pipe.send(given)
        return self._hear(self._seconds)

    def end(self) -> None:
        """End the process, whatever it does; a call that waits for it raises RuntimeError."""
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, make: Callable[[], tuple[Any, Answer]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us, too; who began us ends us
    try:
        known, function = make()
    except Exception as error:
        _say(pipe, error)
        return
    _say(pipe, known)
    while True:
        try:
            given = pipe.recv()
        except EOFError:  # nobody is there to ask any more
            return
        try:
            _say(pipe, function(*given))
        except Exception as error:
            _say(pipe, error)


def _say(pipe: Connection, what: Any) -> None:
    try:
        pipe.send(what)
    except (TypeError, AttributeError, ValueError) as error:  # of an error that can't be sent, its words
        pipe.send(RuntimeError(f"{type(what).__name__}: {what} ({error})"))


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
    precision: Literal["fp32", "bf16"] = "fp32",
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer pictures over HTTP until Ctrl-C; see `make_app`. Raises InputError: Starlette or uvicorn is missing, no
    checkpoint, no such device, or the address can't be had.

    Args:
        host: an address or name of this machine. Bound to loopback, requests under other names are refused.
        port: 0 takes a free one.
        megabytes: larger files are refused.
        precision: of the network's passes, as in `predict.Predictor.load`.
        ready: is called with the page's address once it listens.
    """
    with needing("serving needs", "serve"):
        import starlette  # noqa: F401
        import uvicorn
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host} port {port}: can't listen there ({error}); give another --port or --host") from error
    with listener:
        worker = Worker(partial(_load, checkpoint, device, precision), SECONDS)
        from tutored.serve.app import make_app, settings  # meanwhile, because it is slow to import

        app = make_app(worker, worker.load(), hosts=(host,) if is_loopback(host) else None, megabytes=megabytes)
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listener.getsockname()[1]}")
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(settings(app)).run(sockets=[listener])
        finally:
            worker.end()


def _load(checkpoint: Path | str, *given: Any) -> Any:
    from tutored.serve.app import load_answer

    return load_answer(checkpoint, *given)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
