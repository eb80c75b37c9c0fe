"""One run's complete configuration, what recipes set, and how it is read from YAML or a mapping; mistakes in words."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, SerializeAsAny, ValidationError, field_validator, model_validator

from tutored.config.entries import DEFAULT_TASKS, STUDENTS, TASKS, USUAL_STUDENT, Table, resolve, section_of
from tutored.config.students import StudentSection
from tutored.config.tasks import ClassSection, TaskSection
from tutored.config.training import Augment, Data, Loss, MoreData, Train
from tutored.errors import InputError, told_of
from tutored.files import STORES, regular
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


def _as_section(given: Any, table: Table, what: str) -> Any:
    """A section as the class of its own kind validates it."""
    if not isinstance(given, Mapping):
        return given
    return section_of(given["kind"], table, what).model_validate(dict(given))


_Task = Annotated[SerializeAsAny[TaskSection], BeforeValidator(lambda it: _as_section(it, TASKS, "kind of task"))]
_Student = Annotated[SerializeAsAny[StudentSection], BeforeValidator(lambda it: _as_section(it, STUDENTS, "student"))]


class Config(Section):
    """One complete run. `recipe` chooses the defaults of all other sections; every field may be set."""

    recipe: Literal["corrected", "thesis"] = "corrected"
    """Whose defaults the sections have."""
    data: Data
    tasks: dict[str, _Task]
    """By name. Each kind of task brings the keys of its section."""
    student: _Student
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
    def _tasks_fit(self) -> Self:
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

    def placed(self, out: Path) -> Self:
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


PLAIN = {
    "a valid tuple": "a list, such as [a, b]",
    "a valid dictionary": "a mapping, such as {a: b}",
    " for <class 'pathlib.Path'>": "",
}
"""Words of pydantic's messages, and what they mean in YAML."""
MOST_ENTRIES = 100_000
"""Values in a YAML file, those behind aliases every time."""


