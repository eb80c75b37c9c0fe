"""Things timed in turns, and what is written about them."""

from __future__ import annotations

import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = (
    *("tutored", "torch", "torchvision", "timm", "numpy", "pillow", "pyarrow"),
    *("onnx", "onnxruntime", "pycocotools", "torchmetrics"),
)


@dataclass(frozen=True, slots=True)
class Timed:
    """One thing's seconds, a number a round.

    Attributes:
        count: of what it does in that time, such as images.
    """

    seconds: tuple[float, ...]
    count: float = 1.0

    @property
    def rate(self) -> float:
        """The median of things done a second."""
        return self.count / statistics.median(self.seconds)

    def ratio(self, other: Timed) -> tuple[float, float, float]:
        """How many times faster this is than the other: median, lowest and highest of the rounds."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        ratios = [theirs / mine * self.count / other.count for mine, theirs in pairs]
        return statistics.median(ratios), min(ratios), max(ratios)


def side_by_side(
    things: Mapping[str, Callable[[], object]], count: float = 1.0, rounds: int = 5, *, twice: bool = False
) -> dict[str, Timed]:
    """Time each thing once a round, in turns, after one round that does not count.

    With `twice` each is done twice in a turn and timed the second time: what went before, such as a network of another
    size, then weighs less on it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, do in things.items():
            gc.collect()
            if twice:
                do()
            started = time.perf_counter()
            do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timed(tuple(times), count) for name, times in seconds.items()}


def table(title: str, timed: Mapping[str, Timed], reference: str, unit: str, note: str = "") -> dict[str, Any]:
    """JSON-ready: every thing's median rate, and its ratio to the reference with the lowest and highest round."""
    rows = []
    for name, each in timed.items():
        median, low, high = each.ratio(timed[reference])
        ratio = {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}
        rows.append({"name": name, "rate": round(each.rate, 3), "ratio": ratio, "rounds": len(each.seconds)})
    return {"title": title, "unit": unit, "reference": reference, "note": note, "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": git.stdout.strip() or None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return f"{names[0]}, {len(names)} threads"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
