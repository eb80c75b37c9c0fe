"""A configuration from YAML with dotted overrides, or from a mapping; mistakes in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tutored.config.entries import DEFAULT_TASKS, STUDENTS, TASKS, section_of
from tutored.config.run import Config, flat, merged, recipe_defaults, usual_student
from tutored.errors import InputError
from tutored.files import regular

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
    try:
        return Config.model_validate(dict(given))
    except ValidationError as error:
        found = {_place(item): item for item in reversed(error.errors())}
        # What fits none of a union's types is an error for each of them: the one that lies deepest is meant.
        meant = [place for place in found if not any(each.startswith(f"{place}.") for each in found if place)]
        lines = [_explain(place, found[place], given) for place in reversed(meant)]
        raise InputError(f"{origin}: " + "; ".join(lines)) from error
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


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
            section = _section(section.model_fields[part].annotation)
    return section


def _section(annotation: Any) -> Any:
    """The section that a field holds, be it alone, optional or one of many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
