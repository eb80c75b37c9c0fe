"""Evaluation: average precision and confusion matrices against the libraries that people use."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

from benchmarks.timing import side_by_side, table
from tutored.evaluate import coco, detection, segmentation
from tutored.structures import GroundTruth, Prediction

IMAGES, CLASSES, FOUND = 5000, 20, 30


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Boxes of 5,000 images (2 to 3 objects and 30 detections each), and confusion matrices of 20 masks."""
    pairs = made_boxes(max(50, round(IMAGES * scale)))

    def matched() -> list[detection.Matches]:
        return [detection.match(truth, found, CLASSES) for truth, found in pairs]

    matches = matched()
    things = {
        "pycocotools, COCO AP": lambda: pycocotools_ap(pairs),
        "torchmetrics, COCO AP": lambda: torchmetrics_ap(pairs),
        "ours, COCO AP, matching included": lambda: coco.coco_ap(matched(), CLASSES),
        "ours, COCO AP of matched boxes": lambda: coco.coco_ap(matches, CLASSES),
        "ours, VOC AP, matching included": lambda: detection.voc_ap(detection.rank(matched(), CLASSES)),
        "ours, VOC AP of matched boxes": lambda: detection.voc_ap(detection.rank(matches, CLASSES)),
    }
    note = f"{len(pairs)} images, {CLASSES} classes; COCO AP over ten IoU floors, one area range, 100 detections"
    boxes = table(
        "average precision", side_by_side(things, len(pairs), rounds=3), "pycocotools, COCO AP", "images/s", note
    )
    return [boxes, _confusion(scale)]


def made_boxes(images: int) -> list[tuple[GroundTruth, Prediction]]:
    """Random objects, and detections of which some hit."""
    rng = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(images):
        count = int(torch.randint(1, 5, (), generator=rng))
        corners = torch.rand(count, 2, generator=rng) * 300
        truth = torch.cat([corners, corners + 20 + torch.rand(count, 2, generator=rng) * 150], dim=1)
        classes = torch.randint(1, CLASSES + 1, (count,), generator=rng)
        source = torch.randint(0, count, (FOUND,), generator=rng)
        found = truth[source] + torch.randn(FOUND, 4, generator=rng) * 12
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        guess = torch.where(torch.rand(FOUND, generator=rng) < 0.7, classes[source], 1 + source % CLASSES)
        none = torch.zeros(count, dtype=torch.bool)
        pairs.append(
            (
                GroundTruth(size=(500, 500), boxes_xyxy=truth, classes=classes, difficult=none),
                Prediction(size=(500, 500), boxes_xyxy=found, classes=guess, scores=torch.rand(FOUND, generator=rng)),
            )
        )
    return pairs


def pycocotools_ap(pairs: list[tuple[GroundTruth, Prediction]]) -> float:
    """COCO AP by the reference, its own messages silenced."""
    truths = [(truth.boxes_xyxy, truth.classes, None) for truth, _ in pairs]
    found = [(each.boxes_xyxy, each.classes, each.scores) for _, each in pairs]
    with contextlib.redirect_stdout(io.StringIO()):
        files = []
        for items in (truths, found):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": index} for index in range(len(pairs))],
                "categories": [{"id": index} for index in range(1, CLASSES + 1)],
                "annotations": _annotations(items),
            }
            coco.createIndex()
            files.append(coco)
        run = COCOeval(*files, "bbox")
        run.params.areaRng, run.params.areaRngLbl, run.params.maxDets = [[0, 1e10]], ["all"], [100]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"].mean())


def torchmetrics_ap(pairs: list[tuple[GroundTruth, Prediction]]) -> float:
    """COCO AP as torchmetrics has it: pycocotools within, all four area ranges and three caps on detections."""
    metric = MeanAveragePrecision(backend="pycocotools")
    found = [{"boxes": each.boxes_xyxy, "scores": each.scores, "labels": each.classes} for _, each in pairs]
    metric.update(found, [{"boxes": truth.boxes_xyxy, "labels": truth.classes} for truth, _ in pairs])
    with contextlib.redirect_stdout(io.StringIO()):
        return float(metric.compute()["map"])


def _annotations(items: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for image, (boxes, classes, scores) in enumerate(items):
        for row, ((x1, y1, x2, y2), number) in enumerate(zip(boxes.tolist(), classes.tolist(), strict=True)):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            score = {} if scores is None else {"score": float(scores[row])}
            made.append({"id": len(made) + 1, "image_id": image, "category_id": number, **box, **score})
    return made


def _confusion(scale: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    masks = [
        (rng.integers(0, CLASSES + 1, (375, 500), np.uint8), rng.integers(0, CLASSES + 1, (375, 500), np.uint8))
        for _ in range(max(2, round(20 * scale)))
    ]

    def naive() -> None:
        for truth, found in masks:
            matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
            np.add.at(matrix, (truth, found), 1)

    def ours() -> None:
        for truth, found in masks:
            segmentation.compare(truth, found, CLASSES, None)

    timed = side_by_side({"numpy, pixel by pixel": naive, "ours": ours}, len(masks))
    return table("confusion matrices", timed, "numpy, pixel by pixel", "images/s", "375 x 500 pixels, 21 classes")
