"""What stands in a COCO instances file, every entry of it checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tutored.data.pictures import Box
from tutored.data.regions import is_number
from tutored.data.text import BACKGROUND_NAMES, complaints, read_json, refuse_climbing
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import BACKGROUND

LARGEST = 1e9
"""No coordinate is larger, so that a broken file can't make numbers overflow."""

MOST = 50
"""Broken annotations that one message lists."""


class Entry(NamedTuple):
    """One image of the JSON file with its annotations, as they stand there."""

    number: Any
    picture: Path
    stated_size: tuple[float, float] | None
    annotations: list[dict[str, Any]]


def read_instances(file: Path, pictures: Path) -> tuple[LabelSpace, dict[Any, int], dict[str, Entry]]:
    """The label space, the class of each category number, and the images with their annotations, in the file's order.

    An image's id is the stem of its file name; where several share one, the file name without its suffix.

    Args:
        pictures: the folder of the images.

    Raises:
        InputError: not a COCO instances file; entries that can't be used, all of one kind in one message.
    """
    data = read_json(file)
    if not isinstance(data, dict):
        raise InputError(f"{file}: COCO instances are an object with images, annotations and categories")
    labels, class_of = _read_categories(data, file)
    entries = _read_images(data, pictures, file)
    by_number = {entry.number: entry for entry in entries.values()}
    annotations = _items(data, "annotations", {"image_id": (int, str), "category_id": (int, str), "bbox": list}, file)
    _refuse(complaints(partial(_check, item, by_number, class_of, file) for item in annotations))
    for item in annotations:
        by_number[item["image_id"]].annotations.append(item)
    return labels, class_of, entries


def box_of(annotation: Mapping[str, Any]) -> Box:
    x, y, width, height = annotation["bbox"]
    return x, y, x + width, y + height


def name_of(file: Path, annotation: Mapping[str, Any]) -> str:
    return f"{file}: annotation {annotation.get('id')} of image {annotation['image_id']}"


def _items(data: dict[str, Any], key: str, fields: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """The list under `key`, each item of it known to have `fields` of these types."""
    items = data.get(key)
    if not isinstance(items, list):
        raise InputError(f"{file}: there is no list `{key}`; COCO instances have images, annotations and categories")
    _refuse(
        f"{file}: {key}[{number}] lacks `{name}`, or it is of the wrong type"
        for number, item in enumerate(items)
        for name, kind in fields.items()
        if not isinstance(item, dict) or not isinstance(item.get(name), kind)
    )
    return items


def _refuse(faults: Iterable[str]) -> None:
    """One InputError with a line for each fault, if there is any."""
    lines = list(faults)
    if lines:
        raise InputError("\n".join([*lines[:MOST], *([f"and {len(lines) - MOST:,} more"] * (len(lines) > MOST))]))


def _read_categories(data: dict[str, Any], file: Path) -> tuple[LabelSpace, dict[Any, int]]:
    categories = _items(data, "categories", {"id": (int, str), "name": str}, file)
    if len({item["id"] for item in categories}) < len(categories):
        raise InputError(f"{file}: two categories share an id; give each its own")
    classes = [item for item in categories if item["name"] not in BACKGROUND_NAMES]
    class_of = {item["id"]: BACKGROUND for item in categories}
    class_of |= {item["id"]: index for index, item in enumerate(classes, start=1)}
    try:
        return LabelSpace.of([item["name"] for item in classes]), class_of
    except ValueError as error:
        raise InputError(f"{file}: categories: {error}") from error


def _read_images(data: dict[str, Any], pictures: Path, file: Path) -> dict[str, Entry]:
    """Image id -> what is known of it, in the file's order."""
    images = _items(data, "images", {"id": (int, str), "file_name": str}, file)
    sharing = Counter(PurePath(item["file_name"]).stem for item in images)
    entries: dict[str, Entry] = {}
    numbers: set[Any] = set()
    for item in images:
        refuse_climbing(item["file_name"], file)
        name = PurePath(item["file_name"])
        image_id = name.stem if sharing[name.stem] == 1 else (name.parent / name.stem).as_posix()
        if item["id"] in numbers or image_id in entries:
            raise InputError(
                f"{file}: image {item['id']} ({item['file_name']}) has the number, or but for the suffix the name, of "
                "one before it; list each image once, with a number and a name of its own"
            )
        entries[image_id] = Entry(item["id"], pictures / name, _stated_size(item), [])
        numbers.add(item["id"])
    if not entries:
        raise InputError(f"{file}: the split lists no image; give one that does")
    return entries


def _stated_size(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """Height and width, also as texts; None where one is missing or 0, as by who did not look."""
    try:
        height, width = float(item["height"]), float(item["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _check(item: dict[str, Any], by_number: Mapping[Any, Entry], class_of: Mapping[Any, int], file: Path) -> None:
    if item["image_id"] not in by_number:
        alike = [number for number in by_number if str(number) == str(item["image_id"])]
        advice = f"there is {alike[0]!r}: write both as numbers" if alike else "remove the annotation"
        raise InputError(f"{name_of(file, item)}: there is no such image in the file; {advice}")
    if item["category_id"] not in class_of:
        raise InputError(
            f"{name_of(file, item)}: category {item['category_id']} is not one of {sorted(class_of, key=str)}"
        )
    if len(item["bbox"]) != 4 or not all(is_number(value, LARGEST) for value in item["bbox"]):
        raise InputError(f"{name_of(file, item)}: bbox must be four numbers x, y, width, height, got {item['bbox']}")
