"""Intersection over union of class maps, from one confusion matrix over all pixels of all images (spec. 5.3)."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.tasks.calibrate import averaged_classes, known, known_mean
from tutored.tasks.segmentation.types import ClassMap, ClassMask
from tutored.tasks.task import Detail, Figures
from tutored.types import BACKGROUND, IGNORE

IOU = "IoU"
CODES = IGNORE + 1
"""A mask's pixel is one of 256 values."""


class Pixels(NamedTuple):
    """One image's confusion matrix, only the cells that occur.

    Attributes:
        truth: uint8 [M], class of the ground truth, 0..C.
        answer: uint8 [M], predicted class, 0..C, and C+1 for all classes that the image is not annotated for.
        number: int64 [M], pixels.
    """

    truth: NDArray[np.uint8]
    answer: NDArray[np.uint8]
    number: NDArray[np.int64]


NO_PIXELS = Pixels(np.zeros(0, np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.int64))
"""The record of an image without a mask."""


class Stacked(NamedTuple):
    """The cells of many images' confusion matrices, one after the other.

    Attributes:
        images: int64 [M], the image of each cell.
        cells: int64 [M], `truth * (C + 2) + answer`.
        number: int64 [M], pixels.
        classes: C, the number of object classes.
    """

    images: NDArray[np.int64]
    cells: NDArray[np.int64]
    number: NDArray[np.int64]
    classes: int


def record(truth: ClassMask, prediction: ClassMap, labels: LabelSpace) -> Pixels:
    """Count the pixels of one image by true and predicted class; pixels of truth 255 are dropped.

    In an image that is annotated for some classes only, the others may be anywhere in the background: there a
    prediction of them is dropped. On an annotated object it is wrong for that object, and does not count against them.
    Raises InputError: a class is outside the label space, or the two differ in size.
    """
    mask, answer, classes = truth.mask.numpy(), prediction.mask.cpu().numpy(), len(labels.classes)
    if mask.shape != answer.shape:
        raise InputError(f"the mask has (height, width) {mask.shape} and the predicted map {answer.shape} pixels")
    codes = mask.astype(np.uint16) * CODES + answer
    counts = np.bincount(codes.ravel(), minlength=CODES**2).reshape(CODES, CODES)[:IGNORE]
    for name, outside in (("mask", counts[classes + 1 :].any(axis=1)), ("prediction", counts[:, classes + 1 :].any(0))):
        if outside.any():
            raise InputError(f"the {name} has class {classes + 1 + int(outside.argmax())}; possible: 0 to {classes}")
    counts = counts[: classes + 1, : classes + 2]
    if truth.annotated is not None:
        unknown = np.setdiff1d(np.arange(1, classes + 1), truth.annotated)
        counts[:, classes + 1] = counts[:, unknown].sum(axis=1)
        counts[:, unknown] = 0
        counts[BACKGROUND, classes + 1] = 0
    true, said = np.nonzero(counts)
    return Pixels(true.astype(np.uint8), said.astype(np.uint8), counts[true, said])


def figures(records: Sequence[Pixels], labels: LabelSpace, reported: Sequence[str] | None) -> Figures:
    """IoU of each class, mIoU over background and the reported classes, and the share of all pixels that are right.

    Where means are over some classes only, `mIoU_others_ignored` is mIoU without the pixels that truly are of another
    class. In mIoU itself these count: a prediction of a reported class there is wrong. Raises InputError: an unknown
    class is reported. `reported` are the object classes that means are over; None: all. It restricts what is averaged,
    not what is counted.
    """
    averaged = averaged_classes(labels, reported)
    numbers = [BACKGROUND, *map(labels.index, averaged)]
    matrix = confusion(stack(records, len(labels.classes)))
    shares, others_ignored = iou(matrix), math.nan
    accuracy = pixel_accuracy(matrix)
    if set(averaged) != set(labels.classes):
        matrix[np.setdiff1d(np.arange(len(labels)), numbers)] = 0
        others_ignored = known_mean(iou(matrix)[numbers])
    means = {f"m{IOU}": known_mean(shares[numbers]), "mIoU_others_ignored": others_ignored, "pixel_accuracy": accuracy}
    return Figures(
        images=len(records),
        classes=averaged,
        means={name: known(value) for name, value in means.items()},
        per_class={IOU: dict(zip(labels.names, map(known, shares), strict=True))},
        counts={},
    )


def resampler(
    records: Sequence[Pixels | None], labels: LabelSpace, reported: Sequence[str] | None
) -> Callable[[NDArray[np.int64]], float]:
    """See `Task.resampler`: mIoU of images of which some have no mask (None)."""
    numbers = [BACKGROUND, *map(labels.index, averaged_classes(labels, reported))]
    stacked = stack([each or NO_PIXELS for each in records], len(labels.classes))
    return lambda weights: known_mean(iou(confusion(stacked, weights))[numbers])


def details(records: Sequence[Pixels], labels: LabelSpace) -> list[Detail]:
    """The confusion matrix, int64 [C+1, C+2]; the last column holds predictions of classes not annotated there."""
    matrix = confusion(stack(records, len(labels.classes)))
    return [Detail("Pixels by true and predicted class", "matrix", (*labels.names, "not annotated"), matrix)]


def stack(pixels: Sequence[Pixels], classes: int) -> Stacked:
    """Put the cells of one or more images of so many object classes together for `confusion`."""
    return Stacked(
        np.repeat(np.arange(len(pixels)), [len(item.number) for item in pixels]),
        np.concatenate([item.truth.astype(np.int64) * (classes + 2) + item.answer for item in pixels]),
        np.concatenate([item.number for item in pixels]),
        classes,
    )


def confusion(stacked: Stacked, weights: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Pixels by true class (rows) and predicted class (columns; the last: a class not annotated there), [C+1, C+2].
    `weights`: int64 [I], how many times each image counts; None: once.
    """
    shape = (stacked.classes + 1, stacked.classes + 2)
    number = stacked.number if weights is None else stacked.number * weights[stacked.images]
    # Floating point counts pixels exactly up to 2^53.
    sums = np.bincount(stacked.cells, weights=number, minlength=shape[0] * shape[1])
    return sums.astype(np.int64).reshape(shape)


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, float64 [C+1]; NaN for a class without a pixel of ground truth."""
    right, true, said = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)[:-1]
    union = np.where(true > 0, true + said - right, 0)
    shares: NDArray[np.float64] = np.divide(right, union, out=np.full(len(matrix), np.nan), where=union > 0)
    return shares


def pixel_accuracy(matrix: NDArray[np.int64]) -> float:
    """Share of the counted pixels that are right; NaN without any."""
    total = matrix.sum()
    return float(matrix.trace() / total) if total else math.nan
