"""Who teaches each image and task: decided once, from a seed, and nested over shares."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from tutored.config import TaskSection
from tutored.types import Dataset

Weights = tuple[float, float]
"""Weight of the ground truth and of the tutor for one image and task; (0, 0): nobody teaches."""


def ranks(image_ids: Sequence[str], seed: int, task: str) -> dict[str, float]:
    """Each image's place, 0 to 1, in one shuffled order of the split, and in that order.

    "The first 20 %" of it is a part of "the first 50 %", whatever the two are used for, and it does not depend on the
    order in which the ids are given.
    """

    def key(image_id: str) -> bytes:
        return hashlib.sha256(f"{seed}/{task}/{image_id}".encode()).digest()

    ordered = sorted(image_ids, key=key)
    return {image_id: place / len(ordered) for place, image_id in enumerate(ordered)}


def drawn_and_hidden(
    dataset: Dataset, task: str, section: TaskSection, seed: int
) -> tuple[frozenset[str], frozenset[str]]:
    """The images whose ground truth for a task a run sees, and those whose it hides (`TaskSection.hidden`)."""
    annotated = [image_id for image_id in dataset.ids if task in dataset.annotated_tasks(image_id)]
    places = ranks(annotated, seed, section.hidden_like or task)
    hidden = frozenset(image_id for image_id, place in places.items() if place < section.hidden)
    return frozenset(annotated) - hidden, hidden


def source_weights(
    task: TaskSection,
    rank: float,
    *,
    drawn: bool,
    answered: bool,
    rng: random.Random | None = None,
    joint: bool = True,
) -> Weights:
    """Who teaches one image's task.

    Args:
        rank: the image's place in `ranks`, for `replace`.
        drawn: there is ground truth for it, and it is not hidden.
        answered: the tutor has an answer for it.
        rng: for `resampled`, which draws at every visit.
        joint: as `Loss.joint`; without it `TaskSection.weights` mix the sources' means, and every image counts
            one in each.
    """
    if task.policy == "none":
        return (0.0, 0.0)
    if task.policy == "ground_truth":
        return (float(drawn), 0.0)
    if task.policy == "fill":
        return (1.0, 0.0) if drawn else (0.0, float(answered))
    if task.policy == "replace":
        place = rng.random() if task.resampled and rng else rank
        return (0.0, float(answered)) if place < task.share else (float(drawn), 0.0)
    if drawn and answered and joint:
        return task.weights
    return (float(drawn), float(answered))
