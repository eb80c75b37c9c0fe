"""The reference of the commands and of the configuration, made from the code when the site is built."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from tutored.cli import commands
from tutored.config import Config, StudentSection, TaskSection, make_config
from tutored.config.entries import STUDENTS, TASKS, section_of
from tutored.section import Section

SOURCE = Path(__file__).parents[2] / "src"
RECIPES = ("corrected", "thesis")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the two pages."""
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/config.md", content=config_page()))


# --- Commands


def commands_page() -> str:
    """Every command with its usage and options."""
    parts = ["# Commands", f"{commands.help} Exit codes: 0 done, 1 failed, 2 wrong use."]
    for command, context in leaves(commands, click.Context(commands, info_name="tutored")):
        words = [context.command_path, *_required(command, context)]
        parts += [f"## {context.command_path}", inspect.cleandoc(command.help or "").replace("\b\n", "")]
        parts.append(f"```text\n{' '.join(words)}\n```")
        options = [param for param in command.params if isinstance(param, click.Option)]
        records = [record for param in options if (record := param.get_help_record(context))]
        rows = [(f"`{names.replace(' RANGE', '')}`", meaning.replace("[", "\\[")) for names, meaning in records]
        parts.append(table(("option", "meaning"), rows) if rows else "")
        parts.append(inspect.cleandoc(command.epilog or ""))
    return "\n\n".join(filter(None, parts)) + "\n"


