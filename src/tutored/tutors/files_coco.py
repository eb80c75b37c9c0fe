"""Boxes and masks in COCO's results format, and what the numbers of images and categories in it mean."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tutored.data.coco import Coco
from tutored.data.objects import decode_segmentation
from tutored.errors import InputError, told_of
from tutored.files import read_json
from tutored.labels import COCO, COCO_IDS, LabelSpace, same_class
from tutored.pictures import Box, fit_box, is_empty
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tutors.outputs import ROUNDING
from tutored.types import Dataset, Size

MASK_SIDE = 56
"""Cells of an instance mask stretched over its box."""


class Found(NamedTuple):
    """One object in a file: a box in pixels of the image, 1..C, 0..1, and a mask [m, m] stretched over the box."""

    box: Box
    class_index: int
    score: float
    mask: Tensor | None


def soft_answers(objects: Iterable[Found | None], classes: int) -> tuple[SoftBoxes, Instances | None]:
    """Boxes with their score on their class and the rest on background; instances where objects have masks. `classes`
    is C + 1, the names of the label space.
    """
    found = [each for each in objects if each is not None]
    boxes = torch.tensor([each.box for each in found], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([each.score for each in found], dtype=torch.float32)
    index = torch.tensor([each.class_index for each in found], dtype=torch.int64)
    probs = torch.zeros(len(found), classes).scatter(1, index[:, None], scores[:, None])
    probs[:, 0] = 1 - scores
    masks = [each.mask for each in found if each.mask is not None]
    instances = None
    if masks:
        own = torch.tensor([each.mask is not None for each in found])
        instances = Instances(boxes_xyxy=boxes[own], classes=index[own], scores=scores[own], masks=torch.stack(masks))
    return SoftBoxes(boxes_xyxy=boxes, classes=index, probs=probs), instances


class CocoResults:
    """A list of `{image_id, category_id, bbox: [x, y, w, h], score, segmentation?}`, as COCO's evaluation takes it.

    For a COCO data set the numbers are its own ids. Elsewhere, and where all are stems and some are no ids, an
    `image_id` is the file's stem, or path without suffix, or its number where the stem is one. Also accepted: an object
    with `annotations` (that list), `categories` and `images`, which then say what the numbers mean.

    Attributes:
        meaning, facts: for the store's identity.
        nothing: the answer about an image without an entry.
    """

    meaning = "COCO results"

    def __init__(
        self, path: Path, given: LabelSpace | None, default: LabelSpace | None, dataset: Dataset | None
    ) -> None:
        """Read the file. Raises InputError: not such a file, an id that the COCO data set does not have, no entry about
        an image of the data set, or category numbers that mean nothing, two things, or another class than an entry's
        own `category`.

        Args:
            given: the classes, if the user says so: numbered as in the data set where they are the same, as in COCO
                where they are COCO's, else by position.
            default: the data set's classes, meant where the numbers can be positions among them but not COCO's.
        """
        self.path = path
        self._known = known = frozenset(() if dataset is None else dataset.ids)
        content = read_json(path)
        entries = _entries(path, content.get("annotations") if isinstance(content, dict) else content)
        images: dict[Any, str] = {}
        categories: Mapping[Any, str] = {}
        own_images: Mapping[Any, str] = {}
        own_categories: Mapping[Any, str] = {}
        self.facts: dict[str, str] = {}
        if isinstance(dataset, Coco):
            own_images = {number: image_id for image_id, number in dataset.numbers.items()}
            own_categories = dataset.categories
            text = json.dumps([own_images, own_categories])
            self.facts = {"own_ids_sha256": hashlib.sha256(text.encode()).hexdigest()}
        if isinstance(content, dict):
            try:
                images = {
                    _whole(image["id"]): _own_name(image["file_name"], known) for image in content.get("images", ())
                }
                categories = {_whole(item["id"]): item["name"] for item in content.get("categories", ())}
            except (TypeError, KeyError) as error:
                raise InputError(f"{path}: an entry of 'images' or 'categories' lacks {error}") from error
        if own_images and not images:
            images = _images_of(path, {entry["image_id"] for entry in entries}, own_images)
        numbers = {entry["category_id"] for entry in entries}
        self.labels, self._class_of = (
            _stated_classes(path, numbers, given, categories)
            if categories
            else _meant_classes(path, numbers, given, default, own_categories)
        )
        self.nothing = soft_answers((), len(self.labels))
        self._refuse_other_names(
            {(each["category_id"], str(each["category"])) for each in entries if "category" in each}
        )
        self._entries: dict[str, list[tuple[str, int, Any]]] = defaultdict(list)
        for position, entry in enumerate(entries):
            name = str(images.get(entry["image_id"], entry["image_id"]))
            self._entries[_spelling(name)].append((name, position, entry))
        if entries and known and not any(map(self._about, known)):
            raise InputError(
                f"{path}: no entry is about an image of the data set, which has {min(known)!r} and not "
                f"{entries[0]['image_id']!r}; write file names without suffix, or give the data set of these results"
            )

    def read(self, image_id: str, size: Size) -> tuple[SoftBoxes, Instances | None] | None:
        """The objects of one image of `size` (height, width); None where the file has no entry for it. Raises
        InputError: an entry lacks a field or is impossible, or its box lies outside the image.
        """
        entries = self._about(image_id)
        if not entries:
            return None
        found = (self._object(entry, size, f"{self.path}: entry {position}") for position, entry in entries)
        return soft_answers(found, len(self.labels))

    def lacks(self, image_id: str) -> str:
        return f"{self.path}: no entry for image {image_id}"

    def _about(self, image_id: str) -> list[tuple[int, Any]]:
        """The entries of one image, by position; also in another spelling, unless another image has that name."""
        entries = self._entries.get(_spelling(image_id), ())
        return [(position, entry) for name, position, entry in entries if name == image_id or name not in self._known]

    def _refuse_other_names(self, called: set[tuple[Any, str]]) -> None:
        """Beside the number, `tutored predict` and `convert` write the class's name."""
        for number, name in sorted(called):
            meant = self._class_of[number]
            if same_class(name, self.labels) not in (None, meant):
                raise InputError(
                    f"{self.path}: entries call category {number} {name}, and it was taken for "
                    f"{self.labels.names[meant]}; give labels=FILE with the classes that the numbers mean, or write "
                    "a COCO data set's own (tutored predict --coco FILE)"
                )

    def _object(self, entry: Mapping[str, Any], size: Size, what: str) -> Found | None:
        drawn = entry.get("segmentation")
        region = decode_segmentation(drawn, size, what) if drawn else None
        if region is not None and not region.any():
            if "bbox" not in entry:
                return None
            region = None
        if "bbox" in entry:
            values = entry["bbox"]
            if not isinstance(values, list) or len(values) != 4:
                raise InputError(f"{what}: 'bbox' must be [x, y, width, height], got {values!r}")
            x, y, width, height = (read_number(value, "bbox", what) for value in values)
            box = (x, y, x + width, y + height)
        elif region is not None:
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            box = (float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0)
        else:
            raise InputError(f"{what}: 'bbox' is missing")
        score, fitted = read_score(entry.get("score"), "score", what), fit(box, size, what)
        if fitted is None:
            return None
        mask = None
        if region is not None:
            from torchvision.ops import roi_align  # slow to import, see `boxes.nms`

            pixels = torch.from_numpy(region)[None, None].float()
            cells = roi_align(pixels, [torch.tensor([fitted], dtype=torch.float32)], MASK_SIDE, aligned=True)
            mask = cells[0, 0].clamp(0, 1)
        return Found(fitted, self._class_of[entry["category_id"]], score, mask)


