"""How sure is a difference? A paired bootstrap over images and training seeds (Efron and Tibshirani 1993)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.evaluate import detection, segmentation
from tutored.evaluate.detection import NO_MATCHES
from tutored.evaluate.figures import Record, averaged_classes, in_order, known_mean
from tutored.evaluate.result import AP_AREA, IOU
from tutored.evaluate.segmentation import NO_PIXELS
from tutored.files import whole_file
from tutored.labels import LabelSpace
from tutored.structures import BACKGROUND

COMPARED = (f"m{AP_AREA}", f"m{IOU}")
ENOUGH_SEEDS = 3
"""Fewer say too little of their spread for a verdict. Three are few, too: where nothing differs, intervals exclude zero
a little more often than one time in twenty."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """One predictor's figures on the images and on resamples of them, a few kilobytes.

    Attributes:
        values: float64 [samples + 1, 2], the figures `COMPARED`, shares in 0..1; row 0 on the images themselves, the
            others on as many images drawn with replacement. NaN where a figure has no ground truth or no answer.
        images: SHA-256 of the image ids and of what decides the draws: equal where two predictors can be compared.
    """

    values: NDArray[np.float64]
    images: str

    def save(self, path: Path) -> None:
        """Write `path`, an npz file, whole or not at all."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, values=self.values.astype(np.float32), images=np.array(self.images))

    @classmethod
    def load(cls, path: Path) -> Resampled:
        """Read what `save` wrote. Raises InputError where the file is not that."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["values"].astype(np.float64), str(arrays["images"]))
        except Exception as error:  # zip files and arrays fail in all sorts of ways
            raise InputError(
                f"{path}: no resampled figures of a run ({error}); remove the run's folder to train it again"
            ) from error


class Interval(NamedTuple):
    """A difference b - a, with the ends of its 95 % interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["better", "worse"] | None:
        """What b is, where the interval, at three digits, excludes zero; otherwise neither of the two is better."""
        if round(self.low, 3) > 0:
            return "better"
        return "worse" if round(self.high, 3) < 0 else None

    def __str__(self) -> str:
        """Such as `+0.012 [-0.003, +0.027]`."""
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def resample(
    records: Sequence[Record],
    labels: LabelSpace,
    classes: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """A predictor's figures on resamples of its images.

    Predictors evaluated on the same images see the same resamples, whatever the order of their records.

    Args:
        classes: as in `evaluate`.

    Raises:
        InputError: as `figures`.
    """
    numbers = [labels.index(name) for name in averaged_classes(labels, classes)]
    ordered = in_order(records)
    ranked = detection.rank([item.matches or NO_MATCHES for item in ordered], len(labels.classes))
    stacked = segmentation.stack([item.pixels or NO_PIXELS for item in ordered], len(labels.classes))
    once = np.ones(len(ordered), np.int64)
    rng = np.random.default_rng(seed)
    rows = []
    for weights in (once, *(rng.multinomial(len(ordered), once / len(ordered)) for _ in range(samples))):
        precisions = detection.voc_ap(ranked, weights)[0, numbers]
        overlaps = segmentation.iou(segmentation.confusion(stacked, weights))[[BACKGROUND, *numbers]]
        rows.append((known_mean(precisions), known_mean(overlaps)))
    drawn = f"{samples} {seed} {' '.join(item.image_id for item in ordered)}"
    return Resampled(np.array(rows), hashlib.sha256(drawn.encode()).hexdigest())


def compare(a: Sequence[Resampled], b: Sequence[Resampled], *, seed: int = 0) -> dict[str, Interval]:
    """Is b better than a? Each holds one `Resampled` for each training seed, in the same order.

    The figures are means over the training seeds. One sample of the bootstrap draws the images and, with replacement,
    the seeds; both predictors get the same of each. Deviations between S seeds are widened by sqrt(S / (S - 1)), since
    drawing among few understates them. With one seed, only the images' noise is in the interval.

    Returns:
        `COMPARED` to intervals, for the figures that both have.

    Raises:
        InputError: not as many seeds, none, or different images.
    """
    if len(a) != len(b) or not a:
        raise InputError(f"{len(a)} runs against {len(b)}; compare the same seeds of both, at least one")
    if len({item.images for item in (*a, *b)}) > 1:
        raise InputError("the predictors were evaluated on different images; evaluate both on the same split")
    first, second = (np.stack([item.values for item in each]) for each in (a, b))
    differences = second - first
    seeds = len(a)
    drawn = np.random.default_rng(seed).integers(seeds, size=(seeds, differences.shape[1] - 1))
    over_images = differences[:, 1:].mean(axis=0)
    over_both = differences[drawn, np.arange(1, differences.shape[1])].mean(axis=0)
    sampled = over_images + (over_both - over_images) * np.sqrt(seeds / max(seeds - 1, 1))
    result = {}
    for column, name in enumerate(COMPARED):
        point_a, point_b = float(first[:, 0, column].mean()), float(second[:, 0, column].mean())
        if np.isfinite(point_b - point_a):
            low, high = np.nanquantile(sampled[:, column], [0.025, 0.975]).tolist()
            result[name] = Interval(point_a, point_b, point_b - point_a, low, high)
    return result
