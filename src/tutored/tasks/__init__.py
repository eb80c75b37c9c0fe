"""Kinds of task: what a person can annotate and a tutor can answer. One folder a kind."""

from tutored.config import TaskSection
from tutored.config.entries import TASKS, resolve
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.tasks.task import DenseTask, Figures, Task

__all__ = ["DenseTask", "Figures", "Task", "open_task", "task_class"]


def task_class(kind: str) -> type[Task]:
    """The class of a kind of task, by its name or import path. Raises InputError: there is none, or a user's own is no
    `Task` or lacks a member.
    """
    found: type[Task] = resolve(kind, TASKS, "kind of task", ("kind", "Section", "answers", "headline"))
    if not issubclass(found, Task):
        raise InputError(f"kind of task {kind!r}: derive the class from tutored.tasks.Task")
    return found


def open_task(name: str, labels: LabelSpace, section: TaskSection) -> Task:
    """A run's task in its label space."""
    return task_class(section.kind)(name, labels, section)
