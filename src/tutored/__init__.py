"""Train one network for several vision tasks from partly labelled images, taught by ground truth and tutors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutored.predict import load as load
    from tutored.prepare import train as train

__all__ = ["load", "train"]
HOMES = {"load": "tutored.predict", "train": "tutored.prepare"}


def __getattr__(name: str) -> Any:
    """Both are imported when they are asked for: `import tutored` alone stays quick."""
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'tutored' has no attribute {name!r}")
