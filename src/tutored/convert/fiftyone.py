"""A data set that the tool FiftyOne reads: detections with their distributions as attributes, and masks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tutored.convert.coco import box_entries
from tutored.files import write_text
from tutored.judge import as_prediction
from tutored.structures import Dataset, SoftLabels
from tutored.visualise import save_mask


def write_fiftyone(answers: Iterable[tuple[str, SoftLabels]], dataset: Dataset, out: Path, score: float) -> None:
    """`labels.json` in the form of `FiftyOneImageDetectionDataset`, and `masks/ID.png` of `ImageSegmentationDirectory`.

    Boxes from `score` on, relative to the image; each one's class distribution stands in its attributes. Pictures are
    not copied: give FiftyOne their folder as `data_path`, and `labels.json` or `masks` as `labels_path`.
    """
    found: dict[str, list[dict[str, Any]] | None] = {}
    for image_id, answer in answers:
        height, width = answer.size
        if answer.boxes_xyxy is not None:
            found[image_id] = [
                {
                    "label": entry["category"],
                    "bounding_box": [
                        round(value / side, 6)
                        for value, side in zip(entry["bbox"], (width, height, width, height), strict=True)
                    ],
                    "confidence": entry["score"],
                    "attributes": {f"p({name})": share for name, share in entry["probs"].items()},
                }
                for entry in box_entries(answer, dataset.labels, score)
            ]
        mask = as_prediction(answer).mask
        if mask is not None:
            save_mask(mask, out / "masks" / f"{image_id}.png")
    if found:
        content = {"classes": list(dataset.labels.classes), "labels": found}
        write_text(out / "labels.json", json.dumps(content) + "\n")
