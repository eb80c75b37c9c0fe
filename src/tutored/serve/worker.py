"""The process that answers pictures: one that takes too long is ended, and another takes its place."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

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
        """Wait until the process is ready, and say what is known of its function; once after each beginning.

        Raises:
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
        """The function's answer.

        Raises:
            TimeoutError: it took too long. The process is ended; the next call begins another.
            RuntimeError: the process ended by itself.
            Exception: what the function raises.
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
