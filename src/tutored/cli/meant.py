"""What a user may have meant by words that no command takes: said in the message, with the right form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import click

from tutored.cli.common import commands, meant_data

COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("val", "test"), "evaluate"),
    **dict.fromkeys(("detect", "segment", "infer", "inference"), "predict"),
    **dict.fromkeys(("create", "new"), "init"),
    "fit": "train",
}
"""What other tools call a command, and its name here."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("directory", "name", "output", "project"), ("out",)),
    **dict.fromkeys(("img", "imgsz"), ("size",)),
    **dict.fromkeys(("conf", "threshold"), ("score",)),
    **dict.fromkeys(("learning-rate", "lr0"), ("lr",)),
    **dict.fromkeys(("model", "weights"), ("checkpoint", "subject", "kind")),
    **dict.fromkeys(("input", "source"), ("pictures",)),
    "batch-size": ("batch",),
    "cfg": ("config",),
    "data": ("train", "folder"),
}
"""What other tools call an option, and what an option, an argument or a key of the config is called here."""


def explain(error: click.ClickException, words: Sequence[str]) -> str:
    """The message for wrong use, with the right form where it can be guessed.

    Args:
        words: of the command line.
    """
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("No such"):
        message = message.partition(". ")[0]  # without click's own guess
    message = message[:1].lower() + message[1:].removesuffix(".")
    if context is None or (isinstance(error, click.BadParameter) and ";" in message):
        return message
    rest = words[len(context.command_path.split()) - 1 :]
    hint = ""
    if isinstance(error, click.NoSuchOption):
        value = next((after for word, after in pairwise(_split(rest)) if word == error.option_name), "")
        hint = _option(error.option_name, value, context)
    elif message.startswith("no such command"):
        hint = _command(context, rest[0])
    elif message.startswith("got unexpected extra") and (pair := next((word for word in rest if "=" in word), "")):
        name, _, value = pair.partition("=")
        hint = _option(name, value, context)
    elif isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        hint = _missing(error.param, context, rest)
    if hint:
        return f"{message}; {hint}"
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    return f"{message}; the command is `{usage}`, and --help lists what is possible"


def _split(words: Sequence[str]) -> list[str]:
    """With `--option=value` as two words."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _option(name: str, value: str, context: click.Context) -> str:
    """What an option is called here: another option, an argument, or a key of the config."""
    name, value = name.lstrip("-").replace("_", "-"), "" if value.startswith("-") else value
    forms: dict[str, list[str]] = {}
    if context.command.name == "train":
        if name in ("device", "gpu"):
            return "training takes a GPU where there is one, and --train.device cpu keeps it on the CPU"
        if name == "data" and ":" not in value:
            return f"`tutored init {value or 'FOLDER'}` writes a config, which names the data"
        from tutored.config.read import keys

        for key in keys():
            forms.setdefault(key.rpartition(".")[2].replace("_", "-"), []).append(f"--{key} {value}".rstrip())
    before: list[str] = []
    for param in context.command.params:
        if isinstance(param, click.Argument):
            place = (param.metavar or str(param.name).upper()).removesuffix("...")
            forms[str(param.name)] = [f"`{' '.join([context.command_path, *before, value or place])}`"]
            before.append(place)
        else:
            forms |= {word.lstrip("-"): [f"{word} {value}".rstrip()] for word in param.opts}
    same = [each for each in (name, *OPTIONS.get(name, ())) if each in forms][:1]
    if context.parent and context.parent.info_name == "label" and not same:
        from tutored.tutors.options import KINDS, options_of

        takers = [kind for kind in KINDS if any(each.flag == f"--{name}" for each in options_of(kind))]
        if takers:
            return f"it is an option of the tutor{'s' * (len(takers) > 1)} {', '.join(takers)}"
    near = same or difflib.get_close_matches(name, forms, n=1)
    return f"did you mean {' or '.join(forms[near[0]])}?" if near else ""


def _command(context: click.Context, name: str) -> str:
    """What a command is called here, in whichever group it is."""
    if context.info_name == "label":
        from tutored.tutors.options import meant

        return meant(name)
    there = {name: name for name in commands.commands}
    for group in ("data", "study"):
        there |= {each: f"{group} {each}" for each in getattr(commands.commands[group], "commands", ())}
    near = [COMMANDS[name]] if name in COMMANDS else difflib.get_close_matches(name, there)
    return f"did you mean {' or '.join(f'`tutored {there[each]}`' for each in near)}?" if near else ""


def _missing(option: click.Option, context: click.Context, words: Sequence[str]) -> str:
    """How the option is given, or the word beyond the command's arguments that may be meant for it."""
    params = context.command.params
    takes = {word for each in params if isinstance(each, click.Option) and not each.is_flag for word in each.opts}
    alone = [word for before, word in pairwise(["", *words]) if not word.startswith("-") and before not in takes]
    alone = alone[sum(isinstance(each, click.Argument) for each in params) :]
    if alone and option.name == "data":
        return f"did you mean --data {meant_data(Path(alone[0])) or f'FORMAT:{alone[0]}'}?"
    instead = ", or --config FILE" * any(each.name == "config" for each in params)
    return f"give {option.opts[0]} {option.make_metavar(context)} ({option.help}){instead}"
