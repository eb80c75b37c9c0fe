"""What readers of the files of annotation tools share: pictures found by name, image ids, classes, shapes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutored.data.coco import LARGEST, Entry, Instance, boxes_and_masks
from tutored.data.images import Images, Size, files_in, left_out_of
from tutored.data.text import is_background, refuse_unwritable
from tutored.errors import InputError
from tutored.files import is_special
from tutored.labels import LabelSpace, composed
from tutored.pictures import SUFFIXES, Box
from tutored.types import BACKGROUND

ALL = "all"
"""The split of a data set that has none of its own."""
Points = Sequence[tuple[float, float]]
Drawn = tuple[Instance | None, str]
"""An object, and why it was left out or changed; "" where it was not."""
TURNED = "boxes that are turned, read as the upright boxes around them, without an outline"


class Pictures:
    """The pictures in and under a folder, found by what annotations call them.

    Attributes:
        paths: in order.
        left_out: sentences on the files that seem to be pictures and are not read.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(files_in(folder))
        self.folder, self.left_out = folder, left_out_of(files)
        self.paths = [path for path in files if path.suffix.lower() in SUFFIXES and not is_special(path)]
        refuse_unwritable(self.paths)
        self._there = frozenset(self.paths)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[composed(path.name)].append(path)

    def __contains__(self, path: Path | None) -> bool:
        return path in self._there

    def find(self, name: str) -> Path | None:
        """The picture of this file name; of several, the one whose path has most of the end of `name`.

        Annotations name pictures by paths of another machine, also of Windows. None: there is none, or no single one.
        """
        parts = PurePosixPath(composed(name).replace("\\", "/")).parts[::-1]
        alike: dict[int, list[Path]] = defaultdict(list)
        for path in self._by_name.get(parts[0], ()) if parts else ():
            ends = [composed(part) for part in path.parts[::-1]]
            same = next(
                (at for at, pair in enumerate(zip(parts, ends, strict=False)) if pair[0] != pair[1]), len(parts)
            )
            alike[same].append(path)
        found = alike[max(alike)] if alike else []
        return found[0] if len(found) == 1 else None

    def unused(self, used: Sequence[Path]) -> list[Path]:
        """The pictures in the folders of those that are used."""
        folders, taken = {path.parent for path in used}, set(used)
        return [path for path in self.paths if path.parent in folders and path not in taken]


def image_ids(names: Sequence[PurePath], where: Path) -> list[str]:
    """The ids of images whose files have these names: the stem, or, where several share one, all but the suffix.

    Raises:
        InputError: naming `where`; two names differ in the suffix alone, or one is listed twice.
    """
    sharing = Counter(name.stem for name in names)
    ids = [composed(name.stem if sharing[name.stem] == 1 else name.with_suffix("").as_posix()) for name in names]
    for image_id, count in Counter(ids).items():
        if count > 1:
            alike = [str(name) for name, each in zip(names, ids, strict=True) if each == image_id]
            raise InputError(
                f"{where}: {' and '.join(alike[:2])} have one name up to the suffix; list a picture once, and rename "
                "one of two"
            )
    return ids


def numbered(names: Sequence[str], where: Path) -> tuple[LabelSpace, list[int]]:
    """The label space of a file's classes, and the class of each of them; background is none of its own.

    Raises:
        InputError: naming `where`; two classes have one name, or a name is empty.
    """
    classes = [name.strip() for name in names if not is_background(name)]
    if not all(classes):
        raise InputError(f"{where}: class {classes.index('')} has no name; give each its own")
    try:
        labels = LabelSpace.of(classes)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    return labels, [BACKGROUND if is_background(name) else labels.index(name.strip()) for name in names]


