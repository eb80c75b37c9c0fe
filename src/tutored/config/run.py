"""One run's complete configuration, and what the recipes set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny, field_validator, model_validator

from tutored.config.data import Augment, Data, MoreData
from tutored.config.entries import DEFAULT_TASKS, STUDENTS, TASKS, USUAL_STUDENT, Table, resolve, section_of
from tutored.config.student import StudentSection
from tutored.config.tasks import ClassSection, TaskSection
from tutored.config.train import Loss, Train
from tutored.errors import InputError
from tutored.folders import STORES
from tutored.section import Section

THESIS: dict[str, Any] = {
    "augment": {"zoom_out": "run", "crop_guides": "all"},
    "loss": {"joint": False, "untaught": "skipped"},
    "train": {
        "optimizer": "adam",
        "lr": 1e-4,
        "backbone_lr": 1.0,
        "weight_decay": 5e-5,
        "schedule": "step",
        "warmup": 0.0,
        "ema": 0.0,
    },
}
"""What the recipe `thesis` sets beside the keys of tasks and student (`Section.RECIPES`): the specification's
sections 3 and 4, its defects included."""


def _as_task(given: Any) -> Any:
    return _as_section(given, TASKS, "kind of task")


def _as_student(given: Any) -> Any:
    return _as_section(given, STUDENTS, "student")


def _as_section(given: Any, table: Table, what: str) -> Any:
    """A section as the class of its own kind validates it."""
    if not isinstance(given, Mapping):
        return given
    return section_of(given["kind"], table, what).model_validate(dict(given))


class Config(Section):
    """One complete run. `recipe` chooses the defaults of all other sections; every field may be set."""

    recipe: Literal["corrected", "thesis"] = "corrected"
    """Whose defaults the sections have."""
    data: Data
    tasks: dict[str, Annotated[SerializeAsAny[TaskSection], BeforeValidator(_as_task)]]
    """By name. Each kind of task brings the keys of its section."""
    student: Annotated[SerializeAsAny[StudentSection], BeforeValidator(_as_student)]
    """Each student brings the keys of its section."""
    augment: Augment = Augment()
    loss: Loss = Loss()
    train: Train = Train()

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Name what is left out (default tasks, kinds, the student), and merge the recipe's defaults."""
        if not isinstance(given, Mapping):
            return given
        named = {"tasks": {name: {} for name in DEFAULT_TASKS}, "student": {}, **given}
        if isinstance(named["tasks"], Mapping):
            named["tasks"] = {name: _of_kind(each, str(name)) for name, each in named["tasks"].items()}
        named["student"] = _of_kind(named["student"], usual_student(named))
        return merged(recipe_defaults(named), named)

    @field_validator("tasks", mode="before")
    @classmethod
    def _with_possible_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if not given:
            raise ValueError("got {}, no task at all; name one or more")
        wrong = [name for name in given if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name))]
        if wrong:
            raise ValueError(f"a task's name is of small letters, digits and _, got {wrong[0]!r}")
        return given

    @model_validator(mode="after")
    def _tasks_fit(self) -> Config:
        for name, task in self.tasks.items():
            if task.hidden_like is not None and task.hidden_like not in self.tasks:
                possible = ", ".join(self.tasks)
                raise ValueError(f"tasks.{name}.hidden_like names {task.hidden_like!r}; possible: {possible}")
            if isinstance(task, ClassSection) and task.vetted_by is not None:
                fit = [each for each, section in self.tasks.items() if each != name and _kind(section) in task.VETTING]
                if task.vetted_by not in fit:
                    possible = ", ".join(fit) or "there is no other task whose annotations can vet it"
                    raise ValueError(f"tasks.{name}.vetted_by names {task.vetted_by!r}; possible: {possible}")
        parts: dict[str, Data | MoreData] = {"data": self.data}
        parts |= {f"data.more.{number}": part for number, part in enumerate(self.data.more)}
        for place, part in parts.items():
            by_task = {key: getattr(part, key, None) for key in ("annotated", "val_annotated")}
            named = {key: names for key, names in by_task.items() if isinstance(names, dict)}
            for key, names in {"tasks": part.tasks or (), **named}.items():
                unknown = sorted({*names} - self.tasks.keys())
                if unknown:
                    raise ValueError(f"{place}.{key} names {unknown[0]!r}; possible: {', '.join(self.tasks)}")
        taken = {name for part in parts.values() for name in (self.tasks if part.tasks is None else part.tasks)}
        for name, task in self.tasks.items():
            if name not in taken and not task.tutored:
                raise ValueError(
                    f"tasks.{name}: no data set is read for it and no tutor teaches it; add it to data.tasks, or leave "
                    "the task out"
                )
        self.student.check(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain, complete and JSON-ready; `Config.model_validate` reads it back."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def taught(self) -> tuple[str, ...]:
        """The tasks that somebody teaches; the student's answers for another one mean nothing."""
        return tuple(name for name, task in self.tasks.items() if task.policy != "none")

    def placed(self, out: Path) -> Config:
        """The same with a store in `out/stores` for each tutor that has none: one for each training data set.

        Tasks that share a tutor share its stores.
        """
        own = {name: task for name, task in self.tasks.items() if task.tutored and not task.store}
        places = {}
        for name, task in own.items():
            folder = out / STORES / "-".join(other for other, each in own.items() if each.tutor == task.tutor)
            numbers = range(1, len(self.data.more) + 2)
            store = tuple(folder / str(number) for number in numbers) if self.data.more else folder
            places[name] = task.model_copy(update={"store": store})
        return self.model_copy(update={"tasks": {**self.tasks, **places}})

    @property
    def run_id(self) -> str:
        """Twelve hex digits that change when any field that differs from its default changes."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def usual_student(given: Mapping[str, Any]) -> str:
    """The kind of the student where a config names none; an impossible recipe is refused elsewhere."""
    return USUAL_STUDENT.get(str(given.get("recipe")), USUAL_STUDENT["corrected"])


def recipe_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """What suits the student that a config names, and what its recipe sets for its tasks and the student."""
    recipe = given.get("recipe", "corrected")
    student = _of_kind(given.get("student", {}), usual_student(given))
    section = _section(student, STUDENTS)
    suited = section.suited(student) if section and issubclass(section, StudentSection) else {}
    if recipe != "thesis":
        return dict(suited)
    found: dict[str, Any] = dict(THESIS)
    tasks = given.get("tasks")
    for name, each in tasks.items() if isinstance(tasks, Mapping) else ():
        kind = _section(_of_kind(each, str(name)), TASKS)
        found.setdefault("tasks", {})[name] = kind.RECIPES.get(recipe, {}) if kind else {}
    return merged(suited, found | {"student": section.RECIPES.get(recipe, {}) if section else {}})


def _kind(section: TaskSection) -> str:
    """The kind of a task; a class of a user's own may have one of the package's."""
    return section.kind if section.kind in TASKS else str(resolve(section.kind, TASKS, "kind of task").kind)


def _of_kind(section: Any, usual: str) -> Any:
    """A task's or a student's mapping with its kind, which is `usual` where it is left out."""
    return {**section, "kind": str(section.get("kind", usual))} if isinstance(section, Mapping) else section


def _section(given: Any, table: Table) -> Any:
    """The class of the section; None where its own validation is to say what is wrong, with its place."""
    try:
        return section_of(given["kind"], table, "kind") if isinstance(given, Mapping) else None
    except InputError:
        return None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found
