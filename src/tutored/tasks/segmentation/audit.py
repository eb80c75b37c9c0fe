"""The audit of a tutor's maps: overlap, precision and recall of pixels with intervals, calibration, confusion."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tutored.geometry import channels_last
from tutored.tasks.audit import Agreed, Auditor, ClassFigures, Confusion, Measured
from tutored.tasks.calibrate import Answers, Ints, known, known_mean, resampled, tempered
from tutored.tasks.segmentation import measure
from tutored.tasks.segmentation.measure import NO_PIXELS, Pixels
from tutored.tasks.segmentation.types import LEVELS, ClassMap, ClassMask, SoftMap
from tutored.types import BACKGROUND, IGNORE, Size

CONFIDENT = 0.9
"""Least probability of a pixel's likeliest class for the tutor to count as confident."""


class Evidence(NamedTuple):
    """One image's map compared with its mask; without ground truth only how much of it is confident.

    Attributes:
        confident: share of the pixels that the tutor is confident about.
        pixels: the confusion of all pixels.
        probs: float32 [N, C+1], sums of 1, of pixels drawn at random.
        right: int64 [N], their true classes; background where the tutor does not know the class.
        wrong: mean over all pixels of the likeliest class' probability where it is wrong, 0 where it is right.
    """

    confident: float
    pixels: Pixels = NO_PIXELS
    probs: NDArray[np.float32] = np.zeros((0, 0), np.float32)
    right: Ints = np.zeros(0, np.int64)
    wrong: float = 0.0


