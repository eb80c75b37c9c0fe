"""What a user may have meant by words that no command takes: said in the message, with the right form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args, get_origin

import click

from tutored.cli.common import commands, meant_data

COMMANDS: Mapping[str, str] = {
    "val": "evaluate",
    "test": "evaluate",
    "detect": "predict",
    "segment": "predict",
    "infer": "predict",
    "inference": "predict",
    "fit": "train",
    "create": "init",
    "new": "init",
}
"""What other tools call a command, and its name here."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "batch-size": ("batch",),
    "cfg": ("config",),
    "conf": ("score",),
    "data": ("train", "folder"),
    "directory": ("out",),
    "gpu": ("device",),
    "img": ("size",),
    "imgsz": ("size",),
    "input": ("pictures",),
    "learning-rate": ("lr",),
    "lr0": ("lr",),
    "model": ("checkpoint", "subject", "kind"),
    "name": ("out",),
    "output": ("out",),
    "project": ("out",),
    "source": ("pictures",),
    "threshold": ("score",),
    "weights": ("checkpoint", "subject"),
}
"""What other tools call an option, and what an option, an argument or a key of the config is called here."""


def explain(error: click.ClickException, words: Sequence[str]) -> str:
    """The message for wrong use, with the right form where it can be guessed.

    Args:
        words: of the command line.
    """
    message, context = error.format_message().removesuffix("."), getattr(error, "ctx", None)
    message = message[:1].lower() + message[1:]
    if context is None:
        return message
    hint = ""
    if isinstance(error, click.NoSuchOption):
        hint = _option(error.option_name, _value(error.option_name, words), context)
    elif isinstance(context.command, click.Group) and message.startswith("no such command"):
        hint = _command(context, words)
    elif "unexpected extra argument" in message:
        pairs = [word.partition("=") for word in words if "=" in word and not word.startswith("-")]
        hint = _option(pairs[0][0], pairs[0][2], context) if pairs else _missing(None, context, words)
    elif isinstance(error, click.MissingParameter):
        hint = _missing(error.param, context, words)
    if hint:
        return f"{message.partition('. ')[0]}; {hint}"
    if isinstance(error, click.BadParameter) and ";" in message:
        return message
    return f"{message}{'' if message.endswith('?') else ';'} `{context.command_path} --help` lists what is possible"


def _value(option: str, words: Sequence[str]) -> str:
    """What is given to an option on a command line; nothing where it stands alone."""
    for word, after in pairwise([*words, "-"]):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and not after.startswith("-"):
            return after
    return ""


def _option(name: str, value: str, context: click.Context) -> str:
    """What an option is called here: another option, an argument, or a key of the config."""
    name = name.lstrip("-").replace("_", "-")
    forms = _forms(context.command, value)
    same = [each for each in (name, *OPTIONS.get(name, ())) if each in forms][:1]
    near = same or difflib.get_close_matches(name, forms, n=1)
    return f"did you mean {' or '.join(form for each in near for form in forms[each])}?" if near else ""


def _forms(command: click.Command, value: str) -> dict[str, list[str]]:
    """Under each name that a command knows, how it is given."""
    found: dict[str, list[str]] = {}
    if command.name == "train":
        from tutored.config.read import keys

        for key, annotation in keys().items():
            possible = get_args(annotation) if get_origin(annotation) is Literal else ()
            fits = not possible or value in map(str, possible)
            form = f"--{key} {value if fits else '|'.join(map(str, possible))}".rstrip()
            found.setdefault(key.rpartition(".")[2].replace("_", "-"), []).append(form)
    before: list[str] = []
    for param in command.params:
        if isinstance(param, click.Argument):
            place = (param.metavar or str(param.name).upper()).removesuffix("...")
            found[str(param.name)] = [f"`{' '.join(['tutored', str(command.name), *before, value or place])}`"]
            before.append(place)
        else:
            found |= {word.lstrip("-"): [f"{word} {value}".rstrip()] for word in param.opts}
    return found


def _command(context: click.Context, words: Sequence[str]) -> str:
    """What a command is called here, in whichever group it is."""
    name = words[len(context.command_path.split()) - 1]
    if context.info_name == "label":
        from tutored.tutors.options import meant

        return meant(name)
    there: dict[str, str] = {}
    for group, command in [("", commands), *commands.commands.items()]:
        if isinstance(command, click.Group) and group != "label":
            there |= {each: f"{group} {each}".strip() for each in command.list_commands(context)} | there
    known = COMMANDS.get(name, name)
    near = [known] if known in there else difflib.get_close_matches(name, there)
    return f"did you mean {' or '.join(f'`tutored {there[each]}`' for each in near)}?" if near else ""


def _missing(param: click.Parameter | None, context: click.Context, words: Sequence[str]) -> str:
    """How the parameter is given; of a word that is no option's value and no argument, that it may be meant for it."""
    params = context.command.params
    if not isinstance(param, click.Option):
        return f"the command is `{' '.join([context.command_path, *context.command.collect_usage_pieces(context)])}`"
    takes = {word for each in params if isinstance(each, click.Option) and not each.is_flag for word in each.opts}
    rest = ["", *words[len(context.command_path.split()) - 1 :]]
    alone = [word for before, word in pairwise(rest) if not word.startswith("-") and before not in takes]
    alone = alone[sum(isinstance(each, click.Argument) for each in params) :]
    if alone and param.name == "data":
        return f"did you mean --data {meant_data(Path(alone[0])) or f'FORMAT:{alone[0]}'}?"
    return f"give {param.opts[0]} {param.metavar}, {param.help}" if param.metavar else ""
