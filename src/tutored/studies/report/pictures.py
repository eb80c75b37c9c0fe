"""The same images under each student, from the answers that runs keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tutored.data import open_dataset
from tutored.labels import LabelSpace
from tutored.structures import Prediction
from tutored.studies.outcome import RowOutcome
from tutored.studies.setting import Setting
from tutored.visualise import draw, grid

GROUND = (238, 238, 238)
"""What is drawn on where the photographs are left out."""
WIDTH = 1500


def pictures(rows: Sequence[RowOutcome], setting: Setting, *, photos: bool) -> Image.Image | None:
    """A row of images for each row of the study, from its first finished seed; None where there are no answers.

    Args:
        photos: draw on the photographs, the ground truth first; else on a plain ground, and no data set is opened.
    """
    told = [(row, run) for row in rows if (run := _first(row)) is not None]
    if not told:
        return None
    boxes = {row.row.label: json.loads((run / "answers" / "boxes.json").read_text()) for row, run in told}
    ids = sorted(set.intersection(*(set(found) for found in boxes.values())))
    if not ids:
        return None
    labels = LabelSpace.of(_classes(told[0][0]))
    dataset = open_dataset(setting.data, setting.evaluation) if photos else None
    titles, drawn = [], []
    if dataset is not None:
        titles.append("ground truth")
        drawn.append(
            [draw(dataset.image(image_id), dataset.ground_truth(image_id), dataset.labels) for image_id in ids]
        )
    for row, run in told:
        answers = [_answer(run, image_id, boxes[row.row.label][image_id]) for image_id in ids]
        grounds = [
            dataset.image(image_id) if dataset is not None else Image.new("RGB", answer.size[::-1], GROUND)
            for image_id, answer in zip(ids, answers, strict=True)
        ]
        titles.append(row.row.label)
        drawn.append([draw(ground, answer, labels) for ground, answer in zip(grounds, answers, strict=True)])
    whole = grid(drawn, row_titles=titles)
    return whole.resize((WIDTH, round(whole.height * WIDTH / whole.width))) if whole.width > WIDTH else whole


def _first(row: RowOutcome) -> Path | None:
    return next((run.folder for run in row.runs if (run.folder / "answers" / "boxes.json").exists()), None)


def _classes(row: RowOutcome) -> list[str]:
    figures = next(run.result["figures"] for run in row.runs if run.result is not None)
    return list(figures["objects"])


def _answer(run: Path, image_id: str, boxes: dict[str, Any]) -> Prediction:
    path = run / "answers" / f"{image_id.replace('/', '-')}.png"
    mask = torch.from_numpy(np.array(Image.open(path))) if path.exists() else None
    return Prediction(
        size=tuple(boxes["size"]),
        boxes_xyxy=torch.tensor(boxes["boxes_xyxy"], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor(boxes["classes"], dtype=torch.int64),
        scores=torch.tensor(boxes["scores"], dtype=torch.float32),
        mask=mask,
    )
