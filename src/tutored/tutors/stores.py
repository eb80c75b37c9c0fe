"""Stores that a tutor is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutored.errors import InputError
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


def parts(**stores: Store) -> dict[str, Any]:
    """Their identities name by name, so that a message about another identity names the one field that differs."""
    return {f"{part}.{name}": value for part, store in stores.items() for name, value in store.identity.items()}
