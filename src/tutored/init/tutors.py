"""Which task of a new config each tutor that a user names is for, found from what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutored.config.entries import DEFAULT_TASKS
from tutored.errors import InputError
from tutored.labels import ClassMap
from tutored.tasks import task_class
from tutored.tutors import open_tutor
from tutored.tutors.label import kinds_of
from tutored.types import Dataset

Given = tuple[str | None, str | Mapping[str, Any]]
"""The task that a tutor is for, or None: all that it answers; and what a config's `tutor` takes."""


class Answering(NamedTuple):
    """A tutor of one task.

    Attributes:
        classes: the tutor's own, where the data set has none for this task; else empty.
        told: how its classes and the data set's fit, in a sentence.
    """

    given: str | Mapping[str, Any]
    classes: tuple[str, ...]
    told: str


def answering(tutors: Sequence[Given], dataset: Dataset) -> dict[str, Answering]:
    """The tutor of each task that has one.

    Raises:
        InputError: a tutor answers nothing that a task learns, not the task that it is named for, or two answer the
            same one; a tutor has no class in common with the data set.
    """
    found: dict[str, Answering] = {}
    for wanted, given in tutors:
        tutor = open_tutor(given, dataset=dataset)
        kinds = kinds_of(tutor, dataset)
        able = [task for task in DEFAULT_TASKS if {each.kind for each in task_class(task).answers} & {*kinds}]
        if wanted not in (None, *able) or not able:
            what = f"which teaches {' and '.join(able)} alone" if able else "which teaches no task of a new config"
            raise InputError(f"--tutor {given} answers {' and '.join(kinds)}, {what}; give another tutor or task")
        for task in [wanted] if wanted else able:
            if task in found:
                raise InputError(
                    f"--tutor {found[task].given} and --tutor {given} both answer {task}; say which task each of them "
                    f"is for, as in --tutor {task}={given}"
                )
            labels = dataset.labels.get(task)
            if labels is None or not labels.classes:
                told = f"the {len(tutor.labels.classes)} classes to learn are the tutor's"
                found[task] = Answering(given, tutor.labels.classes, told)
                continue
            try:
                found[task] = Answering(given, (), ClassMap.by_name(tutor.labels, labels).describe())
            except InputError as error:
                raise InputError(f"--tutor {given}: {error}") from error
    return found
