"""Data sets in COCO's layout: one JSON file of instances, read once, and a folder of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutored.data.coco_file import Entry, box_of, name_of, read_instances
from tutored.data.pictures import Box, fit_box, is_empty, picture_size, read_picture
from tutored.data.regions import Region, decode_runs, decode_segmentation, encode_segmentation, has_pixels
from tutored.data.text import complaints, own_name
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import IGNORE, GroundTruth


@dataclass(frozen=True, slots=True, eq=False)
class Coco:
    """One COCO instances file. Image ids are the stems of the file names; of those that share one, also their folders.

    Every image is annotated: one without annotations shows nothing. Masks are missing (None) where an object of
    the image has no segmentation, or a polygon of less than three points, no object of the whole file has one, or
    `labels` are more than a mask can tell apart (254).

    Attributes:
        file: the JSON file.
        labels: the file's own categories, in the file's order, or those of `seen_in`.
        annotated: as in `GroundTruth`.
    """

    name: str
    source: str
    split: str
    file: Path
    labels: LabelSpace
    ids: tuple[str, ...]
    _entries: Mapping[str, Entry]
    _class_of: Mapping[Any, int]
    _has_regions: bool
    _notes: tuple[str, ...]
    annotated: tuple[int, ...] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """More classes than a mask can tell apart, boxes of no area, which are left out, and those that are cut.

        The latter reach out of the image by more than a pixel, as far as the file says how large it is.
        """
        return (*_many(self.labels, self.file), *self._notes)

    @property
    def numbers(self) -> dict[str, Any]:
        """The file's own number of each image."""
        return {image_id: entry.number for image_id, entry in self._entries.items()}

    @property
    def categories(self) -> dict[Any, str]:
        """The class of each of the file's category numbers that `labels` has."""
        return {number: self.labels.names[index] for number, index in self._class_of.items() if index}

    def seen_in(self, labels: LabelSpace, to: Sequence[int], annotated: tuple[int, ...] | None) -> Coco:
        """The same in another label space, as `Relabelled` has it; masks need tell only its classes apart."""
        class_of = {number: to[index] for number, index in self._class_of.items()}
        return replace(self, labels=labels, _class_of=class_of, annotated=annotated)

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
        size, annotations = self._size(image_id), self._entries[image_id].annotations
        boxed = [item for item in annotations if not is_empty(box_of(item))]
        boxes = [self._fitted(item, size) for item in boxed]
        classes = torch.tensor([self._class_of[item["category_id"]] for item in boxed], dtype=torch.int64)
        kept = classes > 0
        return GroundTruth(
            size=size,
            boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[kept],
            classes=classes[kept],
            difficult=torch.tensor([_is_crowd(item) for item in boxed], dtype=torch.bool)[kept],
            mask=self._mask(annotations, size),
            annotated=self.annotated,
        )

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with ground truth; boxes always are."""
        drawn = self._drawn(self._entries[image_id].annotations)
        return ("detection", "segmentation") if drawn else ("detection",)

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Every box and segmentation that is impossible; where the image has another size than stated, that alone."""
        try:
            size = self._size(image_id)
        except InputError as error:
            return (str(error),)
        annotations = self._entries[image_id].annotations
        boxes = [partial(self._fitted, item, size) for item in annotations if not is_empty(box_of(item))]
        drawn = annotations if self._drawn(annotations) else []
        return complaints(boxes) + complaints(partial(self._region, item, size) for item in drawn)

    def _size(self, image_id: str) -> tuple[int, int]:
        _, picture, stated, _ = self._entries[image_id]
        size = picture_size(picture)
        if stated is not None and stated != size:
            raise InputError(
                f"{picture}: the image is {size[1]}x{size[0]} pixels, {self.file} says {stated[1]:g}x{stated[0]:g}; "
                "the annotations belong to another version of the image"
            )
        return size

    def _fitted(self, item: Mapping[str, Any], size: tuple[int, int]) -> Box:
        return fit_box(box_of(item), size, name_of(self.file, item))

    def _region(self, item: Mapping[str, Any], size: tuple[int, int]) -> Region:
        return decode_segmentation(item["segmentation"], size, name_of(self.file, item))

    def _drawn(self, annotations: list[dict[str, Any]]) -> bool:
        possible = self._has_regions and len(self.labels) <= IGNORE
        return possible and all(has_pixels(item.get("segmentation")) for item in annotations)

    def _mask(self, annotations: list[dict[str, Any]], size: tuple[int, int]) -> Tensor | None:
        if not self._drawn(annotations):
            return None
        names = [name_of(self.file, item) for item in annotations]
        drawn = [
            encode_segmentation(item["segmentation"], size, name) for item, name in zip(annotations, names, strict=True)
        ]
        mask = np.zeros(size, np.uint8)
        # Crowds first, then instances from large to small: what is painted later lies above.
        layers = zip(annotations, names, drawn, strict=True)
        for item, name, (runs, _) in sorted(layers, key=lambda layer: (not _is_crowd(layer[0]), -layer[2][1])):
            mask[decode_runs(runs, name)] = IGNORE if _is_crowd(item) else self._class_of[item["category_id"]]
        return torch.from_numpy(mask)


def open_coco(folder: Path, split: str) -> Coco:
    """Open FOLDER/annotations/instances_SPLIT.json with images in FOLDER/SPLIT, as COCO has it.

    Also possible: SPLIT.json in FOLDER or FOLDER/annotations, and instances.json in FOLDER, which answers to any
    split. Images lie in FOLDER/SPLIT, FOLDER/images/SPLIT, FOLDER/images or FOLDER, the first of these that exists.

    Raises:
        InputError: no such split (the possible ones are named), or the file is not COCO instances; of annotations
            that can't be used, all are named.
    """
    file = _instances_file(folder, split)
    places = (folder / split, folder / "images" / split, folder / "images", folder)
    pictures = next(path for path in places if path.is_dir())
    labels, class_of, entries = read_instances(file, pictures)
    return Coco(
        name=f"coco:{folder}/{split}",
        source=f"coco:{own_name(folder)}",
        split=split,
        file=file,
        labels=labels,
        ids=tuple(entries),
        _entries=entries,
        _class_of=class_of,
        _has_regions=any(
            has_pixels(item.get("segmentation")) for entry in entries.values() for item in entry.annotations
        ),
        _notes=tuple(note for entry in entries.values() for note in _notes(entry, file)),
    )


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    return annotation.get("iscrowd") in (1, "1")


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


def _many(labels: LabelSpace, file: Path) -> Iterator[str]:
    if len(labels) > IGNORE:
        yield (
            f"{file}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): boxes alone, "
            "unless data.classes names fewer"
        )


def _notes(entry: Entry, file: Path) -> Iterator[str]:
    for item in entry.annotations:
        x1, y1, x2, y2 = box = box_of(item)
        height, width = entry.stated_size or (math.inf, math.inf)
        out = max(-x1, -y1, x2 - width, y2 - height)
        if is_empty(box):
            yield f"{name_of(file, item)}: a box of no area, left out"
        elif out > 1:
            yield f"{name_of(file, item)}: the box {box} reaches {out:g} pixels out of its image, cut"
