"""What a tutor's probabilities are worth: rates with intervals, reliability, and the temperature that calibrates them.

Guo et al. 2017 fit one number T on held-out labels. A store keeps probabilities, not logits, and p^(1/T), renormalised,
is the same as softmax(logits / T).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

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


Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_BINS, BIN_COUNT = 15, 100
"""A bin has at least so many answers, or all there are: a few look badly calibrated by chance alone."""
COLDEST, HOTTEST = 0.1, 10.0
"""The range in which a temperature is fitted."""
ALIKE = 1.05
"""A temperature within this factor of 1 is taken as 1."""
ENOUGH_ANSWERS, ENOUGH_IMAGES = 200, 20
"""The least that a statement about calibration rests on."""
RESAMPLES = 200


def wilson(right: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); 0 to 1 without a count."""
    if not count:
        return 0.0, 1.0
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


class Rate(NamedTuple):
    """How many of how many, with a 95 % interval."""

    right: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, rights: NDArray[Any], totals: NDArray[Any]) -> Self:
        """From the numbers of each image.

        Answers of one image are right or wrong together: the interval is Wilson's for as many independent answers as
        would vary as much as the images do (Kish 1965, the design effect). It is that of no more answers than images
        where these are too few to tell, or where all or none of the answers are right.
        """
        rights, totals = rights[totals > 0], totals[totals > 0]
        found, count, images = int(rights.sum()), int(totals.sum()), len(totals)
        share, effective = found / max(count, 1), float(images)
        if images > 1 and 0 < share < 1:
            spread = float(((rights - share * totals) ** 2).sum()) * images / (images - 1)
            alike = count if spread == 0 else min(count, count**2 * share * (1 - share) / spread)
            effective = alike if images >= ENOUGH_IMAGES else min(alike, images)
        return cls(found, count, *wilson(share * effective, effective))

    @property
    def share(self) -> float | None:
        return self.right / self.total if self.total else None


def resampled(figure: Callable[[Ints], Floats], images: int) -> tuple[Floats, Floats]:
    """The ends of the 95 % intervals of figures over resamples of the images.

    Args:
        figure: from how many times each image counts to float64 [n]; where a figure is NaN in a resample, it counts as
            what it is over the images themselves.
    """
    rng, once = np.random.default_rng(0), np.full(images, 1 / images)
    drawn = np.stack([figure(rng.multinomial(images, once)) for _ in range(RESAMPLES)])
    low, high = np.quantile(np.where(np.isnan(drawn), figure(np.ones(images, np.int64)), drawn), [0.025, 0.975], axis=0)
    return low, high


class Bin(NamedTuple):
    """Answers of about the same confidence: its mean, the share that is right with its 95 % interval, how many they
    are, and the lowest confidence among them.
    """

    confidence: float
    right: float
    low: float
    high: float
    total: int
    least: float


