"""What a training leaves for its page in the run's folder `page/`: facts, sources, validations and small pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tutored.evaluate import Details
from tutored.files import write_encoded, write_json, write_text
from tutored.labels import LabelSpace
from tutored.structures import GroundTruth, Prediction
from tutored.visualise import draw_small

FOLDER = "page"
SOURCES = ("gt", "tutor", "both", "none")
TRUTH, TUTOR = "truth", "tutor"
SIDE, QUALITY = 320, 70
"""Longer side of a picture in pixels, and JPEG's quality."""


def keep_facts(run: Path, facts: Mapping[str, Any]) -> None:
    """Write `page/facts.json`: what is known before the first step, JSON-ready."""
    write_json(run / FOLDER / "facts.json", facts)


def keep_sources(run: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write `page/sources.csv`: who teaches each training image.

    Args:
        rows: image id, data set, and one of `SOURCES` for detection and for segmentation.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "data", "detection", "segmentation"))
    writer.writerows(rows)
    write_text(run / FOLDER / "sources.csv", text.getvalue())


def keep_validation(run: Path, epoch: int, details: Details, labels: LabelSpace) -> None:
    """Write `page/epoch-EPOCH.json`: precision-recall curves by class, and the confusion matrix of pixels."""
    curves, pixels = details
    content = {
        "classes": list(labels.names),
        "precisions": None
        if curves is None
        else {
            name: [round(value, 4) for value in curve.tolist()]
            for name, curve in zip(labels.names, curves, strict=True)
            if curve[0] == curve[0]
        },
        "confusion": None if pixels is None else pixels.tolist(),
    }
    write_text(run / FOLDER / f"{validation_name(epoch)}.json", json.dumps(content) + "\n")


def keep_picture(
    run: Path, index: int, what: str, image: Image.Image, shown: Prediction | GroundTruth, labels: LabelSpace
) -> None:
    """Write `page/INDEX-WHAT.jpg`, the image with an answer drawn in.

    Args:
        what: `TRUTH`, `TUTOR` or a validation's name.
    """
    drawn = draw_small(image, shown, labels, SIDE)
    write_encoded(picture_path(run, index, what), partial(drawn.save, format="JPEG", quality=QUALITY, optimize=True))


def picture_path(run: Path, index: int, what: str) -> Path:
    return run / FOLDER / f"{index:02}-{what}.jpg"


def validation_name(epoch: int) -> str:
    return f"epoch-{epoch:04}"