class MapAuditor(Auditor):
    """Compares maps with masks."""

    unit: ClassVar[str] = "pixels drawn at random"
    table: ClassVar[str] = "Precision and recall of pixels."
    order: ClassVar[str] = "By the probability of the likeliest class where it is wrong, as a mean over the pixels."
    words: ClassVar[tuple[str, str, str]] = ("pixels", "pixels", "images")
    floor: ClassVar[float] = 0.5 / LEVELS

    def settings(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Which rule makes a map of instances or confidences matters only where there are any."""
        found = stored.get(SoftMap.kind)
        return {} if found is not None and not found.confidences else {"background": self.task.section.background}

    def observe(
        self, truth: ClassMask | None, answer: SoftMap, size: Size, rng: np.random.Generator, samples: int
    ) -> Evidence:
        """The map is enlarged to the image.

        For a class that the tutor does not know, background is right and no contradiction: training takes it as "may
        be any", at the temperature that is fitted here. The confusion has the true class, as an evaluation has it.
        """
        packed = channels_last(answer.map)
        enlarged = F.interpolate(packed, size=size, mode="bilinear", align_corners=False)[0]
        best, likeliest = enlarged.max(dim=0)
        confident = float((best >= CONFIDENT).float().mean())
        if truth is None:
            return Evidence(confident)
        pixels: Pixels = self.task.record(truth, ClassMap(mask=likeliest.to(torch.uint8)))
        counted = truth.mask != IGNORE
        meant = truth.mask.masked_fill(torch.isin(truth.mask, torch.tensor(answer.unknown, dtype=torch.uint8)), 0)
        wrong = counted & (likeliest != meant)
        if truth.annotated is not None:
            annotated = torch.tensor((BACKGROUND, *truth.annotated))
            wrong &= (truth.mask != BACKGROUND) | torch.isin(likeliest, annotated)
        places = np.flatnonzero((counted & (enlarged.sum(0) > 0)).numpy())
        if len(places) > samples:
            places = rng.choice(places, samples, replace=False)
        probs = enlarged.flatten(1)[:, places].T.numpy().copy()
        if truth.annotated is not None:
            # As the ground truth has it, classes that are not annotated are part of the background.
            others = np.setdiff1d(np.arange(1, probs.shape[1]), truth.annotated)
            probs[:, BACKGROUND] += probs[:, others].sum(axis=1)
            probs[:, others] = 0
        right = meant.flatten()[places].long().numpy()
        share = float((best * wrong).sum() / max(int(counted.sum()), 1))
        return Evidence(confident, pixels, tempered(probs, 1.0).astype(np.float32), right, share)

    def answers(self, found: Evidence) -> Answers:
        return Answers(found.probs, found.right, found.probs.argmax(axis=1))

    def figures(
        self, images: Sequence[Evidence], every: Sequence[Evidence], temperature: float, known_numbers: Sequence[int]
    ) -> Measured:
        """Args: as in `Auditor`."""
        labels, numbers, confusions = self.task.labels, [BACKGROUND, *known_numbers], [each.pixels for each in images]
        stacked = measure.stack(confusions, len(labels.classes))
        confusion = Confusion(stacked.images, *np.divmod(stacked.cells, len(labels) + 1), stacked.number)
        shares = measure.iou(measure.confusion(stacked))
        low, high = resampled(lambda weights: measure.iou(measure.confusion(stacked, weights)), len(images))
        probs, right = (np.concatenate([getattr(each, name) for each in images]) for name in ("probs", "right"))
        answered, sure = probs.argmax(axis=1), tempered(probs, temperature).max(axis=1)
        classes = {}
        for number in numbers:
            there, answers = (
                sum(bool((getattr(each, name) == number).any()) for each in confusions) for name in ("truth", "answer")
            )
            row = {
                "images": there,
                "IoU": known(shares[number]),
                "IoU_interval": [known(low[number]), known(high[number])],
            }
            true, called, own = confusion.true == number, confusion.answer == number, answered == number
            rates = confusion.rate(true, called), confusion.rate(called, true)
            classes[number] = ClassFigures(*rates, there, answers, answers, row, sure[own], right[own] == number)
        mean = known(known_mean(shares[numbers]))
        accuracy = known(measure.pixel_accuracy(measure.confusion(stacked)))
        confident = np.array([each.confident for each in every])
        mostly = float((confident >= 0.5).mean())
        told = ("unknown" if each is None else f"{each:.3f}" for each in (mean, accuracy))
        summary = (
            f"mIoU {next(told)} over background and the classes that the tutor knows, pixel accuracy {next(told)}. "
            f"{100 * confident.mean():.0f} % of the pixels of {len(every)} images have a class of probability "
            f"{CONFIDENT} or more; in {100 * mostly:.0f} % of the images at least half of them have."
        )
        coverage = {
            "images": len(every),
            "confidence": CONFIDENT,
            "pixels_confident": float(confident.mean()),
            "images_mostly_confident": mostly,
        }
        overall = {"mIoU": mean, "pixel_accuracy": accuracy, "coverage": coverage}
        return Measured(classes, confusion, overall, summary, [], {})

    def contradiction(
        self, found: Evidence, temperature: float, band: Mapping[str, float], known_numbers: Sequence[int]
    ) -> tuple[float, str]:
        """The largest confusions of one image, each of a twentieth of its pixels or more."""
        (true, answer, number), names = found.pixels, self.task.labels.names
        excused = (answer == BACKGROUND) & ~np.isin(true, known_numbers)
        wrong = np.flatnonzero((true != answer) & (answer < len(names)) & ~excused)
        shares = number / max(int(number.sum()), 1)
        texts = [
            f"says {names[answer[row]]} on {names[true[row]]}: {100 * shares[row]:.0f} % of the pixels"
            for row in wrong[np.argsort(-shares[wrong], kind="stable")][:3]
            if shares[row] >= 0.05
        ]
        return found.wrong, "; ".join(texts)

    def compare(self, one: SoftMap, other: SoftMap, size: Size) -> Pixels:
        """Pixels by the likeliest class of both."""
        first = one.final(size)
        assert first is not None
        found: Pixels = self.task.record(ClassMask(mask=first.mask), other.final(size))
        return found

    def agree(self, compared: Sequence[Pixels], classes: Sequence[int]) -> Agreed:
        """Without the pixels that either tutor calls a class which only one of them knows."""
        numbers, labels = [BACKGROUND, *classes], self.task.labels
        whole = measure.confusion(measure.stack(compared, len(labels.classes)))
        matrix = whole[np.ix_(numbers, [*numbers, -1])]
        shares = zip(numbers, measure.iou(matrix), strict=True)
        rows: list[dict[str, Any]] = [{"class": labels.names[number], "IoU": known(share)} for number, share in shares]
        meaning = "Cohen's, of the likeliest classes: 1 is full agreement, 0 is what chance alone would give"
        return Agreed("kappa", kappa(matrix[:, :-1]), meaning, rows)


def kappa(matrix: Ints) -> float | None:
    """Cohen's kappa of a square confusion matrix; None without a pixel, and where chance alone agrees everywhere."""
    if not matrix.any():
        return None
    shares = matrix / matrix.sum()
    chance = float((shares.sum(axis=0) * shares.sum(axis=1)).sum())
    return None if chance >= 1 else (float(shares.trace()) - chance) / (1 - chance)
