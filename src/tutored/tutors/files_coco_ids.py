"""What the numbers in COCO results mean: of images, and of categories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tutored.data.coco import Coco
from tutored.errors import InputError
from tutored.labels import COCO, LabelSpace, same_class
from tutored.structures import Dataset

COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""COCO's category numbers of its 80 classes, in the order of `labels.COCO`."""


class CocoIds(NamedTuple):
    """What the ids of a COCO data set's own file mean.

    Attributes:
        images: our image id by the file's.
        categories: class by the file's id, in the order of the label space.
    """

    images: Mapping[Any, str]
    categories: Mapping[Any, str]

    @classmethod
    def of(cls, dataset: Dataset) -> CocoIds | None:
        """None where it is no COCO data set."""
        if not isinstance(dataset, Coco):
            return None
        return cls({number: image_id for image_id, number in dataset.numbers.items()}, dataset.categories)


def key(image_id: Any) -> str:
    """One spelling for 139, "139" and "000000000139"."""
    text = str(image_id)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def own_images(path: Path, image_ids: set[Any], own: Mapping[Any, str]) -> dict[Any, str]:
    """Our image id of each that is the data set's own: all numbers are, or none, and so with texts."""
    found: dict[Any, str] = {}
    for kind in (int, str):
        used = {image_id for image_id in image_ids if isinstance(image_id, kind)}
        unknown = used - own.keys()
        if not unknown:
            found |= {image_id: own[image_id] for image_id in used}
        elif kind is int and not {key(number) for number in used} <= {key(image_id) for image_id in own.values()}:
            raise InputError(
                f"{path}: image_id {min(unknown)} is none of the data set's own ({_some(own)}); leave out the entries "
                "of other images, or write file names without suffix, as text"
            )
    return found


def numbering(
    path: Path,
    numbers: set[Any],
    given: LabelSpace | None,
    default: LabelSpace | None,
    categories: Mapping[Any, str] | None,
    own: Mapping[Any, str],
) -> tuple[LabelSpace, dict[Any, int]]:
    """The label space, and the class of each category number; `own` are a COCO data set's by id."""
    if categories:
        ids = list(categories)
        try:
            space = LabelSpace.of(list(categories.values()))
        except InputError as error:
            raise InputError(f"{path}: categories: {error}") from error
        if given is not None and given != space:
            raise InputError(f"{path}: its 'categories' are not the given labels; leave the labels out")
        unknown = numbers - categories.keys()
        if unknown:
            raise InputError(f"{path}: category {min(map(str, unknown))} is not among its 'categories'")
    else:
        theirs = [LabelSpace.of(list(own.values()))] if own else [COCO] if default in (None, COCO) else [default, COCO]
        possible = {space: _ids(space, own) for space in ([given] if given else theirs) if space}
        fitting = {space: ids for space, ids in possible.items() if numbers <= {*ids}}
        doubt = _doubt(numbers, possible, fitting, own)
        if doubt:
            raise InputError(
                f"{path}: {doubt}; "
                "say which classes the numbers mean: labels=coco, labels=voc, or labels=FILE with one class a line"
            )
        space, ids = next(iter(fitting.items()))
    return space, {number: index for index, number in enumerate(ids, start=1)}


def _doubt(
    numbers: set[Any],
    possible: Mapping[LabelSpace, list[Any]],
    fitting: Mapping[LabelSpace, list[Any]],
    own: Mapping[Any, str],
) -> str:
    """One category that means nothing, or two classes; empty where every one means the same class in all that fit."""
    if not fitting:
        strange = min(numbers - {number for ids in possible.values() for number in ids}, default=min(numbers))
        if own and list(own) in possible.values():
            return f"category {strange} is none of the data set's own ({_some(own)})"
        return f"category {strange} and others are neither COCO's numbers nor positions in the labels"
    for number in sorted(numbers):
        first, *others = (space.names[ids.index(number) + 1] for space, ids in fitting.items())
        for name in others:
            if same_class(first, LabelSpace.of([name])) is None:
                return (
                    f"category {number} may be {first}, by position in the data set's classes, or {name}, "
                    "by COCO's numbering"
                )
    return ""


def _ids(space: LabelSpace, own: Mapping[Any, str]) -> list[Any]:
    """The category number of each class: the data set's own, COCO's, or its position."""
    if space.classes == tuple(own.values()):
        return list(own)
    return COCO_IDS if space == COCO else list(range(1, len(space)))


def _some(ids: Mapping[Any, str]) -> str:
    return ", ".join([f"{number}: {name}" for number, name in ids.items()][:5] + ["..."] * (len(ids) > 5))
