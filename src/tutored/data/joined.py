"""Several data sets as one, in one label space; what one of them does not annotate is not background there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from tutored.errors import InputError
from tutored.labels import LabelSpace, same_class
from tutored.structures import Dataset, GroundTruth


@dataclass(frozen=True, slots=True)
class Joined:
    """Images of several data sets, each read by its own; all in the label space `labels`."""

    name: str
    source: str
    split: str
    notes: tuple[str, ...]
    labels: LabelSpace
    ids: tuple[str, ...]
    home: Mapping[str, Dataset]

    def image(self, image_id: str) -> Image.Image:
        """The picture from its own data set."""
        return self.home[image_id].image(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        """The ground truth from its own data set."""
        return self.home[image_id].ground_truth(image_id)

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """As its own data set has it."""
        return self.home[image_id].annotated_tasks(image_id)

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Those that its own data set finds."""
        return self.home[image_id].problems(image_id)


def union(spaces: Sequence[LabelSpace]) -> tuple[str, ...]:
    """The object classes of all, in the first one's order, then what the others add; aliases are one class."""
    names = list(spaces[0].classes)
    for space in spaces[1:]:
        names += [name for name in space.classes if same_class(name, LabelSpace.of(names)) is None]
    return tuple(names)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """One data set of all; a single one stays as it is.

    Raises:
        InputError: two of them have an image of the same id.
    """
    if len(datasets) == 1:
        return datasets[0]
    assert all(dataset.labels == datasets[0].labels for dataset in datasets), "join data sets of one label space"
    home: dict[str, Dataset] = {}
    for dataset in datasets:
        for image_id in dataset.ids:
            other = home.setdefault(image_id, dataset)
            if other is not dataset:
                raise InputError(f"{other.name} and {dataset.name} both have an image {image_id}; rename one of them")
    return Joined(
        name=" + ".join(dataset.name for dataset in datasets),
        source=" + ".join(dataset.source for dataset in datasets),
        split=" + ".join(dataset.split for dataset in datasets),
        notes=tuple(note for dataset in datasets for note in dataset.notes),
        labels=datasets[0].labels,
        ids=tuple(home),
        home=home,
    )
