"""What a run's page says beside its curves, as plain values."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from tutored.evaluate.result import AP_AREA, AP_COCO, AP_COCO_50, AP_POINTS, IOU
from tutored.runpage.kept import SOURCES, TRUTH, TUTOR, picture_path, validation_name
from tutored.runpage.read import Run
from tutored.structures import BACKGROUND

METRICS = {
    AP_AREA: "AP (VOC area)",
    AP_POINTS: "AP (11-point)",
    AP_COCO_50: "COCO AP50",
    AP_COCO: "COCO AP",
    IOU: "IoU",
}
TRENDS = {AP_AREA: "AP over epochs", IOU: "IoU over epochs"}
"""Metrics whose course over the validations is drawn class by class."""
MOST_CLASSES = 24
"""The confusion matrix of more has those with the most pixels, and the others as one."""
TEACHES = {"gt": "ground truth", "tutor": "tutor", "both": "both", "none": "nobody"}


def head(run: Run) -> dict[str, Any]:
    """Where the run stands and what it reached."""
    epochs = run.config.train.epochs
    last = list(run.validations.values())[-1]["val"] if run.validations else {}
    done = run.done / run.epoch_steps if run.epoch_steps else None
    return {
        "name": run.path.resolve().name,
        "finished": run.finished,
        "epochs": epochs,
        "done": None if done is None else math.floor(done),
        "validated": list(run.validations)[-1] if run.validations else None,
        "left": None if run.finished else _left(run),
        "figures": [
            {"name": name, "value": last[key]}
            for key, name in (
                (f"m{AP_AREA}", "mAP (VOC area, IoU .5)"),
                (f"m{AP_COCO}", "mAP (COCO)"),
                (f"m{IOU}", "mIoU"),
            )
            if last.get(key) is not None
        ],
        "averaged": last.get("classes"),
        "speed": run.steps[-1]["images_per_second"] if run.steps else None,
        "seconds": _time(run.facts["seconds"]) if run.finished and "seconds" in run.facts else None,
    }


def _left(run: Run) -> str | None:
    speed = run.steps[-1]["images_per_second"] if run.steps else 0
    if not speed or run.epoch_steps is None:
        return None
    steps = run.epoch_steps * run.config.train.epochs - run.done
    return _time(steps * run.step_images / speed)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def classes(run: Run) -> dict[str, Any] | None:
    """The last validation class by class: means first, then the classes, each with its course over the epochs."""
    if not run.validations:
        return None
    history = [entry["val"] for entry in run.validations.values()]
    last = history[-1]
    metrics = {metric: text for metric, text in METRICS.items() if metric in last}
    names = list(dict.fromkeys(name for metric in metrics for name in last[metric]))
    rows = [
        {
            "name": name,
            "objects": last["objects"].get(name) if AP_AREA in metrics else None,
            "averaged": name in last["classes"] or name == "background",
            "figures": [last[metric].get(name) for metric in metrics],
            "trends": [_trend([each.get(metric, {}).get(name) for each in history]) for metric in _trends(metrics)],
        }
        for name in names
        if any(last[metric].get(name) is not None for metric in metrics)
    ]
    # Background comes last of the metrics' names, where boxes come first.
    rows.sort(key=lambda row: row["name"] != "background")
    return {
        "metrics": list(metrics.values()),
        "objects": AP_AREA in metrics,
        "means": [last.get(f"m{metric}") for metric in metrics],
        "rows": rows,
        "trends": [TRENDS[metric] for metric in _trends(metrics)] if len(history) > 1 else [],
        "silent": [name for name in names if all(last[metric].get(name) is None for metric in metrics)],
    }


def _trends(metrics: Mapping[str, str]) -> list[str]:
    return [metric for metric in TRENDS if metric in metrics]


def _trend(values: Sequence[float | None]) -> str:
    """Points of a line, 100 wide and 30 high."""
    step = 100 / max(len(values) - 1, 1)
    return " ".join(
        f"{place * step:.0f},{30 - 30 * value:.1f}" for place, value in enumerate(values) if value is not None
    )


def curves(run: Run) -> list[dict[str, Any]]:
    """Precision over recall of each class at the last validation, as points in a square of 100."""
    found = run.details.get("precisions") or {}
    figures = list(run.validations.values())[-1]["val"].get(AP_AREA, {}) if found else {}
    drawn = []
    for name, values in found.items():
        reached = [f"{place},{100 - 100 * value:.1f}" for place, value in enumerate(values) if value > 0]
        points = " ".join([*reached, f"{len(reached) - 1},100"]) if reached else ""
        drawn.append({"name": name, "points": points, "ap": figures.get(name)})
    return drawn


def confusion(run: Run) -> dict[str, Any] | None:
    """The last validation's pixels: of each true class, the shares that were called each class."""
    matrix = run.details.get("confusion")
    if matrix is None:
        return None
    names = [*run.details["classes"], "not annotated"]
    true, said = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
    occurring = [index for index in range(len(matrix)) if true[index] or said[index]]
    most = sorted(occurring, key=lambda index: (index == BACKGROUND, true[index] + said[index]), reverse=True)
    shown = sorted(most[:MOST_CLASSES])
    rest = [index for index in occurring if index not in shown]
    columns = [[index] for index in shown] + ([rest] if rest else []) + ([[len(matrix)]] if said[-1] else [])
    heads = [names[group[0]] if group != rest else "other classes" for group in columns]
    rows = [
        {
            "name": names[index],
            "pixels": true[index],
            "shares": [sum(matrix[index][each] for each in group) / true[index] for group in columns],
        }
        for index in shown
        if true[index]
    ]
    return {"columns": heads, "rows": rows, "others": len(rest)}


