"""Data sets seen otherwise: a part of one, in other label spaces, several as one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tutored.data.images import Annotations, Images
from tutored.data.objects import ObjectMasks
from tutored.data.training import ranks
from tutored.errors import InputError, told_of
from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.types import Dataset, GroundTruth

Names = tuple[str, ...]


class View:
    """All as the inner data set has it, except what a subclass changes."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.name, self.source, self.split = inner.name, inner.source, inner.split
        self.notes, self.labels, self.ids = inner.notes, inner.labels, inner.ids

    def files(self, image_id: str) -> tuple[Path | str, ...]:
        return self.inner.files(image_id)

    def image(self, image_id: str) -> Image.Image:
        return self.inner.image(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        return self.inner.ground_truth(image_id)

    def annotated_tasks(self, image_id: str) -> Names:
        return self.inner.annotated_tasks(image_id)

    def problems(self, image_id: str) -> Names:
        return self.inner.problems(image_id)


class Subset(View):
    """Some images of a data set, in its order."""

    def __init__(self, inner: Dataset, what: str, ids: Names) -> None:
        super().__init__(inner)
        self.name, self.split, self.ids = f"{inner.name} ({what})", f"{inner.split} ({what})", ids


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set in two: what is left, and a share of its images held out.

    The same seed holds out the same images, a larger share a superset. Raises InputError: one of the two would be
    empty.
    """
    places = ranks(dataset.ids, seed, "held out")
    out = tuple(image_id for image_id in dataset.ids if places[image_id] < share)
    left = tuple(image_id for image_id in dataset.ids if places[image_id] >= share)
    if not out or not left:
        raise InputError(
            f"{dataset.name}: {share:.0%} of {len(dataset.ids)} images can't be held out; give another share"
        )
    return Subset(dataset, "without the held-out part", left), Subset(dataset, "held out", out)


class Visible(View):
    """A data set without the ground truth of some images. `hidden` has them by task."""

    def __init__(self, inner: Dataset, hidden: Mapping[str, Collection[str]]) -> None:
        super().__init__(inner)
        self.hidden = hidden

    def annotated_tasks(self, image_id: str) -> Names:
        hidden = self._hidden(image_id)
        return tuple(name for name in self.inner.annotated_tasks(image_id) if name not in hidden)

    def ground_truth(self, image_id: str) -> GroundTruth:
        return self.inner.ground_truth(image_id).without(*self._hidden(image_id))

    def _hidden(self, image_id: str) -> Names:
        return tuple(name for name, ids in self.hidden.items() if image_id in ids)


class Seen(NamedTuple):
    """How one task's classes are seen.

    Attributes:
        to: the class in it of each class of the data set; 0 drops its boxes and makes its pixels background.
        annotated: the classes of `labels` that the data set annotates; None means every class.
    """

    labels: LabelSpace
    to: tuple[int, ...]
    annotated: tuple[int, ...] | None


class Relabelled(View):
    """A data set, some tasks of which are seen in another label space."""

    def __init__(self, inner: Dataset, seen: Mapping[str, Seen]) -> None:
        super().__init__(inner)
        self.seen = seen
        self.labels = {name: seen[name].labels if name in seen else labels for name, labels in inner.labels.items()}

    def ground_truth(self, image_id: str) -> GroundTruth:
        truth = self.inner.ground_truth(image_id)
        tasks = dict(truth.tasks)
        for name in tasks.keys() & self.seen.keys():
            tasks[name] = tasks[name].relabelled(self.seen[name].to, self.seen[name].annotated)
        return replace(truth, tasks=tasks)


def relabelled(
    dataset: Dataset, classes: Mapping[str, Names | None], annotated: Mapping[str, Names | None] | None = None
) -> Dataset:
    """The data set with each task in its label space, matched by name, and with what it does not annotate declared.

    Give a data set as its reader does, so that masks of a file of more than 254 classes can be told apart in fewer.
    Raises InputError: a name in `annotated` is not a class of the data set, or no class matches.

    Args:
        classes: by task, the object classes to see it in; None, or no entry, keeps the data set's own. One that the
            data set does not have counts as not annotated.
        annotated: by task, the data set's own classes that it annotates completely; None, or no entry, means all. What
            it may hold of its other classes is dropped.
    """
    sources: dict[str, Annotations] = {}
    seen: dict[str, Seen] = {}
    for name, own in dataset.labels.items():
        wanted, known = classes.get(name), (annotated or {}).get(name) if own.classes else None
        source = dataset.tasks[name] if isinstance(dataset, Images) else None
        if wanted in (None, own.classes) and known is None:
            continue
        if wanted is not None and type(source) is Annotations:  # nothing that would have to match
            sources[name] = replace(source, labels=_space(name, wanted))
            continue
        seen[name] = _seen(f"{dataset.name}, {name}", own, own if wanted is None else _space(name, wanted), known)
        if isinstance(source, ObjectMasks):
            sources[name] = source.seen_in(*seen.pop(name))
    if sources and isinstance(dataset, Images):
        dataset = replace(dataset, tasks={**dataset.tasks, **sources})
    return Relabelled(dataset, seen) if seen else dataset


def _space(name: str, classes: Sequence[str]) -> LabelSpace:
    with told_of(f"classes of {name}, {', '.join(classes)}"):
        return LabelSpace.of(tuple(classes))


def _seen(what: str, own: LabelSpace, target: LabelSpace, annotated: Names | None) -> Seen:
    with told_of(f"{what}: annotated"):
        known = set(range(len(own))) if annotated is None else {0, *map(own.index, annotated)}
    try:
        class_map = ClassMap.by_name(own, target)
    except InputError as error:
        raise InputError(
            f"{what}: none of its classes ({', '.join(own.classes)}) is one of {', '.join(target.classes)}; "
            "the task's `classes` name some of them, or leave the key out to learn all"
        ) from error
    to = tuple((number or 0) if index in known else 0 for index, number in enumerate(class_map.to))
    unknown = {number for index, number in enumerate(class_map.to) if index not in known}
    complete = tuple(index for index in range(1, len(target)) if index in to and index not in unknown)
    return Seen(target, to, None if len(complete) == len(target) - 1 else complete)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Images of several data sets. `homes` has by image id those that have it: several annotate other tasks of one
    picture.
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
