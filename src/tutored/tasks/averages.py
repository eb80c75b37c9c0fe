"""What the figures of all tasks with classes share: the classes that means are over, and figures that are unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.types import BACKGROUND


def averaged_classes(labels: LabelSpace, reported: Sequence[str] | None) -> tuple[str, ...]:
    """The object classes that means are over; None: all. Raises InputError for an unknown one and for background."""
    names = labels.classes if reported is None else tuple(dict.fromkeys(reported))
    for name in names:
        if labels.index(name) == BACKGROUND:
            raise InputError("background is always in mIoU and never in mAP; name object classes only")
    return names


def known_mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN, added one after the other; NaN where there is none."""
    values = values[~np.isnan(values)]
    return float(np.cumsum(values)[-1] / len(values)) if len(values) else float("nan")


def known(value: float | np.floating[Any]) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(value)


def rounded_down(score: float) -> float:
    """Two digits of a float32 score, as people write one: an answer of this score is at least as good."""
    return math.floor(100 * score + 2e-6) / 100
