"""What commands share: their group, types of options, what they print and write. Imports nothing slow."""

import difflib
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import click
from click.core import ParameterSource

from tutored.errors import InputError, printable, told_of
from tutored.files import FORMATS, Kind, require

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
THERE = click.Path(exists=True, path_type=Path)
PLACE = click.Path(path_type=Path)
"""A place that a command checks itself."""
COUNT, POSITIVE = click.IntRange(0), click.IntRange(1)
SEED = click.IntRange(0, 2**32 - 1)


class Made(click.Path):
    """A folder of one of these kinds, which a command made, or a file with this suffix."""

    def __init__(self, *kinds: Kind, or_file: str | None = None) -> None:
        super().__init__(exists=True)
        self.kinds, self.or_file = kinds, or_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        found = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self.or_file is None or found.suffix != self.or_file:
            require(found, *self.kinds)
        return found


class Target(click.Path):
    """What a command writes, below folders: a file or a folder, where nothing else is. `folder` is None where the
    command itself looks at what is there.
    """

    def __init__(self, folder: bool | None) -> None:
        super().__init__(path_type=Path)
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = cast(Path, super().convert(value, param, ctx))
        fits, kind = (path.is_dir(), "folder") if self.folder else (path.is_file(), "regular file")
        if self.folder is not None and path.exists() and not fits:
            self.fail(f"{path} is no {kind}; give another name", param, ctx)
        above = next(each for each in path.absolute().parents if each.exists())
        return path if above.is_dir() else self.fail(f"{path} can't be made, because {above} is no folder", param, ctx)


NEW, NEW_FILE, NEW_FOLDER = Target(None), Target(False), Target(True)


class Number(click.FloatRange):
    """A number in a range; NaN and infinity are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value} is not possible; give a number", param, ctx)


AMOUNT, SHARE = Number(0), Number(0, 1)


class Commas(click.ParamType[Any]):
    """Values with commas between them, as a tuple."""

    def __init__(self, of: click.ParamType[Any] | type = str) -> None:
        self.of, self.name = click.types.convert_type(of), "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not parts:
            self.fail("give values with commas between them, such as A,B", param, ctx)
        return tuple(self.of.convert(part, param, ctx) for part in parts)


DATA_SETS = ", ".join([*(f"{each}:FOLDER" for each in FORMATS), "python:MODULE:NAME"])


def check_data(spec: str) -> None:
    """Refuse a data set whose folder does not exist. Raises InputError."""
    kind, colon, folder = spec.partition(":")
    if kind != "python" and not (colon and os.path.isdir(os.path.expanduser(folder))):
        if not colon and (meant := meant_data(Path(spec))):
            raise InputError(f"data {spec!r}: no format is named; did you mean {meant}?")
        looks = f", or `tutored init {spec}`, which looks at any folder" if os.path.isdir(spec) else ""
        missing = f"there is no folder {folder}" if colon else "no format is named"
        raise InputError(f"data {spec!r}: {missing}; possible: {DATA_SETS}{looks}")


def meant_data(folder: Path) -> str | None:
    """A data set as a command takes it, which a folder looks like."""
    signs = {"voc": "JPEGImages", "coco": "annotations/*.json"}
    return next((f"{kind}:{folder}" for kind, sign in signs.items() if any(folder.glob(sign))), None)


def check_tutor(given: str | Mapping[str, Any] | None, where: str) -> None:
    """Refuse a tutor whose kind, options or files are impossible. Raises InputError, beginning with `where`."""
    from tutored.tutors import checked

    if given is not None:
        with told_of(where):
            checked(given)


def _checked(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    if given is not None:
        check_data(given)
    return given


def or_config(ctx: click.Context, param: click.Parameter, given: Any) -> Any:
    """Callback of an option in whose place `--config` (`is_eager`) may stand."""
    if given and ctx.params["config"]:
        raise click.UsageError(f"{param.opts[0]} is not for --config, which says which data; leave it out", ctx)
    if not given and not ctx.params["config"]:
        raise click.MissingParameter(ctx=ctx, param=param)
    return _checked(ctx, param, given) if param.name == "data" else given


DATA: dict[str, Any] = {"metavar": "FORMAT:FOLDER", "callback": _checked}
SPLIT = "such as train or val; of a VOC folder also Segmentation/train or train+val"
data_option = click.option("--data", **DATA, required=True, help=DATA_SETS)
split_option = click.option("--split", required=True, help=SPLIT)
device_option = click.option("--device", help="cpu, cuda, cuda:1, ... or mps  [default: the best there is]")
precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="of a checkpoint's passes; bf16 is the quicker one on GPUs from Ampere on and on CPUs with AMX",
)
json_option = click.option("--json", "json_", type=NEW_FILE, metavar="FILE", help="write all this as JSON, too")


def by_task(
    ctx: click.Context, param: click.Parameter, given: Sequence[str]
) -> tuple[str, ...] | dict[str, tuple[str, ...]] | None:
    """Callback of an option that may be repeated: `A,B` for all tasks, or `TASK=A,B` for one. Returns the names, or the
    names by task, or None where nothing is given.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        task, names = text.split("=", 1) if "=" in text else ("", text)
        if task in found or (found and "" in {task, *found}):
            raise click.BadParameter("give A,B once for all tasks, or TASK=A,B once for each", ctx, param)
        found[task] = Commas().convert(names, param, ctx)
    return found.get("", found) or None


