"""A data set of one's own: pictures in BOXES/SPLIT, and BOXES/SPLIT.csv with rows of image, class, x1, y1, x2, y2.

data: {train: "python:own_data:CsvBoxes"}
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from PIL import Image

from tutored.labels import LabelSpace
from tutored.tasks.detection import Boxes
from tutored.types import GroundTruth

FOLDER = Path("BOXES")


class CsvBoxes:
    """One split. An image without a row counts as not annotated."""

    def __init__(self, split: str) -> None:
        self.table = FOLDER / f"{split}.csv"
        self.rows: dict[str, list[list[str]]] = {}
        with self.table.open(newline="") as file:
            for name, *row in csv.reader(file):
                self.rows.setdefault(name, []).append(row)
        classes = {row[0] for rows in self.rows.values() for row in rows}
        self.labels = {"detection": LabelSpace.of(sorted(classes))}
        self.pictures = {path.stem: path for path in sorted((FOLDER / split).glob("*.jpg"))}
        self.ids = tuple(self.pictures)

    def files(self, image_id: str) -> tuple[Path, ...]:
        """The picture's, then those of the annotations; for messages."""
        return self.pictures[image_id], self.table

    def image(self, image_id: str) -> Image.Image:
        return Image.open(self.pictures[image_id]).convert("RGB")

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return ("detection",) if image_id in self.rows else ()

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Boxes are x1, y1, x2, y2 in pixels, continuous edges from 0."""
        width, height = self.image(image_id).size
        rows = self.rows.get(image_id, [])
        boxes = Boxes(
            boxes_xyxy=torch.tensor([[float(edge) for edge in row[1:]] for row in rows]).reshape(-1, 4),
            classes=torch.tensor([self.labels["detection"].index(row[0]) for row in rows], dtype=torch.int64),
            difficult=torch.zeros(len(rows), dtype=torch.bool),
        )
        return GroundTruth((height, width), {"detection": boxes} if rows else {})
