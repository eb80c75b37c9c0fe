"""Data sets in COCO's layout: one JSON file of instances, read and checked once, and a folder of images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from tutored.data.images import Annotations, Images, Size, place_of
from tutored.data.text import NO_CLASSES, gather, is_background, read_json, refuse_climbing
from tutored.data.voc import as_boxes
from tutored.errors import InputError
from tutored.labels import LabelSpace, composed
from tutored.pictures import Box, fit_box, is_empty, refuse_shares
from tutored.tasks.detection.types import Boxes
from tutored.tasks.instances.types import Objects
from tutored.tasks.segmentation.types import ClassMask
from tutored.types import BACKGROUND, IGNORE

LARGEST = 1e9
"""No coordinate is larger, so that a broken file can't make numbers overflow."""
MOST = 50
"""Broken entries that one message lists."""


class Instance(NamedTuple):
    """One annotation: what messages call it, its box, its class (0: background) and its pixels as the file has them."""

    name: str
    box: Box
    number: int
    crowd: bool
    segmentation: Any

    @property
    def is_drawn(self) -> bool:
        """Whether it has run lengths, or a polygon of three points or more."""
        drawn = self.segmentation
        return bool(drawn) and (not isinstance(drawn, list) or any(map(_is_area, drawn)))


class Entry(NamedTuple):
    """One image: the file's number of it, its picture, the size that the file states, and its annotations."""

    number: Any
    picture: Path
    stated_size: tuple[float, float] | None
    instances: list[Instance]


@dataclass(frozen=True, kw_only=True)
class CocoAnnotations(Annotations):
    """What boxes and masks share."""

    states_classes: ClassVar[bool] = True
    path: Path
    entries: Mapping[str, Entry]

    def files(self, image_id: str) -> tuple[Path, ...]:
        return (self.path,)

    def instances(self, image_id: str, size: Size) -> list[Instance]:
        """The annotations of an image. Raises InputError where the file states another size of it."""
        _, picture, stated, instances = self.entries[image_id]
        if stated is not None and stated != size:
            raise InputError(
                f"{picture}: the image is {size[1]}x{size[0]} pixels, {self.path} says {stated[1]:g}x{stated[0]:g}; "
                "the annotations belong to another version of the image"
            )
        return instances


@dataclass(frozen=True, kw_only=True)
class CocoBoxes(CocoAnnotations):
    """Boxes, cut at the image's borders; crowds are difficult. Every image is annotated, perhaps with no object."""

    def has(self, image_id: str) -> bool:
        return True

    def read(self, image_id: str, size: Size) -> Boxes:
        boxed = [each for each in self.instances(image_id, size) if not is_empty(each.box)]
        boxes = zip(gather(partial(fit_box, each.box, size, each.name) for each in boxed), boxed, strict=True)
        return as_boxes([(box, each.number, each.crowd) for box, each in boxes if each.number != BACKGROUND])


@dataclass(frozen=True, kw_only=True)
class CocoMasks(CocoAnnotations):
    """Semantic masks: smaller instances lie over larger ones, and crowd pixels that no instance covers are 255.

    An image has none where one of its objects has no segmentation, or a polygon of less than three points, where no
    object of the whole file has one, or where `labels` are more than a mask can tell apart (254).

    Attributes:
        to: the class in `labels` of each of the file's classes.
        annotated: as in `ClassMask`.
        possible: whether the file has segmentations at all.
    """

    to: Sequence[int]
    possible: bool
    annotated: tuple[int, ...] | None = None

    def seen_in(self, labels: LabelSpace, to: Sequence[int], annotated: tuple[int, ...] | None) -> CocoMasks:
        """The same in another label space, as in `ClassMask.relabelled`; a mask need tell only its classes apart."""
        notes = _notes_of_masks(self.path, labels)
        return replace(self, labels=labels, to=[to[each] for each in self.to], annotated=annotated, notes=notes)

    def has(self, image_id: str) -> bool:
        possible = self.possible and len(self.labels) <= IGNORE
        return possible and all(each.is_drawn for each in self.entries[image_id].instances)

    def read(self, image_id: str, size: Size) -> ClassMask:
        instances = self.instances(image_id, size)
        encoded = gather(partial(_encode, each.segmentation, size, each.name) for each in instances)
        mask = np.zeros(size, np.uint8)

        def paint(each: Instance, runs: Mapping[str, Any]) -> None:
            mask[_decode(runs, each.name)] = IGNORE if each.crowd else self.to[each.number]

        # Crowds first, then instances from large to small: what is painted later lies above.
        layers = sorted(zip(instances, encoded, strict=True), key=lambda layer: (not layer[0].crowd, -layer[1][1]))
        gather(partial(paint, each, runs) for each, (runs, _) in layers)
        return ClassMask(mask=torch.from_numpy(mask), annotated=self.annotated)


