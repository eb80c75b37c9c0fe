"""Users' text files: lines, lists of classes, JSON, XML; a file that can't be read is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from tutored.errors import InputError
from tutored.files import regular
from tutored.labels import LabelSpace

Found = TypeVar("Found")
BACKGROUND_NAMES = ("background", "__background__")
"""What lists of classes call the background, which is no class of its own."""


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Raises InputError, naming it."""
    try:
        return regular(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text ({error})") from error


def read_classes(path: Path) -> LabelSpace:
    """The label space of a file with one object class a line, in the order of their numbers.

    Empty lines, and lines that name the background, are skipped. Raises InputError, naming the file.
    """
    names = [line.strip() for line in read_lines(path)]
    try:
        return LabelSpace.of([name for name in names if name not in ("", *BACKGROUND_NAMES)])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError, naming it."""
    try:
        return json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch or write it again") from error


def read_xml(path: Path) -> Element:
    """The root of an XML file. Raises InputError, naming it."""
    try:
        root: Element = ElementTree.fromstring(regular(path).read_bytes())
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not readable as XML ({error}); correct the file or remove it") from error
    return root


def refuse_climbing(name: str, file: Path) -> None:
    """Refuse a name that no image can have, or that leads out of its folder. Raises InputError, naming `file`."""
    if not _is_utf8(name):
        raise InputError(f"{file}: {name[:80]!r} is no text that a file can have as its name; correct it")
    if name.startswith("/") or ".." in PurePath(name).parts or "\0" in name:
        raise InputError(f"{file}: {name[:80]!r} leads out of the data set's folder; give the image's name inside it")


def refuse_unwritable(files: Iterable[Path]) -> None:
    """Refuse files whose names are not UTF-8, as old archives have them. Raises InputError."""
    for file in files:
        if not _is_utf8(str(file)):
            raise InputError(f"{os.fsencode(file)!r}: a name that is not UTF-8 can't be an image's; rename the file")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def own_name(folder: Path) -> str:
    """The last part of a folder's absolute path, also of `.`; links are not followed."""
    return Path(os.path.abspath(folder)).name


def gather(steps: Iterable[Callable[[], Found]]) -> list[Found]:
    """The results of all steps. Raises one InputError with the messages of all steps that raise one, a line each."""
    found: list[Found] = []
    faults: dict[str, None] = {}
    for step in steps:
        try:
            found.append(step())
        except InputError as error:
            faults[str(error)] = None
    if faults:
        raise InputError("\n".join(faults))
    return found