def load_config(path: Path | str | Mapping[str, Any], overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Read a run's YAML file. Raises InputError: the file is no YAML mapping, or a key or value is not possible; near
    keys are named.

    Args:
        path: of the file, or what it would hold.
        overrides: dotted key and YAML value, such as `("train.epochs", "40")`; they win over the file.
    """
    origin = "config" if isinstance(path, Mapping) else str(path)
    given = dict(path) if isinstance(path, Mapping) else read_yaml(Path(path)) or {}
    if not isinstance(given, dict):
        raise InputError(f"{origin}: a config is a mapping of sections ({', '.join(Config.model_fields)})")
    if any(key.startswith("tasks.") for key, _ in overrides):
        given = {"tasks": {name: {} for name in DEFAULT_TASKS}} | given
    for key, value in overrides:
        try:
            parsed = yaml.load(value, _Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"--{key} {value}: not a YAML value") from error
        _refuse_idle(key, parsed, given, origin)
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        given = merged(given, parsed)
    return make_config(given, origin=origin)


def _refuse_idle(key: str, value: Any, given: Mapping[str, Any], origin: str) -> None:
    """A recipe or preset only sets defaults: of a complete file, such as a run's, it would change its name alone."""
    decided: dict[str, Any] = {}
    if key == "recipe" and value != given.get("recipe", "corrected"):
        decided = recipe_defaults({**given, "recipe": value})
    elif key == "student.preset":
        student = given.get("student")
        student = student if isinstance(student, Mapping) else {}
        presets = getattr(_student_section(given), "PRESETS", {})
        if str(value) in presets and value != student.get("preset"):
            decided = {"student": presets[value]}
    if decided and _covers(given, decided):
        raise InputError(
            f"--{key} {value}: {origin} sets every key that it decides ({', '.join(decided)}), so nothing would "
            "change; take those out of the file, or set the keys themselves"
        )


def _covers(given: Any, decided: Mapping[str, Any]) -> bool:
    """Whether a nested mapping sets every key of another one."""
    return isinstance(given, Mapping) and all(
        key in given and (not isinstance(value, Mapping) or _covers(given[key], value))
        for key, value in decided.items()
    )


def _student_section(given: Mapping[str, Any]) -> Any:
    student = given.get("student")
    kind = student.get("kind") if isinstance(student, Mapping) else None
    return section_of(str(kind or usual_student(given)), STUDENTS, "student")


class _Loader(yaml.SafeLoader):
    """Takes as text what may be a name: YAML 1.1 reads `no`, `on`, `007`, `1:30` and `2012-01-01` as something else.

    A whole number has that number's own spelling, so that `section.Text` gets back what was written. A key that a
    mapping has twice is refused: YAML forbids it, and PyYAML would take the last one in silence.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _text, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"0|-?[1-9][0-9]*", "-0123456789"),
    ("float", r"-?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_text})$"), [*_first, ""])


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: plain values, whatever tags it has. Raises InputError: it can't be read, is no YAML,
    names a key twice, or its aliases make it larger than any configuration.
    """
    try:
        content = yaml.load(regular(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text; give the path of a YAML file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error
    left, count = [content], 0
    while left:
        entry, count = left.pop(), count + 1
        if count > MOST_ENTRIES:
            raise InputError(f"{path}: more than {MOST_ENTRIES:,} entries, aliases counted; that is no configuration")
        left += entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return content


def make_config(given: Mapping[str, Any], *, origin: str = "config") -> Config:
    """Validate a nested mapping. Raises InputError naming every wrong key or value and what is possible."""
    with told_of(origin):
        try:
            return Config.model_validate(dict(given))
        except ValidationError as error:
            found = {_place(item): item for item in reversed(error.errors())}
            # What fits none of a union's types is an error for each of them: the one that lies deepest is meant.
            meant = [place for place in found if not any(each.startswith(f"{place}.") for each in found if place)]
            raise InputError("; ".join(_explain(place, found[place], given) for place in reversed(meant))) from error


def _place(item: Any) -> str:
    return ".".join(str(part) for part in item["loc"] if "[" not in str(part))  # without the types of a union


def _explain(place: str, item: Any, given: Mapping[str, Any]) -> str:
    if item["type"] != "extra_forbidden":
        text = str(item["msg"]).removeprefix("Value error, ")
        for words, plain in PLAIN.items():
            text = text.replace(words, plain)
        value = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
        if item["type"] in ("string_type", "path_type") and not isinstance(item["input"], list | dict):
            value += ", which YAML does not read as text; put it in quotes"
        return f"{place}: {text}{value}" if place else text
    section = _section_at(item["loc"][:-1], given)
    names = [field.alias or name for name, field in section.model_fields.items()]
    key = str(item["loc"][-1])
    near = difflib.get_close_matches(key, names, n=3)
    near = near or [each for each in keys() if each.endswith(f".{key}") and not each.startswith(f"{item['loc'][0]}.")]
    hint = f"did you mean {' or '.join(near)}?" if near else f"possible: {', '.join(names)}"
    if item["loc"][0] == "student":
        owners = [kind for kind in STUDENTS if key in section_of(kind, STUDENTS, "student").model_fields]
        hint = f"it is a key of student.kind {' and '.join(owners)}; here {hint}" if owners else hint
    return f"{place}: no such key; {hint}"


def keys() -> list[str]:
    """Every key of a config that says nothing, with its dotted place; those of all tasks under `tasks.TASK.`."""
    usual = make_config({"data": {"train": ""}}).to_dict()
    return list(dict.fromkeys(re.sub(r"^tasks\.\w+", "tasks.TASK", key) for key in flat(usual)))


def _section_at(place: Sequence[Any], given: Mapping[str, Any]) -> Any:
    """The section's class at a place of a config; a task's and the student's own are those that `given` names."""
    section: Any = Config
    for depth, part in enumerate(place):
        if isinstance(part, int):
            continue
        if depth == 0 and part == "tasks":
            continue
        if depth == 1 and place[0] == "tasks":
            kind = str((given.get("tasks", {}).get(part) or {}).get("kind", part))
            section = section_of(kind, TASKS, "kind of task")
        elif depth == 0 and part == "student":
            section = _student_section(given)
        else:
            section = _held(section.model_fields[part].annotation)
    return section


def _held(annotation: Any) -> Any:
    """The section that a field holds, be it alone, optional or one of many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_held, get_args(annotation))), None)
