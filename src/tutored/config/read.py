"""A configuration from YAML with dotted overrides, or from a mapping; mistakes in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tutored.config.presets import PRESETS
from tutored.config.run import THESIS, Config, merged
from tutored.errors import InputError

MOST_ENTRIES = 100_000
"""Values in a YAML file, those behind aliases every time."""


def load_config(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Read a run's YAML file.

    Args:
        overrides: dotted key and YAML value, such as `("train.epochs", "40")`; they win over the file.

    Raises:
        InputError: the file is no YAML mapping, or a key or value is not possible; near keys are named.
    """
    given = read_yaml(path) or {}
    if not isinstance(given, dict):
        raise InputError(f"{path}: a config is a mapping of sections ({', '.join(Config.model_fields)})")
    for key, value in overrides:
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"--{key} {value}: not a YAML value") from error
        _refuse_idle(key, parsed, given, path)
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        given = merged(given, parsed)
    return make_config(given, origin=str(path))


def _refuse_idle(key: str, value: Any, given: Mapping[str, Any], path: Path) -> None:
    """A recipe or preset only sets defaults: of a complete file, such as a run's, it would change its name alone."""
    set_there = {name: section if isinstance(section, Mapping) else {} for name, section in given.items()}
    decided: dict[str, Any] = {}
    if key == "recipe" and value != given.get("recipe", "corrected"):
        decided = THESIS
    elif key == "student.preset" and str(value) in PRESETS and value != set_there.get("student", {}).get("preset"):
        decided = {"student": PRESETS[value]}
    if decided and all(set(keys) <= set(set_there.get(section, ())) for section, keys in decided.items()):
        raise InputError(
            f"--{key} {value}: {path} sets every key that it decides ({', '.join(decided)}), so nothing would change; "
            "take those out of the file, or set the keys themselves"
        )


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: plain values, whatever tags it has.

    Raises:
        InputError: it can't be read, is no YAML, or its aliases make it larger than any configuration.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); give the path of a YAML file") from error
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
        lines = [_explain(item) for item in error.errors()]
        raise InputError(f"{origin}: " + "; ".join(lines)) from error


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        text = str(item["msg"]).removeprefix("Value error, ").replace("a valid tuple", "a list, such as [a, b]")
        given = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
        return f"{place}: {text}{given}"
    section: Any = Config
    for part in item["loc"][:-1]:
        if not isinstance(part, int):
            section = _section(section.model_fields[part].annotation)
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(item["loc"][-1]), names, n=3)
    return f"{place}: no such key; " + (
        f"did you mean {' or '.join(near)}?" if near else f"possible: {', '.join(names)}"
    )


def _section(annotation: Any) -> Any:
    """The section that a field holds, be it alone, optional or one of many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
