"""Objects that somebody drew: boxes and semantic masks of them, as every format has them that lists objects."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from tutored.data.images import Annotations, Images
from tutored.data.text import gather
from tutored.data.voc import as_boxes
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.pictures import Box, fit_box, is_empty, picture_size
from tutored.tasks.detection.types import Boxes
from tutored.tasks.instances.types import Objects
from tutored.tasks.segmentation.types import ClassMask
from tutored.types import BACKGROUND, IGNORE, Size

Opened = TypeVar("Opened", bound=Images)
LARGEST = 1e9
"""No coordinate is larger, so that a broken file can't make numbers overflow."""


class Instance(NamedTuple):
    """One object that somebody drew.

    Attributes:
        name: what messages call it, beginning with the file.
        number: its class, 0: background.
        crowd: whether it is a region to be ignored.
        segmentation: its pixels, as `decode_segmentation` takes them.
        layer: in a mask, what is of a higher layer lies above.
    """

    name: str
    box: Box
    number: int
    crowd: bool = False
    segmentation: Any = None
    layer: int = 0

    @property
    def is_drawn(self) -> bool:
        """Whether it has run lengths, or a polygon of three points or more that is not beside its box."""
        drawn = self.segmentation
        return bool(drawn) and (
            not isinstance(drawn, list) or any(_is_area(each) and self._meets(each) for each in drawn)
        )

    def _meets(self, points: Any) -> bool:
        """Whether a polygon reaches its box; broken ones are named where they are read."""
        x1, y1, x2, y2 = self.box
        with suppress(TypeError, ValueError):
            x, y = points[::2], points[1::2]
            return is_empty(self.box) or bool(min(x) <= x2 and max(x) >= x1 and min(y) <= y2 and max(y) >= y1)
        return True

    @property
    def has_lines(self) -> bool:
        """Whether polygons of fewer than three points are among its outline."""
        return isinstance(self.segmentation, list) and not all(map(_is_area, self.segmentation))

    def scaled(self, size: Size) -> Self:
        """The same in pixels, where box and polygons are shares of an image of `size`."""
        height, width = size
        x1, y1, x2, y2 = self.box
        polygons = [[x * (width, height)[at % 2] for at, x in enumerate(points)] for points in self.segmentation or ()]
        return self._replace(box=(x1 * width, y1 * height, x2 * width, y2 * height), segmentation=polygons)


class Entry(NamedTuple):
    """What a file says of one image.

    Attributes:
        picture: its file or address.
        stated_size: (height, width), where the file states it.
        path: the file; None: there is none of this image.
        relative: coordinates are shares of the image's width and height, not pixels.
        labelled: whether somebody worked on it, where the file says so; None: it is not known where there is no object.
        faults: what keeps the annotations from being used, a message each.
        told: objects that are left out or changed: why, and what messages call them.
    """

    number: Any
    picture: Path | str
    stated_size: tuple[float, float] | None
    instances: list[Instance]
    path: Path | None = None
    relative: bool = False
    labelled: bool | None = None
    faults: Sequence[str] = ()
    told: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class ObjectAnnotations(Annotations):
    """What boxes and masks share.

    Attributes:
        path: what messages on all of them name.
        there: the images that are annotated.
        blank: those among them on which nothing is drawn.
    """

    states_classes: ClassVar[bool] = True
    path: Path
    entries: Mapping[str, Entry]
    there: Set[str]
    blank: Set[str]

    def has(self, image_id: str) -> bool:
        return image_id in self.there

    def is_blank(self, image_id: str) -> bool:
        return image_id in self.blank

    def files(self, image_id: str) -> tuple[Path, ...]:
        path = self.entries[image_id].path
        return () if path is None else (path,)

    def instances(self, image_id: str, size: Size) -> list[Instance]:
        """The objects of an image. Raises InputError where the file is faulty, or states another size of the image."""
        entry = self.entries[image_id]
        if entry.faults:
            raise InputError("\n".join(entry.faults))
        stated = entry.stated_size
        if stated is not None and stated != size:
            raise InputError(
                f"{entry.picture}: the image is {size[1]}x{size[0]} pixels, {entry.path} says "
                f"{stated[1]:g}x{stated[0]:g}; the annotations belong to another version of the image"
            )
        return [each.scaled(size) for each in entry.instances] if entry.relative else entry.instances