@dataclass(frozen=True, kw_only=True)
class CocoObjects(CocoBoxes):
    """Boxes with masks, crowds as difficult ones. An image has none where one of its objects has no segmentation."""

    possible: bool

    def has(self, image_id: str) -> bool:
        return self.possible and all(each.is_drawn for each in self.entries[image_id].instances)

    def read(self, image_id: str, size: Size) -> Objects:
        boxes = super().read(image_id, size)
        drawn = [
            each for each in self.instances(image_id, size) if not is_empty(each.box) and each.number != BACKGROUND
        ]
        masks = gather(partial(decode_segmentation, each.segmentation, size, each.name) for each in drawn)
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size)
        return Objects(
            boxes_xyxy=boxes.boxes_xyxy,
            classes=boxes.classes,
            difficult=boxes.difficult,
            masks=stacked.to(torch.uint8),
        )


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
    FOLDER/images, the same with `data` for `images`, in FOLDER, or beside the file: the first of these that holds one.
    An image's id is the stem of its file name; where several share one, the file name without its suffix.

    Raises:
        InputError: no such split (the possible ones are named), the file is not COCO instances, or no image of it is
            found; of entries that can't be used, all of one kind are named.
    """
    path = _instances_file(folder, split)
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: COCO instances are an object with images, annotations and categories")
    labels, class_of = _read_categories(data, path)
    entries = _read_images(data, folder, split, path)
    _read_annotations(data, entries, class_of, path)
    every = [(entry, each) for entry in entries.values() for each in entry.instances]
    notes = tuple(note for entry, each in every for note in _notes_of_box(each, entry.stated_size))
    boxes = CocoBoxes(labels=labels, path=path, entries=entries, notes=notes)
    masks = CocoMasks(
        labels=labels,
        path=path,
        entries=entries,
        notes=_notes_of_masks(path, labels),
        to=range(len(labels)),
        possible=any(each.is_drawn for _, each in every),
    )
    objects = CocoObjects(labels=labels, path=path, entries=entries, notes=(), possible=masks.possible)
    return Coco(
        format="coco",
        folder=folder,
        split=split,
        classes=labels,
        ids=tuple(entries),
        place={image_id: entry.picture for image_id, entry in entries.items()}.__getitem__,
        tasks={"detection": boxes, "segmentation": masks},
        further={"instances": objects},
        numbers={image_id: entry.number for image_id, entry in entries.items()},
        categories={number: labels.names[index] for number, index in class_of.items() if index > 0},
    )


def _instances_file(folder: Path, split: str) -> Path:
    official = folder / "annotations" / f"instances_{split}.json"
    named = (official, folder / f"{split}.json", folder / "annotations" / f"{split}.json", folder / "instances.json")
    inside = tuple((folder / split).glob("*.json"))
    for path in named + inside * (len(inside) == 1):
        if path.is_file():
            return path
    splits = [path.stem.removeprefix("instances_") for path in sorted(folder.glob("annotations/instances_*.json"))]
    splits += [path.stem for path in sorted(folder.glob("*.json"))]
    splits += [path.parent.name for path in sorted(folder.glob("*/_annotations.coco.json"))]
    if splits:
        raise InputError(f"{folder}: there is no split {split!r}; possible: {', '.join(splits)}")
    raise InputError(
        f"{folder}: not a COCO folder; it must hold annotations/instances_{split}.json, {split}.json or instances.json"
    )


def _notes_of_masks(path: Path, labels: LabelSpace) -> tuple[str, ...]:
    if len(labels) <= IGNORE:
        return ()
    return (
        f"{path}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): no masks, unless "
        "the task's `classes` name fewer",
    )


def _notes_of_box(instance: Instance, stated: tuple[float, float] | None) -> Iterator[str]:
    """Boxes without area are left out; boxes that reach out of an image whose size the file states are cut."""
    x1, y1, x2, y2 = instance.box
    height, width = stated or (math.inf, math.inf)
    out = max(-x1, -y1, x2 - width, y2 - height)
    if is_empty(instance.box):
        yield f"{instance.name}: a box of no area, left out"
    elif out > 1:
        yield f"{instance.name}: the box {instance.box} reaches {out:g} pixels out of its image, cut"


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
    classes = [item for item in categories if not NO_CLASSES.fullmatch(item["name"].strip())]
    class_of = {item["id"]: BACKGROUND if is_background(item["name"]) else -1 for item in categories}
    class_of |= {item["id"]: index for index, item in enumerate(classes, start=1)}
    try:
        return LabelSpace.of([item["name"].strip() for item in classes]), class_of
    except ValueError as error:
        raise InputError(f"{path}: categories: {error}") from error


def _read_images(data: dict[str, Any], folder: Path, split: str, path: Path) -> dict[str, Entry]:
    """The images by id, in the file's order, without annotations."""
    images = _items(data, "images", {"id": (int, str), "file_name": str}, path)
    sharing = Counter(PurePath(item["file_name"]).stem for item in images)
    ids: dict[str, None] = {}
    numbers: set[Any] = set()
    for item in images:
        refuse_climbing(item["file_name"], path)
        name = PurePath(item["file_name"])
        image_id = composed(name.stem if sharing[name.stem] == 1 else (name.parent / name.stem).as_posix())
        if item["id"] in numbers or image_id in ids:
            raise InputError(
                f"{path}: image {item['id']} ({item['file_name']}) has the number of an earlier one, or its name up to "
                "the suffix; list each image once, with a number and a name of its own"
            )
        ids[image_id] = None
        numbers.add(item["id"])
    if not ids:
        raise InputError(f"{path}: the split lists no image; give one that does")
    pictures = _pictures([item["file_name"] for item in images], folder, split, path)
    return {
        image_id: Entry(item["id"], place_of(pictures, item["file_name"]), _stated_size(item), [])
        for image_id, item in zip(ids, images, strict=True)
    }


