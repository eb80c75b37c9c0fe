"""What a command prints and writes at its end."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import IO, Any

from tutored import files


def is_main() -> bool:
    """Of several processes that work together, the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for the user; of several processes that work together, one speaks."""
    if is_main():
        try:
            print(text, flush=True)
        except BrokenPipeError:
            unheard(sys.stdout)


def unheard(stream: IO[str]) -> None:
    """Nobody reads it any more: the work goes on, and what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def quoted(*words: object) -> str:
    """Words of a command as a shell takes them."""
    return shlex.join(map(str, words))


def say_next(command: str) -> None:
    """What to run next."""
    say(f"next: {command}")


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON whole, where a path is given, and say so."""
    if path is not None:
        files.write_json(path, content)
        say(f"wrote {path}")
