"""A function for a process of its own; in a module that imports nothing slow, as the process reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def make_sleeper() -> tuple[str, Callable[[float], float]]:
    """What is known, and a function that sleeps: below 0 it fails, at 99 its process ends."""

    def sleeper(seconds: float) -> float:
        if seconds < 0:
            raise ValueError(f"{seconds} seconds")
        if seconds == 99:
            os._exit(1)
        time.sleep(seconds)
        return seconds

    return "known", sleeper
