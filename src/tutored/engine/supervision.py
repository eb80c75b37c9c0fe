"""Data and tutors of one run, opened and checked against each other before anything is trained."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.config import TASKS, Config, Data, MoreData, Task
from tutored.data import open_dataset
from tutored.data.joined import join, union
from tutored.data.part import hold_out
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
        stores: by task, the identities of the stores behind them.
        notes: what the user should know, a sentence each.
    """

    train: Dataset
    val: Dataset | None
    soft_labels: dict[str, Mapping[str, SoftLabels]]
    stores: dict[str, list[dict[str, Any]]]
    notes: tuple[str, ...]


def open_supervision(config: Config) -> Supervision:
    """Open data sets and stores.

    Raises:
        InputError: train and validation share images, a store answers for no image, two stores for the same one, or
            a tutor's classes and the student's have nothing in common; whatever opening one of them raises.
    """
    train, val = _open_images(config)
    soft_labels: dict[str, Mapping[str, SoftLabels]] = {}
    stores: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for name in TASKS:
        task: Task = getattr(config.supervision, name)
        answers: ChainMap[str, SoftLabels] = ChainMap()
        stores[name] = []
        for path in task.stores:
            store = Store.open(path)
            if name not in store.tasks:
                raise InputError(
                    f"store {path} answers {' and '.join(store.tasks) or 'nothing'}, not {name}; give another store"
                )
            class_map = ClassMap.by_name(store.labels, train.labels, renamed=task.renamed, elsewhere=task.elsewhere)
            folded = Folded(store, class_map, background=config.loss.background)
            twice = next((image_id for image_id in store if image_id in answers), None)
            if twice is not None:
                raise InputError(f"store {path}: another store of {name} answers for {twice} too; give one of them")
            answers.maps.append(folded)  # type: ignore[arg-type]  # read only
            stores[name].append(dict(store.identity))
            notes.append(f"{name} tutor {path}: {class_map.describe()}")
        if task.stores:
            notes += _coverage(name, task.stores, answers, train)
            soft_labels[name] = answers
    return Supervision(train, val, soft_labels, stores, tuple(notes))


def _open_images(config: Config) -> tuple[Dataset, Dataset | None]:
    whole = _open_training(config.data)
    if config.data.held_out:
        return hold_out(whole, config.data.held_out, config.supervision.seed)
    return whole, _open_validation(config.data, whole)


def _open_training(data: Data) -> Dataset:
    parts: tuple[Data | MoreData, ...] = (data, *data.more)
    classes = data.classes
    if classes is None and data.more:
        classes = union([open_dataset(part.train, part.split).labels for part in parts])
    return join([open_dataset(part.train, part.split, part.annotated, classes) for part in parts])


def _open_validation(data: Data, train: Dataset) -> Dataset | None:
    if data.val_split is None:
        return None
    annotated = data.annotated if data.val is None else data.val_annotated
    val = open_dataset(data.val or data.train, data.val_split, annotated, train.labels.classes)
    shared = sorted(set(train.ids) & set(val.ids))
    if shared:
        raise InputError(
            f"{train.name} and {val.name} share {len(shared)} images ({', '.join(shared[:3])}, ...); "
            "evaluating on training images measures nothing: choose another data.val_split"
        )
    return val


def _coverage(name: str, paths: Sequence[Path], answers: Container[str], train: Dataset) -> list[str]:
    stores = ", ".join(map(str, paths))
    absent = sum(image_id not in answers for image_id in train.ids)
    if absent == len(train.ids):
        raise InputError(
            f"{name} tutor {stores} answers for none of the {absent} images of {train.name}; label this split: "
            "tutored label ... --data FORMAT:FOLDER --split SPLIT --out STORE"
        )
    return [f"{name} tutor {stores}: no answer for {absent} of {len(train.ids)} images"] if absent else []