def fit(box: Box, size: Size, what: str) -> Box | None:
    """The box within its image of `size` (height, width); None for one of no width or height, as detectors round them.
    Raises InputError: beginning with `what`; a negative side, or all of it outside the image.
    """
    if box[2] < box[0] or box[3] < box[1]:
        raise InputError(f"{what}: the box {box} has a negative side; COCO results are [x, y, width, height]")
    return None if is_empty(box) else fit_box(box, size, what)


def read_number(value: Any, field: str, what: str) -> float:
    """A finite number. Raises InputError beginning with `what`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{what}: '{field}' must be a number, got {value!r}")
    return number


def read_score(value: Any, field: str, what: str) -> float:
    """A probability, free of what rounding adds to it. Raises InputError beginning with `what`."""
    score = read_number(value, field, what)
    if not -ROUNDING <= score <= 1 + ROUNDING:
        raise InputError(f"{what}: a score is a probability from 0 to 1, got {score}; calibrate or rescale the scores")
    return min(max(score, 0.0), 1.0)


def _entries(path: Path, content: Any) -> list[dict[str, Any]]:
    """The entries, their ids as `_whole` has them. Raises InputError, naming the entry that is no object."""
    form = "COCO results are a list of {image_id, category_id: number, bbox, score}"
    if not isinstance(content, list):
        raise InputError(f"{path}: {form}")
    entries = []
    for position, entry in enumerate(content):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {position} is {str(entry)[:80]!r}; {form}")
        ids = {field: _whole(entry.get(field)) for field in ("image_id", "category_id")}
        for (field, value), kinds in zip(ids.items(), ((int, str), (int,)), strict=True):
            if type(value) not in kinds:
                told = " or text" if str in kinds else ""
                raise InputError(
                    f"{path}: entry {position}: '{field}' must be a whole number{told}, got {value!r}; {form}"
                )
        entries.append(entry | ids)
    return entries


def _whole(value: Any) -> Any:
    """An id; 139.0, as tables of floats write it, is 139."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- What numbers mean


