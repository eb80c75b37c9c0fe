"""A training that starts at the weights of a student that is trained already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.config.students import RANDOM_COST, StudentSection
from tutored.errors import InputError
from tutored.labels import LabelSpace, same_class
from tutored.students import Head, Student, make_student
from tutored.tasks import Task


def start_student(config: Config, tasks: Mapping[str, Task]) -> tuple[Student, tuple[str, ...]]:
    """A student to train, with the weights of `train.start`, if given.

    What its heads know of a class is found by the class's name, or an alias. Classes and tasks that the other student
    does not know begin at random, as everything does without one.

    Returns:
        The student, and what the user should know, a sentence each.

    Raises:
        InputError: no checkpoint there, or its student is built otherwise; see the student's class.
    """
    student = make_student(config.student, tasks)
    if config.train.start is None:
        alone = f"student.weights random: the backbone begins with nothing; {RANDOM_COST} than with ImageNet's weights"
        return student, (alone,) if config.student.weights == "random" else ()
    start = Path(config.train.start)
    given, others = load_checkpoint(start)
    _check_alike(config.student, others.student, start)
    shared = [name for name in tasks if name in given.tasks and given.tasks[name].kind == tasks[name].kind]
    own, weights = student.state_dict(), {}
    for key, value in given.state_dict().items():
        _, _, rest = key.partition("heads.")
        name, _, inside = rest.partition(".")
        if not rest:
            weights[key] = value
        elif name in shared:
            head = student.heads[name]
            assert isinstance(head, Head)
            labels, known = tasks[name].labels, given.tasks[name].labels
            weights[key] = _by_name(own[key], value, labels, known) if inside.startswith(head.by_class) else value
    student.load_state_dict(own | weights)
    notes = [f"{name}: starts from {start}, {_known(tasks[name].labels, given.tasks[name].labels)}" for name in shared]
    new = [name for name in tasks if name not in shared]
    return student, (*notes, *(f"{name}: starts at random, since {start} has no such task" for name in new))


def _known(labels: LabelSpace, known: LabelSpace) -> str:
    shared = sum(same_class(name, known) is not None for name in labels.classes)
    return f"which knows {shared} of the {len(labels.classes)} classes"


def _check_alike(here: StudentSection, there: StudentSection, start: Path) -> None:
    keys = [key for key in type(here).model_fields if key not in here.FREE]
    differing = [
        f"{key} {getattr(there, key, None)!r} instead of {getattr(here, key)!r}"
        for key in keys
        if getattr(here, key) != getattr(there, key, None)
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
