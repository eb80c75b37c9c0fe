"""Evaluation: average precision against the reference, pycocotools."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.harness import Table, side_by_side, table
from tutored.labels import VOC
from tutored.tasks.detection import Boxes, Detections
from tutored.tasks.detection.measure import Matches, coco_ap, rank, record, voc_ap

IMAGES, CLASSES, FOUND = 5000, len(VOC.classes), 30
Pairs = list[tuple[Boxes, Detections]]


def measure(_work: Path, scale: float) -> Iterator[Table]:
    """Boxes of 5,000 images (1 to 4 objects and 30 detections each)."""
    pairs = made_boxes(max(50, round(IMAGES * scale)))
    matches = _matched(pairs)
    things = {
        "pycocotools, COCO AP": lambda: pycocotools_ap(pairs),
        "ours, COCO AP, matching included": lambda: coco_ap(_matched(pairs), CLASSES),
        "ours, COCO AP of matched boxes": lambda: coco_ap(matches, CLASSES),
        "ours, VOC AP, matching included": lambda: voc_ap(rank(_matched(pairs), CLASSES)),
    }
    note = f"{len(pairs)} images, {CLASSES} classes; COCO AP over ten IoU thresholds, one area range, 100 detections"
    timed = side_by_side(things, len(pairs), 3, scale=scale)
    yield table("average precision", timed, "pycocotools, COCO AP", note)


def _matched(pairs: Pairs) -> list[Matches]:
    return [record(truth, found, VOC) for truth, found in pairs]


def made_boxes(images: int) -> Pairs:
    """Random objects, and detections of which some hit."""
    rng, pairs = torch.Generator().manual_seed(0), []
    for _ in range(images):
        count = int(torch.randint(1, 5, (), generator=rng))
        corners = torch.rand(count, 2, generator=rng) * 300
        truth = torch.cat([corners, corners + 20 + torch.rand(count, 2, generator=rng) * 150], dim=1)
        classes = torch.randint(1, CLASSES + 1, (count,), generator=rng)
        source = torch.randint(0, count, (FOUND,), generator=rng)
        found = truth[source] + torch.randn(FOUND, 4, generator=rng) * 12
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        guess = torch.where(torch.rand(FOUND, generator=rng) < 0.7, classes[source], 1 + source % CLASSES)
        easy = torch.zeros(count, dtype=torch.bool)
        scores = torch.rand(FOUND, generator=rng)
        drawn = Boxes(boxes_xyxy=truth, classes=classes, difficult=easy)
        pairs.append((drawn, Detections(boxes_xyxy=found, classes=guess, scores=scores)))
    return pairs


def pycocotools_ap(pairs: Pairs) -> float:
    """COCO AP by the reference, its own messages silenced."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = (_indexed(items) for items in zip(*pairs, strict=True))
        run = COCOeval(truth, found, "bbox")
        run.params.areaRng, run.params.areaRngLbl, run.params.maxDets = [[0, 1e10]], ["all"], [100]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"].mean())


def _indexed(items: Any) -> COCO:
    made: list[dict[str, Any]] = []
    for image, each in enumerate(items):
        scores = each.scores.tolist() if isinstance(each, Detections) else [1.0] * len(each.classes)
        rows = zip(each.boxes_xyxy.tolist(), each.classes.tolist(), scores, strict=True)
        for (x1, y1, x2, y2), number, score in rows:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "score": score}
            made.append({"id": len(made) + 1, "image_id": image, "category_id": number, **box})
    file, images, classes = COCO(), range(len(items)), range(1, CLASSES + 1)
    file.dataset = {"images": [{"id": n} for n in images], "categories": [{"id": n} for n in classes]}
    file.dataset["annotations"] = made
    file.createIndex()
    return file
