"""What a user is told: the one error that is meant for users, what is said of all others, and how far work is."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(ValueError):
    """A user's mistake or a broken file: the message says what was given, what is possible, what to do."""


@contextmanager
def told_of(what: object, remedy: str = "") -> Iterator[None]:
    """An InputError of what is done inside begins with `what`, and ends with a remedy that fits there."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}{remedy and f'; {remedy}'}") from error


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """What is imported inside comes with one of our extras. Raises InputError, beginning with `what`."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{what} {error.name}; run `pip install 'tutored[{extra}]'`") from error


def defect(error: Exception) -> str:
    """The message for an error that is ours, in the place of its traceback."""
    return f"{type(error).__name__}: {error} (a defect; TUTORED_DEBUG=1 shows where)"


def printable(text: str) -> str:
    """The text with what would steer a terminal, or can't be encoded, as an escape such as `\\x1b`.

    These are control characters except tab and line feed, marks that reverse the direction of what follows, and lone
    surrogates. A name in a data set may hold any of them.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def instead(there: dict[str, Any], here: dict[str, Any]) -> str:
    """In what two configs differ, for a message: up to five keys, with both values."""
    differing = (key for key in here | there if there.get(key) != here.get(key))
    return ", ".join(f"{key} {there.get(key)!r} instead of {here.get(key)!r}" for key in islice(differing, 5))


def misread() -> str:
    """What helps where the names of files are read in another encoding than UTF-8, as the end of a message."""
    names = sys.getfilesystemencoding()
    return "" if names == "utf-8" else f", or set PYTHONUTF8=1 (names are read as {names} here)"


def is_one_line(name: str) -> bool:
    """Whether a name can stand on a line of a list and be printed as it is."""
    return printable(name) == name and "\n" not in name and "\t" not in name


Progress = Callable[[int, int], None]
"""Called with items done and items in all."""
