"""The config keys of a dense regression task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tutored.config import TaskSection


class RegressionSection(TaskSection):
    """What the numbers of a task mean: depth, height, saliency, or any other number a pixel."""

    shift: float = 0.0
    """The student learns (number - shift) / scale; set it to the numbers' mean."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Set it to the numbers' spread, so that what the student learns is of the order of one."""
    missing: float | None = None
    """The number in annotations that means "not measured", such as 0 in 16-bit depth images; NaN always does."""
