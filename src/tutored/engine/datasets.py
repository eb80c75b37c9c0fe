"""The images of one run: what it trains on, and what it is validated on, which is never the same."""

from __future__ import annotations

from tutored.config import TASKS, Config, Data, MoreData
from tutored.data import open_dataset
from tutored.data.check import differ
from tutored.data.joined import join, union
from tutored.data.part import hold_out
from tutored.data.sources import drawn_and_hidden
from tutored.data.visible import Visible
from tutored.errors import InputError
from tutored.structures import Dataset


def open_datasets(config: Config) -> tuple[Dataset, Dataset | None]:
    """The images to train on and those to validate on, in the student's label space.

    Raises:
        InputError: they share images, or names of images; whatever opening one of the data sets raises.
    """
    whole = _open_training(config.data)
    if config.data.held_out:
        return hold_out(whole, config.data.held_out, config.supervision.seed)
    return whole, _open_validation(config.data, whole)


def open_visible(config: Config) -> Dataset:
    """The training images of a run with the ground truth that it does not hide: what its tutors may be audited on."""
    train, _ = open_datasets(config)
    return Visible(train, {name: drawn_and_hidden(train, config.supervision, name)[1] for name in TASKS})


def own_classes(data: Data) -> tuple[str, ...]:
    """The object classes that the training data has, whichever of them the student learns."""
    return union([open_dataset(part.train, part.split).labels for part in _parts(data)])


def _open_training(data: Data) -> Dataset:
    classes = own_classes(data) if data.classes is None and data.more else data.classes
    return join([open_dataset(part.train, part.split, part.annotated, classes) for part in _parts(data)])


def _parts(data: Data) -> tuple[Data | MoreData, ...]:
    return data, *data.more


def _open_validation(data: Data, train: Dataset) -> Dataset | None:
    if data.val_split is None:
        return None
    annotated = data.annotated if data.val is None else data.val_annotated
    val = open_dataset(data.val or data.train, data.val_split, annotated, train.labels.classes)
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
