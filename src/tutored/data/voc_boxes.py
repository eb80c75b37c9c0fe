"""The objects of a VOC annotation, an XML file."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from tutored.data.pictures import Box, fit_box
from tutored.data.text import complaints, read_xml
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import BACKGROUND


def read_boxes(path: Path, size: tuple[int, int], labels: LabelSpace) -> tuple[Tensor, Tensor, Tensor]:
    """The objects of one annotation file.

    Returns:
        float32 [K, 4] boxes (x1, y1, x2, y2), int64 [K] classes, bool [K] difficult flags.

    Raises:
        InputError: the file is no VOC annotation or of an image of another size, or an object lacks a field, has
            an unknown class, or a box that sticks out by more than the pixel that rounding explains.
    """
    root = _read_root(path)
    _check_size(root, size, path)
    found = [_read_object(element, size, labels, what) for what, element in _objects(root, path)]
    return (
        torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([index for _, index, _ in found], dtype=torch.int64),
        torch.tensor([difficult for _, _, difficult in found], dtype=torch.bool),
    )


def box_problems(path: Path, size: tuple[int, int], labels: LabelSpace) -> tuple[str, ...]:
    """Everything that `read_boxes` would refuse in this file, one message for the size and one an object."""
    try:
        root = _read_root(path)
    except InputError as error:
        return (str(error),)
    objects = [partial(_read_object, element, size, labels, what) for what, element in _objects(root, path)]
    return complaints([partial(_check_size, root, size, path), *objects])


def _read_root(path: Path) -> Element:
    root = read_xml(path)
    if root.tag != "annotation":
        raise InputError(f"{path}: a VOC annotation begins with <annotation>, got <{root.tag}>")
    return root


def _check_size(root: Element, size: tuple[int, int], path: Path) -> None:
    """Zero, or nothing at all, is how some tools write that they did not look."""
    stated = root.find("size")
    if stated is None:
        return
    for field, pixels in (("width", size[1]), ("height", size[0])):
        if (stated.findtext(field) or "").strip() and _number(stated, field, f"{path}: <size>") not in (0, pixels):
            width, height = stated.findtext("width"), stated.findtext("height")
            raise InputError(
                f"{path}: <size> says {width}x{height} pixels, the image is {size[1]}x{size[0]}; "
                "the boxes belong to another version of the image"
            )


def _objects(root: Element, path: Path) -> list[tuple[str, Element]]:
    return [(f"{path}: object {number}", element) for number, element in enumerate(root.findall("object"), start=1)]


def _read_object(element: Element, size: tuple[int, int], labels: LabelSpace, what: str) -> tuple[Box, int, bool]:
    name = _text(element, "name", what)
    what = f"{what} ({name})"
    index = _class(name, labels, what)
    box = fit_box(_box(element, what), size, what, slack=1)
    flag = (element.findtext("difficult") or "0").strip()
    if flag not in ("0", "1"):
        raise InputError(f"{what}: <difficult> is 0 or 1, got {flag!r}")
    return box, index, flag == "1"


def _class(name: str, labels: LabelSpace, what: str) -> int:
    try:
        index = labels.index(name)
    except InputError as error:
        raise InputError(f"{what}: {error}; own classes go into a file labels.txt in the data folder") from error
    if index == BACKGROUND:
        raise InputError(f"{what}: background is no object; remove it")
    return index


def _box(element: Element, what: str) -> Box:
    """VOC counts pixels from 1 and includes the last one; from here on, boxes are 0-based continuous edges."""
    box = element.find("bndbox")
    if box is None:
        raise InputError(f"{what}: there is no <bndbox>; add it or remove the object")
    xmin, ymin, xmax, ymax = (_number(box, field, what) for field in ("xmin", "ymin", "xmax", "ymax"))
    return xmin - 1, ymin - 1, xmax, ymax


def _number(element: Element, field: str, what: str) -> float:
    text = _text(element, field, what)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what}: <{field}> must be a number of pixels, got {text!r}")
    return value


def _text(element: Element, field: str, what: str) -> str:
    text = (element.findtext(field) or "").strip()
    if not text:
        raise InputError(f"{what}: <{field}> is missing or empty; add it or remove the object")
    return text