def reliability(confidence: Floats, right: Bools, *, most: int = MOST_BINS, least: int = BIN_COUNT) -> list[Bin]:
    """Answers in bins of equal counts by rising confidence: at most `most`, of at least `least` answers each."""
    if not len(confidence):
        return []
    order, bins = np.argsort(confidence, kind="stable"), []
    for rows in np.array_split(order, max(1, min(most, len(order) // least))):
        found, count, values = int(right[rows].sum()), len(rows), confidence[rows]
        bins.append(Bin(float(values.mean()), found / count, *wilson(found, count), count, float(values[0])))
    return bins


def ece(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: the mean distance of confidence from the share that is right; None without bins."""
    total = sum(each.total for each in bins)
    return sum(abs(each.confidence - each.right) * each.total for each in bins) / total if total else None


def crossings(bins: Sequence[Bin], levels: Sequence[float]) -> list[tuple[float, bool] | None]:
    """From which confidence on answers are right at least that often, if more confidence never means less right.
    Returns for each level the lowest confidence that reaches it by isotonic regression, and whether that is the lowest
    of all, so that lower ones may reach it too; None where the level is never reached.
    """
    from scipy.optimize import isotonic_regression

    rising = isotonic_regression([each.right for each in bins], weights=[each.total for each in bins]).x
    places = [np.flatnonzero(rising >= level) for level in levels]
    return [(bins[each[0]].least, bool(each[0] == 0)) if len(each) else None for each in places]


def tempered(probs: Floats, temperature: float) -> Floats:
    """p^(1/T) along the last axis, renormalised; rows of zeros stay."""
    powers = probs ** (1 / temperature)
    result: Floats = powers / np.maximum(powers.sum(-1, keepdims=True), np.finfo(probs.dtype).tiny)
    return result


def surprise(probs: Floats, right: Ints, temperature: float, floor: float) -> Floats:
    """-log of the right class' probability after the temperature, float64 [N]; see `fit_temperature`."""
    named = np.log(np.maximum(probs[np.arange(len(probs)), right], floor)) / temperature
    found: Floats = (np.log((probs ** (1 / temperature)).sum(-1)) - named).astype(np.float64)
    return found


def fit_temperature(probs: Floats, right: Ints, floor: float) -> float:
    """The temperature, `COLDEST` to `HOTTEST`, that gives the right classes the highest likelihood; 1 without rows.

    Args:
        probs: [N, C+1], rows that sum to 1.
        right: the class that each row ought to have named.
        floor: what a right class of probability 0 counts as: a store can't tell smaller ones from 0.
    """
    from scipy.optimize import minimize_scalar

    if not len(probs):
        return 1.0
    found = minimize_scalar(
        lambda log: surprise(probs, right, math.exp(log), floor).mean(),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        options={"xatol": 1e-4},
    )
    return math.exp(found.x)


class Answers(NamedTuple):
    """What a tutor answered in one image: distributions [N, C+1] that sum to 1, the right classes and those that were
    answered, int64 [N]."""

    probs: Floats
    right: Ints
    answered: Ints


class Calibration(NamedTuple):
    """How sure a tutor is against how often it is right; ready for JSON.

    Attributes:
        temperature: fitted on one half of the images; 1 unless the other half is surely better off with it: its right
            classes likelier (the interval over images excludes no change) and its calibration error lower.
        answers, images: in the other half, on which the rest is measured.
        ece, nll, bins: calibration error, mean -log probability of the right class, and reliability; None without
            answers. With the fitted temperature: `..._with_temperature`.
    """

    temperature: float
    fitted_temperature: float
    answers: int = 0
    images: int = 0
    ece: float | None = None
    ece_with_temperature: float | None = None
    nll: float | None = None
    nll_with_temperature: float | None = None
    bins: Sequence[Bin] = ()
    bins_with_temperature: Sequence[Bin] = ()

    @property
    def enough(self) -> bool:
        """Whether there are enough answers to speak of calibration."""
        return self.answers >= ENOUGH_ANSWERS and self.images >= ENOUGH_IMAGES


def calibrate(fit: Sequence[Answers], others: Sequence[Answers], floor: float) -> Calibration:
    """Fit a temperature on some images and measure it on the others. Args: floor: see `fit_temperature`."""
    fitted = 1.0
    if fit:
        probs, right, _ = map(np.concatenate, zip(*fit, strict=True))
        fitted = round(fit_temperature(probs, right, floor), 2)
    counts = [len(each.right) for each in others if len(each.right)]
    if not counts:
        return Calibration(1.0, fitted)
    probs, right, answered = map(np.concatenate, zip(*others, strict=True))
    before, after = (surprise(probs, right, temperature, floor) for temperature in (1.0, fitted))
    by_image = np.bincount(np.repeat(np.arange(len(counts)), counts), before - after, minlength=len(counts))
    rows, scaled = np.arange(len(probs)), (probs, tempered(probs, fitted))
    bins, others_bins = (reliability(each[rows, answered], right == answered) for each in scaled)
    errors = ece(bins) or 0.0, ece(others_bins) or 0.0
    nll = float(before.mean()), float(after.mean())
    found = Calibration(fitted, fitted, len(rows), len(counts), errors[0], errors[1], nll[0], nll[1], bins, others_bins)
    likelier = by_image.sum() > 1.96 * by_image.std() * math.sqrt(len(counts)) and nll[0] - nll[1] > 1e-3
    alike = 1 / ALIKE < fitted < ALIKE
    advised = likelier and errors[1] < errors[0] and not alike and found.enough
    return found if advised else found._replace(temperature=1.0)