def leaves(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands that do something, in their order, each with its context."""
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, click.Context(below, parent=context, info_name=name))


def _required(command: click.Command, context: click.Context) -> Iterator[str]:
    """Arguments and required options, then a sign that there are more."""
    for param in command.params:
        if isinstance(param, click.Argument):
            yield param.make_metavar(context)
        elif param.required:
            yield f"{param.opts[0]} {param.make_metavar(context)}"
    yield "[OPTIONS]"


# --- Configuration


class Place(NamedTuple):
    """Keys of one section's class, at one place of a config.

    Attributes:
        title: of the part of the page.
        section: its class.
        names: of the fields that the part is about.
        anchors: the dotted places of the section, by which other pages link to its keys.
        defaults: by recipe, the section in a config that says no more than it must; None: it is one of many in a list.
    """

    title: str
    section: type[Section]
    names: Sequence[str]
    anchors: Sequence[str]
    defaults: Mapping[str, Mapping[str, Any]] | None


def config_page() -> str:
    """Every key with its type, its default in each recipe, and what its docstring says."""
    parts = [
        "# Configuration",
        f"{_about(Config)} In YAML, or on the command line of `tutored train` as in `--train.epochs 80`. "
        "`tutored train` writes the complete configuration into the run's `config.yaml`. TASK stands for the name of a "
        f"task. Kinds of task: {_listed(tuple(TASKS))}. Students: {_listed(tuple(STUDENTS))}.",
    ]
    taken: set[str] = set()
    for place in places():
        rows = [_row(place, name, taken) for name in place.names]
        parts += [f"## {place.title}", _about(place.section)]
        parts.append(table(("key", "type", "`corrected`", "`thesis`", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def places() -> Iterator[Place]:
    """All sections in the order of `Config`, those of every kind of task and of every student among them."""
    for name, field in Config.model_fields.items():
        if name == "tasks":
            for base, kinds in _bases({kind: section_of(kind, TASKS, "kind of task") for kind in TASKS}):
                whole = {recipe: complete(recipe, tasks={kinds[0]: {}}) for recipe in RECIPES}
                defaults = {recipe: each["tasks"][kinds[0]] for recipe, each in whole.items()}
                of = "every kind" if base is TaskSection else _listed(kinds)
                anchors = [f"tasks.{each}" for each in ("TASK", *kinds)]
                yield from _nested("tasks.TASK", of, anchors, base, _own(base), defaults)
        elif name == "student":
            for base, kinds in _bases({kind: section_of(kind, STUDENTS, "student") for kind in STUDENTS}):
                defaults = {recipe: complete(recipe, student={"kind": kinds[0]})["student"] for recipe in RECIPES}
                of = "every student" if base is StudentSection else _listed(kinds)
                yield from _nested("student", of, ["student", f"student.{kinds[0]}"], base, _own(base), defaults)
        elif below := _sections_in(field.annotation):
            defaults = {recipe: complete(recipe)[name] for recipe in RECIPES}
            yield from _nested(name, "", [name], below[0], tuple(below[0].model_fields), defaults)
        else:
            yield Place("At the top", Config, (name,), [""], {recipe: complete(recipe) for recipe in RECIPES})


def _bases(sections: Mapping[str, type[Section]]) -> list[tuple[type[Section], list[str]]]:
    """The classes that the sections of kinds are made of, each with its kinds; what more kinds have comes first."""
    found: dict[type[Section], list[str]] = {}
    for kind, section in sections.items():
        for base in reversed(section.__mro__):
            if issubclass(base, Section) and base is not Section:
                found.setdefault(base, []).append(kind)
    return sorted(found.items(), key=lambda each: -len(each[1]))


def _own(section: type[Section]) -> list[str]:
    return [name for name in section.model_fields if name in inspect.get_annotations(section)]


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)


def _nested(
    at: str,
    of: str,
    anchors: Sequence[str],
    section: type[Section],
    names: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]] | None,
) -> Iterator[Place]:
    """A section's own keys, then those of the sections in it."""
    below = {name: _sections_in(section.model_fields[name].annotation) for name in names}
    plain = [name for name in names if [section.model_fields[name].annotation] != below[name]]
    if plain:
        yield Place(f"`{at}`" + (f": {of}" if of else ""), section, plain, anchors, defaults)
    for name in (name for name in names if below[name]):
        (inside,) = below[name]
        several = section.model_fields[name].annotation is not inside
        key = f".{name}" + "[]" * several
        inner = None if several or defaults is None else {recipe: each[name] for recipe, each in defaults.items()}
        there = [anchor + key for anchor in anchors]
        yield from _nested(at + key, of, there, inside, tuple(inside.model_fields), inner)


def _sections_in(annotation: Any) -> list[type[Section]]:
    """The section that a field holds, be it alone or one of many."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]


def complete(recipe: str, **given: Any) -> dict[str, Any]:
    """A config with all its defaults."""
    return make_config({"recipe": recipe, "data": {"train": "voc:FOLDER"}, **given}).to_dict()


@cache
def _module(name: str) -> Any:
    return griffe.load(name, search_paths=[SOURCE])


def _about(section: type[Section], field: str | None = None) -> str:
    """What a class, or one of its fields, says of itself, without what is for programmers."""
    found = _module(section.__module__)[section.__qualname__]
    docstring = (found[field] if field else found).docstring
    return str(docstring.value).partition("\n\nAttributes:")[0] if docstring else ""


def _row(place: Place, name: str, taken: set[str]) -> tuple[str, ...]:
    """The key's row, whose anchors are added to those that are taken."""
    field = place.section.model_fields[name]
    key = field.alias or name
    anchors = [each for at in place.anchors if (each := f"{at}.{key}".lstrip(".")) not in taken]
    taken.update(anchors)
    anchored = "".join(f'<span id="{each}"></span>' for each in anchors) + f"`{key}`"
    kind, meaning = _kind(place.section.model_json_schema()["properties"][key]), _about(place.section, name)
    if field.is_required() and name != "kind":
        return anchored, kind, "required", "", meaning
    if place.defaults is None:
        return anchored, kind, f"`{_yaml(field.default)}`", "", meaning
    ours, theirs = (_yaml(place.defaults[recipe][key]) for recipe in RECIPES)
    if name == "kind":
        ours = theirs = "the task's name" if issubclass(place.section, TaskSection) else next(iter(STUDENTS))
    return anchored, kind, f"`{ours}`", f"`{theirs}`" if theirs != ours else "", meaning


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema:
        *others, last = (f"`{value}`" for value in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if schema.get("type") == "array":
        some = schema.get("prefixItems", [])
        return f"list of {len(some)} ({_kind(some[0])})" if some else f"list ({_kind(schema['items'])})"
    words = {
        "boolean": "true or false",
        "integer": "whole number",
        "number": "number",
        "string": "path" if schema.get("format") == "path" else "text",
        "object": "mapping",
        "null": "null",
    }
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join([words[schema["type"]], *(f"{bounds[key]} {schema[key]}" for key in bounds if key in schema)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; line breaks and bars in cells do no harm."""
    lines = [head, ["---"] * len(head), *([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