@dataclass(frozen=True, kw_only=True)
class ObjectBoxes(ObjectAnnotations):
    """Boxes, cut at the image's borders; crowds are difficult."""

    def read(self, image_id: str, size: Size) -> Boxes:
        boxed = [each for each in self.instances(image_id, size) if not is_empty(each.box)]
        boxes = zip(gather(partial(fit_box, each.box, size, each.name) for each in boxed), boxed, strict=True)
        return as_boxes([(box, each.number, each.crowd) for box, each in boxes if each.number != BACKGROUND])


@dataclass(frozen=True, kw_only=True)
class ObjectMasks(ObjectAnnotations):
    """Semantic masks: smaller instances lie over larger ones, and crowd pixels that no instance covers are 255.

    An image has none where one of its objects has no segmentation, or a polygon of less than three points, where no
    object of the whole data set has one, or where `labels` are more than a mask can tell apart (254).

    Attributes:
        to: the class in `labels` of each of the file's classes.
        incomplete: notes on objects without an outline, or with one that is left out in part.
        annotated: as in `ClassMask`.
    """

    to: Sequence[int]
    incomplete: tuple[str, ...]
    annotated: tuple[int, ...] | None = None

    def seen_in(self, labels: LabelSpace, to: Sequence[int], annotated: tuple[int, ...] | None) -> Self:
        """The same in another label space, as in `ClassMask.relabelled`; a mask need tell only its classes apart."""
        notes = _too_many(self.path, labels) or self.incomplete
        return replace(self, labels=labels, to=[to[each] for each in self.to], annotated=annotated, notes=notes)

    def has(self, image_id: str) -> bool:
        return len(self.labels) <= IGNORE and super().has(image_id)

    def read(self, image_id: str, size: Size) -> ClassMask:
        instances = self.instances(image_id, size)
        encoded = gather(partial(_encode, each.segmentation, size, each.name) for each in instances)
        mask = np.zeros(size, np.uint8)

        def paint(each: Instance, runs: Mapping[str, Any]) -> None:
            mask[_decode(runs, each.name)] = IGNORE if each.crowd else self.to[each.number]

        # Crowds first, then layer by layer, from large to small: what is painted later lies above.
        layers = sorted(
            zip(instances, encoded, strict=True), key=lambda drawn: (not drawn[0].crowd, drawn[0].layer, -drawn[1][1])
        )
        gather(partial(paint, each, runs) for each, (runs, _) in layers)
        return ClassMask(mask=torch.from_numpy(mask), annotated=self.annotated)


@dataclass(frozen=True, kw_only=True)
class ObjectOutlines(ObjectBoxes):
    """Boxes with masks, crowds as difficult ones. An image has none where one of its objects has no segmentation."""

    def read(self, image_id: str, size: Size) -> Objects:
        boxes = super().read(image_id, size)
        drawn = [
            each for each in self.instances(image_id, size) if not is_empty(each.box) and each.number != BACKGROUND
        ]
        masks = gather(partial(decode_segmentation, each.segmentation, size, each.name) for each in drawn)
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size)
        return Objects(**boxes.parts, masks=stacked.to(torch.uint8))


def object_images(
    kind: type[Opened],
    labels: LabelSpace,
    entries: Mapping[str, Entry],
    path: Path,
    unread: Iterable[str] = (),
    **more: Any,
) -> Opened:
    """The images of a split, with notes on objects that are left out or changed.

    Args:
        path: as in `ObjectAnnotations`.
        unread: sentences on what is there and not read.
    """
    there, blank, outlined, places = set(), set(), set(), dict[str, Path | str]()
    told: dict[str, list[str]] = defaultdict(list)
    notes: list[str] = []
    bare: list[str] = []
    lines: list[str] = []
    tried = possible = False
    for image_id, entry in entries.items():
        places[image_id] = entry.picture
        for why, name in entry.told:
            told[why].append(name)
        notes += _notes_of_boxes(entry) if entry.instances and not entry.relative else ()
        for each in entry.instances:
            bare += [each.name.removeprefix(f"{path}: ")] * (not each.is_drawn)
            lines += [each.name.removeprefix(f"{path}: ")] * each.has_lines
            tried, possible = tried or bool(each.segmentation), possible or each.is_drawn
        if entry.labelled is not False:
            there.add(image_id)
            outlined |= {image_id} if all(each.is_drawn for each in entry.instances) else set()
            if entry.labelled is None and not entry.instances and not entry.faults:
                blank.add(image_id)
    incomplete = []
    if bare and tried:
        incomplete.append(
            f"{path}: {len(there - outlined):,} images have no mask, because {len(bare):,} objects on them have no "
            f"outline, or one beside their box, such as {bare[0]}"
        )
    if lines:
        incomplete.append(
            f"{path}: polygons of fewer than three points are left out of {len(lines):,} objects, such as {lines[0]}"
        )
    outlined = outlined if possible else set()
    counted = (f"{len(names):,} objects, such as {names[0]}: {why}" for why, names in told.items())
    boxes = ObjectBoxes(labels=labels, path=path, entries=entries, there=there, blank=blank, notes=tuple(notes))
    masks = ObjectMasks(
        labels=labels,
        path=path,
        entries=entries,
        there=outlined,
        blank=blank,
        notes=_too_many(path, labels) or tuple(incomplete),
        to=range(len(labels)),
        incomplete=tuple(incomplete),
    )
    outlines = ObjectOutlines(**vars(replace(boxes, there=outlined, notes=(*notes, *incomplete))))
    return kind(
        classes=labels,
        ids=tuple(places),
        place=places.__getitem__,
        tasks={"detection": boxes, "segmentation": masks},
        further={"instances": outlines},
        unread=(*unread, *counted),
        **more,
    )