def _pictures(names: Sequence[str], folder: Path, split: str, path: Path) -> Path:
    """The folder that the names are seen from: the first possible one that holds a picture of such a name."""
    usual = (each for kind in ("images", "data") for each in (f"{kind}/{split}", f"{split}/{kind}", kind))
    places = dict.fromkeys((folder / split, *(folder / each for each in usual), folder, path.parent))
    there = [place for place in places if place.is_dir()]
    found = next((place for place in there if any(place_of(place, name).exists() for name in names)), None)
    if found is None:
        raise InputError(
            f"{path}: none of its {len(names):,} pictures is there, such as {names[0]!r}, looked for in "
            f"{', '.join(map(str, there))}; put them into one of these folders, or correct `file_name` in the file"
            + (", where folders are divided by /" if "\\" in names[0] else "")
        )
    return found


def _stated_size(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """Height and width, also as texts; None where one is missing or 0, which some tools write for an unknown size."""
    try:
        height, width = float(item["height"]), float(item["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _read_annotations(
    data: dict[str, Any], entries: Mapping[str, Entry], class_of: Mapping[Any, int], path: Path
) -> None:
    """Give each image its annotations."""
    fields = {"image_id": (int, str), "category_id": (int, str), "bbox": list}
    by_number = {entry.number: entry for entry in entries.values()}
    faults, of_no_class = [], Counter[Any]()
    for item in _items(data, "annotations", fields, path):
        name = f"{path}: annotation {item.get('id')} of image {item['image_id']}"
        if item["image_id"] not in by_number:
            alike = [number for number in by_number if str(number) == str(item["image_id"])]
            advice = f"there is {alike[0]!r}: write both as numbers" if alike else "remove the annotation"
            faults.append(f"{name}: there is no such image in the file; {advice}")
        elif item["category_id"] not in class_of:
            faults.append(f"{name}: category {item['category_id']!r} is not one of {sorted(class_of, key=str)}")
        elif len(item["bbox"]) != 4 or not all(_is_number(value, LARGEST) for value in item["bbox"]):
            faults.append(f"{name}: bbox must be four numbers x, y, width, height, got {item['bbox']}")
        elif class_of[item["category_id"]] < 0:
            of_no_class[item["category_id"]] += 1
        else:
            x, y, width, height = item["bbox"]
            refuse_shares(item["bbox"], name)
            box, number = (x, y, x + width, y + height), class_of[item["category_id"]]
            crowd = item.get("iscrowd") in (1, "1")
            by_number[item["image_id"]].instances.append(Instance(name, box, number, crowd, item.get("segmentation")))
    names = {item["id"]: item["name"] for item in data["categories"]}
    faults += [
        f"{path}: category {names[number]!r} is no class, and {count:,} annotations have it; give each a class "
        "that it may be and `iscrowd` 1, and it is ignored, or remove them"
        for number, count in of_no_class.items()
    ]
    _refuse(faults)


# --- Segmentations


def decode_segmentation(segmentation: Any, size: Size, what: str) -> NDArray[np.bool_]:
    """The pixels of an instance in an image of `size` (H, W), bool [H, W], from polygons or either kind of run lengths.

    Polygons of fewer than three points cover nothing.

    Raises:
        InputError: beginning with `what`; something else than polygons, one that lies far outside, or run lengths that
            don't fit the image.
    """
    return _decode(_encode(segmentation, size, what)[0], what)


def _encode(segmentation: Any, size: Size, what: str) -> tuple[dict[str, Any], int]:
    """Compressed run lengths of one instance, and how many pixels it has."""
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(points, 2 * max(size)) for points in segmentation):
            raise InputError(f"{what}: a polygon is a list x, y, x, y, ... within its image of {width}x{height} pixels")
        segmentation = list(filter(_is_area, segmentation)) or {"size": [height, width], "counts": [height * width]}
    elif not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise InputError(f"{what}: run lengths must state the size {[height, width]} of the image, height first")
    with _named(what):
        runs: dict[str, Any] = rle.segmToRle(segmentation, width, height)
        return runs, int(rle.area(runs))


def _decode(runs: Mapping[str, Any], what: str) -> NDArray[np.bool_]:
    with _named(what):
        region: NDArray[np.bool_] = rle.decode(runs).astype(np.bool_)
        return region


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{what}: its segmentation can't be decoded ({error})") from error


def _is_area(points: Any) -> bool:
    return not isinstance(points, list) or len(points) >= 6


def _is_polygon(points: Any, far: float) -> bool:
    return isinstance(points, list) and len(points) % 2 == 0 and all(_is_number(value, far) for value in points)


def _is_number(value: Any, far: float) -> bool:
    return isinstance(value, int | float) and abs(value) <= far
