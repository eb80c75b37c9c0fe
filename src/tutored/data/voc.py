"""Data sets in the layout of PASCAL VOC 2007 and 2012: boxes from XML, class masks from PNG, either may be missing."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element

import numpy as np
import torch

from tutored.data.images import AnnotationFiles, Images, first_file
from tutored.data.text import CLASS_FILES, gather, numbered, own_classes, read_lines, read_xml, refuse_climbing
from tutored.errors import InputError, told_of
from tutored.labels import VOC, LabelSpace, composed
from tutored.pictures import SUFFIXES, UNREAD, Box, fit_box, read_numbers, read_picture, refuse_shares
from tutored.tasks.detection.types import Boxes
from tutored.tasks.instances.types import Objects
from tutored.tasks.segmentation.types import ClassMask
from tutored.types import BACKGROUND, IGNORE, Size

LABEL_MAP = re.compile(r"(.+):(\d+),(\d+),(\d+):[^:]*:[^:]*")
"""A line of CVAT's `labelmap.txt`: a class and its colour in masks."""


@dataclass(frozen=True, kw_only=True)
class ColourMasks(AnnotationFiles):
    """Masks whose colours mean classes: by colour, as 0xRRGGBB, the class."""

    states_classes: ClassVar[bool] = True
    colours: Mapping[int, int]

    def read(self, image_id: str, size: Size) -> ClassMask:
        path = self.path(image_id)
        assert path is not None
        pixels = np.asarray(read_picture(path), np.int32) @ (1 << 16, 1 << 8, 1)
        if pixels.shape != size:
            height, width = pixels.shape
            raise InputError(f"{path}: the mask is {width}x{height} pixels, its image {size[1]}x{size[0]}")
        values, where = np.unique(pixels, return_inverse=True)
        strange = [f"{value >> 16},{value >> 8 & 255},{value & 255}" for value in values if value not in self.colours]
        if strange:
            raise InputError(
                f"{path}: labelmap.txt has no class of the colour {' or '.join(strange[:3])}; add it, or, where pixels "
                f"are numbers of classes, list these in {CLASS_FILES[0]}"
            )
        classes = np.array([self.colours[value] for value in values.tolist()], np.uint8)
        return ClassMask(mask=torch.from_numpy(classes[where.reshape(size)]))


def label_map(folder: Path) -> tuple[LabelSpace, Mapping[int, int]] | None:
    """The classes of CVAT's `labelmap.txt`, and the class of each colour, 0xRRGGBB; None without such a file. Raises
    InputError: naming file and line; a line is no class with a colour, or two have one colour or name.
    """
    path = folder / "labelmap.txt"
    if not path.is_file():
        return None
    names: list[str] = []
    colours: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LABEL_MAP.fullmatch(line.strip())
        levels = [int(each) for each in found.groups()[1:]] if found else [256]
        colour = sum(level << shift for level, shift in zip(levels, (16, 8, 0), strict=False))
        if not found or max(levels) > 255 or colour in colours:
            raise InputError(
                f"{path}: line {number}: {line!r} is not name:red,green,blue:parts:actions, each colour once"
            )
        colours[colour] = len(names)
        names.append(found[1])
    labels, classes = numbered(names, path)
    if len(labels) > IGNORE:
        raise InputError(f"{path}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1})")
    return labels, {colour: classes[place] % 256 for colour, place in colours.items()}  # -1 is ignored


OF_ONE_CLASS = re.compile(r"\s(-1|0|1)\s*$")
"""How every line of VOC's lists of one class ends; an image id itself may hold blanks."""
A_FILE = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|avif)(\s|$)", re.I)
CLASSES_ELSEWHERE = ("obj.names", "data.yaml")
"""Where other tools list classes."""
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
"""Where a mask is looked for, in this order; the second holds SBD's masks, as people commonly add them to VOC2012."""


