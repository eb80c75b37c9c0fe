"""From predictions against ground truth to records, and from records to figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.errors import InputError
from tutored.evaluate import coco, detection, segmentation
from tutored.evaluate.detection import Matches
from tutored.evaluate.result import AP_AREA, AP_COCO, AP_COCO_50, AP_POINTS, IOU, Result
from tutored.evaluate.segmentation import Pixels
from tutored.labels import LabelSpace
from tutored.structures import BACKGROUND, GroundTruth, Prediction


@dataclass(frozen=True, slots=True)
class Record:
    """What one image tells about its predictor; a few kilobytes.

    Attributes:
        matches: detections and objects, or None where one of them is not there.
        pixels: the confusion matrix, or None where a mask or the predicted map is not there.
        unanswered: tasks with ground truth but without a prediction.
    """

    image_id: str
    matches: Matches | None
    pixels: Pixels | None
    unanswered: tuple[str, ...]


def evaluate(
    pairs: Iterable[tuple[str, GroundTruth, Prediction]], labels: LabelSpace, classes: Sequence[str] | None = None
) -> Result:
    """The figures of one predictor on one split, in one pass over its images.

    An image counts for detection if it has boxes and for segmentation if it has a mask; one that is annotated for some
    classes counts for these. AP and IoU of a class are None where the split shows nothing of it.

    Args:
        pairs: image id, ground truth and prediction, both in the image's own pixels. The order does not matter.
        classes: the object classes that means are over; None: all. It restricts what is averaged, not what is counted.

    Raises:
        InputError: no images, an image twice, a prediction of another size or outside the label space or not finite,
            a task answered for some images only, an unknown class.
    """
    averaged = averaged_classes(labels, classes)
    return figures([record(*pair, labels) for pair in pairs], labels, averaged)


def record(image_id: str, truth: GroundTruth, prediction: Prediction, labels: LabelSpace) -> Record:
    """Hold one image's prediction against its ground truth. Raises InputError, naming the image; see `evaluate`."""
    if truth.size != prediction.size:
        sizes = " and ".join(f"{width} x {height}" for height, width in (truth.size, prediction.size))
        raise InputError(
            f"{image_id}: image and prediction differ in size: {sizes} pixels; was it made for this image?"
        )
    matches, pixels, unanswered = None, None, []
    try:
        if truth.boxes_xyxy is not None and prediction.boxes_xyxy is not None:
            matches = detection.match(truth, prediction, len(labels.classes))
        elif truth.boxes_xyxy is not None:
            unanswered.append("boxes")
        if truth.mask is not None and prediction.mask is not None:
            masks = truth.mask.numpy(), prediction.mask.cpu().numpy()
            pixels = segmentation.compare(*masks, len(labels.classes), truth.annotated)
        elif truth.mask is not None:
            unanswered.append("map")
    except InputError as error:
        raise InputError(f"{image_id}: {error}") from error
    return Record(image_id, matches, pixels, tuple(unanswered))


def figures(records: Sequence[Record], labels: LabelSpace, classes: Sequence[str] | None = None) -> Result:
    """All figures of one predictor from the records of its images, in any order; see `evaluate`."""
    averaged = averaged_classes(labels, classes)
    records = in_order(records)
    matches = [item.matches for item in records if item.matches is not None]
    pixels = [item.pixels for item in records if item.pixels is not None]
    count = len(labels.classes)
    per_class: dict[str, dict[str, float | None]] = {}
    if matches:
        rows = np.concatenate([detection.voc_ap(detection.rank(matches, count)), coco.coco_ap(matches, count)])
        for metric, row in zip((AP_AREA, AP_POINTS, AP_COCO, AP_COCO_50), rows, strict=True):
            per_class[metric] = dict(zip(labels.classes, map(known, row[1:]), strict=True))

    others_ignored = accuracy = None
    if pixels:
        matrix = segmentation.confusion(segmentation.stack(pixels, count))
        per_class[IOU] = dict(zip(labels.names, map(known, segmentation.iou(matrix)), strict=True))
        accuracy = known(segmentation.pixel_accuracy(matrix))
        if set(averaged) != set(labels.classes):
            drawn = [BACKGROUND, *(labels.index(name) for name in averaged)]
            matrix[np.setdiff1d(np.arange(len(labels)), drawn)] = 0
            others_ignored = known(known_mean(segmentation.iou(matrix)[drawn]))

    truths = [np.bincount(item.truth_classes * 2 + item.difficult, minlength=2 * len(labels)) for item in matches]
    objects = np.sum([np.zeros(2 * len(labels), np.int64), *truths], axis=0).reshape(-1, 2)[1:].T.tolist()
    return Result(
        classes=tuple(averaged),
        images=len(records),
        images_with_boxes=len(matches),
        images_with_masks=len(pixels),
        objects=dict(zip(labels.classes, objects[0], strict=True)),
        difficult=dict(zip(labels.classes, objects[1], strict=True)),
        per_class=per_class,
        miou_others_ignored=others_ignored,
        pixel_accuracy=accuracy,
    )


class Details(NamedTuple):
    """What lies behind the figures.

    Attributes:
        precisions: float64 [C+1, 101], see `detection.precisions`; None without boxes to count.
        confusion: int64 [C+1, C+2], pixels, see `segmentation.confusion`; None without maps to count.
    """

    precisions: NDArray[np.float64] | None
    confusion: NDArray[np.int64] | None


def details(records: Sequence[Record], labels: LabelSpace) -> Details:
    """Precision-recall curves at IoU .5 and the confusion matrix of pixels, from the records that `figures` takes."""
    records, count = in_order(records), len(labels.classes)
    matches = [item.matches for item in records if item.matches is not None]
    pixels = [item.pixels for item in records if item.pixels is not None]
    return Details(
        detection.precisions(detection.rank(matches, count)) if matches else None,
        segmentation.confusion(segmentation.stack(pixels, count)) if pixels else None,
    )


def in_order(records: Sequence[Record]) -> list[Record]:
    """The records by image id, so that ties between scores never depend on the order of images."""
    if not records:
        raise InputError("no images to evaluate; is the split empty?")
    ordered = sorted(records, key=lambda item: item.image_id)
    for before, after in itertools.pairwise(ordered):
        if before.image_id == after.image_id:
            raise InputError(f"image {after.image_id} is given twice; each image counts once")
    for task, answered in (
        ("boxes", any(item.matches is not None for item in ordered)),
        ("map", any(item.pixels is not None for item in ordered)),
    ):
        missing = [item.image_id for item in ordered if task in item.unanswered]
        if answered and missing:
            raise InputError(
                f"no predicted {task} for {len(missing)} of {len(ordered)} images, such as {missing[0]}; "
                "predict all of the split, or evaluate on the images that have an answer"
            )
    return ordered


def averaged_classes(labels: LabelSpace, classes: Sequence[str] | None) -> list[str]:
    """The object classes that means are over. Raises InputError for an unknown one and for background."""
    names = list(labels.classes) if classes is None else list(dict.fromkeys(classes))
    for name in names:
        if labels.index(name) == BACKGROUND:
            raise InputError("background is always in mIoU and never in mAP; name object classes only")
    return names


def known_mean(values: NDArray[np.float64]) -> float:
    """The mean of what is not NaN; NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def known(value: float | np.floating[Any]) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(value)
