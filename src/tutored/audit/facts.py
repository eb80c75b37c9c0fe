"""What one image tells about its tutor: boxes and pixels held against ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tutored.boxes import iou
from tutored.errors import InputError
from tutored.evaluate.detection import IOU_FLOOR, Matches, match
from tutored.evaluate.segmentation import Pixels, compare
from tutored.judge import as_prediction
from tutored.labels import LabelSpace
from tutored.structures import BACKGROUND, IGNORE, GroundTruth, SoftLabels

HEARD = 0.05
"""Weaker boxes count for AP alone."""
CONFIDENT = 0.9
"""A pixel's likeliest class has at least this probability."""


class Said(NamedTuple):
    """The boxes of one image from the score `HEARD` on, by falling score.

    Attributes:
        scores: float32 [K].
        classes: int64 [K], the class that each was kept for.
    """

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class BoxFacts(NamedTuple):
    """One image's boxes against its objects.

    Attributes:
        matches: all boxes; those that were heard come first.
        thing: int64 [K], of each box that was heard the object that it overlaps most, from IoU .5 on, whatever its
            class; -1 for none.
    """

    matches: Matches
    thing: NDArray[np.int64]


class PixelFacts(NamedTuple):
    """One image's map against its mask.

    Attributes:
        pixels: the confusion of all pixels.
        probs: float32 [N, C+1], sums of one, of pixels drawn at random.
        right: int64 [N], their true classes; background where the tutor does not know the class.
        contradiction: mean over all pixels of the likeliest class' probability where it is wrong, 0 where it is right.
    """

    pixels: Pixels
    probs: NDArray[np.float32]
    right: NDArray[np.int64]
    contradiction: float


def too_many(labels: LabelSpace) -> str:
    """Why maps in this label space are left out; empty where they are not."""
    if len(labels) <= IGNORE:
        return ""
    return (
        f"{len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): boxes alone are looked at"
    )


def without_maps(tasks: Sequence[str], labels: LabelSpace) -> tuple[str, ...]:
    """Those of the tasks that can be looked at in this label space.

    Raises:
        InputError: they are maps alone, of too many classes.
    """
    why = too_many(labels)
    left = tuple(task for task in tasks if task == "detection" or not why)
    if tasks and not left:
        raise InputError(f"{why}, and the tutor has none; name fewer as data.classes of a run, and give its --config")
    return left


def boxes_said(answer: SoftLabels, annotated: Sequence[int] | None) -> tuple[Said, SoftLabels]:
    """The boxes that are heard, and all boxes by falling score without those of classes that are not annotated."""
    assert answer.boxes_xyxy is not None and answer.classes is not None and answer.probs is not None
    order = answer.scores.sort(descending=True, stable=True).indices
    if annotated is not None:
        order = order[torch.isin(answer.classes[order], torch.tensor(annotated, dtype=torch.int64))]
    ordered = SoftLabels(
        size=answer.size,
        boxes_xyxy=answer.boxes_xyxy[order],
        classes=answer.classes[order],
        probs=answer.probs[order],
    )
    assert ordered.classes is not None
    heard = int((ordered.scores >= HEARD).sum())
    return Said(ordered.scores[:heard].numpy().copy(), ordered.classes[:heard].numpy().copy()), ordered


def box_facts(truth: GroundTruth, answer: SoftLabels, heard: int, classes: int) -> BoxFacts:
    """Hold boxes, by falling score, against objects.

    Args:
        heard: how many of the first boxes are.
        classes: C.
    """
    assert answer.boxes_xyxy is not None
    matches = match(truth, as_prediction(answer), classes)
    thing = np.full(heard, -1)
    if heard and len(matches.truth_boxes_xyxy):
        overlaps = iou(answer.boxes_xyxy[:heard], torch.from_numpy(matches.truth_boxes_xyxy)).numpy()
        thing = np.where(overlaps.max(axis=1) >= IOU_FLOOR, overlaps.argmax(axis=1), -1)
    return BoxFacts(matches, thing)


def pixel_facts(
    truth: GroundTruth, answer: SoftLabels, classes: int, samples: int, rng: np.random.Generator
) -> tuple[PixelFacts | None, float]:
    """Hold a map, enlarged to the image, against the mask; and the share of pixels that the tutor is confident about.

    On a class that the tutor does not know, background is right and no contradiction: training takes it for "may be
    it", at the temperature that is fitted here. The confusion has the true class, as `tutored evaluate` has it.

    Args:
        samples: pixels to draw for calibration.
    """
    assert answer.map is not None
    packed = answer.map[None].contiguous(memory_format=torch.channels_last)
    enlarged = F.interpolate(packed, size=answer.size, mode="bilinear", align_corners=False)[0]
    best, said = enlarged.max(dim=0)
    share = float((best >= CONFIDENT).float().mean())
    if truth.mask is None:
        return None, share
    pixels = compare(truth.mask.numpy(), said.to(torch.uint8).numpy(), classes, truth.annotated)
    drawn = truth.mask != IGNORE
    meant = truth.mask.masked_fill(torch.isin(truth.mask, torch.tensor(answer.unknown, dtype=torch.uint8)), BACKGROUND)
    wrong = drawn & (said != meant)
    if truth.annotated is not None:
        unknown = torch.tensor([index not in (BACKGROUND, *truth.annotated) for index in range(classes + 1)])
        wrong &= ~((truth.mask == BACKGROUND) & unknown[said])
    places = np.flatnonzero((drawn & (enlarged.sum(0) > 0)).numpy())
    if len(places) > samples:
        places = rng.choice(places, samples, replace=False)
    probs = _known(enlarged.flatten(1)[:, places].T.numpy(), truth.annotated)
    right = meant.flatten()[places].long().numpy()
    contradiction = float((best * wrong).sum() / max(int(drawn.sum()), 1))
    return PixelFacts(pixels, probs, right, contradiction), share


def _known(probs: NDArray[np.float32], annotated: Sequence[int] | None) -> NDArray[np.float32]:
    """Rows that sum to one; what is not annotated is part of the background, as ground truth calls it."""
    if annotated is not None:
        unknown = np.setdiff1d(np.arange(1, probs.shape[1]), annotated)
        probs = probs.copy()
        probs[:, BACKGROUND] += probs[:, unknown].sum(axis=1)
        probs[:, unknown] = 0
    scaled: NDArray[np.float32] = probs / np.maximum(probs.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return scaled
