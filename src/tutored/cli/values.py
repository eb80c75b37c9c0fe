"""What options' values may be, and options that several commands have."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

from tutored.errors import InputError

DEVICE = "cpu, cuda, cuda:1, ... or mps (default: the best there is)"


def data_options(parser: Any, *, several: bool = False) -> None:
    parser.add_argument(
        "--data", required=True, metavar="FORMAT:FOLDER", help="voc:FOLDER, coco:FOLDER or images:FOLDER"
    )
    split = "such as train or val; of a VOC folder also Segmentation/train or train+val"
    if several:
        parser.add_argument("--split", required=True, action="append", dest="splits", help=split + "; may be repeated")
    else:
        parser.add_argument("--split", required=True, help=split)


def refuse(given: argparse.Namespace, why: str, *unused: str) -> None:
    """Options that would have no effect are a mistake: whoever gives one expects something of it."""
    for name in unused:
        value = getattr(given, name)
        if value is not None and value is not False:
            raise InputError(f"--{name.replace('_', '-')} {why}; leave it out")


def names(text: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("give names with commas between them")
    return found


def numbers(text: str) -> tuple[float, ...]:
    return tuple(
        _number(part, float, sys.float_info.min, sys.float_info.max, "positive numbers with commas between them")
        for part in text.split(",")
    )


def positive(text: str) -> int:
    return int(_number(text, int, 1, math.inf, "a whole number from 1"))


def count(text: str) -> int:
    return int(_number(text, int, 0, math.inf, "a whole number from 0"))


def seed(text: str) -> int:
    return int(_number(text, int, 0, 2**32 - 1, "a whole number from 0 to 4294967295"))


def amount(text: str) -> float:
    return _number(text, float, 0, math.inf, "a number from 0")


def share(text: str) -> float:
    return _number(text, float, 0, 1, "a number from 0 to 1")


def _number(text: str, kind: Callable[[str], float], least: float, most: float, possible: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not possible; give {possible}")
    return value