def open_voc(folder: Path, split: str) -> Images:
    """Open a split of a VOC folder, or of the VOCdevkit folder above it where that holds only one.

    An image without XML has no boxes annotated; XML without an object says that nothing is there, or that nobody drew
    yet. An image without a PNG in `MASK_FOLDERS` has no mask. Raises InputError: no such folder or split (the possible
    ones are named), an empty list, an id listed twice.

    Args:
        folder: holds JPEGImages, Annotations, SegmentationClass and ImageSets.
        split: a list of ImageSets. `Main/train` or `Segmentation/train` is that list alone; `train` is every image
            on either (in VOC2012 they differ, and training takes from each image what it has). `a+b` is the union
            of splits, in this order.

    Classes are VOC's twenty, or those that a file in the folder lists (`CLASS_FILES`), one a line in the order of their
    indices. Without such a file, `labelmap.txt` lists them as CVAT writes it, with the colours that masks have then.
    """
    folder = _dataset_folder(folder)
    listed, mapped = own_classes(folder), label_map(folder)
    labels, _ = listed or mapped or (VOC, None)
    elsewhere = () if listed or mapped else CLASSES_ELSEWHERE
    unread = [path for path in (folder / name for name in elsewhere) if path.is_file()]
    xml = VocBoxes(kind="detection", folders=(folder / "Annotations",), suffixes=(".xml",), labels=labels)
    places = tuple(folder / name for name in MASK_FOLDERS)
    masks = AnnotationFiles(kind="segmentation", folders=places, suffixes=(".png",), labels=labels)
    if mapped and not listed:
        masks = ColourMasks(**vars(masks), colours=mapped[1])
    objects = VocObjects(
        kind="instances", folders=(folder / "SegmentationObject",), suffixes=(".png",), labels=labels, xml=xml
    )
    return Images(
        format="voc",
        folder=folder,
        split=split,
        classes=labels,
        ids=_read_split(folder, split),
        place=partial(_picture, folder),
        pictures=folder / "JPEGImages",
        remarks=tuple(
            f"{path}: is not read, so that the numbers in masks are taken to be VOC's; if they are not, write "
            f"{folder / CLASS_FILES[0]}, one class a line, number 1 first"
            for path in unread
        ),
        tasks={xml.kind: xml, masks.kind: masks},
        further={objects.kind: objects},
    )


@dataclass(frozen=True, kw_only=True)
class VocBoxes(AnnotationFiles):
    """The objects of VOC's XML files.

    A file is refused that is of an image of another size, and an object that lacks a field, has an unknown class, or a
    box that sticks out by more than the pixel that rounding explains.
    """

    def is_blank(self, image_id: str) -> bool:
        path = self.path(image_id)
        if path is None or not path.is_file():
            return False
        text = path.read_bytes().rstrip()
        if b"<object" in text or b"<!DOCTYPE" in text:  # whose entities may hold objects, or worse
            return False
        return text.endswith((b"</annotation>", b"<annotation/>"))  # not cut short

    def read(self, image_id: str, size: Size) -> Boxes:
        path = self.path(image_id)
        assert path is not None
        root = read_xml(path)
        if root.tag != "annotation":
            raise InputError(f"{path}: a VOC annotation begins with <annotation>, got <{root.tag}>")
        steps: list[Callable[[], Any]] = [partial(_check_size, root, size, path)]
        for number, element in enumerate(root.findall("object"), start=1):
            steps.append(partial(_read_object, element, size, self.labels, f"{path}: object {number}"))
        return as_boxes(gather(steps)[1:])


@dataclass(frozen=True, kw_only=True)
class VocObjects(AnnotationFiles):
    """The objects of VOC's XML files, outlined by PNGs whose pixels are their numbers in the order of the XML.

    An image needs both files. An object that is marked difficult need not be outlined: nobody knows its pixels.
    """

    xml: VocBoxes

    def files(self, image_id: str) -> tuple[Path, ...]:
        return (*self.xml.files(image_id), *super().files(image_id))

    def has(self, image_id: str) -> bool:
        return self.xml.has(image_id) and super().has(image_id)

    def read(self, image_id: str, size: Size) -> Objects:
        path = self.path(image_id)
        assert path is not None
        boxes = replace(self.xml, labels=self.labels).read(image_id, size)
        numbers, _ = read_numbers(path, size)
        drawn = [int(number) for number in np.unique(numbers) if number not in (BACKGROUND, IGNORE)]
        count, difficult = len(boxes.classes), boxes.difficult.tolist()
        beyond = [number for number in drawn if number > count]
        lacking = [n for n in range(1, count + 1) if n not in drawn and not difficult[n - 1]]
        xml = self.xml.path(image_id)
        if beyond:
            raise InputError(
                f"{path}: pixels of object {beyond[0]}, but {xml} has {count} objects; correct one of the two"
            )
        if lacking:
            name = self.labels.names[int(boxes.classes[lacking[0] - 1])]
            raise InputError(
                f"{path}: no pixel of object {lacking[0]} ({name}) of {xml}; outline it, or mark it difficult"
            )
        known = [np.where(numbers == IGNORE, IGNORE, numbers == n).astype(np.uint8) for n in range(1, count + 1)]
        masks = [each if n in drawn else np.full(size, IGNORE, np.uint8) for n, each in enumerate(known, start=1)]
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size, dtype=torch.uint8)
        return Objects(**boxes.parts, masks=stacked)


