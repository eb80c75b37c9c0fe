"""Data and tutors of one run, opened and checked against each other before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tutored.config import TASKS, Config, Task
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.structures import Dataset, SoftLabels


class Supervision(NamedTuple):
    """What a run learns from.

    Attributes:
        train: images and ground truth.
        val: what it is validated on, or None.
        soft_labels: by task, the tutor's answers by image id in the label space of `train`.
        unknown: by task, the classes that the tutor knows nothing about.
        notes: what the user should know, a sentence each.
    """

    train: Dataset
    val: Dataset | None
    soft_labels: dict[str, Mapping[str, SoftLabels]]
    unknown: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]


def open_supervision(config: Config) -> Supervision:
    """Open data sets and stores.

    Raises:
        InputError: train and validation share images, a store lacks images that need it, or its classes and the
            student's have nothing in common; whatever opening a data set or a store raises.
    """
    data = config.data
    train = open_dataset(data.train, data.split, annotated=data.annotated, classes=data.classes)
    val = None
    if data.val_split is not None:
        val = open_dataset(data.val or data.train, data.val_split, classes=train.labels.classes)
        shared = sorted(set(train.ids) & set(val.ids))
        if shared:
            raise InputError(
                f"{train.name} and {val.name} share {len(shared)} images ({', '.join(shared[:3])}, ...); "
                "evaluating on training images measures nothing: choose another data.val_split"
            )
    soft_labels: dict[str, Mapping[str, SoftLabels]] = {}
    unknown: dict[str, tuple[int, ...]] = {}
    notes = []
    for name in TASKS:
        task: Task = getattr(config.supervision, name)
        if task.store is None or task.policy in ("ground_truth", "none"):
            continue
        store = Store.open(task.store)
        class_map = ClassMap.by_name(store.labels, train.labels, renamed=task.renamed)
        soft_labels[name] = Folded(store, class_map, background=config.loss.background)
        unknown[name] = tuple(train.labels.index(missing) for missing in class_map.unreached)
        notes.append(f"{name} tutor {task.store}: {class_map.describe()}")
        absent = sum(image_id not in store for image_id in train.ids)
        if absent == len(train.ids):
            raise InputError(
                f"store {task.store} answers for none of the {absent} images of {train.name}; label this split: "
                f"tutored label ... --data {data.train} --split {data.split} --out STORE"
            )
        if absent:
            notes.append(f"{name} tutor {task.store}: no answer for {absent} of {len(train.ids)} images")
    return Supervision(train, val, soft_labels, unknown, tuple(notes))