def images_of(
    kind: str,
    folder: Path,
    split: str,
    labels: LabelSpace,
    entries: Mapping[str, Entry],
    path: Path,
    *,
    places: Mapping[str, Path | str] | None = None,
    unread: Iterable[str] = (),
) -> Images:
    """A split as a format named `kind` has it.

    Args:
        entries: by image id.
        path: the file of the classes, or of all objects.
        places: of pictures, where entries are not read yet.
        unread: sentences on what is there and not read.
    """
    tasks, told = boxes_and_masks(labels, entries, path)
    return Images(
        format=kind,
        folder=folder,
        split=split,
        classes=labels,
        ids=tuple(entries),
        place=(places or {image_id: entry.picture for image_id, entry in entries.items()}).__getitem__,
        tasks=tasks,
        unread=(*unread, *told),
    )


def counted(things: Collection[Any], what: str, told: str) -> list[str]:
    """A sentence on files that are not used, if there are any."""
    return [f"{len(things):,} {what}, such as {min(map(str, things))}, {told}"] if things else []


def class_of(name: Any, labels: LabelSpace, what: str) -> int:
    """The number of an object's class, 0 for background. Raises InputError, beginning with `what`."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{what}: its class must be a name, got {name!r}")
    try:
        return BACKGROUND if is_background(name) else labels.index(name.strip())
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def filled(entry: Entry, shapes: Iterable[tuple[str, Any]], read: Callable[[Any, str], Drawn]) -> Entry:
    """An image's entry with its objects.

    Args:
        shapes: what messages call each object, and the object as the file has it.
        read: makes the instance; raises InputError where the object is faulty.
    """
    faults, told = list(entry.faults), list(entry.told)
    for name, shape in shapes:
        try:
            instance, why = read(shape, name)
        except InputError as error:
            faults.append(str(error))
            continue
        entry.instances.extend(filter(None, [instance]))
        if why:
            told.append((why, name))
    return entry._replace(faults=faults, told=told)


# --- Shapes


def as_points(given: Any, what: str, least: int = 3) -> Points:
    """Pairs of numbers. Raises InputError, beginning with `what`: it is something else, or fewer than `least`."""
    try:
        points = [(float(x), float(y)) for x, y in given]
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: points are pairs of numbers x, y, got {str(given)[:80]}") from error
    if len(points) < least:
        raise InputError(f"{what}: needs at least {least} points, has {len(points)}; remove it or draw it again")
    if not all(abs(value) <= LARGEST for point in points for value in point):
        raise InputError(f"{what}: a coordinate is no number of pixels; correct it")
    return points


def outlined(what: str, number: int, parts: Sequence[Points]) -> Instance:
    """An object of polygons, and the upright box around them."""
    flat = [[value for point in part for value in point] for part in parts]
    return Instance(what, envelope([point for part in parts for point in part]), number, segmentation=flat)


def boxed(what: str, number: int, box: Box, pivot: tuple[float, float], degrees: float) -> Drawn:
    """An object of the upright box around a box that is turned clockwise around `pivot`."""
    if not degrees:
        return Instance(what, box, number), ""
    x1, y1, x2, y2 = box
    return Instance(what, envelope(turned([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], *pivot, degrees)), number), TURNED


def envelope(points: Points) -> Box:
    """The upright box around points."""
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """64 points around the centre (x, y), with the radii `rx` and `ry`."""
    around = (math.tau * step / 64 for step in range(64))
    return [(x + rx * math.cos(each), y + ry * math.sin(each)) for each in around]


def turned(points: Points, x: float, y: float, degrees: float) -> Points:
    """The points turned clockwise, as the picture is seen, around (x, y)."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [(x + (a - x) * cosine - (b - y) * sine, y + (a - x) * sine + (b - y) * cosine) for a, b in points]


def pasted(crop: NDArray[np.bool_], left: int, top: int, size: Size, what: str) -> NDArray[np.bool_]:
    """The pixels of an image of `size` (H, W), bool [H, W], of which those of a rectangle are known.

    Raises:
        InputError: beginning with `what`; the rectangle lies outside.
    """
    (height, width), whole = crop.shape, np.zeros(size, np.bool_)
    if not (0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]):
        raise InputError(f"{what}: its pixels lie outside its image of {size[1]}x{size[0]} pixels; correct it")
    whole[top : top + height, left : left + width] = crop
    return whole
