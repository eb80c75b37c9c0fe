"""The kinds of task and the students that the package brings, and how a config names a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tutored.errors import InputError

TASKS: Mapping[str, str] = {
    "detection": "tutored.tasks.detection:Detection",
    "segmentation": "tutored.tasks.segmentation:Segmentation",
    "regression": "tutored.tasks.regression:Regression",
}
"""Kinds of task."""
STUDENTS: Mapping[str, str] = {
    "compact": "tutored.students.compact:Compact",
    "blitznet": "tutored.students.blitznet:BlitzNet",
}
"""Students."""
USUAL_STUDENT: Mapping[str, str] = {"thesis": "blitznet", "corrected": "compact"}
"""The student of a config that names none, by recipe."""
DEFAULT_TASKS = ("detection", "segmentation")
"""The tasks of a run whose config names none."""


def resolve(name: str, table: Mapping[str, str], what: str, members: tuple[str, ...] = ("Section",)) -> Any:
    """The class of a kind of task or of a student.

    Args:
        name: a key of `table`, or an import path `module:Class` of a user's own.
        what: for messages, such as `kind of task`.
        members: what the class must have.

    Raises:
        InputError: there is no such entry or class, the module can't be imported, or the class lacks a member.
    """
    path = table.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        possible = f"possible: {', '.join(table)}, or a class of your own as module:Class"
        raise InputError(f"unknown {what} {name!r}; {hint}{possible}")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        raise InputError(f"{what} {name!r}: can't be imported ({error}); give module:Class") from error
    missing = [member for member in members if not hasattr(found, member)]
    missing += sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InputError(f"{what} {name!r}: the class lacks {', '.join(missing)}; see docs/extend.md")
    return found
