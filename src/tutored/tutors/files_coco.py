"""Detections in COCO's results format, boxes or masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
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
from tutored.labels import LabelSpace, same_class
from tutored.tutors.files_boxes import Detection, fit, read_number, read_score
from tutored.tutors.files_coco_ids import CocoIds, key, numbering, own_images

MASK_SIDE = 56
"""Cells of an instance mask stretched over its box."""


class CocoResults:
    """A list of `{image_id, category_id, bbox: [x, y, w, h], score, segmentation?}`, as COCO's evaluation takes it.

    For a COCO data set the numbers are its own ids. Elsewhere, and where some are not but all are stems, an `image_id`
    is the file's stem, or path without suffix, or its number where the stem is one. Also accepted: an object with
    `annotations` (that list), `categories` and `images`, which then say what the numbers mean.
    """

    meaning = "COCO results"

    def __init__(
        self,
        path: Path,
        given: LabelSpace | None,
        default: LabelSpace | None,
        own: CocoIds | None = None,
        image_ids: Collection[str] = (),
    ) -> None:
        """Read the file.

        Args:
            given: the classes, if the user says so: numbered as in `own` where they are the same, as in COCO where they
                are COCO's, else by position.
            default: the data set's classes, meant if the numbers can be positions among them but not COCO's.
            own: a COCO data set's ids, meant where the results don't say what theirs are.
            image_ids: the data set's, if known.

        Raises:
            InputError: not such a file, an id that is none of `own`, entries of which none is about one of
                `image_ids`, or category numbers that may mean nothing, two things, or another class than an entry's
                own `category`.
        """
        self.path = path
        self._known = known = frozenset(image_ids)
        content = read_json(path)
        entries = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
            raise InputError(f"{path}: COCO results are a list of {{image_id, category_id: number, bbox, score}}")
        images: dict[Any, str] = {}
        categories = None
        if isinstance(content, dict):
            try:
                images = {image["id"]: _own_name(image["file_name"], known) for image in content.get("images", ())}
                categories = {item["id"]: item["name"] for item in content.get("categories", ())}
            except (TypeError, KeyError) as error:
                raise InputError(f"{path}: an entry of 'images' or 'categories' lacks {error}") from error
        if own and not images:
            images = own_images(path, {entry["image_id"] for entry in entries}, own.images)
        numbers = {entry["category_id"] for entry in entries}
        own_categories = own.categories if own else {}
        self.labels, self._class_of = numbering(path, numbers, given, default, categories, own_categories)
        self._refuse_other_names(
            {(entry["category_id"], str(entry["category"])) for entry in entries if "category" in entry}
        )
        self._entries: dict[str, list[tuple[str, int, Any]]] = defaultdict(list)
        for position, entry in enumerate(entries):
            said = str(images.get(entry["image_id"], entry["image_id"]))
            self._entries[key(said)].append((said, position, entry))
        if entries and known and not any(map(self._about, known)):
            raise InputError(
                f"{path}: no entry is about an image of the data set: image_id {entries[0]['image_id']!r} is none, "
                f"{min(known)!r} is one; write file names without suffix, or give the data set of these results"
            )

    def detections(self, image_id: str, size: tuple[int, int]) -> list[Detection] | None:
        """Those of one image of `size` (height, width); None where the file has no entry for it.

        Raises:
            InputError: an entry lacks a field or is impossible, or its box lies outside the image.
        """
        entries = self._about(image_id)
        if not entries:
            return None
        found = (self._detection(entry, size, f"{self.path}: entry {position}") for position, entry in entries)
        return [detection for detection in found if detection is not None]

    def _about(self, image_id: str) -> list[tuple[int, Any]]:
        """The entries of one image, by position; in another spelling of its number where that is no other image's."""
        entries = self._entries.get(key(image_id), ())
        return [(position, entry) for said, position, entry in entries if said == image_id or said not in self._known]

    def lacks(self, image_id: str) -> str:
        return f"{self.path}: no entry for image {image_id}"

    def _refuse_other_names(self, called: set[tuple[Any, str]]) -> None:
        """Beside the number, `tutored predict` and `convert` write the class' name."""
        for number, name in sorted(called):
            meant = self._class_of[number]
            if same_class(name, self.labels) not in (None, meant):
                raise InputError(
                    f"{self.path}: entries call category {number} {name}, and it was taken for "
                    f"{self.labels.names[meant]}; give labels=FILE with the classes that the numbers mean, or write "
                    "a COCO data set's own (tutored predict --coco FILE)"
                )

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


def _own_name(file_name: str, known: Collection[str]) -> str:
    """Our image id of a file: its stem, or of those that share one, also its folders."""
    whole = PurePath(file_name).with_suffix("").as_posix()
    return whole if whole in known else PurePath(file_name).stem


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("image_id"), int | str)
        and isinstance(entry.get("category_id"), int)
    )


def _in_box(region: Any, box: Box) -> Tensor:
    """A mask [H, W] in the frame of its box, [MASK_SIDE, MASK_SIDE], averaged where that is coarser."""
    mask = torch.from_numpy(region)[None, None].float()
    cells: Tensor = roi_align(mask, [torch.tensor([box], dtype=torch.float32)], MASK_SIDE, aligned=True)
    return cells[0, 0].clamp(0, 1)
