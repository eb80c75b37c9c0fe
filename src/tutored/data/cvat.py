"""Data sets of CVAT's format "CVAT for images 1.1": one XML file of all pictures."""

from functools import partial
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from tutored.data import tools
from tutored.data.images import Images
from tutored.data.objects import Entry, Instance, stated_size
from tutored.data.text import numbered, read_xml, refuse_climbing
from tutored.data.tools import ALL, Drawn, Page, Pictures
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.types import Size


def cvat_splits(folder: Path) -> list[str]:
    """The subsets that CVAT's files in a folder name, and `all`; none where there is no such file."""
    files = _files(folder)
    subsets = {image.get("subset") for root in files.values() for image in root.iterfind("image")} - {None}
    return [*sorted(map(str, subsets)), ALL] if files else []


def open_cvat(folder: Path, split: str) -> Images:
    """Open a subset of the pictures that the XML files in FOLDER name, or, as `all`, each of them.

    Pictures lie anywhere in FOLDER, usually in `images`; one without a shape is empty or not labelled yet. Polygons,
    ellipses and masks are masks, and the boxes around them, those of a higher `z_order` above; `occluded` objects are
    objects like others. Raises InputError: no such file or subset, a file is of a video, or no picture is there.
    """
    files = _files(folder)
    for path, root in files.items():
        if root.find("track") is not None:
            raise InputError(f"{path}: holds tracks of a video; export as `CVAT for images 1.1`, with images")
    if split not in (splits := cvat_splits(folder)):
        raise InputError(
            f"{folder}: there is no subset {split!r} in XML files of CVAT; possible: {', '.join(splits) or 'none'}"
        )
    pictures, pages = Pictures(folder), []
    for path, root in files.items():
        for image in root.iterfind("image"):
            name, subset = image.get("name") or "", image.get("subset")
            refuse_climbing(name, path)
            picture = pictures.find(f"{subset or ''}/{name}") or folder / "images" / name
            size = stated_size(image.get("height"), image.get("width"))
            shapes = [
                (f"{path}: image {name}: {shape.tag} {number} ({shape.get('label')})", shape)
                for number, shape in enumerate(image, start=1)
            ]
            if split in (ALL, subset):
                pages.append(Page(PurePosixPath(name), Entry(image.get("id"), picture, size, [], path=path), shapes))
    left = pictures.unused([page.entry.picture for page in pages]) if split == ALL else []
    labels, unread = _classes(files), tools.counted(left, "pictures", "are named in no file and are not used")
    return tools.images_of("cvat", folder, split, labels, pages, partial(_read, labels=labels), unread)


def _files(folder: Path) -> dict[Path, Element]:
    paths = (path for path in sorted(folder.glob("*.xml")) if path.is_file())
    roots = {path: read_xml(path) for path in paths if b"<annotations" in path.read_bytes()[:4096]}
    return {path: root for path, root in roots.items() if any(root.find(tag) is not None for tag in ("image", "track"))}


def _classes(files: dict[Path, Element]) -> LabelSpace:
    """Those of the projects or tasks, without the points of a skeleton."""
    stated = (label for root in files.values() for label in root.iterfind("meta//labels/label"))
    names = dict.fromkeys(label.findtext("name") or "" for label in stated if label.find("parent") is None)
    seen = {shape.get("label") or "" for root in files.values() for shape in root.iterfind("image/*")}
    return numbered(list(names) or sorted(seen), next(iter(files)))[0]


def _read(shape: Element, what: str, labels: LabelSpace) -> Drawn:
    kind = shape.tag
    if kind not in ("box", "polygon", "ellipse", "mask"):
        return None, f"shapes of the kind {kind}, which are not read"
    number = tools.class_of(shape.get("label"), labels, what)
    degrees, layer = _numbers(shape, what, "rotation", "z_order")
    if kind == "box":
        x1, y1, x2, y2 = _numbers(shape, what, "xtl", "ytl", "xbr", "ybr")
        return tools.boxed(what, number, (x1, y1, x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2), degrees)
    if kind == "polygon":
        points = tools.as_points([pair.split(",") for pair in (shape.get("points") or "").split(";")], what)
        instance = tools.outlined(what, number, points)
    elif kind == "ellipse":
        x, y, rx, ry = _numbers(shape, what, "cx", "cy", "rx", "ry")
        instance = tools.outlined(what, number, tools.ellipse((x, y), rx, ry, degrees))
    else:
        x, y, width, height = _numbers(shape, what, "left", "top", "width", "height")
        pixels = partial(_mask, shape.get("rle") or "", (int(x), int(y), int(width), int(height)), what)
        instance = Instance(what, (x, y, x + width, y + height), number, segmentation=pixels)
    return instance._replace(layer=int(layer)), ""


def _numbers(shape: Element, what: str, *keys: str) -> list[float]:
    """Attributes of a shape; the two that may be missing are 0."""
    texts = [shape.get(key, "0" if key in ("z_order", "rotation") else "") for key in keys]
    return [value for value, _ in tools.as_points([(text, 0) for text in texts], f"{what}: {', '.join(keys)}", 1)]


def _mask(runs: str, place: tuple[int, int, int, int], what: str, size: Size) -> NDArray[np.bool_]:
    """The pixels of a mask, whose run lengths go along the rows of its own rectangle and begin with zeros."""
    left, top, width, height = place
    try:
        counts = np.array(runs.split(","), np.int64)
    except (ValueError, OverflowError):
        counts = np.array([-1])
    if counts.min() < 0 or counts.sum() != width * height or counts.sum() > size[0] * size[1]:
        raise InputError(f"{what}: its run lengths are not those of {width}x{height} pixels; draw it again")
    crop = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return tools.pasted(crop, left, top, size, what)
