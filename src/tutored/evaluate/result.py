"""The figures of one evaluation, each under its metric's name: as JSON and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

AP_AREA = "AP_voc_area@.5"
AP_POINTS = "AP_voc07_11point@.5"
AP_COCO = "AP_coco@.5:.95"
AP_COCO_50 = "AP_coco@.5"
IOU = "IoU"

HEADINGS = {
    AP_AREA: "AP\n(VOC area)",
    AP_POINTS: "AP (VOC07\n11-point)",
    AP_COCO: "COCO\nAP",
    AP_COCO_50: "COCO\nAP50",
    IOU: "IoU",
}
"""Metrics of one class, in the table's order. Their means over classes are called `mAP_...` and `mIoU`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one evaluation: shares in 0..1, None where no ground truth can tell.

    Attributes:
        classes: the object classes that means are over; mIoU is over background and these.
        images: how many there are.
        images_with_boxes: how many of them count for boxes.
        images_with_masks: how many of them count for maps.
        objects: objects to find, by class of the whole label space.
        difficult: objects that need not be found, likewise.
        per_class: metric (`AP_AREA`, ..., `IOU`) to class to figure, for the whole label space. A task that was not
            evaluated has no metrics here.
        miou_others_ignored: mIoU without the pixels that truly are of a class outside `classes`. In mIoU itself they
            count: a prediction of one of `classes` there is wrong.
        pixel_accuracy: share of all annotated pixels that are right.
        notes: what the reader of the figures should know, a sentence each.
    """

    classes: tuple[str, ...]
    images: int
    images_with_boxes: int
    images_with_masks: int
    objects: dict[str, int]
    difficult: dict[str, int]
    per_class: dict[str, dict[str, float | None]]
    miou_others_ignored: float | None
    pixel_accuracy: float | None
    notes: tuple[str, ...] = ()

    @property
    def map_area(self) -> float | None:
        """Mean over classes of VOC's average precision: the area under the precision envelope at IoU .5."""
        return self.mean(AP_AREA)

    @property
    def miou(self) -> float | None:
        """Mean over background and classes of the intersection over union."""
        return self.mean(IOU)

    def mean(self, metric: str) -> float | None:
        """A metric's mean over `classes` (IoU: and background) with ground truth; None without any."""
        figures = self.per_class.get(metric, {})
        values = [figures.get(name) for name in (*(("background",) if metric == IOU else ()), *self.classes)]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def untold(self, metric: str) -> tuple[str, ...]:
        """Those of `classes` that have no ground truth for this metric and are not in its mean."""
        figures = self.per_class.get(metric, {})
        return tuple(name for name in self.classes if name in figures and figures[name] is None)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: means (`mAP_voc_area@.5`, `mIoU`, ...) first, then figures by class, then counts."""
        return {
            "classes": list(self.classes),
            **{f"m{metric}": self.mean(metric) for metric in self.per_class},
            "mIoU_others_ignored": self.miou_others_ignored,
            "pixel_accuracy": self.pixel_accuracy,
            **self.per_class,
            "without_ground_truth": {metric: list(self.untold(metric)) for metric in self.per_class},
            "images": self.images,
            "images_with_boxes": self.images_with_boxes,
            "images_with_masks": self.images_with_masks,
            "objects": self.objects,
            "difficult": self.difficult,
            "notes": list(self.notes),
        }


def table(result: Result) -> Table:
    """The classes that count and, as the last row, the means: mAP (VOC area), mAP (VOC07 11-point), COCO AP, mIoU."""
    metrics = [metric for metric in HEADINGS if metric in result.per_class]
    with_boxes = AP_AREA in metrics
    drawn = Table(caption=_caption(result), caption_justify="left", caption_style="", header_style="bold")
    drawn.add_column("class", no_wrap=True, vertical="bottom")
    if with_boxes:
        drawn.add_column("objects", justify="right", vertical="bottom")
    for metric in metrics:
        drawn.add_column(HEADINGS[metric], justify="right", vertical="bottom")

    rows: Sequence[str] = (*(("background",) if IOU in metrics else ()), *result.classes)
    for name in rows:
        counts = [str(result.objects.get(name, ""))] if with_boxes else []
        figures = (result.per_class[metric] for metric in metrics)
        shares = [_share(by_class[name]) if name in by_class else "" for by_class in figures]
        drawn.add_row(name, *counts, *shares, end_section=name == rows[-1])
    counts = [str(sum(result.objects[name] for name in result.classes))] if with_boxes else []
    means = [_share(result.mean(metric)) for metric in metrics]
    drawn.add_row(_mean_name(metrics), *counts, *means, style="bold")
    return drawn


def _mean_name(metrics: Sequence[str]) -> str:
    return ", ".join(name for name, there in (("mAP", AP_AREA in metrics), ("mIoU", IOU in metrics)) if there)


def _caption(result: Result) -> str:
    lines = [
        f"{result.images:,} images, {result.images_with_boxes:,} count for boxes, {result.images_with_masks:,} for maps"
    ]
    if result.pixel_accuracy is not None:
        line = f"pixel accuracy {_share(result.pixel_accuracy)}"
        if result.miou_others_ignored is not None:
            line += f"; mIoU without pixels of other classes {_share(result.miou_others_ignored)}"
        lines.append(line)
    for metric, task in ((AP_AREA, "an object to find"), (IOU, "a pixel")):
        if result.untold(metric):
            lines.append(f"without {task}, not in the mean: {', '.join(result.untold(metric))}")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
