"""Calls in processes of their own: killed, limited, timed, and watched while they change files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PRELOADED = (
    "tutored.cli",
    "tutored.cli.progress",
    "tutored.engine",
    "tutored.predict",
    "tutored.tutors.label",
    "tutored.tutors.files",
    "tutored.tutors.ray",
    "tutored.studies",
    "tutored.visualise",
    "matplotlib.pyplot",
    "torch.utils.data",
)
SECONDS = 120
"""No child may take longer."""
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        code: what it returned to the shell; negative: the signal that killed it; None: it was still at it at the end
            of its time.
        text: what it wrote to standard output and error.
    """

    code: int | None
    text: str

    @property
    def last_line(self) -> str:
        return (self.text.rstrip().splitlines() or [""])[-1]


class Child:
    """A call in a process, and group of processes, of its own. It starts at once, without importing anything again."""

    def __init__(self, call: Callable[..., object], *arguments: Any, out: Path) -> None:
        self.out = out
        out.unlink(missing_ok=True)
        self.process = _context.Process(target=_run, args=(call, arguments, out))
        self.process.start()

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait for its end; after `seconds`, kill it."""
        self.process.join(seconds)
        alive = self.process.is_alive()
        self.process.kill()
        self.process.join()
        text = self.out.read_text(errors="replace") if self.out.exists() else ""
        return Ended(None if alive else self.process.exitcode, text)

    def signalled(self, number: int, after: float) -> tuple[bool, Ended]:
        """Send it and its own a signal, so many seconds after its start; whether it still lived, and how it ended."""
        while self.process.is_alive() and not self.out.exists():
            time.sleep(0.001)
        self.process.join(after)
        hit = self.process.is_alive()
        if hit and self.process.pid is not None:
            os.killpg(self.process.pid, number)
        ended = self.end()
        return hit and not (number == signal.SIGKILL and ended.code != -signal.SIGKILL), ended


def _run(call: Callable[..., object], arguments: Sequence[Any], out: Path) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # ignored under nohup and in the background
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    multiprocessing.set_start_method("fork", force=True)  # as the shell's: of itself a child would have its parent's
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.exit(call(*arguments))  # type: ignore[arg-type]


def command(*words: str | Path) -> int:
    """One command of tutored, as the shell calls it."""
    from tutored.cli import main

    return main([str(word) for word in words])


def run(call: Callable[..., object], *arguments: Any, out: Path) -> tuple[Ended, float]:
    """Call it and wait; how it ended, and its seconds."""
    began = time.monotonic()
    return Child(call, *arguments, out=out).end(), time.monotonic() - began


def before_change(folder: Path, number: int, do: Callable[[str], None]) -> Callable[[], int]:
    """Do something before each change under `folder` from the `number`th on: a file opened to write, renamed, removed.

    Args:
        number: 0: never.
        do: is given the name of Python's audit event.

    Returns:
        A function that tells how many changes there were so far.
    """
    seen = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if _changes(event, arguments, str(folder)):
            seen += 1
            if seen >= number > 0:
                do(event)

    sys.addaudithook(look)
    return lambda: seen


def _changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        return flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0 and str(path).startswith(folder)
    # shutil.rmtree removes by a name inside an open folder.
    inside = event in ("os.remove", "os.rmdir") and arguments[1] != -1
    return inside or (event in CHANGES and str(arguments[0]).startswith(folder))
