"""The figures of one evaluation, each under its metric's name: as JSON and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

AP_AREA = "AP_voc_area@.5"
AP_POINTS = "AP_voc07_11point@.5"
AP_COCO = "AP_coco@.5:.95"
AP_COCO_50 = "AP_coco@.5"
IOU = "IoU"

HEADINGS = {
    AP_AREA: "AP @.5\nVOC area",
    AP_POINTS: "AP @.5\nVOC07 11-point",
    AP_COCO: "AP @.5:.95\nCOCO",
    AP_COCO_50: "AP @.5\nCOCO",
    IOU: "IoU",
}
"""Metrics in the order of the table; their means over classes are called mAP_... and mIoU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one evaluation; all shares are 0..1, None where there is no ground truth to tell.

    Attributes:
        classes: the object classes that the means are over; mIoU is over background and these.
        images: how many there are, and how many of them count for boxes and for masks.
        objects: objects to find, per class of the label space.
        difficult: objects that need not be found, per class.
        per_class: metric name (`AP_AREA`, ...) to class name to figure, for all classes of the label space. Without
            the metrics of a task that was not evaluated.
        iou_of_drawn: IoU per class where pixels of classes other than background and `classes` are left out; empty
            where `classes` are all.
        pixel_accuracy: share of all pixels that are right, void left out.
    """

    classes: tuple[str, ...]
    images: int
    images_with_boxes: int
    images_with_masks: int
    objects: dict[str, int]
    difficult: dict[str, int]
    per_class: dict[str, dict[str, float | None]]
    iou_others_ignored: dict[str, float | None]
    pixel_accuracy: float | None
