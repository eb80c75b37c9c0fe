"""Data sets in COCO's layout: one JSON file of instances, read and checked once, and a folder of images."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tutored.data.images import Images, place_of
from tutored.data.objects import LARGEST, Entry, Instance, is_number, object_images, stated_size
from tutored.data.text import NO_CLASSES, is_background, refuse_climbing, spread
from tutored.data.tools import Pictures
from tutored.errors import InputError, told_of
from tutored.files import read_json
from tutored.labels import LabelSpace, composed
from tutored.pictures import refuse_shares
from tutored.types import BACKGROUND

MOST = 50
"""Broken entries that one message lists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coco(Images):
    """One COCO instances file.

    Attributes:
        numbers: the file's own number of each image.
        categories: the class of each of the file's category numbers, background left out.
    """

    numbers: Mapping[str, Any]
    categories: Mapping[Any, str]


def open_coco(folder: Path, split: str) -> Coco:
    """Open FOLDER/annotations/instances_SPLIT.json with images in FOLDER/SPLIT, as COCO has it.

    Also possible: SPLIT.json in FOLDER or FOLDER/annotations, the one JSON file in FOLDER/SPLIT, and instances.json in
    FOLDER, which answers to any split. Images lie in FOLDER/SPLIT, FOLDER/images/SPLIT, FOLDER/SPLIT/images or
    FOLDER/images, the same with `data` for `images`, in FOLDER, or beside the file: the first of these that holds one;
    else wherever in FOLDER one of their name lies. An image's id is the stem of its file name; where several share one,
    the file name without its suffix. Raises InputError: no such split (the possible ones are named), the file is not
    COCO instances, or no image of it is found; of entries that can't be used, all of one kind are named.
    """
    path = _instances_file(folder, split)
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: COCO instances are an object with images, annotations and categories")
    labels, class_of = _read_categories(data, path)
    entries = _read_images(data, folder, split, path)
    _read_annotations(data, entries, class_of, path)
    numbers = {image_id: entry.number for image_id, entry in entries.items()}
    categories = {number: labels.names[index] for number, index in class_of.items() if index > 0}
    own: dict[str, Any] = {"folder": folder, "split": split, "numbers": numbers, "categories": categories}
    return object_images(Coco, labels, entries, path, format="coco", **own)


def instances_files(folder: Path) -> dict[str, Path]:
    """By the name of a split, the JSON file in a data set's folder that should list it; it may be of another kind."""
    found: dict[str, Path] = {}
    for path in (*sorted(folder.glob("annotations/*.json")), *sorted(folder.glob("*.json"))):
        found.setdefault(path.stem.removeprefix("instances_"), path)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "annotations"):
        for inside in (list(inner.glob("*.json")), list(inner.glob("annotations/*.json"))):
            if len(inside) == 1:
                found.setdefault(inner.name, inside[0])
    return found


def _instances_file(folder: Path, split: str) -> Path:
    files = instances_files(folder)
    if split in files or "instances" in files:
        return files.get(split) or files["instances"]
    if files:
        raise InputError(f"{folder}: there is no split {split!r}; possible: {', '.join(files)}")
    raise InputError(
        f"{folder}: not a COCO folder; it must hold annotations/instances_{split}.json, {split}.json, "
        f"{split}/_annotations.coco.json or instances.json"
    )


# --- The file


