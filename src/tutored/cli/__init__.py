"""The command `tutored`: every subcommand is one call of the library, and says what it wrote and what to run next.

Exit codes: 0 done, 1 failed (the machine, or a loss that is not finite), 2 wrong use or bad input.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

import click

from tutored.cli import begin, learn  # noqa: F401, they fill `commands`
from tutored.cli.common import commands, is_main, unheard
from tutored.errors import InputError, defect, printable

__all__ = ["commands", "keep_memory", "main"]

DONE, FAILED, WRONG_USE = 0, 1, 2
TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""
GO_ON = {
    "train": "; what is finished is kept, go on with --resume",
    "label": "; what is finished is kept, go on with --resume",
    "quickstart": "; what is finished is kept, the same command goes on",
    "study": "; what is finished is kept, the same command goes on",
}
"""What a stopped command says, where something is kept."""
MEMORY = ("out of memory", "can't allocate memory", "killed by signal: Killed", "killed by signal: Bus error")
"""In messages where the machine ran out of memory, here or in a process that reads."""
FILES = ("ancdata", "Too many open files")
"""In messages where no more files may be opened, here or in a process that reads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one message on standard error, never a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    keep_memory()
    go_on = GO_ON.get(words[0], "") if words else ""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name in letters that the terminal's locale lacks is no defect
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stoppable(), commands.make_context("tutored", words) as context:
            code: int | None = commands.invoke(context)
        return code or DONE
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return WRONG_USE
    except click.ClickException as error:
        from tutored.cli.common import explain

        return _complain(explain(error, words), WRONG_USE)
    except InputError as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain(f"stopped{go_on}", FAILED) if is_main() else FAILED
    except BrokenPipeError:
        unheard(sys.stdout)
        return FAILED
    except Exception as error:
        if any(words in str(error) for words in FILES):
            advice = "raise the limit (`ulimit -n`), or set train.workers to 0"
            return _complain(f"too few files may be open: {error}; {advice}{go_on}", FAILED)
        if isinstance(error, OSError | FloatingPointError):
            return _complain(str(error), FAILED)
        if os.environ.get("TUTORED_DEBUG"):
            raise
        if isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY):
            advice = "smaller batches (train.micro_batch, train.batch, --batch) or fewer train.workers need less"
            return _complain(f"not enough memory: {error}; {advice}{go_on}", FAILED)
        return _complain(defect(error), FAILED)


def keep_memory() -> None:
    """What is freed stays with the process, on Linux with glibc.

    It gives large blocks back to the system at once, and a network on a CPU asks for the same ones in every step: fresh
    pages take a sixth of a training step and up to two fifths of a prediction. The most memory at once stays the same
    in training; with pictures of very different sizes it is up to three tenths more, however many there are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter, value in ((TRIM_THRESHOLD, -1), (MMAP_MAX, 0)):
            mallopt(parameter, value)


def _complain(message: str, code: int) -> int:
    print(printable(f"tutored: {message}"), file=sys.stderr)
    return code


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
