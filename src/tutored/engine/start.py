"""A training that starts at the weights of a student that is trained already."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.config import Config, Student
from tutored.errors import InputError
from tutored.labels import LabelSpace, same_class
from tutored.student import BlitzNet

FREE = {"preset", "weights", "size", "scales", "frozen"}
"""The keys of `student` in which the two may differ: none changes what a weight is for."""


def make_student(config: Config, labels: LabelSpace) -> tuple[BlitzNet, tuple[str, ...]]:
    """A student to train, with the weights of `train.start`, if given.

    What its heads say of a class goes by the class's name, or an alias. Classes that the other student does not know
    begin at random, as everything does without one.

    Returns:
        The student, and what the user should know, a sentence each.

    Raises:
        InputError: no checkpoint there, or its student is built otherwise; see `BlitzNet`.
    """
    student = BlitzNet(config.student, labels)
    if config.train.start is None:
        return student, ()
    start = Path(config.train.start)
    given, others, known = load_checkpoint(start)
    _check_alike(config.student, others.student, start)
    own, weights = student.state_dict(), given.state_dict()
    for key in weights:
        if key.startswith(("boxes.logits.", "map.logits.")):
            weights[key] = _by_name(own[key], weights[key], labels, known)
    student.load_state_dict(weights)
    shared = sum(same_class(name, known) is not None for name in labels.classes)
    return student, (f"starts from {start}, which knows {shared} of the {len(labels.classes)} classes",)


def _check_alike(here: Student, there: Student, start: Path) -> None:
    differing = [
        f"{key} {getattr(there, key)!r} instead of {getattr(here, key)!r}"
        for key in Student.model_fields
        if key not in FREE and getattr(here, key) != getattr(there, key)
    ]
    if differing:
        raise InputError(
            f"train.start {start}: a student built otherwise, with {', '.join(differing)}; set student.* alike, "
            "or give another checkpoint"
        )


def _by_name(own: Tensor, other: Tensor, labels: LabelSpace, others: LabelSpace) -> Tensor:
    """Rows of a layer of class logits, whose first axis is [anchors of a cell x classes], or classes alone."""
    rows = own.reshape(-1, len(labels), *own.shape[1:]).clone()
    known = {number: same_class(name, others) for number, name in enumerate(labels.names)}
    mine, theirs = zip(*((number, place) for number, place in known.items() if place is not None), strict=True)
    rows[:, mine] = other.reshape(-1, len(others), *other.shape[1:])[:, theirs]
    return rows.reshape(own.shape)