NAMES: dict[str, Any] = {"multiple": True, "callback": by_task, "metavar": "A,B"}


def refuse(ctx: click.Context, why: str, *unused: str) -> None:
    """Options that would have no effect are a mistake: the user expects something of them."""
    for param in ctx.command.params:
        if param.name in unused and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} {why}; leave it out", ctx)


class Command(click.Command):
    """A command whose options with a metavar such as `RUN...` take several values: `--against A B`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        greedy = {word for each in self.params if (each.metavar or "").endswith("...") for word in each.opts}
        words: list[str] = []
        option = None
        for word in args:
            if word.startswith("-") and word != "-":
                option = word if word in greedy else None
            elif option and words[-1] != option:
                words.append(option)
            words.append(word)
        return super().parse_args(ctx, words)


class Group(click.Group):
    """Lists its commands in the order in which they are used."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tutored")
def commands() -> None:
    """One network for several vision tasks, from partly labelled images, taught by ground truth and tutors."""


def is_main() -> bool:
    """Of several processes that work together, the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str, *, error: bool = False) -> None:
    """A line for the user; of several processes that work together, one speaks."""
    if is_main():
        try:
            print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)
        except BrokenPipeError:
            unheard(sys.stderr if error else sys.stdout)


def note(text: str) -> None:
    """What the user should know, a sentence."""
    say(f"note: {text}")


def unheard(stream: IO[str]) -> None:
    """Nobody reads it any more: the work goes on, and what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_next(*words: object) -> None:
    """The command to run next, as a shell takes it."""
    say(f"next: {shlex.join(map(str, words))}")


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON whole, where a path is given, and say so."""
    if path is not None:
        from tutored import files

        files.write_json(path, content)
        say(f"wrote {path}")


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
    """The message for wrong use, with the right form where it can be guessed."""
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
        from tutored.config.run import keys

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
        from tutored.tutors import KINDS, flags_of

        takers = [kind for kind in KINDS if f"--{name}" in flags_of(kind).values()]
        if takers:
            return f"it is an option of the tutor{'s' * (len(takers) > 1)} {', '.join(takers)}"
    near = same or difflib.get_close_matches(name, forms, n=1)
    return f"did you mean {' or '.join(forms[near[0]])}?" if near else ""


def _command(context: click.Context, name: str) -> str:
    """What a command is called here, in whichever group it is."""
    if context.info_name == "label":
        from tutored.tutors import meant

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
