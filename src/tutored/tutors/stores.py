"""Stores that a tutor is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutored.errors import InputError
from tutored.labels import same_class
from tutored.softlabels import Folded, Store
from tutored.structures import SoftLabels


def open_store(path: Path | str, task: str) -> Store:
    """A store that answers a task. Raises InputError where it does not, or where there is none."""
    store = Store.open(path)
    if task not in store.tasks:
        raise InputError(f"store {path} answers {' and '.join(store.tasks) or 'nothing'}, not {task}; give another one")
    return store


def find_answer(path: Path, answers: Folded, image_id: str, size: tuple[int, int]) -> SoftLabels:
    """What the store at `path`, folded, has for an image of `size` (height, width).

    Raises:
        InputError: it has no answer, or its tutor saw an image of another size.
    """
    answer = answers.get(image_id)
    if answer is None:
        raise InputError(f"store {path} has no answer for {image_id}; label this split with its tutor first")
    if answer.size != size:
        raise InputError(
            f"store {path}: its tutor saw {image_id} with {answer.size[1]} x {answer.size[0]} pixels, here it has "
            f"{size[1]} x {size[0]}; label these very images with it first"
        )
    return answer


def open_pair(boxes: Path | str, maps: Path | str) -> tuple[Store, Store]:
    """A store of boxes and one of maps that know a class in common.

    Raises:
        InputError: no such store, it does not answer the task, or the two have no class in common.
    """
    detector, mapper = open_store(boxes, "detection"), open_store(maps, "segmentation")
    if all(same_class(name, detector.labels) is None for name in mapper.labels.classes):
        raise InputError(
            f"{boxes} and {maps} have no class in common: {', '.join(detector.labels.classes[:5])}, ... and "
            f"{', '.join(mapper.labels.classes[:5])}, ...; give stores of the same classes"
        )
    return detector, mapper


def identity_of(stores: Mapping[str, Store], **facts: Any) -> dict[str, Any]:
    """The identity of a tutor that is made of stores: its own facts, and theirs under `part.name`.

    Name by name, so that a message about another identity names the one field that differs. What `facts` leave out of
    the names that every tutor has does not apply.
    """
    of_networks = ("weights", "weights_sha256", "preprocessing", "score_floor", "nms_iou", "map_stride")
    theirs = {f"{part}.{name}": value for part, store in stores.items() for name, value in store.identity.items()}
    return dict.fromkeys(of_networks) | facts | theirs
