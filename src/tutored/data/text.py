"""Users' text files: lines, lists of classes, JSON, XML; a file that can't be read is named."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from tutored.errors import InputError, is_one_line, misread, told_of
from tutored.files import regular
from tutored.labels import LabelSpace
from tutored.types import BACKGROUND

Found = TypeVar("Found")
CLASS_FILES = ("labels.txt", "classes.txt", "class_names.txt")
"""What a data set's own list of classes may be called."""
NO_CLASSES = re.compile(r"_*(background|ignored?([ _-]regions?)?|don'?t[ _-]?care|unlabell?ed|void)_*", re.I)
"""Names that lists of classes have for pixels of no class."""
MORE_THAN_NAMES = re.compile(
    r"""[#<].*|- .*|\[?['"].*['"][\],]*|\[.*,.*\]|.*:\d+,\d+,\d+:.*|version https://git-lfs.*"""
)
"""Lines of other files: with comments, of HTML, YAML, Python or JSON, with colours (CVAT), or a stand-in of Git LFS."""
NUMBERED = re.compile(r"(\d+)[\s:;,.)=-]+\D.*")
HEADS = ("ignore background", "background", "unlabeled", "unlabelled")
"""How a list may begin that names what number 0 is. Labelme's `__ignore__` is number -1 there, in masks 255."""


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Raises InputError, naming it."""
    try:
        # Not `splitlines`, for which a name may hold an end of a line, and each class behind it another number.
        return regular(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text in UTF-8 ({error}); save it as such") from error


def is_background(name: str) -> bool:
    """Whether a list of classes means the background, which is no class of its own."""
    return name.strip("_").lower() == "background"


def read_classes(path: Path) -> LabelSpace:
    """The label space of a file with one object class a line, in the order of their numbers.

    Empty lines are skipped, and so is the head of the list where it says what number 0 is (`HEADS`). Raises InputError:
    naming the file; it has no line, a line holds more than a name, or another one names pixels of no class, so that it
    is not known what the numbers behind it mean.
    """
    names = {number: name for number, line in enumerate(read_lines(path), start=1) if (name := line.strip())}
    wrong = [name for name in names.values() if MORE_THAN_NAMES.fullmatch(name)]
    found = [NUMBERED.fullmatch(name) for name in names.values()]
    numbers = [int(each[1]) for each in found if each]
    if len(found) > 2 and numbers in (list(range(len(found))), list(range(1, len(found) + 1))):
        wrong = list(names.values())
    if wrong or not names:
        told = f"{wrong[0][:80]!r} is more than a name" if wrong else "there is no class in it"
        raise InputError(f"{path}: {told}; write one name a line and nothing else, the class of number 1 first")
    plain = [name.strip("_").lower() for name in names.values()]
    skipped = next((len(head.split()) for head in HEADS if plain[: len(head.split())] == head.split()), 0)
    classes = dict(list(names.items())[skipped:])
    if any(map(NO_CLASSES.fullmatch, classes.values())):
        wrong = [f"line {number} ({name!r})" for number, name in names.items() if NO_CLASSES.fullmatch(name)]
        raise InputError(
            f"{path}: {', '.join(wrong)}: no class has such a name, and it is not known which numbers the classes "
            "behind it have. In masks 0 is background, 1 the first class and 255 is ignored: begin the list with "
            "background (or, as labelme does, with __ignore__ and _background_), and take out other such lines"
        )
    with told_of(path):
        return LabelSpace.of(list(classes.values()))


def own_classes(folder: Path) -> tuple[LabelSpace, Path] | None:
    """The classes that a data set's folder lists itself, and the file (`CLASS_FILES`); None without one. Raises
    InputError: the file is no list of classes, or there are several that differ.
    """
    found = {path: read_classes(path) for path in (folder / name for name in CLASS_FILES) if path.exists()}
    if len(set(found.values())) > 1:
        raise InputError(f"{' and '.join(map(str, found))} list different classes; keep the right one")
    return next(((labels, path) for path, labels in found.items()), None)


def numbered(names: Sequence[str], where: Path) -> tuple[LabelSpace, list[int]]:
    """The label space of a file's classes, and the class of each: 0 for background, -1 for other names of no class.
    Raises InputError: naming `where`; two classes have one name, or one has none.
    """
    classes = [name.strip() for name in names if not NO_CLASSES.fullmatch(name.strip())]
    if not all(classes):
        raise InputError(f"{where}: class {classes.index('')} has no name; give each its own")
    with told_of(where):
        labels = LabelSpace.of(classes)
    return labels, [_number(name.strip(), labels) for name in names]


def _number(name: str, labels: LabelSpace) -> int:
    return BACKGROUND if is_background(name) else -1 if NO_CLASSES.fullmatch(name) else labels.index(name)


def read_xml(path: Path) -> Element:
    """The root of an XML file. Raises InputError, naming it."""
    try:
        root: Element = ElementTree.fromstring(regular(path).read_bytes())
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not readable as XML ({error}); correct the file or remove it") from error
    return root


def refuse_climbing(name: str, file: Path) -> None:
    """Refuse a name that no image can have, or that leads out of its folder. Raises InputError, naming `file`."""
    if not is_one_line(name):
        raise InputError(f"{file}: {name[:80]!r} can't be an image's name, which has no control characters; correct it")
    if name.startswith("/") or ".." in PurePath(name).parts or "\0" in name:
        raise InputError(f"{file}: {name[:80]!r} leads out of the data set's folder; give the image's name inside it")


def refuse_unwritable(files: Iterable[Path]) -> None:
    """Refuse files whose names hold control characters or, as old archives have them, no UTF-8. Raises InputError."""
    for file in files:
        if not is_one_line(str(file)):
            raise InputError(
                f"{os.fsencode(file)!r}: a name that is not UTF-8, or holds control characters, can't be an image's; "
                f"rename the file{misread()}"
            )


def own_name(folder: Path) -> str:
    """The last part of a folder's absolute path, also of `.`; links are not followed."""
    return Path(os.path.abspath(folder)).name


def few(notes: Iterable[str], most: int = 5) -> list[str]:
    """The first of the notes on a data set, each once, and where all are told."""
    first = list(dict.fromkeys(notes))
    more = [f"and {len(first) - most:,} more notes on the data: `tutored data check` lists them"]
    return first[:most] + more * (len(first) > most)


def spread(faults: Iterable[tuple[object, str]]) -> tuple[str, ...]:
    """Messages about things, each once: the first one of every thing, then the second ones; no thing hides another."""
    turn: dict[str, int] = {}
    told: Counter[object] = Counter()
    for thing, message in faults:
        if message not in turn:
            turn[message] = told[thing]
            told[thing] += 1
    return tuple(sorted(turn, key=turn.__getitem__))


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
