"""Data sets of Labelme: a JSON file of shapes for each picture, beside it or in another folder."""

import base64
import io
import os
from collections.abc import Mapping
from functools import partial
from math import dist
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutored.data import tools
from tutored.data.images import Images, files_in
from tutored.data.objects import Entry, stated_size
from tutored.data.tools import ALL, TURNED, Drawn, Page, Pictures
from tutored.errors import InputError
from tutored.files import read_json
from tutored.labels import LabelSpace
from tutored.pictures import SUFFIXES
from tutored.types import BACKGROUND, Size

IGNORED = "__ignore__"
"""Labelme's name of what has no class; 255 in masks."""


def labelme_splits(folder: Path) -> list[str]:
    """The splits of a folder of Labelme: folders in it that hold JSON files, and `all`; none where it has no shapes."""
    files = _jsons(folder)
    if not any(map(_holds_shapes, files)):
        return []
    inside = {path.relative_to(folder).parts[0] for path in files if path.parent != folder}
    return [*sorted(inside), ALL]


def open_labelme(folder: Path, split: str) -> Images:
    """Open the pictures in and under FOLDER/SPLIT, or, for the split `all`, in and under FOLDER.

    A JSON file belongs to the picture that its `imagePath` names, or that has its own name. Pictures beside these that
    have no JSON file are empty or not labelled yet. Polygons, circles and masks are masks, and the boxes around them;
    polygons of one label and `group_id` are one object; rectangles are boxes. The classes are those that FOLDER lists
    (`CLASS_FILES`), or all labels, by the alphabet. Raises InputError: no such folder, or no JSON file in FOLDER
    belongs to a picture of it.
    """
    place = folder if split == ALL else folder / split
    if not place.is_dir():
        raise InputError(f"{folder}: there is no folder {split}; possible: {', '.join(labelme_splits(folder))}")
    pictures = Pictures(folder)
    pages: dict[Path, Page] = {}
    others: list[Path] = []
    lost: list[Path] = []
    for path in _jsons(folder):
        content, faults = _content(path)
        picture = _picture(path, content, pictures)
        if content is None or picture is None:
            (lost if content else others).append(path)
            continue
        if picture in pages:
            faults = [f"{pages[picture].entry.path} and {path} both annotate {picture}; keep one of them"]
        size = stated_size(content.get("imageHeight"), content.get("imageWidth"))
        entry = Entry(None, picture, size, [], path=path, faults=faults)
        pages[picture] = Page(picture, entry, _grouped(content.get("shapes", ()), path) if not faults else [])
    labels = tools.classes_of(folder, [shape.get("label") for page in pages.values() for _, shape in page.shapes])
    pages |= {path: Page(path, Entry(None, path, None, []), []) for path in pictures.unused(pages.keys())}
    there = [
        page._replace(name=path.relative_to(place))
        for path, page in sorted(pages.items())
        if path.is_relative_to(place)
    ]
    unread = (
        *tools.counted(lost, "JSON files", "belong to no picture and are not used"),
        *tools.counted(others, "JSON files", "are not Labelme's and are not read"),
    )
    return tools.images_of("labelme", folder, split, labels, there, partial(_read, labels=labels), unread)


def _holds_shapes(path: Path) -> bool:
    """Whether a file may be Labelme's, which are never as large as other JSON files are."""
    return path.is_file() and path.stat().st_size < 1 << 26 and b'"shapes"' in path.read_bytes()


def _jsons(folder: Path) -> list[Path]:
    return sorted(path for path in files_in(folder) if path.suffix.lower() == ".json")


def _content(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """What the file holds, without the picture in it, and its faults. None: it is another tool's."""
    try:
        content = read_json(path)
    except InputError as error:
        return {}, [str(error)]
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return None, []
    return {key: value for key, value in content.items() if key != "imageData"}, []


def _picture(path: Path, content: dict[str, Any] | None, pictures: Pictures) -> Path | None:
    """The picture beside the file that it names, that of the file's own name, or one that it names elsewhere."""
    name = str((content or {}).get("imagePath") or "").replace("\\", "/")
    beside = Path(os.path.normpath(path.parent / name))
    near = (beside, *(path.with_suffix(suffix) for suffix in SUFFIXES))
    return next((each for each in near if each in pictures.paths), None) or pictures.find(name)


def _grouped(shapes: list[Any], path: Path) -> list[tuple[str, Any]]:
    """What messages call each shape, and the shape; polygons of one label and group become one, with `parts`."""
    found: list[tuple[str, Any]] = []
    groups: dict[Any, list[Any]] = {}
    for number, shape in enumerate(shapes, start=1):
        if not isinstance(shape, dict):
            shape = {}
        kind = shape.get("shape_type") or "polygon"
        parts = [shape.get("points")]
        if kind == "polygon" and shape.get("group_id") is not None:
            key = (str(shape.get("label")), str(shape["group_id"]))
            if key in groups:
                groups[key] += parts
                continue
            groups[key] = parts
        name = f"{path}: shape {number} ({shape.get('label')})"
        found.append((name, {**shape, "shape_type": kind, "parts": parts, "layer": number}))
    return found


def _read(shape: Mapping[str, Any], what: str, labels: LabelSpace) -> Drawn:
    kind, label = shape["shape_type"], shape.get("label")
    if kind not in ("polygon", "rectangle", "oriented_rectangle", "circle", "mask"):
        return None, f"shapes of the kind {kind}, which are not read"
    number = BACKGROUND if label == IGNORED else tools.class_of(label, labels, what)
    parts = [tools.as_points(each, what, 3 if kind == "polygon" else 2) for each in shape["parts"]]
    instance = tools.outlined(what, number, *parts)
    if kind in ("rectangle", "oriented_rectangle"):
        return instance._replace(segmentation=None), TURNED * (kind == "oriented_rectangle")
    if kind == "circle":
        radius = dist(*parts[0][:2])
        instance = tools.outlined(what, number, tools.ellipse(parts[0][0], radius, radius))
    elif kind == "mask":
        left, top, right, bottom = map(int, instance.box)  # the last pixels belong to the mask
        pixels = partial(_mask, shape.get("mask"), left, top, what)
        instance = instance._replace(box=(left, top, right + 1, bottom + 1), segmentation=pixels)
    return instance._replace(layer=shape["layer"], crowd=label == IGNORED), ""


def _mask(text: Any, left: int, top: int, what: str, size: Size) -> NDArray[np.bool_]:
    """The pixels of a mask, which is a PNG of its own in base64."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as picture:
            crop = np.array(picture.convert("L")) > 0
    except Exception as error:  # decoders raise all sorts of errors on broken bytes
        raise InputError(f"{what}: its mask can't be read ({error}); draw it again") from error
    return tools.pasted(crop, left, top, size, what)
