"""Data sets in COCO's layout: one JSON file of instances, read once, and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from PIL import Image
from torch import Tensor

from tutored.data.pictures import Box, fit_box, is_empty, picture_size, read_picture
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import IGNORE, GroundTruth

LARGEST = 1e9
"""No coordinate is larger, so that a broken file can't make numbers overflow."""

Region = np.ndarray[Any, np.dtype[np.bool_]]


class _Entry(NamedTuple):
    """One image of the JSON file with its annotations, as they stand there."""

    picture: Path
    stated_size: tuple[Any, Any] | None
    annotations: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Coco:
    """One COCO instances file. Image ids are the stems of the file names.

    Every image is annotated: one without annotations shows nothing. Masks are missing (None) where an object of
    the image has no segmentation, or no object of the whole file has one.

    Attributes:
        file: the JSON file.
        labels: the file's own categories, in the file's order.
        notes: annotations that are left out, one line each: boxes of no area.
    """

    name: str
    file: Path
    labels: LabelSpace
    ids: tuple[str, ...]
    notes: tuple[str, ...]
    _entries: Mapping[str, _Entry]
    _class_of: Mapping[Any, int]
    _has_masks: bool

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture as stored. Raises InputError, naming the file, where it can't be read."""
        return read_picture(self._entries[image_id].picture)

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Boxes, cut at the image's borders, and the semantic mask, both in the stored pixels of the image.

        Crowds are difficult boxes. In the mask smaller instances lie over larger ones, and crowd pixels that no
        instance covers are 255 (ignore).

        Raises:
            InputError: naming the file and the annotation that is impossible.
        """
        picture, stated, annotations = self._entries[image_id]
        size = picture_size(picture)
        if stated is not None and stated != size:
            raise InputError(
                f"{picture}: the image is {size[1]}x{size[0]} pixels, {self.file} says {stated[1]}x{stated[0]}; "
                "the annotations belong to another version of the image"
            )
        boxed = [item for item in annotations if not is_empty(_box(item))]
        boxes = [fit_box(_box(item), size, _what(self.file, item)) for item in boxed]
        return GroundTruth(
            size=size,
            boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            classes=torch.tensor([self._class_of[item["category_id"]] for item in boxed], dtype=torch.int64),
            difficult=torch.tensor([_is_crowd(item) for item in boxed], dtype=torch.bool),
            mask=self._mask(annotations, size),
        )

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with ground truth; boxes always are."""
        drawn = self._drawn(self._entries[image_id].annotations)
        return ("detection", "segmentation") if drawn else ("detection",)

    def _drawn(self, annotations: list[dict[str, Any]]) -> bool:
        return self._has_masks and all(item.get("segmentation") for item in annotations)

    def _mask(self, annotations: list[dict[str, Any]], size: tuple[int, int]) -> Tensor | None:
        if not self._drawn(annotations):
            return None
        regions = [decode_segmentation(item["segmentation"], size, _what(self.file, item)) for item in annotations]
        mask = np.zeros(size, np.uint8)
        # Crowds first, then instances from large to small: what is painted later lies above.
        layers = zip(annotations, regions, strict=True)
        for item, region in sorted(layers, key=lambda layer: (not _is_crowd(layer[0]), -int(layer[1].sum()))):
            mask[region] = IGNORE if _is_crowd(item) else self._class_of[item["category_id"]]
        return torch.from_numpy(mask)


def open_coco(folder: Path, split: str) -> Coco:
    """Open FOLDER/annotations/instances_SPLIT.json with images in FOLDER/SPLIT, as COCO has it.

    Also possible: SPLIT.json in FOLDER or FOLDER/annotations, and instances.json in FOLDER, which answers to any
    split. Images lie in FOLDER/SPLIT, FOLDER/images/SPLIT, FOLDER/images or FOLDER, the first of these that exists.

    Raises:
        InputError: no such split (the possible ones are named), or the file is not COCO instances.
    """
    file = _instances_file(folder, split)
    places = (folder / split, folder / "images" / split, folder / "images", folder)
    pictures = next(path for path in places if path.is_dir())
    data = _read_json(file)
    labels, class_of = _read_categories(data, file)
    by_number = _read_images(data, pictures, file)
    annotations = _items(data, "annotations", {"image_id": (int, str), "category_id": (int, str), "bbox": list}, file)
    for item in annotations:
        _check(item, by_number, class_of, file)
        by_number[item["image_id"]].annotations.append(item)
    return Coco(
        name=f"coco:{folder}/{split}",
        file=file,
        labels=labels,
        ids=tuple(entry.picture.stem for entry in by_number.values()),
        notes=tuple(f"{_what(file, item)}: a box of no area, left out" for item in annotations if is_empty(_box(item))),
        _entries={entry.picture.stem: entry for entry in by_number.values()},
        _class_of=class_of,
        _has_masks=any(item.get("segmentation") for item in annotations),
    )


