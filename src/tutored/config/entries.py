"""The kinds of task and the students that the package brings, and how a config names a user's own."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from tutored.errors import InputError


class Entry(NamedTuple):
    """Two classes as `module:Class`: what computes, and its config keys, which are known without importing torch."""

    of: str
    section: str


Table = Mapping[str, Entry]
TASKS: Table = {
    "detection": Entry("tutored.tasks.detection:Detection", "tutored.config.tasks:DetectionSection"),
    "segmentation": Entry("tutored.tasks.segmentation:Segmentation", "tutored.config.tasks:SegmentationSection"),
    "instances": Entry("tutored.tasks.instances:InstanceSegmentation", "tutored.config.tasks:InstancesSection"),
    "regression": Entry("tutored.tasks.regression:Regression", "tutored.config.tasks:RegressionSection"),
}
"""Kinds of task."""
STUDENTS: Table = {
    "compact": Entry("tutored.students.compact:Compact", "tutored.config.students:CompactSection"),
    "blitznet": Entry("tutored.students.blitznet:BlitzNet", "tutored.config.students:BlitzNetSection"),
    "ubernet": Entry("tutored.students.ubernet:UberNet", "tutored.config.students:UberNetSection"),
}
"""Students."""
USUAL_STUDENT: Mapping[str, str] = {"thesis": "blitznet", "corrected": "compact"}
"""The student of a config that names none, by recipe."""
DEFAULT_TASKS = ("detection", "segmentation")
"""The tasks of a run whose config names none."""


def section_of(name: str, table: Table, what: str) -> Any:
    """The class of the config keys of a kind of task or of a student. Takes and raises the same as `resolve`."""
    return imported(table[name].section, what) if name in table else resolve(name, table, what).Section


def resolve(name: str, table: Table, what: str, members: tuple[str, ...] = ("Section",)) -> Any:
    """The class of a kind of task or of a student. Raises InputError: there is no such entry or class, the module can't
    be imported, or the class lacks a member.

    Args:
        name: a key of `table`, or an import path `module:Class` of a user's own.
        what: for messages, such as `kind of task`.
        members: what the class must have.
    """
    path = table[name].of if name in table else name
    if ":" not in path:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        possible = f"possible: {', '.join(table)}, or a class of your own as module:Class"
        raise InputError(f"unknown {what} {name!r}; {hint}{possible}")
    found = imported(path, what)
    missing = [member for member in members if not hasattr(found, member)]
    missing += sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InputError(f"{what} {name!r}: the class lacks {', '.join(missing)}; see docs/extend.md")
    return found


def imported(path: str, what: str) -> Any:
    """What `module:name` names, in an installed package or a file of the current folder. Raises InputError: it can't be
    imported. Messages call it `what`, such as `kind of task`.
    """
    here = os.getcwd()
    if not path.startswith("tutored.") and not {here, ""} & {*sys.path}:
        sys.path.append(here)  # last: a file of the user's hides no installed module
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # a user's module may raise anything
        raise InputError(
            f"{what} {path!r}: can't be imported ({error}); give module:name, of a file in this folder or of an "
            "installed package"
        ) from error


def guarded(what: str, function: Callable[..., Any], *given: Any) -> Any:
    """What a user's function gives. Raises InputError: the function raises an error; the message names `what`, the file
    and the line.
    """
    try:
        return function(*given)
    except InputError:
        raise
    except Exception as error:  # a user's code may raise anything
        at = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        raise InputError(f"{what} fails with {told}; correct it") from error
