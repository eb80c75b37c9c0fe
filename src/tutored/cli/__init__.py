"""The command `tutored`: every subcommand is one call of the library, and says what it wrote and what to run next.

Exit codes: 0 done, 1 failed (the machine, or a loss that is not finite), 2 wrong use or bad input.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tutored.cli.audit import audit
from tutored.cli.compare import compare
from tutored.cli.export import export
from tutored.cli.init import init
from tutored.cli.label import label
from tutored.cli.label_options import spelled_out
from tutored.cli.options import make_parser
from tutored.cli.output import is_main, quoted, say, say_next, unheard, write_json
from tutored.cli.predict import predict, serve
from tutored.cli.report import report
from tutored.cli.study import study_list, study_report, study_run
from tutored.errors import InputError, defect

if TYPE_CHECKING:
    from tutored.structures import Dataset

DONE, FAILED, WRONG_USE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one message on standard error, never a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        words, overrides = _overrides(words) if words[:1] == ["train"] else (words, [])
        known, unknown = make_parser().parse_known_args(spelled_out(words))
        if unknown:
            raise InputError(f"unknown option {unknown[0]}; --help lists the options of this command")
        known.overrides = overrides
        with _stoppable():
            code = COMMANDS[known.run](known) or DONE
    except InputError as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain(f"stopped{GO_ON.get(words[0], '')}", FAILED) if is_main() else FAILED
    except BrokenPipeError:
        unheard(sys.stdout)
        return FAILED
    except (OSError, FloatingPointError) as error:
        return _complain(str(error), FAILED)
    except Exception as error:
        if os.environ.get("TUTORED_DEBUG"):
            raise
        if _lacks_memory(error):
            advice = "smaller batches (train.micro_batch, train.batch, --batch) or fewer train.workers need less"
            return _complain(f"not enough memory: {error}; {advice}{GO_ON.get(words[0], '')}", FAILED)
        return _complain(defect(error), FAILED)
    return code


def _lacks_memory(error: Exception) -> bool:
    """Whether the machine ran out of it here, or killed a process that reads for lack of it."""
    told = ("out of memory", "can't allocate memory", "killed by signal: Killed", "killed by signal: Bus error")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, as schedulers send it, and a closed terminal are Ctrl-C; what is ignored, as under nohup, stays so."""
    main_thread = threading.current_thread() is threading.main_thread()
    fatal = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in fatal if main_thread else ():
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in fatal if main_thread else ():
            signal.signal(number, signal.SIG_DFL)


GO_ON = {
    "train": "; what is finished is kept, go on with --resume",
    "label": "; what is finished is kept, go on with --resume",
    "quickstart": "; what is finished is kept, the same command goes on",
    "study": "; what is finished is kept, the same command goes on",
}
"""What a stopped command says, where something is kept."""


def quickstart(given: argparse.Namespace) -> None:
    from tutored.quickstart import run_quickstart

    run_quickstart(given.out, seed=given.seed, scale=given.scale)


def data_check(given: argparse.Namespace) -> int:
    from tutored.cli.progress import Lasting
    from tutored.data.check import check

    splits = {split: _open(given.data, split) for split in given.splits}
    with _bar("reading") as step:
        report = check(splits, step)
    report.show(Lasting())
    write_json(given.json, report.to_dict())
    return DONE if report.ok else WRONG_USE


def verify(given: argparse.Namespace) -> None:
    from tutored.softlabels import Store

    store = Store.open(given.store)
    store.verify()
    say(f"{given.store}: {len(store)} images, every part is what was written")


def convert(given: argparse.Namespace) -> None:
    from tutored.convert import convert as convert_store

    with _bar("converting") as step:
        convert_store(given.store, given.to, given.data, given.split, given.out, given.score, step)
    say(f"wrote {given.out}")


def train(given: argparse.Namespace) -> None:
    from tutored.cli.progress import watch_training
    from tutored.config import load_config
    from tutored.engine import train as train_run

    config = load_config(given.config, given.overrides)
    with watch_training() as watch:
        result = train_run(config, given.out, resume=given.resume, watch=watch, tell=lambda note: say(f"note: {note}"))
    say(f"wrote {given.out / 'checkpoint'}, {given.out / 'result.json'} and {given.out / 'report.html'}")
    checkpoint, data = given.out / "checkpoint", config.data
    figures = (result["figures"] or {}).values()
    if data.held_out or not any(isinstance(figure, float) for figure in figures):
        return say_next(f"tutored predict {quoted(checkpoint)} PICTURES --out seen")
    annotated = data.val_annotated if data.val else data.annotated
    lists = {"--classes": data.reported, "--annotated": annotated}
    more = [word for option, names in lists.items() if names for word in (option, ",".join(names))]
    split = ("--data", data.val or data.train, "--split", data.val_split)
    return say_next(quoted("tutored", "evaluate", checkpoint, *split, *more))


def evaluate(given: argparse.Namespace) -> None:
    from tutored.cli.progress import Lasting
    from tutored.evaluate import table
    from tutored.judge import judge

    with _bar("evaluating") as step:
        result = judge(
            given.subject, given.data, given.split, given.classes, given.device, step, annotated=given.annotated
        )
    if not is_main():
        return
    Lasting().print(table(result))
    for note in result.notes:
        say(f"note: {note}")
    what = {"subject": str(given.subject), "data": given.data, "split": given.split, "annotated": given.annotated}
    write_json(given.json, what | result.to_dict())


def _open(data: str, split: str) -> Dataset:
    from tutored.data import open_dataset

    return open_dataset(data, split)


def _overrides(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The other words, and the config's own options: `--train.epochs 40`, `--train.epochs=40`, `--recipe thesis`.

    They are taken out first because argparse, which does not know them, would take their values for its own arguments.
    """
    others, pairs, left = [], [], list(words)
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if not key.startswith("--") or ("." not in key and key != "--recipe"):
            others.append(word)
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise InputError(f"{key}: give a value")
            value = left.pop(0)
        pairs.append((key.removeprefix("--"), value))
    return others, pairs


def _bar(what: str) -> Any:
    from tutored.cli.progress import bar

    return bar(what)


def _complain(message: str, code: int) -> int:
    print(f"tutored: {message}", file=sys.stderr)
    return code


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "quickstart": quickstart,
    "init": init,
    "data_check": data_check,
    "label": label,
    "verify": verify,
    "audit": audit,
    "convert": convert,
    "train": train,
    "report": report,
    "evaluate": evaluate,
    "compare": compare,
    "study_list": study_list,
    "study_run": study_run,
    "study_report": study_report,
    "predict": predict,
    "serve": serve,
    "export": export,
}