def decode_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> Region:
    """The pixels of one instance, bool [H, W], from polygons or from compressed or plain run lengths.

    Polygons of fewer than three points cover nothing.

    Raises:
        InputError: beginning with `what`; a polygon that is none or lies far outside, or runs that don't fit the image.
    """
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(points, 2 * max(size)) for points in segmentation):
            raise InputError(f"{what}: a polygon is a list x, y, x, y, ... within its image of {width}x{height} pixels")
        segmentation = [points for points in segmentation if len(points) >= 6]
        if not segmentation:
            return np.zeros(size, np.bool_)
    elif not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise InputError(f"{what}: run lengths must state the size {[height, width]} of the image, height first")
    try:
        region: Region = rle.decode(rle.segmToRle(segmentation, width, height)).astype(np.bool_)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{what}: its segmentation can't be decoded ({error})") from error
    return region


def _is_polygon(points: Any, far: float) -> bool:
    return isinstance(points, list) and len(points) % 2 == 0 and all(_is_number(value, far) for value in points)


def _is_number(value: Any, far: float) -> bool:
    return isinstance(value, int | float) and abs(value) <= far


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _box(annotation: Mapping[str, Any]) -> Box:
    x, y, width, height = annotation["bbox"]
    return x, y, x + width, y + height


def _what(file: Path, annotation: Mapping[str, Any]) -> str:
    return f"{file}: annotation {annotation.get('id')} of image {annotation['image_id']}"


def _instances_file(folder: Path, split: str) -> Path:
    official = folder / "annotations" / f"instances_{split}.json"
    named = (official, folder / f"{split}.json", folder / "annotations" / f"{split}.json", folder / "instances.json")
    for path in named:
        if path.is_file():
            return path
    splits = [path.stem.removeprefix("instances_") for path in sorted(folder.glob("annotations/instances_*.json"))]
    splits += [path.stem for path in sorted(folder.glob("*.json"))]
    if splits:
        raise InputError(f"{folder}: there is no split {split!r}; possible: {', '.join(splits)}")
    raise InputError(
        f"{folder}: not a COCO folder; it must hold annotations/instances_{split}.json, {split}.json or instances.json"
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: COCO instances are an object with images, annotations and categories")
    return data


def _items(data: dict[str, Any], key: str, fields: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """The list under `key`, each item of it known to have `fields` of these types."""
    items = data.get(key)
    if not isinstance(items, list):
        raise InputError(f"{file}: there is no list `{key}`; COCO instances have images, annotations and categories")
    for number, item in enumerate(items):
        for name, kind in fields.items():
            if not isinstance(item, dict) or not isinstance(item.get(name), kind):
                raise InputError(f"{file}: {key}[{number}] lacks `{name}`, or it is of the wrong type")
    return items


def _read_categories(data: dict[str, Any], file: Path) -> tuple[LabelSpace, dict[Any, int]]:
    categories = _items(data, "categories", {"id": (int, str), "name": str}, file)
    class_of = {item["id"]: index for index, item in enumerate(categories, start=1)}
    if len(class_of) < len(categories):
        raise InputError(f"{file}: two categories share an id; give each its own")
    try:
        return LabelSpace.of([item["name"] for item in categories]), class_of
    except ValueError as error:
        raise InputError(f"{file}: categories: {error}") from error


def _read_images(data: dict[str, Any], pictures: Path, file: Path) -> dict[Any, _Entry]:
    """Image number in the file -> what is known of it, in the file's order."""
    images = _items(data, "images", {"id": (int, str), "file_name": str}, file)
    entries: dict[Any, _Entry] = {}
    stems: set[str] = set()
    for item in images:
        stated = (item.get("height"), item.get("width"))
        entry = _Entry(pictures / item["file_name"], None if None in stated else stated, [])
        if item["id"] in entries or entry.picture.stem in stems:
            raise InputError(f"{file}: image {item['id']} ({item['file_name']}) is listed twice; list each image once")
        entries[item["id"]] = entry
        stems.add(entry.picture.stem)
    if not entries:
        raise InputError(f"{file}: the split lists no image; give one that does")
    return entries


def _check(item: dict[str, Any], by_number: Mapping[Any, _Entry], class_of: Mapping[Any, int], file: Path) -> None:
    if item["image_id"] not in by_number:
        raise InputError(f"{_what(file, item)}: there is no such image in the file; remove the annotation")
    if item["category_id"] not in class_of:
        raise InputError(f"{_what(file, item)}: category {item['category_id']} is not one of {sorted(class_of)}")
    if len(item["bbox"]) != 4 or not all(_is_number(value, LARGEST) for value in item["bbox"]):
        raise InputError(f"{_what(file, item)}: bbox must be four numbers x, y, width, height, got {item['bbox']}")
