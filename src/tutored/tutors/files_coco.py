"""Detections in COCO's results format, boxes or masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from tutored.data.pictures import Box
from tutored.data.regions import decode_segmentation
from tutored.data.text import read_json
from tutored.errors import InputError
from tutored.labels import COCO, LabelSpace, same_class
from tutored.tutors.files_boxes import Detection, fit, read_number, read_score

COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""COCO's category numbers of its 80 classes, in the order of `labels.COCO`."""
MASK_SIDE = 56
"""Cells of an instance mask stretched over its box."""


class CocoResults:
    """A list of `{image_id, category_id, bbox: [x, y, w, h], score, segmentation?}`, as COCO's evaluation takes it.

    An `image_id` is the file's stem, or its number where the stem is one. Also accepted: an object with
    `annotations` (that list), `categories` and `images`, which then say what the numbers mean.
    """

    meaning = "COCO results"

    def __init__(self, path: Path, given: LabelSpace | None, default: LabelSpace | None) -> None:
        """Read the file.

        Args:
            given: the classes, if the user says so: COCO's numbering where they are COCO's, else their positions.
            default: the data set's classes, meant if the numbers can be positions among them but not COCO's.

        Raises:
            InputError: not such a file, or its category numbers may mean nothing, or two things.
        """
        self.path = path
        content = read_json(path)
        entries = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
            raise InputError(f"{path}: COCO results are a list of {{image_id, category_id: number, bbox, score}}")
        stems: dict[Any, str] = {}
        categories = None
        if isinstance(content, dict):
            try:
                stems = {image["id"]: PurePath(image["file_name"]).stem for image in content.get("images", ())}
                categories = {item["id"]: item["name"] for item in content.get("categories", ())}
            except (TypeError, KeyError) as error:
                raise InputError(f"{path}: an entry of 'images' or 'categories' lacks {error}") from error
        numbers = {entry["category_id"] for entry in entries}
        self.labels, self._class_of = _numbering(path, numbers, given, default, categories)
        self._entries: dict[str, list[tuple[int, Any]]] = defaultdict(list)
        for position, entry in enumerate(entries):
            image_id = entry["image_id"]
            self._entries[_key(stems.get(image_id, image_id))].append((position, entry))

    def detections(self, image_id: str, size: tuple[int, int]) -> list[Detection] | None:
        """Those of one image of `size` (height, width); None where the file has no entry for it.

        Raises:
            InputError: an entry lacks a field or is impossible, or its box lies outside the image.
        """
        entries = self._entries.get(_key(image_id))
        if entries is None:
            return None
        found = (self._detection(entry, size, f"{self.path}: entry {position}") for position, entry in entries)
        return [detection for detection in found if detection is not None]

    def lacks(self, image_id: str) -> str:
        return f"{self.path}: no entry for image {image_id}"

    def _detection(self, entry: Mapping[str, Any], size: tuple[int, int], what: str) -> Detection | None:
        region = None
        if entry.get("segmentation"):
            region = decode_segmentation(entry["segmentation"], size, what)
        if "bbox" in entry:
            values = entry["bbox"]
            if not isinstance(values, list) or len(values) != 4:
                raise InputError(f"{what}: 'bbox' must be [x, y, width, height], got {values!r}")
            x, y, width, height = (read_number(value, "bbox", what) for value in values)
            box = (x, y, x + width, y + height)
        elif region is not None:
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            if len(rows) == 0:
                return None
            box = (float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0)
        else:
            raise InputError(f"{what}: 'bbox' is missing")
        score = read_score(entry.get("score"), "score", what)
        fitted = fit(box, size, what)
        if fitted is None:
            return None
        mask = None if region is None else _in_box(region, fitted)
        return Detection(fitted, self._class_of[entry["category_id"]], score, mask)


def _numbering(
    path: Path,
    numbers: set[Any],
    given: LabelSpace | None,
    default: LabelSpace | None,
    categories: Mapping[Any, str] | None,
) -> tuple[LabelSpace, dict[Any, int]]:
    """The label space, and the class of each category number."""
    if categories:
        ids = list(categories)
        try:
            space = LabelSpace.of(list(categories.values()))
        except InputError as error:
            raise InputError(f"{path}: categories: {error}") from error
        if given is not None and given != space:
            raise InputError(f"{path}: its 'categories' are not the given labels; leave the labels out")
        unknown = numbers - categories.keys()
        if unknown:
            raise InputError(f"{path}: category {min(map(str, unknown))} is not among its 'categories'")
    else:
        possible = [given] if given else [COCO] if default in (None, COCO) else [default, COCO]
        fitting = [space for space in possible if space and numbers <= {*_ids(space)}]
        doubt = _doubt(numbers, possible, fitting)
        if doubt:
            raise InputError(
                f"{path}: {doubt}; "
                "say which classes the numbers mean: labels=coco, labels=voc, or labels=FILE with one class a line"
            )
        space, ids = fitting[0], _ids(fitting[0])
    return space, {number: index for index, number in enumerate(ids, start=1)}


def _doubt(numbers: set[Any], possible: list[LabelSpace], fitting: list[LabelSpace]) -> str:
    """One category that means nothing, or two classes; empty where every one means the same class in all that fit."""
    if not fitting:
        ids = {number for space in possible for number in _ids(space)}
        strange = min(numbers - ids, default=min(numbers))
        return f"category {strange} and others are neither COCO's numbers nor positions in the labels"
    for number in sorted(numbers):
        first, *others = ((space.names[_ids(space).index(number) + 1], space) for space in fitting)
        for name, _ in others:
            if same_class(first[0], LabelSpace.of([name])) is None:
                return (
                    f"category {number} may be {first[0]}, by position in the data set's classes, or {name}, "
                    "by COCO's numbering"
                )
    return ""


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("image_id"), int | str)
        and isinstance(entry.get("category_id"), int)
    )


def _ids(space: LabelSpace) -> list[int]:
    return COCO_IDS if space == COCO else list(range(1, len(space)))


def _key(image_id: Any) -> str:
    """One spelling for 139, "139" and "000000000139"."""
    text = str(image_id)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def _in_box(region: Any, box: Box) -> Tensor:
    """A mask [H, W] in the frame of its box, [MASK_SIDE, MASK_SIDE], averaged where that is coarser."""
    mask = torch.from_numpy(region)[None, None].float()
    cells: Tensor = roi_align(mask, [torch.tensor([box], dtype=torch.float32)], MASK_SIDE, aligned=True)
    return cells[0, 0].clamp(0, 1)