def coverage(run: Run) -> dict[str, Any] | None:
    """Images by source, for each data set and task."""
    found = run.facts.get("coverage")
    if not found:
        return None
    rows = [
        {
            "data": data,
            "task": task,
            "images": sum(counts.values()),
            "counts": [counts.get(source, 0) for source in SOURCES],
        }
        for data, tasks in found.items()
        for task, counts in tasks.items()
    ]
    return {"sources": [TEACHES[source] for source in SOURCES], "rows": rows, "several": len(found) > 1}


def pictures(run: Run) -> list[dict[str, Any]]:
    """Tables of pictures: images as rows; ground truth, tutor and the student at several epochs as columns."""
    epochs = [epoch for epoch in run.validations if picture_path(run.path, 0, validation_name(epoch)).exists()]
    chosen = sorted({epochs[0], epochs[(len(epochs) - 1) // 2], epochs[-1]}) if epochs else []
    tables = []
    for split in dict.fromkeys(each["split"] for each in run.facts.get("shown", [])):
        rows = [
            (each["image"], {what: _uri(run, index, what) for what in _columns(chosen)})
            for index, each in enumerate(run.facts["shown"])
            if each["split"] == split
        ]
        there = [what for what in _columns(chosen) if any(found[what] for _, found in rows)]
        if there:
            tables.append(
                {
                    "split": split,
                    "columns": [_columns(chosen)[what] for what in there],
                    "rows": [{"image": image, "cells": [found[what] for what in there]} for image, found in rows],
                }
            )
    return tables


def _columns(epochs: Sequence[int]) -> dict[str, str]:
    students = {validation_name(epoch): f"student, epoch {epoch}" for epoch in epochs}
    return {TRUTH: "ground truth", TUTOR: "tutor", **students}


def _uri(run: Run, index: int, what: str) -> str | None:
    path = picture_path(run.path, index, what)
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode() if path.exists() else None


def stores(run: Run) -> list[dict[str, str]]:
    """The tutors' stores: who answered, for what."""
    return [
        {
            "task": task,
            "tutor": str(identity.get("tutor") or identity.get("kind", "")),
            "weights": str(identity.get("weights_sha256") or ""),
            "data": f"{identity.get('data', '')} {identity.get('split', '')}".strip(),
            "images": str(identity.get("images", "")),
        }
        for task, identities in run.facts.get("stores", {}).items()
        for identity in identities
    ]
