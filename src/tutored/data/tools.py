"""What readers of the files of annotation tools share: pictures found by name, image ids, classes, shapes."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.data.images import Images, files_in
from tutored.data.objects import LARGEST, Entry, Instance, object_images
from tutored.data.text import NO_CLASSES, is_background, own_classes, refuse_unwritable
from tutored.errors import InputError, told_of
from tutored.files import is_special
from tutored.labels import LabelSpace, composed
from tutored.pictures import SUFFIXES, Box, refuse_shares
from tutored.types import BACKGROUND, Size

ALL = "all"
"""The split of a data set that has none of its own."""
Points = Sequence[tuple[float, float]]
Drawn = tuple[Instance | None, str]
"""An object, and why it was left out or changed; "" where it was not."""
TURNED = "boxes that are turned, read as the upright boxes around them, without an outline"


class Page(NamedTuple):
    """One image as a tool's file has it: what its id is made of, its entry without objects, and the objects.

    Each object has what messages call it.
    """

    name: PurePath
    entry: Entry
    shapes: Iterable[tuple[str, Any]]


def images_of(
    kind: str,
    folder: Path,
    split: str,
    labels: LabelSpace,
    pages: Sequence[Page],
    read: Callable[[Any, str], Drawn],
    unread: Iterable[str],
) -> Images:
    """A split as a format named `kind` has it. Raises InputError: none of the pictures is there, or two are called the
    same.

    Args:
        read: makes an instance of an object; raises InputError where it is faulty.
        unread: sentences on what is there and not read.
    """
    places = [page.entry.picture for page in pages]
    if not any(isinstance(place, str) or place.exists() for place in places):
        told = f"none of {len(places):,} pictures is there, such as {min(map(str, places))}" if places else "no picture"
        raise InputError(f"{folder}: {told}; put pictures and annotations into this folder")
    ids = image_ids([page.name for page in pages], folder, [page.entry.path for page in pages])
    entries = {each: filled(page.entry, page.shapes, read) for each, page in zip(ids, pages, strict=True)}
    return object_images(Images, labels, entries, folder, unread, format=kind, folder=folder, split=split)


def filled(entry: Entry, shapes: Iterable[tuple[str, Any]], read: Callable[[Any, str], Drawn]) -> Entry:
    """An image's entry with its objects; see `Page` and `images_of`."""
    faults, told = list(entry.faults), list(entry.told)
    for name, shape in shapes:
        try:
            instance, why = read(shape, name)
            if instance and not entry.relative:
                refuse_shares(instance.box, name)
        except InputError as error:
            faults.append(str(error))
            continue
        entry.instances.extend(filter(None, [instance]))
        told += [(why, name)] * bool(why)
    return entry._replace(faults=faults, told=told)


class Pictures:
    """The pictures in and under a folder, found by what annotations call them."""

    def __init__(self, folder: Path) -> None:
        self.folder, files = folder, sorted(files_in(folder))
        self.paths = dict.fromkeys(path for path in files if path.suffix.lower() in SUFFIXES and not is_special(path))
        refuse_unwritable(self.paths)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[composed(path.name)].append(path)

    def find(self, name: str, home: Path | None = None) -> Path | None:
        """The picture of this file name; of several, one in `home`, then that whose path has most of the end of `name`.

        Annotations name pictures by paths of another machine, also of Windows. None: there is none. Raises InputError:
        it may be one or another.
        """
        parts = PurePosixPath(composed(name).replace("\\", "/")).parts[::-1]
        alike: dict[int, list[Path]] = defaultdict(list)
        there = self._by_name.get(parts[0], []) if parts else []
        for path in [path for path in there if home in path.parents] or there:
            pairs = zip(parts, map(composed, path.parts[::-1]), strict=False)
            alike[next((at for at, (one, other) in enumerate(pairs) if one != other), len(parts))].append(path)
        found = alike[max(alike)] if alike else []
        if len(found) > 1:
            raise InputError(f"{name!r} may be {found[0]} or {found[1]}; name it as seen from {self.folder}")
        return found[0] if found else None

    def unused(self, used: Collection[Path | str | None]) -> list[Path]:
        """The pictures in the folders of those that are used."""
        folders = {path.parent for path in used if isinstance(path, Path)}
        return [path for path in self.paths if path.parent in folders and path not in used]