def _too_many(path: Path, labels: LabelSpace) -> tuple[str, ...]:
    if len(labels) <= IGNORE:
        return ()
    return (
        f"{path}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): no masks, unless "
        "the task's `classes` name fewer",
    )


def _notes_of_boxes(entry: Entry) -> Iterator[str]:
    """Boxes without area are left out; boxes that reach out of their image are cut."""
    stated = entry.stated_size
    with suppress(InputError):  # where the picture is read, it is named
        stated = stated or picture_size(entry.picture)
    height, width = stated or (math.inf, math.inf)
    for each in entry.instances:
        x1, y1, x2, y2 = each.box
        out = max(-x1, -y1, x2 - width, y2 - height)
        if is_empty(each.box):
            yield f"{each.name}: a box of no area, left out"
        elif out > 1:
            yield f"{each.name}: the box {each.box} reaches {out:g} pixels out of its image, cut"


def stated_size(height: Any, width: Any) -> tuple[float, float] | None:
    """Height and width, also of texts; None where one is missing or 0, which some tools write for an unknown size."""
    try:
        height, width = float(height), float(width)
    except (TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


# --- Segmentations


def decode_segmentation(segmentation: Any, size: Size, what: str) -> NDArray[np.bool_]:
    """The pixels of an instance in an image of `size` (H, W), bool [H, W]. Raises InputError: beginning with `what`;
    something else than polygons, one that lies far outside, or run lengths that don't fit the image.

    Args:
        segmentation: polygons, of which those of fewer than three points cover nothing; either kind of run lengths; or
            a function of the size that returns the pixels, bool [H, W].
    """
    return _decode(_encode(segmentation, size, what)[0], what)


def _encode(segmentation: Any, size: Size, what: str) -> tuple[dict[str, Any], int]:
    """Compressed run lengths of one instance, and how many pixels it has."""
    height, width = size
    if callable(segmentation):
        encoded: dict[str, Any] = rle.encode(np.asfortranarray(segmentation(size), np.uint8))
        return encoded, int(rle.area(encoded))
    if isinstance(segmentation, list):
        if not all(_is_polygon(points, 2 * max(size)) for points in segmentation):
            raise InputError(f"{what}: a polygon is a list x, y, x, y, ... within its image of {width}x{height} pixels")
        segmentation = list(filter(_is_area, segmentation)) or {"size": [height, width], "counts": [height * width]}
    elif not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise InputError(f"{what}: run lengths must state the size {[height, width]} of the image, height first")
    with _named(what):
        runs: dict[str, Any] = rle.segmToRle(segmentation, width, height)
        return runs, int(rle.area(runs))


def _decode(runs: Mapping[str, Any], what: str) -> NDArray[np.bool_]:
    with _named(what):
        region: NDArray[np.bool_] = rle.decode(runs).astype(np.bool_)
        return region


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{what}: its segmentation can't be decoded ({error})") from error


def _is_area(points: Any) -> bool:
    return not isinstance(points, list) or len(points) >= 6


def _is_polygon(points: Any, far: float) -> bool:
    return isinstance(points, list) and len(points) % 2 == 0 and all(is_number(value, far) for value in points)


def is_number(value: Any, far: float) -> bool:
    """Whether a value is a number, no further than `far` from 0."""
    return isinstance(value, int | float) and abs(value) <= far
