"""What a command prints and writes at its end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tutored.files import write_text


def is_main() -> bool:
    """Of several processes that work together, the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for the user; of several processes that work together, one speaks."""
    if is_main():
        print(text, flush=True)


def say_next(command: str) -> None:
    """What to run next."""
    say(f"next: {command}")


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON whole, where a path is given, and say so."""
    if path is not None:
        write_text(path, json.dumps(content, indent=1) + "\n")
        say(f"wrote {path}")
