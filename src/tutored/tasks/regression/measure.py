"""Errors of dense regression: root mean square and mean absolute error, and the share within a factor of 1.25."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutored.errors import InputError
from tutored.tasks.task import Figures

RMSE, MAE, DELTA = "RMSE", "MAE", "delta<1.25"


class ErrorSums(NamedTuple):
    """One image's pixels with a number.

    Attributes:
        pixels: how many there are.
        squared, absolute: their summed errors.
        positive: pixels whose true number is above 0.
        close: of these, the pixels whose prediction is within a factor of 1.25 (Eigen et al. 2014).
    """

    pixels: int
    squared: float
    absolute: float
    positive: int
    close: int


def record(truth: Tensor, prediction: Tensor) -> ErrorSums:
    """Compare numbers, both float32 [H, W]; pixels that are NaN in `truth` are dropped.

    Raises:
        InputError: the prediction is NaN or infinite somewhere.
    """
    known = truth.isfinite()
    true, said = truth[known].double(), prediction[known].double()
    if not bool(said.isfinite().all()):
        raise InputError("the prediction has NaN or infinite numbers; did training diverge?")
    error = said - true
    above = true > 0
    ratio = said[above] / true[above]
    close = (ratio < 1.25) & (ratio > 0.8)
    return ErrorSums(
        len(error), float(error.square().sum()), float(error.abs().sum()), int(above.sum()), int(close.sum())
    )


def figures(records: Sequence[ErrorSums]) -> Figures:
    """The errors over all pixels of all images."""
    pixels, squared, absolute, positive, close = (sum(column) for column in zip(*records, strict=True))
    means = {
        RMSE: math.sqrt(squared / pixels) if pixels else None,
        MAE: absolute / pixels if pixels else None,
        DELTA: close / positive if positive else None,
    }
    return Figures(len(records), (), means, {}, {})


def resampler(records: Sequence[ErrorSums | None]) -> Callable[[NDArray[Any]], float]:
    """The root mean square error of images that count several times."""
    sums = np.array([(each.squared, each.pixels) if each else (0.0, 0) for each in records])

    def resampled(weights: NDArray[Any]) -> float:
        squared, pixels = weights @ sums
        return math.sqrt(squared / pixels) if pixels else math.nan

    return resampled
