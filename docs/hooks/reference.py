"""The reference of the commands and of the configuration, made from the code when the site is built."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from tutored.cli.options import make_parser
from tutored.config import Config, make_config

SOURCE = Path(__file__).parents[2] / "src"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the two pages."""
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/config.md", content=config_page()))


def commands_page() -> str:
    """Every command with its usage and options, as argparse knows them."""
    parser = make_parser()
    parts = ["# Commands", f"{parser.description} Exit codes: 0 done, 1 failed, 2 wrong use."]
    for command in leaves(parser):
        about, actions = command.description or "", [action for action in command._actions if action.dest != "help"]
        usage = argparse.HelpFormatter(command.prog, width=90)
        usage.add_usage(command.usage, actions, command._mutually_exclusive_groups, prefix="")
        parts += [f"## {command.prog}", f"{about[:1].upper()}{about[1:]}."]
        parts.append(f"```text\n{usage.format_help().strip()}\n```")
        parts.append(table(("argument", "meaning"), [(_name(action), _meaning(action)) for action in actions]))
    return "\n\n".join(parts) + "\n"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands that do something, in their order."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)
    if not groups:
        yield parser


def _name(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    return f"`{name}`" + (" (required)" if action.required and action.option_strings else "")


def _meaning(action: argparse.Action) -> str:
    text = [action.help] if action.help else []
    if action.choices:
        text.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    if action.default not in (None, False) and "default" not in (action.help or ""):
        text.append(f"default `{action.default}`")
    return "; ".join(text)


def config_page() -> str:
    """Every key of a run's config: type, default in both recipes, and the docstring beneath it in the code."""
    parts = [
        "# Configuration",
        "A run's YAML file holds these sections. Every key may also be set on the command line, as in "
        "`--train.epochs 80`. Where the column `thesis` is empty, its default is that of `corrected`. Each run writes "
        "its complete configuration to `RUN/config.yaml`.",
    ]
    code = griffe.load("tutored.config", search_paths=[SOURCE], allow_inspection=False)
    for section, places in sections(Config).items():
        about = code[f"{section.__module__.removeprefix('tutored.config.')}.{section.__name__}"]
        rows = [
            _row(section, name, places, getattr(about[name].docstring, "value", ""))
            for name, field in section.model_fields.items()
            if [field.annotation] != _sections_in(field.annotation)
        ]
        if rows:
            parts.append("## " + (", ".join(f"`{place}`" for place in places) if places[0] else "At the top"))
            parts.append(getattr(about.docstring, "value", ""))
            parts.append(table(("key", "type", "`corrected`", "`thesis`", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def sections(section: type[BaseModel], place: str = "") -> dict[type[BaseModel], list[str]]:
    """A section and those in it, each with the dotted places where it stands; `[]` for one of several."""
    found = {section: [place]}
    for name, field in section.model_fields.items():
        for below in _sections_in(field.annotation):
            several = "" if field.annotation is below else "[]"
            for each, places in sections(below, f"{place}.{name}{several}".lstrip(".")).items():
                found.setdefault(each, []).extend(places)
    return found


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section that a field holds, be it alone or one of many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]


def _row(section: type[BaseModel], name: str, places: Sequence[str], meaning: str) -> tuple[str, ...]:
    keys = [f"{place}.{name}".lstrip(".") for place in places]
    anchors = "".join(f'<span id="{key}"></span>' for key in keys)
    kind = _kind(section.model_json_schema()["properties"][name])
    field = section.model_fields[name]
    if field.is_required():
        return f"{anchors}`{name}`", kind, "required", "", meaning
    ours, theirs = (_default(section, keys[0], name, recipe) for recipe in ("corrected", "thesis"))
    return f"{anchors}`{name}`", kind, f"`{ours}`", f"`{theirs}`" if theirs != ours else "", meaning


def _default(section: type[BaseModel], key: str, name: str, recipe: str) -> str:
    """As it is written in YAML."""
    value: Any = section.model_fields[name].default
    if "[]" not in key:
        config = make_config({"recipe": recipe, "data": {"train": "voc:FOLDER"}}).to_dict()
        value = reduce(getitem, key.split("."), config)
    return value if isinstance(value, str) else json.dumps(value)


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
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