def _items(data: dict[str, Any], key: str, fields: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The list under `key`, each item of it known to have `fields` of these types."""
    items = data.get(key)
    if not isinstance(items, list):
        raise InputError(f"{path}: there is no list `{key}`; COCO instances have images, annotations and categories")
    _refuse(
        f"{path}: {key}[{number}] lacks `{name}`, or it is of the wrong type"
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


def _read_categories(data: dict[str, Any], path: Path) -> tuple[LabelSpace, dict[Any, int]]:
    """The label space, and the class of each category number; -1 where it has the name of no class."""
    categories = _items(data, "categories", {"id": (int, str), "name": str}, path)
    if len({item["id"] for item in categories}) < len(categories):
        raise InputError(f"{path}: two categories share an id; give each its own")
    # Roboflow lists what its classes have in common as one more, which no object has.
    groups = {str(item.get("supercategory")) for item in categories if item.get("supercategory") != item["name"]}
    groups = {item["id"] for item in categories if item["name"] in groups and item.get("supercategory") == "none"}
    annotations = _items(data, "annotations", {}, path)
    used = {str(item.get("category_id")) for item in annotations if isinstance(item, dict)}
    groups = {number for number in groups if str(number) not in used}
    named = [item for item in categories if not NO_CLASSES.fullmatch(item["name"].strip())]
    classes = [item for item in named if item["id"] not in groups]
    class_of = {item["id"]: BACKGROUND if is_background(item["name"]) else -1 for item in categories}
    class_of |= {item["id"]: index for index, item in enumerate(classes, start=1)}
    with told_of(f"{path}: categories"):
        return LabelSpace.of([item["name"].strip() for item in classes]), class_of


def _read_images(data: dict[str, Any], folder: Path, split: str, path: Path) -> dict[str, Entry]:
    """The images by id, in the file's order, without annotations."""
    images = _items(data, "images", {"id": (int, str), "file_name": str}, path)
    if not images:
        raise InputError(f"{path}: the split lists no image; give one that does")
    names = [item["file_name"].replace("\\", "/") for item in images]  # as tools write them on Windows
    for name in names:
        refuse_climbing(name, path)
    sharing = Counter(PurePath(name).stem for name in names)
    ids: dict[str, int] = {}
    numbers: dict[Any, int] = {}
    faults = []
    for place, (item, name) in enumerate(zip(images, map(PurePath, names), strict=True)):
        image_id = composed(name.stem if sharing[name.stem] == 1 else (name.parent / name.stem).as_posix())
        for what, other in (
            ("id", numbers.setdefault(item["id"], place)),
            ("name, up to its suffix,", ids.setdefault(image_id, place)),
        ):
            if other != place:
                faults.append(
                    f"{path}: images[{place}] ({item['id']}, {name}) has the {what} of images[{other}] "
                    f"({images[other]['id']}, {names[other]}); list each image once, with an id and a name of its own"
                )
    _refuse(faults)
    pictures = _pictures(names, folder, split, path)
    return {
        image_id: Entry(item["id"], pictures[name], stated_size(item.get("height"), item.get("width")), [], path)
        for image_id, name, item in zip(ids, names, images, strict=True)
    }


def _pictures(names: Sequence[str], folder: Path, split: str, path: Path) -> dict[str, Path]:
    """Where the picture of each name lies.

    Names are seen from the first usual place that holds a picture of such a name. Where none does, pictures are known
    by their names, wherever in the folder they are.
    """
    usual = (each for kind in ("images", "data") for each in (f"{kind}/{split}", f"{split}/{kind}", kind))
    there = dict.fromkeys((folder / split, *(folder / each for each in usual), folder, path.parent))
    found = next((place for place in there if any(place_of(place, name).exists() for name in names)), None)
    if found is not None:
        return {name: place_of(found, name) for name in names}
    pictures, home = Pictures(folder), path.parent.parent if path.parent.name == "annotations" else path.parent
    places = {name: pictures.find(name, home) for name in names}
    if not any(places.values()):
        raise InputError(
            f"{path}: none of its {len(names):,} pictures is there, such as {names[0]!r}, looked for in and under "
            f"{folder}; put them there, or correct `file_name` in the file"
        )
    return {name: place or folder / name for name, place in places.items()}


def _read_annotations(
    data: dict[str, Any], entries: Mapping[str, Entry], class_of: Mapping[Any, int], path: Path
) -> None:
    """Give each image its annotations."""
    fields = {"image_id": (int, str), "category_id": (int, str), "bbox": list}
    by_number = {entry.number: entry for entry in entries.values()}
    faults, of_no_class = list[tuple[object, str]](), Counter[Any]()
    for item in _items(data, "annotations", fields, path):
        number = item["image_id"]
        name = f"{path}: annotation {item.get('id')} of image {number}"
        if number not in by_number:
            alike = [each for each in by_number if str(each) == str(number)]
            advice = f"there is {alike[0]!r}: write both as numbers" if alike else "remove the annotation"
            faults.append((number, f"{name}: there is no such image in the file; {advice}"))
        elif item["category_id"] not in class_of:
            told = f"{name}: category {item['category_id']!r} is not one of {sorted(class_of, key=str)}"
            faults.append((number, told))
        elif len(item["bbox"]) != 4 or not all(is_number(value, LARGEST) for value in item["bbox"]):
            faults.append((number, f"{name}: bbox must be four numbers x, y, width, height, got {item['bbox']}"))
        elif class_of[item["category_id"]] < 0:
            of_no_class[item["category_id"]] += 1
        else:
            x, y, width, height = item["bbox"]
            refuse_shares(item["bbox"], name)
            box, crowd = (x, y, x + width, y + height), item.get("iscrowd") in (1, "1")
            found = Instance(name, box, class_of[item["category_id"]], crowd, item.get("segmentation"))
            by_number[number].instances.append(found)
    names = {item["id"]: item["name"] for item in data["categories"]}
    for number, count in of_no_class.items():
        told = (
            f"{path}: category {names[number]!r} is no class, and {count:,} annotations have it; give each a class "
            "that it may be and `iscrowd` 1, and it is ignored, or remove them"
        )
        faults.append((path, told))
    _refuse(spread(faults))
