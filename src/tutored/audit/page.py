"""An audit, or the agreement of two tutors, as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutored.audit import Audit
from tutored.audit.charts import charts
from tutored.audit.verdicts import BLIND, ENOUGH, ENOUGH_BLIND, MISCALIBRATED, WRONG
from tutored.config import Loss
from tutored.files import write_text
from tutored.judge import as_prediction
from tutored.page import render, uri
from tutored.softlabels import Folded
from tutored.visualise import draw_small

TASKS = {"detection": "Boxes", "segmentation": "Maps"}
WORST = 12
SIDE = 300
"""Longer side of a picture in pixels."""


class Pair(NamedTuple):
    """One image: ground truth and tutor, as JPEGs, and where they contradict each other."""

    image: str
    much: float
    text: str
    truth: str
    tutor: str


def write_page(audit: Audit, store: Path, page: Path, *, photos: bool = False, worst: int = WORST) -> None:
    """Write the page of an audit; the same audit gives the same bytes.

    Args:
        store: its name is shown.
        photos: draw on the photographs; else on a plain ground.
        worst: images of the disagreement report, of each task.
    """
    tasks = []
    for name, found in audit.sidecar.tasks.items():
        tasks.append(
            {
                "name": TASKS[name],
                "detection": name == "detection",
                "audit": found,
                "images": len(found.ids.splitlines()),
                "charts": charts(name, found.figures),
                "pairs": _pairs(audit, name, worst, photos),
            }
        )
    values = {
        "store": store.resolve().name,
        "sidecar": audit.sidecar,
        "map": audit.class_map.describe(),
        "tasks": tasks,
        "photos": photos,
        "limits": {"few": ENOUGH, "blind_few": ENOUGH_BLIND, "wrong": WRONG, "blind": BLIND, "ece": MISCALIBRATED},
    }
    write_text(page, render("tutored.audit", "page.html.j2", values))


def write_agreement(found: Mapping[str, Any], stores: Sequence[Path], data: str, page: Path) -> None:
    """Write the page of `agreement`."""
    names = [each.resolve().name for each in stores]
    values = {"found": found, "stores": names, "data": data, "floor": Loss().box_floor}
    write_text(page, render("tutored.audit", "agreement.html.j2", values))


def _pairs(audit: Audit, task: str, count: int, photos: bool) -> list[Pair]:
    pairs = []
    found = audit.sidecar.tasks[task]
    advice, rule = found.advice, found.background
    floor = advice.box_floor or Loss().box_floor
    answers = Folded(audit.folded.store, audit.class_map, background=rule, temperature=advice.temperature)
    for image_id, much, text in audit.worst(task, count):
        truth, answer = audit.dataset.ground_truth(image_id), as_prediction(answers[image_id])
        if task == "detection":
            nothing = torch.zeros(truth.size, dtype=torch.uint8)
            truth = replace(truth, mask=nothing)
            answer = replace(answer.above(floor), mask=nothing)
        else:
            none, nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
            truth = replace(truth, boxes_xyxy=none, classes=nothing, difficult=nothing.bool())
            answer = replace(answer, boxes_xyxy=none, classes=nothing, scores=torch.zeros(0))
        ground, labels = audit.dataset.image(image_id) if photos else None, audit.dataset.labels
        drawn = (uri(draw_small(ground, shown, labels, SIDE)) for shown in (truth, answer))
        pairs.append(Pair(image_id, much, text, *drawn))
    return pairs
