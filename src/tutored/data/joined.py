"""Several data sets as one; what one of them does not annotate is not background there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tutored.errors import InputError
from tutored.labels import LabelSpace, same_class
from tutored.types import Dataset, GroundTruth


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Images of several data sets.

    Attributes:
        homes: by image id the data sets that have the image; several annotate other tasks of the same picture.
    """

    name: str
    source: str
    split: str
    notes: tuple[str, ...]
    labels: Mapping[str, LabelSpace]
    ids: tuple[str, ...]
    homes: Mapping[str, tuple[Dataset, ...]]

    def files(self, image_id: str) -> tuple[Path | str, ...]:
        return tuple(file for home in self.homes[image_id] for file in home.files(image_id))

    def image(self, image_id: str) -> Image.Image:
        return self.homes[image_id][0].image(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        """What all data sets say of the image. Raises InputError also where its pictures are not of one size."""
        first, *others = (home.ground_truth(image_id) for home in self.homes[image_id])
        if any(truth.size != first.size for truth in others):
            raise _other_pictures(image_id, *self.homes[image_id][:2])
        return GroundTruth(first.size, {**first.tasks, **{k: v for each in others for k, v in each.tasks.items()}})

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return tuple(task for home in self.homes[image_id] for task in home.annotated_tasks(image_id))

    def problems(self, image_id: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(fault for home in self.homes[image_id] for fault in home.problems(image_id)))


def union(spaces: Sequence[LabelSpace]) -> tuple[str, ...]:
    """The object classes of all, in the first one's order, then what the others add; aliases are one class."""
    names = list(spaces[0].classes)
    for space in spaces[1:]:
        names += [name for name in space.classes if same_class(name, LabelSpace.of(names)) is None]
    return tuple(names)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """One data set of all; a single one stays as it is. Each task has one label space in all that have it.

    An image may be in several, with the same name and picture, where each annotates other tasks: boxes come from one
    folder and masks from another. Raises InputError: two annotate one task of an image, or have different pictures of
    its name (the first few, and later all sizes, are compared).
    """
    if len(datasets) == 1:
        return datasets[0]
    labels: dict[str, LabelSpace] = {}
    homes: dict[str, tuple[Dataset, ...]] = {}
    compared = 0
    for dataset in datasets:
        assert all(labels.setdefault(task, space) == space for task, space in dataset.labels.items()), "relabel first"
        for image_id in dataset.ids:
            for other in homes.get(image_id, ()):
                twice = sorted({*other.annotated_tasks(image_id)} & {*dataset.annotated_tasks(image_id)})
                if twice:
                    raise InputError(
                        f"{other.name} and {dataset.name} both have an image {image_id} and annotate its {twice[0]}; "
                        "rename one of them, or say which tasks each data set is for: data.tasks, data.more[].tasks"
                    )
                compared += 1
                if compared <= COMPARED and differ(other, dataset, image_id):
                    raise _other_pictures(image_id, other, dataset)
            homes[image_id] = (*homes.get(image_id, ()), dataset)
    return Joined(
        name=" + ".join(dataset.name for dataset in datasets),
        source=" + ".join(dataset.source for dataset in datasets),
        split=" + ".join(dataset.split for dataset in datasets),
        notes=tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes)),
        labels=labels,
        ids=tuple(homes),
        homes=homes,
    )


COMPARED = 3
"""Images in several data sets whose pictures `join` compares."""


def differ(one: Dataset, other: Dataset, image_id: str) -> bool:
    """Whether two data sets have pictures of other pixels under one id; False where one of them can't be read."""
    try:
        return not np.array_equal(np.asarray(one.image(image_id)), np.asarray(other.image(image_id)))
    except InputError:
        return False


def _other_pictures(image_id: str, one: Dataset, other: Dataset) -> InputError:
    return InputError(
        f"{one.name} and {other.name} have different pictures of the name {image_id}; an image is known by its name "
        "alone: rename the files of one of the two, and what lists them"
    )
