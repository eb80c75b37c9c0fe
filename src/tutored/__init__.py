"""Train one network for several vision tasks from partly labelled images, taught by ground truth and tutors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutored.predict import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` is imported when it is asked for: `import tutored` alone stays quick."""
    if name == "load":
        from tutored.predict import load

        return load
    raise AttributeError(f"module 'tutored' has no attribute {name!r}")
