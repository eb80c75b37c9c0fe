"""Data sets of CVAT's format "CVAT for images 1.1": one XML file of all pictures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from tutored.data.coco import Entry, Instance, stated_size
from tutored.data.images import Images, Size
from tutored.data.objects import (
    ALL,
    Drawn,
    Pictures,
    as_points,
    boxed,
    class_of,
    counted,
    ellipse,
    filled,
    image_ids,
    images_of,
    numbered,
    outlined,
    pasted,
    turned,
)
from tutored.data.text import read_xml, refuse_climbing
from tutored.errors import InputError
from tutored.files import regular
from tutored.labels import LabelSpace


def cvat_splits(folder: Path) -> list[str]:
    """The subsets that CVAT's files in a folder name, and `all`; none where there is no such file."""
    files = _files(folder)
    subsets = {image.get("subset") for path in files for image in read_xml(path).iterfind("image")} - {None}
    return [*sorted(map(str, subsets)), ALL] if files else []


def open_cvat(folder: Path, split: str) -> Images:
    """Open a subset of the pictures that the XML files in FOLDER name, or, as `all`, each of them.

    Pictures lie anywhere in FOLDER, usually in `images`; one without a shape is empty or not labelled yet. Polygons,
    ellipses and masks are masks, and the boxes around them, those of a higher `z_order` above; `occluded` objects are
    objects like others.

    Raises:
        InputError: no such file or subset, a file is of a video, or no picture is there.
    """
    files = {path: read_xml(path) for path in _files(folder)}
    if not files:
        raise InputError(f"{folder}: no XML file of CVAT in it; export as `CVAT for images 1.1`, with images")
    for path, root in files.items():
        if root.find("track") is not None:
            raise InputError(f"{path}: holds tracks of a video; export as `CVAT for images 1.1`, with images")
    every = [(path, image) for path, root in files.items() for image in root.iterfind("image")]
    images = [(path, image) for path, image in every if split in (ALL, image.get("subset"))]
    if not images:
        raise InputError(f"{folder}: there is no subset {split!r}; possible: {', '.join(cvat_splits(folder))}")
    labels = _classes(files)
    pictures, names = Pictures(folder), [image.get("name") or "" for _, image in images]
    for (path, _), name in zip(images, names, strict=True):
        refuse_climbing(name, path)
    places = [pictures.find(f"{image.get('subset') or ''}/{image.get('name')}") for _, image in images]
    if not any(places):
        raise InputError(f"{folder}: none of {len(names):,} pictures is there, such as {names[0]}; put them into it")
    ids = image_ids([PurePosixPath(name) for name in names], folder)
    read = partial(_read, labels=labels)
    entries = {}
    for image_id, (path, image), place in zip(ids, images, places, strict=True):
        size = stated_size(image.get("height"), image.get("width"))
        entry = Entry(image.get("id"), place or folder / "images" / str(image.get("name")), size, [], path=path)
        entries[image_id] = filled(entry, _shapes(path, image), read)
    left = pictures.unused([place for place in places if place]) if split == ALL else []
    return images_of(
        "cvat",
        folder,
        split,
        labels,
        entries,
        folder,
        unread=counted(left, "pictures", "are named in no file and are not used"),
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.xml")) if b"<annotations" in regular(path).read_bytes()[:4096]]


def _classes(files: dict[Path, Element]) -> LabelSpace:
    """Those of the projects or tasks, without the points of a skeleton."""
    stated = (label for root in files.values() for label in root.iterfind("meta//labels/label"))
    names = dict.fromkeys(label.findtext("name") or "" for label in stated if label.find("parent") is None)
    seen = {shape.get("label") or "" for root in files.values() for shape in root.iterfind("image/*")}
    return numbered(list(names) or sorted(seen), next(iter(files)))[0]


def _shapes(path: Path, image: Element) -> Iterator[tuple[str, Element]]:
    for number, shape in enumerate(image, start=1):
        yield f"{path}: image {image.get('name')}: {shape.tag} {number} ({shape.get('label')})", shape


def _read(shape: Element, what: str, labels: LabelSpace) -> Drawn:
    kind = shape.tag
    if kind not in ("box", "polygon", "ellipse", "mask"):
        return None, f"shapes of the kind {kind}, which are not read"
    number, layer = class_of(shape.get("label"), labels, what), int(_numbers(shape, what, "z_order")[0])
    degrees = _numbers(shape, what, "rotation")[0]
    if kind == "box":
        x1, y1, x2, y2 = _numbers(shape, what, "xtl", "ytl", "xbr", "ybr")
        return boxed(what, number, (x1, y1, x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2), degrees)
    if kind == "mask":
        left, top, width, height = map(int, _numbers(shape, what, "left", "top", "width", "height"))
        pixels = partial(_mask, shape.get("rle") or "", (left, top, width, height), what)
        box = (float(left), float(top), float(left + width), float(top + height))
        return Instance(what, box, number, segmentation=pixels, layer=layer), ""
    if kind == "polygon":
        points = as_points([pair.split(",") for pair in (shape.get("points") or "").split(";") if pair], what)
    else:
        x, y, *radii = _numbers(shape, what, "cx", "cy", "rx", "ry")
        points = turned(ellipse(x, y, *radii), x, y, degrees)
    return outlined(what, number, [points])._replace(layer=layer), ""


def _numbers(shape: Element, what: str, *keys: str) -> list[float]:
    """Attributes of a shape; the two that may be missing are 0."""
    texts = [shape.get(key, "0" if key in ("z_order", "rotation") else "") for key in keys]
    return [value for value, _ in as_points([(text, 0) for text in texts], f"{what}: {', '.join(keys)}", 1)]


def _mask(runs: str, place: tuple[int, int, int, int], what: str, size: Size) -> NDArray[np.bool_]:
    """The pixels of a mask, whose run lengths go along the rows of its own rectangle and begin with zeros."""
    left, top, width, height = place
    try:
        counts = np.array(runs.split(","), np.int64)
    except (ValueError, OverflowError):
        counts = np.array([-1])
    if counts.min() < 0 or counts.sum() != width * height:
        raise InputError(f"{what}: its run lengths are not those of {width}x{height} pixels; draw it again")
    crop = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return pasted(crop, left, top, size, what)