def _own_name(file_name: str, known: Collection[str]) -> str:
    """Our image id of a file: its stem; where several share one, with its folders."""
    whole = PurePath(file_name).with_suffix("").as_posix()
    return whole if whole in known else PurePath(file_name).stem


def _spelling(image_id: Any) -> str:
    """One spelling for 139, "139" and "000000000139"."""
    text = str(image_id)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def _images_of(path: Path, image_ids: set[Any], own: Mapping[Any, str]) -> dict[Any, str]:
    """Our image id of each of the data set's ids: all numbers are such ids, or none is, and so with texts."""
    found: dict[Any, str] = {}
    for kind in (int, str):
        used = {image_id for image_id in image_ids if isinstance(image_id, kind)}
        unknown = used - own.keys()
        if not unknown:
            found |= {image_id: own[image_id] for image_id in used}
        elif kind is int and not set(map(_spelling, used)) <= set(map(_spelling, own.values())):
            raise InputError(
                f"{path}: the data set has no image_id {min(unknown)} ({_some(own)}); leave out the entries "
                "of other images, or write file names without suffix, as text"
            )
    return found


def _stated_classes(
    path: Path, numbers: set[Any], given: LabelSpace | None, categories: Mapping[Any, str]
) -> tuple[LabelSpace, dict[Any, int]]:
    """The label space of the file's own categories, and the class of each number."""
    with told_of(f"{path}: categories"):
        space = LabelSpace.of(list(categories.values()))
    if given is not None and given != space:
        raise InputError(f"{path}: its 'categories' are not the given labels; leave the labels out")
    unknown = numbers - categories.keys()
    if unknown:
        raise InputError(f"{path}: category {min(map(str, unknown))} is not among its 'categories'")
    return space, {number: index for index, number in enumerate(categories, start=1)}


def _meant_classes(
    path: Path, numbers: set[Any], given: LabelSpace | None, default: LabelSpace | None, own: Mapping[Any, str]
) -> tuple[LabelSpace, dict[Any, int]]:
    """The label space that the numbers are from, and the class of each number. Raises InputError: one number fits no
    label space, or may mean two classes. `own` are a COCO data set's categories.
    """
    if given is not None:
        spaces = [given]
    elif own:
        spaces = [LabelSpace.of(list(own.values()))]
    else:
        spaces = [default, COCO] if default not in (None, COCO) else [COCO]
    ids = {
        space: list(own)
        if space.classes == tuple(own.values())
        else COCO_IDS
        if space == COCO
        else [*range(1, len(space))]
        for space in spaces
    }
    fitting = [space for space in spaces if numbers <= {*ids[space]}]
    doubt = ""
    if not fitting:
        strange = min(numbers - {number for each in ids.values() for number in each}, default=min(numbers))
        doubt = f"category {strange} and others are neither COCO's numbers nor positions in the labels"
        if own and list(own) in ids.values():
            doubt = f"the data set has no category {strange} ({_some(own)})"
    for number in sorted(numbers):
        names = [space.names[ids[space].index(number) + 1] for space in fitting]
        if len(names) == 2 and same_class(names[0], LabelSpace.of(names[1:])) is None:
            doubt = (
                f"category {number} may be {names[0]}, by position in the data set's classes, or {names[1]}, "
                "by COCO's numbering"
            )
            break
    if doubt:
        raise InputError(
            f"{path}: {doubt}; "
            "say which classes the numbers mean: labels=coco, labels=voc, or labels=FILE with one class a line"
        )
    return fitting[0], {number: index for index, number in enumerate(ids[fitting[0]], start=1)}


def _some(ids: Mapping[Any, str]) -> str:
    return ", ".join([f"{number}: {name}" for number, name in ids.items()][:5] + ["..."] * (len(ids) > 5))
