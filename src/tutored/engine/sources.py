"""Who teaches each training image, and how many images each source teaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tutored.config import TASKS
from tutored.data.joined import Joined
from tutored.data.part import Part
from tutored.data.sources import source_weights
from tutored.data.training import TrainingSet
from tutored.structures import Dataset

Row = tuple[str, str, str, str]
"""Image id, data set, and the source of detection and of segmentation: `gt`, `tutor`, `both` or `none`."""


def list_sources(training: TrainingSet) -> list[Row]:
    """A row for each image, in the data set's order.

    `both` is also a tutor that completes what an image is not annotated for, and a share that is drawn anew at every
    visit (`resampled`).
    """
    partly: dict[str, bool] = {}
    rows = []
    for image_id in training.dataset.ids:
        home = _home(training.dataset, image_id)
        detection, segmentation = (_source(training, home, task, image_id, partly) for task in TASKS)
        rows.append((image_id, f"{home.source}, {home.split}", detection, segmentation))
    return rows


def count_sources(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, int]]]:
    """Images by data set, task and source."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for _, data, *found in rows:
        tasks = counts.setdefault(data, {task: Counter() for task in TASKS})
        for task, source in zip(TASKS, found, strict=True):
            tasks[task][source] += 1
    return {data: {task: dict(each) for task, each in tasks.items()} for data, tasks in counts.items()}


def _source(training: TrainingSet, home: Dataset, name: str, image_id: str, partly: dict[str, bool]) -> str:
    task = training.tasks[name]
    drawn, answered = image_id in training.drawn[name], image_id in training.soft_labels.get(name, ())
    truth, tutor = source_weights(task, training.ranks[name][image_id], drawn=drawn, answered=answered)
    if drawn and answered:
        if task.policy == "replace" and task.resampled and 0 < task.share < 1:
            return "both"
        if task.policy == "fill":
            if home.name not in partly:
                partly[home.name] = home.ground_truth(image_id).annotated is not None
            return "both" if partly[home.name] else "gt"
    return {(True, True): "both", (True, False): "gt", (False, True): "tutor"}.get((truth > 0, tutor > 0), "none")


def _home(dataset: Dataset, image_id: str) -> Dataset:
    """The data set that an image is of, where several are joined."""
    if isinstance(dataset, Part):
        return _home(dataset.inner, image_id)
    return dataset.home[image_id] if isinstance(dataset, Joined) else dataset
