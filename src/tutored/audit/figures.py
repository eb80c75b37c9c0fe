"""What the audits of boxes and of maps have in common: rates with intervals, calibration on two halves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.audit.calibrate import Bin, Floats, ece, fit_temperature, reliability, surprise, tempered, wilson

CURVE = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Scores that precision and recall are told at."""
ALIKE = 1.05
"""A temperature within this factor of one is taken for one."""
ENOUGH_ANSWERS, ENOUGH_IMAGES = 200, 20
"""What a statement about calibration rests on."""


class Rate(NamedTuple):
    """How many of how many, with a 95 % interval."""

    right: int
    total: int
    interval: tuple[float, float]

    @classmethod
    def of(cls, right: NDArray[np.int64], total: NDArray[np.int64]) -> Rate:
        """From the images that the right ones lie in, and all of them.

        Those of one image stand or fall together: the interval is Wilson's for as many independent ones as would vary
        by as much as the images do (Kish 1965, the design effect), and for no more than there are images where these
        are too few to say, or all or nothing is right.
        """
        found, count = len(right), len(total)
        totals = np.bincount(total)
        rights, totals = np.bincount(right, minlength=len(totals))[totals > 0], totals[totals > 0]
        share, images = found / max(count, 1), len(totals)
        effective = float(images)
        if images > 1 and 0 < share < 1:
            spread = ((rights - share * totals) ** 2).sum() * images / (images - 1)
            alike = count if spread == 0 else min(count, count**2 * share * (1 - share) / spread)
            effective = alike if images >= ENOUGH_IMAGES else min(alike, images)
        return cls(found, count, wilson(share * effective, effective))

    @property
    def share(self) -> float | None:
        return self.right / self.total if self.total else None

    @property
    def low(self) -> float:
        return self.interval[0]

    @property
    def high(self) -> float:
        return self.interval[1]


class Calibration(NamedTuple):
    """How sure a tutor is against how often it is right.

    Attributes:
        temperature: fitted on one half of the images; 1 where the other half is not surely better off with it: its
            right classes likelier (the interval over images excludes no change) and its calibration error lower.
        images: with answers, in the other half.
        before, after: reliability on the other half, without and with the temperature that was fitted.
        fitted: the temperature as it was fitted.
        surprise: mean -log probability of the right class on that half, before and after.
    """

    temperature: float
    fitted: float
    images: int
    before: list[Bin]
    after: list[Bin]
    surprise: tuple[float, float] | None

    @property
    def answers(self) -> int:
        return sum(each.total for each in self.before)

    @property
    def enough(self) -> bool:
        """Whether there are enough answers to speak of calibration."""
        return self.answers >= ENOUGH_ANSWERS and self.images >= ENOUGH_IMAGES

    def to_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "fitted_temperature": self.fitted,
            "answers": self.answers,
            "images": self.images,
            "ece": ece(self.before),
            "ece_with_temperature": ece(self.after),
            "nll": self.surprise[0] if self.surprise else None,
            "nll_with_temperature": self.surprise[1] if self.surprise else None,
            "bins": [list(each) for each in self.before],
            "bins_with_temperature": [list(each) for each in self.after],
        }


Answers = tuple[Floats, NDArray[np.int64], NDArray[np.int64], bool]
"""Of one image: distributions [N, C+1], the right classes [N], the classes that were answered [N], and whether the
temperature is fitted on it."""


def calibrate(images: Sequence[Answers], floor: float) -> Calibration:
    """Fit a temperature on one half of the images and hold it against the other.

    For boxes the two classes are "wrong" and "right", so that it is their score that is calibrated: the stored class
    distributions know too little of the classes that a box was not kept for.

    Args:
        floor: see `fit_temperature`.
    """
    fitted = round(fit_temperature(*_join([each for each in images if each[3]])[:2], floor), 2)
    probs, right, answered = _join([each for each in images if not each[3]])
    if not len(probs):
        return Calibration(1.0, fitted, 0, [], [], None)
    gains = surprise(probs, right, 1.0, floor) - surprise(probs, right, fitted, floor)
    counts = [len(right) for _, right, _, half in images if not half and len(right)]
    by_image = np.bincount(np.repeat(np.arange(len(counts)), counts), gains, minlength=len(counts))
    doubt = 1.96 * by_image.std() * math.sqrt(len(by_image))
    rows = np.arange(len(probs))
    before, after = (
        reliability(scaled[rows, answered], right == answered) for scaled in (probs, tempered(probs, fitted))
    )
    nll = float(surprise(probs, right, 1.0, floor).mean())
    likelier = by_image.sum() > doubt and gains.mean() > 1e-3 and not 1 / ALIKE < fitted < ALIKE
    closer = (ece(after) or 0) < (ece(before) or 0)
    found = Calibration(fitted, fitted, len(counts), before, after, (nll, nll - float(gains.mean())))
    return found if likelier and closer and found.enough else found._replace(temperature=1.0)


def _join(images: Sequence[Answers]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    if not images:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    probs, right, answered = zip(*[each[:3] for each in images], strict=True)
    return np.concatenate(probs), np.concatenate(right), np.concatenate(answered)


def curve_points(scores: Floats, right: NDArray[np.bool_], objects: int) -> list[list[float]]:
    """Score, precision and recall of the boxes from that score on, where there are any."""
    points = []
    for floor in CURVE:
        kept = right[scores >= floor]
        if len(kept) and objects:
            points.append([floor, float(kept.mean()), float(kept.sum() / objects)])
    return points


def reliability_row(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Calibration of one class, ready for JSON."""
    bins = reliability(confidence, right)
    return {"ece": ece(bins), "answers": len(confidence), "bins": [list(each) for each in bins]}