def as_boxes(objects: Sequence[tuple[Box, int, bool]]) -> Boxes:
    """An annotation from box, class and difficult flag of each object."""
    return Boxes(
        boxes_xyxy=torch.tensor([box for box, _, _ in objects], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor([number for _, number, _ in objects], dtype=torch.int64),
        difficult=torch.tensor([difficult for _, _, difficult in objects], dtype=torch.bool),
    )


def _check_size(root: Element, size: Size, path: Path) -> None:
    """Some tools write 0, or nothing, for a size that they do not know."""
    stated = root.find("size")
    if stated is None:
        return
    for field, pixels in (("width", size[1]), ("height", size[0])):
        if (stated.findtext(field) or "").strip() and _number(stated, field, f"{path}: <size>") not in (0, pixels):
            width, height = stated.findtext("width"), stated.findtext("height")
            raise InputError(
                f"{path}: <size> says {width}x{height} pixels, the image is {size[1]}x{size[0]}; "
                "the boxes belong to another version of the image"
            )


def _read_object(element: Element, size: Size, labels: LabelSpace, what: str) -> tuple[Box, int, bool]:
    name = _text(element, "name", what)
    what = f"{what} ({name})"
    with told_of(what, "own classes go into a file labels.txt in the data folder"):
        index = labels.index(name)
    if index == BACKGROUND:
        raise InputError(f"{what}: background is no object; remove it")
    box = element.find("bndbox")
    if box is None:
        raise InputError(f"{what}: there is no <bndbox>; add it or remove the object")
    xmin, ymin, xmax, ymax = (_number(box, field, what) for field in ("xmin", "ymin", "xmax", "ymax"))
    refuse_shares((xmin, ymin, xmax, ymax), what)
    # VOC counts pixels from 1 and includes the last one; from here on, boxes are 0-based continuous edges.
    fitted = fit_box((xmin - 1, ymin - 1, xmax, ymax), size, what, slack=1)
    flag = (element.findtext("difficult") or "0").strip()
    if flag not in ("0", "1"):
        raise InputError(f"{what}: <difficult> is 0 or 1, got {flag!r}")
    return fitted, index, flag == "1"


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


def _picture(folder: Path, image_id: str) -> Path:
    """An image's picture; where there is none that can be read, another one, or the path that it should have."""
    pictures = folder / "JPEGImages"
    return first_file((pictures,), image_id, (*SUFFIXES, *UNREAD)) or pictures / f"{image_id}.jpg"


def _read_split(folder: Path, split: str) -> tuple[str, ...]:
    lists = {f"{path.parent.name}/{path.stem}": path for path in sorted((folder / "ImageSets").glob("*/*.txt"))}
    ids: dict[str, None] = {}
    for part in split.split("+"):
        wanted = [key for key in (part, f"Main/{part}", f"Segmentation/{part}") if key in lists]
        if not wanted:
            raise InputError(f"{folder}: there is no split {part!r}; {_possible(folder, lists)}")
        listed = [image_id for key in wanted for image_id in _read_ids(folder, lists[key])]
        if not listed:
            raise InputError(f"{lists[wanted[0]]}: the split {part!r} lists no image; {_possible(folder, lists)}")
        ids.update(dict.fromkeys(listed))
    return tuple(ids)


def _read_ids(folder: Path, path: Path) -> tuple[str, ...]:
    ids = tuple(composed(line.strip()) for line in read_lines(path) if line.strip())
    if ids and _are_of_one_class(folder, ids):
        raise InputError(f"{path}: a list of one class (id and -1, 0 or 1) is not a split; give one like train or val")
    for image_id in ids:
        refuse_climbing(image_id, path)
        if A_FILE.search(image_id) and not first_file((folder / "JPEGImages",), image_id, SUFFIXES):
            raise InputError(
                f"{path}: {image_id!r} names files; write the picture's name alone, without folder or suffix"
            )
    if len(set(ids)) < len(ids):
        twice = sorted({image_id for image_id in ids if ids.count(image_id) > 1})
        raise InputError(f"{path}: listed twice: {', '.join(twice[:5])}; list each image once")
    return ids


def _are_of_one_class(folder: Path, lines: Sequence[str]) -> bool:
    """Whether all lines end as in a list of one class, and none is a picture's own name."""
    pictures = folder / "JPEGImages"
    return all(map(OF_ONE_CLASS.search, lines)) and not any(first_file((pictures,), line, SUFFIXES) for line in lines)


def _possible(folder: Path, lists: dict[str, Path]) -> str:
    first = {key: [line.strip() for line in read_lines(path)[:1]] for key, path in lists.items()}
    whole = [key for key, lines in first.items() if any(lines) and not _are_of_one_class(folder, lines)]
    if not whole:
        return "ImageSets/Main and ImageSets/Segmentation hold no list of image ids, one a line; add one"
    names = dict.fromkeys(key.split("/")[1] for key in whole)
    return f"possible: {', '.join(names)}; or one list alone ({whole[0]}), or several joined by +"