def counted(things: Collection[Any], what: str, told: str) -> list[str]:
    """A sentence on files that are not used, if there are any."""
    return [f"{len(things):,} {what}, such as {min(map(str, things))}, {told}"] if things else []


def image_ids(names: Sequence[PurePath], where: Path, files: Sequence[Path | None] = ()) -> list[str]:
    """The ids of images whose files have these names: the stem, or, where several share one, all but the suffix. Raises
    InputError: naming `where` and two of `files`; two names differ in the suffix alone, or one is listed twice. `files`
    list the images, where there are such files.
    """
    sharing = Counter(name.stem for name in names)
    ids = [composed(name.stem if sharing[name.stem] == 1 else name.with_suffix("").as_posix()) for name in names]
    twice, count = Counter(ids).most_common(1)[0]
    if count > 1:
        named = zip(names, ids, files or [None] * len(ids), strict=True)
        alike = [f"{name} of {file}" if file else str(name) for name, each, file in named if each == twice]
        raise InputError(
            f"{where}: {' and '.join(alike[:2])} have one name up to the suffix; list a picture once, and rename one "
            "of two"
        )
    return ids


def classes_of(folder: Path, names: Iterable[Any]) -> LabelSpace:
    """The classes that a folder lists (`CLASS_FILES`), or those of all objects, by the alphabet."""
    seen = {name.strip() for name in names if isinstance(name, str) and not NO_CLASSES.fullmatch(name.strip())}
    return (own_classes(folder) or (LabelSpace.of(sorted(seen - {""})), None))[0]


def class_of(name: Any, labels: LabelSpace, what: str) -> int:
    """The number of an object's class, 0 for background. Raises InputError, beginning with `what`."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{what}: its class must be a name, got {name!r}")
    if NO_CLASSES.fullmatch(name.strip()) and not is_background(name):
        raise InputError(f"{what}: {name!r} is no class; give it a class, or remove it")
    with told_of(what):
        return BACKGROUND if is_background(name) else labels.index(name.strip())


# --- Shapes


def as_points(given: Any, what: str, least: int = 3) -> list[tuple[float, float]]:
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


def outlined(what: str, number: int, *parts: Points) -> Instance:
    """An object of polygons, and the upright box around them."""
    flat = [[value for point in part for value in point] for part in parts]
    return Instance(what, envelope([point for part in parts for point in part]), number, segmentation=flat)


def boxed(what: str, number: int, box: Box, pivot: tuple[float, float], degrees: float) -> Drawn:
    """An object of the upright box around a box that is turned clockwise around `pivot`."""
    x1, y1, x2, y2 = box
    if not degrees:
        return Instance(what, box, number), ""
    return Instance(what, envelope(turned([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], pivot, degrees)), number), TURNED


def envelope(points: Points) -> Box:
    """The upright box around points."""
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def ellipse(centre: tuple[float, float], rx: float, ry: float, degrees: float = 0.0) -> Points:
    """64 points of an ellipse with these radii that is turned clockwise."""
    around = (math.tau * step / 64 for step in range(64))
    return turned([(centre[0] + rx * math.cos(at), centre[1] + ry * math.sin(at)) for at in around], centre, degrees)


def turned(points: Points, pivot: tuple[float, float], degrees: float) -> Points:
    """The points turned clockwise, as the picture is seen."""
    (x, y), sine, cosine = pivot, math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [(x + (a - x) * cosine - (b - y) * sine, y + (a - x) * sine + (b - y) * cosine) for a, b in points]


def pasted(crop: NDArray[np.bool_], left: int, top: int, size: Size, what: str) -> NDArray[np.bool_]:
    """The pixels of an image of `size` (H, W), bool [H, W], of which those of a rectangle are known. Raises InputError:
    beginning with `what`; the rectangle lies outside.
    """
    (height, width), whole = crop.shape, np.zeros(size, np.bool_)
    if not (0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]):
        raise InputError(f"{what}: its pixels lie outside its image of {size[1]}x{size[0]} pixels; correct it")
    whole[top : top + height, left : left + width] = crop
    return whole
