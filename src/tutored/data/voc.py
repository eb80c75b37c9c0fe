"""Data sets in the layout of PASCAL VOC 2007 and 2012: boxes from XML, class masks from PNG, either may be missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import torch
from defusedxml import ElementTree
from PIL import Image
from torch import Tensor

from tutored.data.pictures import Box, fit_box, picture_size, read_mask, read_picture
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.structures import BACKGROUND, GroundTruth

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
"""Where a mask is looked for, in this order; the second holds SBD's masks, as people commonly add them to VOC2012."""


@dataclass(frozen=True, slots=True)
class Voc:
    """One split of a VOC folder.

    An image without XML has no boxes annotated; XML without an object says that nothing is there. An image without
    a PNG in `MASK_FOLDERS` has no mask.

    Attributes:
        folder: holds JPEGImages, Annotations, SegmentationClass and ImageSets.
        split: as the user wrote it.
    """

    folder: Path
    split: str
    labels: LabelSpace
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"voc:{self.folder}/{self.split}"

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture as stored. Raises InputError, naming the file, where it can't be read."""
        return read_picture(self._picture(image_id))

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Boxes and mask in the stored pixels of the image; the image's size is read from its own file.

        Raises:
            InputError: naming the file and, in XML, the object and field that is missing or impossible.
        """
        size = picture_size(self._picture(image_id))
        mask = self._find(MASK_FOLDERS, image_id, (".png",))
        annotation = self._find(("Annotations",), image_id, (".xml",))
        boxes = read_boxes(annotation, size, self.labels) if annotation else (None, None, None)
        return GroundTruth(
            size=size,
            boxes_xyxy=boxes[0],
            classes=boxes[1],
            difficult=boxes[2],
            mask=read_mask(mask, size, self.labels) if mask else None,
        )

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with a file for this image."""
        boxes = self._find(("Annotations",), image_id, (".xml",))
        mask = self._find(MASK_FOLDERS, image_id, (".png",))
        return (*(("detection",) if boxes else ()), *(("segmentation",) if mask else ()))

    def _picture(self, image_id: str) -> Path:
        found = self._find(("JPEGImages",), image_id, PICTURE_SUFFIXES)
        return found or self.folder / "JPEGImages" / f"{image_id}.jpg"

    def _find(self, folders: tuple[str, ...], image_id: str, suffixes: tuple[str, ...]) -> Path | None:
        paths = (self.folder / folder / f"{image_id}{suffix}" for folder in folders for suffix in suffixes)
        return next((path for path in paths if path.exists()), None)


def open_voc(folder: Path, split: str) -> Voc:
    """Open a split of a VOC folder, or of the VOCdevkit folder above it where that holds only one.

    Args:
        split: a list of ImageSets. `Main/train` or `Segmentation/train` is that list alone; `train` is every image
            on either (in VOC2012 they differ, and training takes from each image what it has). `a+b` is the union
            of splits, in this order.

    Classes are VOC's twenty, or those of a file `labels.txt` in the folder, one a line in the order of their indices.

    Raises:
        InputError: no such folder or split (the possible ones are named), an empty list, an id listed twice.
    """
    folder = _dataset_folder(folder)
    return Voc(folder, split, _read_labels(folder / "labels.txt"), _read_split(folder, split))


def read_boxes(path: Path, size: tuple[int, int], labels: LabelSpace) -> tuple[Tensor, Tensor, Tensor]:
    """The objects of one annotation file.

    Returns:
        float32 [K, 4] boxes (x1, y1, x2, y2), int64 [K] classes, bool [K] difficult flags.

    Raises:
        InputError: the file is no VOC annotation, or an object lacks a field, has an unknown class, or a box that
            sticks out by more than the pixel that rounding explains.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not readable as XML ({error}); correct the file or remove it") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: a VOC annotation begins with <annotation>, got <{root.tag}>")
    boxes, classes, difficult = [], [], []
    for number, element in enumerate(root.findall("object"), start=1):
        what = f"{path}: object {number}"
        name = _text(element, "name", what)
        what = f"{what} ({name})"
        classes.append(_class(name, labels, what))
        boxes.append(fit_box(_box(element, what), size, what, slack=1))
        flag = (element.findtext("difficult") or "0").strip()
        if flag not in ("0", "1"):
            raise InputError(f"{what}: <difficult> is 0 or 1, got {flag!r}")
        difficult.append(flag == "1")
    return (
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
    )


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


def _dataset_folder(folder: Path) -> Path:
    if (folder / "JPEGImages").is_dir():
        return folder
    inner = sorted(path for path in folder.glob("VOC*") if (path / "JPEGImages").is_dir())
    if len(inner) == 1:
        return inner[0]
    if inner:
        raise InputError(f"{folder}: holds several data sets; give one: {', '.join(f'voc:{path}' for path in inner)}")
    raise InputError(
        f"{folder}: not a VOC folder; it must hold JPEGImages, ImageSets and Annotations or SegmentationClass"
    )


def _read_labels(path: Path) -> LabelSpace:
    if not path.exists():
        return VOC
    names = [line.strip() for line in _read_lines(path) if line.strip()]
    try:
        return LabelSpace.of(names)
    except ValueError as error:
        raise InputError(f"{path}: {error}; list the object classes, one a line, background left out") from error


def _read_split(folder: Path, split: str) -> tuple[str, ...]:
    lists = {f"{path.parent.name}/{path.stem}": path for path in sorted((folder / "ImageSets").glob("*/*.txt"))}
    ids: dict[str, None] = {}
    for part in split.split("+"):
        wanted = [key for key in (part, f"Main/{part}", f"Segmentation/{part}") if key in lists]
        if not wanted:
            raise InputError(f"{folder}: there is no split {part!r}; {_possible(lists)}")
        listed = [image_id for key in wanted for image_id in _read_ids(lists[key])]
        if not listed:
            raise InputError(f"{lists[wanted[0]]}: the split {part!r} lists no image; {_possible(lists)}")
        ids.update(dict.fromkeys(listed))
    return tuple(ids)


def _read_ids(path: Path) -> tuple[str, ...]:
    rows = [line.split() for line in _read_lines(path) if line.strip()]
    if any(len(row) > 1 and row[1] in ("-1", "0", "1") for row in rows):
        raise InputError(f"{path}: a list of one class (id and -1, 0 or 1) is not a split; give one like train or val")
    ids = tuple(row[0] for row in rows)
    if len(set(ids)) < len(ids):
        twice = sorted({image_id for image_id in ids if ids.count(image_id) > 1})
        raise InputError(f"{path}: listed twice: {', '.join(twice[:5])}; list each image once")
    return ids


def _possible(lists: dict[str, Path]) -> str:
    whole = [key for key, path in lists.items() if any(len(line.split()) == 1 for line in _read_lines(path)[:1])]
    if not whole:
        return "ImageSets/Main and ImageSets/Segmentation hold no list of image ids, one a line; add one"
    names = dict.fromkeys(key.split("/")[1] for key in whole)
    return f"possible: {', '.join(names)}; or one list alone ({whole[0]}), or several joined by +"


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text ({error})") from error
