"""The images of one run: what it trains on, and what it is validated on, which is never the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tutored.config import Config, Data, MoreData, TaskSection
from tutored.config.training import Annotates
from tutored.data import TaskSource, open_dataset
from tutored.data.check import first_look
from tutored.data.images import Images
from tutored.data.packed import Packed
from tutored.data.training import drawn_and_hidden
from tutored.data.views import Visible, differ, hold_out, join, relabelled, union
from tutored.errors import InputError, told_of
from tutored.labels import LabelSpace
from tutored.pictures import SUFFIXES
from tutored.tasks import Task, open_task
from tutored.types import Dataset

Classes = Mapping[str, tuple[str, ...]]


def open_datasets(config: Config) -> tuple[Dataset, Dataset | None]:
    """The images to train on and those to validate on, each task in the student's label space for it. Raises
    InputError: they share images, or names of images; whatever opening one of the data sets raises.
    """
    parts = open_parts(config)
    classes = _classes(parts, config)
    seen = [
        relabelled(_looked_at(part), classes, by_task(given.annotated, config))
        for part, given in zip(parts, parts_of(config), strict=True)
    ]
    whole = join(seen)
    if config.data.held_out:
        return hold_out(whole, config.data.held_out, config.data.seed)
    return whole, _open_validation(config, whole, classes)


def open_visible(config: Config) -> Dataset:
    """The training images of a run with the ground truth that it does not hide: what its tutors may be audited on."""
    train, _ = open_datasets(config)
    seed = config.data.seed
    return Visible(train, {name: drawn_and_hidden(train, name, task, seed)[1] for name, task in config.tasks.items()})


def open_tasks(config: Config, dataset: Dataset) -> dict[str, Task]:
    """The run's tasks, each in the label space that the data set has for it."""
    tasks = {}
    for name, task in config.tasks.items():
        own = LabelSpace.of(getattr(task, "classes", None) or ())  # where no data set annotates it
        tasks[name] = open_task(name, dataset.labels.get(name, own), task)
    return tasks


def cached(dataset: Dataset, config: Config, processes: int = 1) -> Dataset:
    """The training images behind `data.cache`, if there is one.

    Beside an image's own files, the config's keys, the parts' classes and what lies beside the images decide how an
    annotation is read. Raises InputError as `Packed` does, and for data sets of a user's own code.
    """
    if config.data.cache is None:
        return dataset
    if any(part.train.startswith("python:") for part in parts_of(config)):
        raise InputError("data.cache: what a python: data set says may change with its code; leave the key out")
    data = config.data.model_dump(mode="json", include={"train", "split", "annotated", "tasks", "empty", "more"})
    keys = {"kind", "folder", "labels", "classes"}
    tasks = {name: task.model_dump(mode="json", include=keys) for name, task in config.tasks.items()}
    parts = open_parts(config)
    classes = [[(name, labels.names) for name, labels in part.labels.items()] for part in parts]
    beside = [file for part in parts for file in sorted(part.folder.glob("*.*")) if file.suffix.lower() not in SUFFIXES]
    files = [(str(file), file.stat().st_mtime_ns) for file in beside if file.is_file()]
    about = json.dumps([data, tasks, classes, files])
    return Packed(dataset, config.data.cache.expanduser(), config.data.cache_gb, about, processes=processes)


def own_classes(parts: Sequence[Dataset]) -> dict[str, tuple[str, ...]]:
    """By task, the object classes that data sets have, whichever of them the student learns."""
    spaces: dict[str, list[LabelSpace]] = {}
    for part in parts:
        for name, labels in part.labels.items():
            spaces.setdefault(name, []).append(labels)
    return {name: union(each) for name, each in spaces.items()}


def open_parts(config: Config) -> list[Images]:
    """The training data sets as they are, each task in the data set's own label space."""
    return [_open_part(part, config) for part in parts_of(config)]


def parts_of(config: Config) -> tuple[Data | MoreData, ...]:
    """The config's sections of the training data sets."""
    return config.data, *config.data.more


def by_task(annotated: Annotates, config: Config) -> dict[str, tuple[str, ...] | None]:
    """The classes that a data set annotates, for each task."""
    if isinstance(annotated, dict):
        return {name: annotated.get(name) for name in config.tasks}
    return dict.fromkeys(config.tasks, annotated)


def _open_part(part: Data | MoreData, config: Config) -> Images:
    tasks = {name: task for name, task in config.tasks.items() if part.tasks is None or name in part.tasks}
    sources = {name: _source(task) for name, task in tasks.items()}
    return open_dataset(part.train, part.split, sources, part.empty)


def _looked_at(dataset: Images) -> Images:
    """The same with what a first look at its annotations finds among its notes."""
    return replace(dataset, remarks=(*dataset.remarks, *(f"{dataset.name}: {note}" for note in first_look(dataset))))


def _source(task: TaskSection) -> TaskSource:
    return TaskSource(task.kind, task.folder, getattr(task, "labels", None), required=not task.tutored)


def open_all(config: Config) -> list[Images]:
    """The data sets to train on and to validate on, as they are. Raises whatever opening one of them raises."""
    parts = open_parts(config)
    val = None if config.data.held_out else _validation_part(config, _classes(parts, config))
    return parts if val is None else [*parts, val]


def _classes(parts: Sequence[Dataset], config: Config) -> Classes:
    """By task, those that the student learns."""
    own = own_classes(parts)
    return {name: getattr(task, "classes", None) or own.get(name, ()) for name, task in config.tasks.items()}


def _validation_part(config: Config, classes: Classes) -> Images | None:
    data = config.data
    if data.val_split is None:
        return None
    names = data.tasks if data.val is None and data.tasks is not None else tuple(config.tasks)
    tasks = {name: config.tasks[name] for name in names}
    # A task whose label space no training data states has none to validate in.
    sources = {name: _source(task) for name, task in tasks.items() if classes[name] or not hasattr(task, "classes")}
    instead = "data.held_out (such as 0.2) validates on a share of the training images instead, and null on none"
    with told_of("data.val_split", instead):
        return open_dataset(data.val or data.train, data.val_split, sources, data.empty)


def _open_validation(config: Config, train: Dataset, classes: Classes) -> Dataset | None:
    opened = _validation_part(config, classes)
    if opened is None:
        return None
    given = config.data.annotated if config.data.val is None else config.data.val_annotated
    val = relabelled(_looked_at(opened), classes, by_task(given, config))
    shared = sorted(set(train.ids) & set(val.ids))
    unlike = [image_id for image_id in shared[:3] if differ(train, val, image_id)]
    if unlike:
        raise InputError(
            f"{train.name} and {val.name} have {len(shared)} names in common, of different pictures "
            f"({', '.join(unlike)}, ...); an image is known by its name alone: rename the files of one of the two, "
            "and what lists them"
        )
    if shared:
        raise InputError(
            f"{train.name} and {val.name} share {len(shared)} images ({', '.join(shared[:3])}, ...); "
            "evaluating on training images measures nothing: choose another data.val_split"
        )
    return val
