"""COCO results: boxes as COCO's evaluation and most labelling tools take them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tutored.data.coco import Coco
from tutored.files import write_text
from tutored.labels import LabelSpace
from tutored.structures import Dataset, SoftLabels

TAIL_FLOOR = 1e-3
"""Probabilities below are left out of `probs`."""


def write_coco(answers: Iterable[tuple[str, SoftLabels]], dataset: Dataset, out: Path, score: float) -> None:
    """One JSON list, an entry a box: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score`.

    Image and category ids are the file's own where the data set is COCO, so that `COCO.loadRes` takes the list; else
    the image's name and the class' number (1..C). Beside what COCO asks for stand `category` and `probs`, the whole
    class distribution by name. Maps have no place in this format.
    """
    images, categories = _ids(dataset)
    entries = [
        {"image_id": images.get(image_id, image_id), **entry, "category_id": categories[entry["category"]]}
        for image_id, answer in answers
        for entry in box_entries(answer, dataset.labels, score)
    ]
    write_text(out, json.dumps(entries) + "\n")


def box_entries(answer: SoftLabels, labels: LabelSpace, score: float) -> list[dict[str, Any]]:
    """`bbox`, `score`, `category` and `probs` of each box from a score on, JSON-ready."""
    if answer.boxes_xyxy is None or answer.classes is None or answer.probs is None:
        return []
    entries = []
    for index in torch.nonzero(answer.scores >= score)[:, 0].tolist():
        x1, y1, x2, y2 = answer.boxes_xyxy[index].tolist()
        probs = zip(labels.names, answer.probs[index].tolist(), strict=True)
        entries.append(
            {
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(answer.scores[index]), 5),
                "category": labels.names[int(answer.classes[index])],
                "probs": {name: round(share, 5) for name, share in probs if share >= TAIL_FLOOR},
            }
        )
    return entries


def _ids(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    if isinstance(dataset, Coco):
        return dataset.numbers, {name: number for number, name in dataset.categories.items()}
    return {}, {name: number for number, name in enumerate(dataset.labels.names)}
