"""The audit of a tutor's maps: overlap, precision and recall of pixels with intervals, calibration, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.audit.facts import CONFIDENT, PixelFacts
from tutored.audit.figures import Calibration, Rate, calibrate, reliability_row
from tutored.evaluate import segmentation
from tutored.evaluate.figures import known, known_mean
from tutored.labels import LabelSpace
from tutored.softlabels.codec import MAP_LEVELS
from tutored.structures import BACKGROUND

SAMPLES = 200
"""Resamples of the images behind each interval."""


class MapReport(NamedTuple):
    """What the verdicts on maps rest on.

    Attributes:
        precision, recall: of each class' pixels, intervals over resamples of the images; only classes that the tutor
            knows, without background.
        images: by class, how many images show it and how many the tutor says it in.
        confusion: int64 [C+1, C+2], pixels by true class and answer; see `segmentation.confusion`.
        swapped: float64 [C+1, C+1], the lower end of the interval of "what is said to be b (columns) is a (rows)".
        contradictions: by image, how much it contradicts the ground truth, and in what.
    """

    calibration: Calibration
    precision: dict[str, Rate]
    recall: dict[str, Rate]
    images: dict[str, tuple[int, int]]
    confusion: NDArray[np.int64]
    swapped: NDArray[np.float64]
    figures: dict[str, Any]
    contradictions: dict[str, tuple[float, str]]


def judge_maps(
    facts: Mapping[str, PixelFacts],
    confident: Mapping[str, float],
    fitted: set[str],
    labels: LabelSpace,
    tutor_knows: set[int],
) -> MapReport:
    """Figures from the facts of all images.

    Args:
        facts: of the images with ground truth.
        confident: of these and of images without ground truth, the share of pixels that the tutor is confident about.
        fitted: images that the temperature is fitted on; calibration is reported on the others.
        tutor_knows: the object classes that the tutor can answer.
    """
    ids = sorted(facts)
    top = {each: facts[each].probs.argmax(axis=1) for each in ids}
    calibration = calibrate(
        [(facts[each].probs, facts[each].right, top[each], each in fitted) for each in ids], 0.5 / MAP_LEVELS
    )
    stacked = segmentation.stack([facts[each].pixels for each in ids], len(labels.classes))
    matrix = segmentation.confusion(stacked)
    shares = _Shares.of(matrix)
    lower, upper = _interval(stacked, len(ids), shares)
    names = {index: labels.names[index] for index in (BACKGROUND, *sorted(tutor_knows))}
    true, said = matrix.sum(axis=1), matrix.sum(axis=0)
    precision = {name: _rate(matrix, index, said, lower.precision, upper.precision) for index, name in names.items()}
    recall = {name: _rate(matrix, index, true, lower.recall, upper.recall) for index, name in names.items()}
    probs, right, answered = (
        np.concatenate([part(each) for each in ids])
        for part in (lambda each: facts[each].probs.max(axis=1), lambda each: facts[each].right, top.__getitem__)
    )
    images = {name: _images(facts, index) for index, name in names.items()}
    rows = [
        {
            "class": name,
            "images": images[name][0],
            "IoU": known(shares.iou[index]),
            "IoU_interval": [known(lower.iou[index]), known(upper.iou[index])],
            "precision": precision[name].share,
            "recall": recall[name].share,
            **reliability_row(probs[answered == index], right[answered == index] == index),
        }
        for index, name in names.items()
    ]
    figures = {
        "classes": rows,
        "mIoU": known(known_mean(shares.iou[list(names)])),
        "pixel_accuracy": known(segmentation.pixel_accuracy(matrix)),
        "calibration": calibration.to_dict(),
        "coverage": _coverage(list(confident.values())),
    }
    contradictions = {each: (facts[each].contradiction, _told(facts[each], labels, tutor_knows)) for each in ids}
    del precision["background"], recall["background"]
    return MapReport(calibration, precision, recall, images, matrix, lower.swapped, figures, contradictions)


def _rate(
    matrix: NDArray[np.int64],
    index: int,
    counts: NDArray[np.int64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
) -> Rate:
    """Of the pixels that `counts` has of a class, how many are right."""
    ends = (0.0, 1.0) if np.isnan(lower[index]) else (float(lower[index]), float(upper[index]))
    return Rate(int(matrix[index, index]), int(counts[index]), ends)


class _Shares(NamedTuple):
    """Of one confusion matrix; NaN where there is nothing to divide by.

    Attributes:
        swapped: [C+1, C+1], of the pixels said to be each class (columns), the share truly of each class (rows).
    """

    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    swapped: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: NDArray[np.int64]) -> _Shares:
        square = matrix[:, : len(matrix)].astype(np.float64)
        with np.errstate(invalid="ignore"):
            swapped = square / square.sum(axis=0)
            recall = square.diagonal() / matrix.sum(axis=1)
        return cls(segmentation.iou(matrix), swapped.diagonal(), recall, swapped)


def _interval(stacked: segmentation.Stacked, images: int, shares: _Shares) -> tuple[_Shares, _Shares]:
    """The ends of the 95 % intervals over resamples of the images; `shares` where a sample has nothing to divide by."""
    rng, once = np.random.default_rng(0), np.full(images, 1 / images)
    drawn = [_Shares.of(segmentation.confusion(stacked, rng.multinomial(images, once))) for _ in range(SAMPLES)]
    filled = [
        np.where(np.isnan(each), point, each)
        for each, point in zip(map(np.stack, zip(*drawn, strict=True)), shares, strict=True)
    ]
    lower, upper = (_Shares(*(np.quantile(each, end, axis=0) for each in filled)) for end in (0.025, 0.975))
    return lower, upper


def _coverage(confident: Sequence[float]) -> dict[str, Any]:
    """From the share of each image's pixels that the tutor is confident about."""
    return {
        "images": len(confident),
        "confidence": CONFIDENT,
        "pixels_confident": float(np.mean(confident)),
        "images_mostly_confident": float(np.mean([share >= 0.5 for share in confident])),
    }


def _images(facts: Mapping[str, PixelFacts], index: int) -> tuple[int, int]:
    return (
        sum(bool((each.pixels.truth == index).any()) for each in facts.values()),
        sum(bool((each.pixels.answer == index).any()) for each in facts.values()),
    )


def _told(facts: PixelFacts, labels: LabelSpace, tutor_knows: set[int]) -> str:
    """The largest confusions of one image, each of a twentieth of its pixels or more."""
    pixels = facts.pixels
    excused = (pixels.answer == BACKGROUND) & ~np.isin(pixels.truth, [*tutor_knows])
    wrong = np.flatnonzero((pixels.truth != pixels.answer) & (pixels.answer < len(labels)) & ~excused)
    largest = wrong[np.argsort(-pixels.number[wrong], kind="stable")][:3]
    total = max(int(pixels.number.sum()), 1)
    return "; ".join(
        f"says {labels.names[pixels.answer[row]]}, drawn is {labels.names[pixels.truth[row]]}: "
        f"{100 * pixels.number[row] / total:.0f} % of the pixels"
        for row in largest
        if pixels.number[row] / total >= 0.05
    )
