"""What a tutor's probabilities are worth: reliability, expected calibration error, the temperature that mends it.

Guo et al. 2017 fit one number T on held-out labels. A store keeps probabilities, not logits, and p^(1/T), made to sum
to one again, is the same as softmax(logits / T).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

MOST_BINS = 15
BIN_COUNT = 100
"""A bin has at least so many answers, or all there are: a few look badly calibrated by chance alone."""
COLDEST, HOTTEST = 0.1, 10.0
"""Temperatures outside are not fitted."""


class Bin(NamedTuple):
    """Answers of about the same confidence.

    Attributes:
        confidence: their mean.
        right: the share that is right, `low` and `high` its 95 % interval.
        least: the lowest confidence among them.
    """

    confidence: float
    right: float
    low: float
    high: float
    total: int
    least: float


def wilson(right: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); 0 to 1 without a count."""
    if not count:
        return 0.0, 1.0
    z = 1.959964
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def reliability(
    confidence: Floats, right: NDArray[np.bool_], *, most: int = MOST_BINS, least: int = BIN_COUNT
) -> list[Bin]:
    """Answers in bins of equal counts by rising confidence: at most `most`, of at least `least` answers each."""
    if not len(confidence):
        return []
    order = np.argsort(confidence, kind="stable")
    bins = []
    for rows in np.array_split(order, max(1, min(most, len(order) // least))):
        found, count = int(right[rows].sum()), len(rows)
        values = confidence[rows]
        bins.append(Bin(float(values.mean()), found / count, *wilson(found, count), count, float(values[0])))
    return bins


def ece(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: the mean distance of confidence from the share that is right; None of nothing."""
    total = sum(each.total for each in bins)
    return sum(abs(each.confidence - each.right) * each.total for each in bins) / total if total else None


def tempered(probs: Floats, temperature: float) -> Floats:
    """p^(1/T) along the last axis, made to sum to one again; rows of zeros stay."""
    powers = probs ** (1 / temperature)
    result: Floats = powers / np.maximum(powers.sum(-1, keepdims=True), np.finfo(probs.dtype).tiny)
    return result


def surprise(probs: Floats, right: NDArray[np.int64], temperature: float, floor: float) -> Floats:
    """-log of the right class' probability after the temperature, float64 [N]; see `fit_temperature`."""
    named = np.log(np.maximum(probs[np.arange(len(probs)), right], floor)) / temperature
    found: Floats = (np.log((probs ** (1 / temperature)).sum(-1)) - named).astype(np.float64)
    return found


def fit_temperature(probs: Floats, right: NDArray[np.int64], floor: float) -> float:
    """The temperature whose probabilities make the right classes likeliest.

    The mean `surprise` is convex in 1/T, so its slope has one zero, which halving finds.

    Args:
        probs: [N, C+1], rows that sum to one.
        right: the class that each row ought to have named.
        floor: a right class of probability zero counts as having this: what the store can't tell from zero.

    Returns:
        `COLDEST` to `HOTTEST`; 1 of nothing.
    """
    if not len(probs):
        return 1.0
    logs = np.log(np.maximum(probs, np.finfo(np.float32).tiny)).astype(np.float32)
    named = np.log(np.maximum(probs[np.arange(len(probs)), right], floor))
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(24):
        middle = float(np.sqrt(low * high))
        weights = probs**middle
        expected = (weights * logs).sum(-1) / weights.sum(-1)
        low, high = (low, middle) if float((expected - named).mean(dtype=np.float64)) > 0 else (middle, high)
    return 1 / float(np.sqrt(low * high))


def crossings(bins: Sequence[Bin], levels: Sequence[float]) -> list[tuple[float, bool] | None]:
    """From which confidence on answers are right at least so often, if more confidence never means less right.

    The bins' shares are pooled until they rise (isotonic regression, pool adjacent violators).

    Returns:
        For each level the lowest confidence of the first pool that reaches it, and whether that is the first of all,
        so that lower ones may reach it too; None where no pool does.
    """
    pools: list[tuple[float, int, float]] = []
    for each in bins:
        share, count, least = each.right, each.total, each.least
        while pools and pools[-1][0] >= share:
            before, number, least = pools.pop()
            share, count = (share * count + before * number) / (count + number), count + number
        pools.append((share, count, least))
    found = []
    for level in levels:
        place = next((index for index, pool in enumerate(pools) if pool[0] >= level), None)
        found.append(None if place is None else (pools[place][2], place == 0))
    return found
