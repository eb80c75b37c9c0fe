"""Data sets in YOLO's layouts: a text file of boxes or polygons for each picture, and `data.yaml` with the classes."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tutored.config.run import read_yaml
from tutored.data.images import Images, files_in, first_file
from tutored.data.objects import Entry, Instance, object_images
from tutored.data.text import CLASS_FILES, numbered, read_lines
from tutored.data.tools import ALL, TURNED, Drawn, Pictures, counted, filled, image_ids, outlined
from tutored.errors import InputError

NAMED = ("data.yaml", "dataset.yaml")
"""What Ultralytics and Roboflow, and FiftyOne, call the file with the names of classes."""
LISTS = ("obj.names", *CLASS_FILES)
"""What other tools call it, one name a line."""
SPLITS = ("train", "val", "test")
OTHER_KEYS = ("path", "names", "nc", "download", "task", "kpt_shape", "flip_idx", "roboflow")
FORM = "class x y width height (a box), or class x y x y x y ... (a polygon), all but the class shares from 0 to 1"
LINE = re.compile(r"\d+([ \t]+-?[\d.]+){4,}\s*$", re.M)
MOST_SEEN = 1000
"""Files and polygons that are looked at to know what they are."""
SLACK = 0.01
"""Shares above 1 or below 0 by less are rounding."""


class Settings(NamedTuple):
    """What a YOLO folder says of itself.

    Attributes:
        names: of the classes, from number 0 on.
        places: by split, folders of pictures or lists of them.
        roots: what these are seen from, the folder last.
        keypoints: how many columns of keypoints follow a box.
        polygons: whether four points are known to be an outline.
    """

    path: Path
    names: Sequence[str]
    places: Mapping[str, Sequence[str]]
    roots: Sequence[Path]
    keypoints: int = 0
    polygons: bool = False


@dataclass(frozen=True)
class LabelFiles(Mapping[str, Entry]):
    """The entries of images by id, each read from its own label file when it is asked for.

    Attributes:
        files: by id, the picture and its label file.
        classes: the class of each of the files' numbers.
        oriented: whether four points are an oriented box.
    """

    files: Mapping[str, tuple[Path, Path | None]]
    settings: Settings
    classes: Sequence[int]
    oriented: bool = False

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, image_id: str) -> Entry:
        picture, path = self.files[image_id]
        entry = Entry(None, picture, None, [], path=path, relative=True)
        try:
            lines = enumerate(read_lines(path) if path else (), start=1)
        except InputError as error:
            return entry._replace(faults=(str(error),))
        words = ((f"{path}: line {number}", line.split()) for number, line in lines if line.strip())
        return filled(entry, words, self._read)

    def _read(self, words: Sequence[str], what: str) -> Drawn:
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise InputError(f"{what}: {' '.join(words)[:60]!r} are no numbers; a line is {FORM}") from error
        count, keypoints = len(values), self.settings.keypoints
        if count != 5 + keypoints and (keypoints or count < 7 or count % 2 == 0):
            form = f"a box and {keypoints} columns of keypoints" if keypoints else FORM
            raise InputError(f"{what}: {count} columns; a line is {form}")
        if values[0] not in range(len(self.classes)):
            raise InputError(
                f"{what}: class {words[0]} has no name; {self.settings.path} names {len(self.classes)}, from 0 on"
            )
        shares = values[1:5] if keypoints else values[1:]
        wrong = [word for word, value in zip(words[1:], shares, strict=False) if not -SLACK <= value <= 1 + SLACK]
        if wrong:
            raise InputError(
                f"{what}: {wrong[0]} is no share of the picture, 0 to 1; divide pixels by width and height"
            )
        if self.classes[int(values[0])] < 0:
            raise InputError(f"{what}: class {words[0]} is {self.settings.names[int(values[0])]!r}, which is no class")
        number, points = self.classes[int(values[0])], list(zip(shares[::2], shares[1::2], strict=True))
        instance = outlined(what, number, points)
        if len(points) == 2:
            (x, y), (width, height) = points
            instance = Instance(what, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), number)
        x1, y1, x2, y2 = instance.box
        if min(x2 - x1, y2 - y1) < 1e-6:
            return None, "boxes of no area, left out"
        if self.oriented and len(points) > 2:
            if count != 9:
                raise InputError(f"{what}: {count} columns; the other lines are oriented boxes of 9")
            return instance._replace(segmentation=None), f"{TURNED} (if they are outlines, write `task: segment`)"
        cut = "boxes that reach out of their picture, cut" * (min(x1, y1, 1 - x2, 1 - y2) < -SLACK)
        return instance, "keypoints are not read" if keypoints else cut


def yolo_splits(folder: Path) -> list[str]:
    """The splits of a YOLO folder; none where it is no such folder. Raises InputError where `data.yaml` is faulty."""
    settings = _settings(folder)
    labels = settings is not None and any(map(is_label, islice(files_in(folder), MOST_SEEN)))
    return list(_splits(settings)) if settings and labels else []


def is_label(path: Path) -> bool:
    """Whether a file holds boxes or polygons as YOLO has them."""
    is_text = path.suffix == ".txt" and path.is_file()
    return is_text and bool(LINE.match(path.read_text(encoding="utf-8", errors="replace")))


def open_yolo(folder: Path, split: str) -> Images:
    """Open a split of `data.yaml`: `train`, `val`, `test` or another key that names folders or lists of pictures.

    Paths are seen from its `path` or from FOLDER; where nothing is there, such as for Roboflow's `../train/images` or
    paths of another machine, without their first parts. Without such keys, splits are lists train.txt, val.txt or
    test.txt, or folders images/SPLIT or SPLIT/images, or there is `all` alone. The label file of `images/.../NAME.jpg`
    is `labels/.../NAME.txt`, or lies beside the picture. An image's id is its picture's name without suffix, or, where
    several share one, its path.

    A polygon is a mask, and the box around it. Where all polygons have four points, they are taken for oriented boxes.
    Raises InputError: no file names the classes, no such split (the possible ones are named), or it has no picture.
    """
    settings = _settings(folder)
    if settings is None:
        raise InputError(
            f"{folder}: no file names the classes of the numbers in label files; write {folder / NAMED[0]} with "
            "`names: [cat, dog]`, the name of number 0 first"
        )
    if split not in settings.places:
        raise InputError(f"{settings.path}: there is no split {split!r}; possible: {', '.join(_splits(settings))}")
    pictures = _pictures(settings, split)
    labels, classes = numbered(settings.names, settings.path)
    ids = image_ids([_seen_from(settings.roots, path) for path in pictures], settings.path)
    files = {image_id: (path, _label_file(path)) for image_id, path in zip(ids, pictures, strict=True)}
    seen = islice(LabelFiles(files, settings, classes).values(), MOST_SEEN)
    polygons = (each.segmentation[0] for entry in seen for each in entry.instances if each.segmentation)
    oriented = not settings.polygons and set(map(len, islice(polygons, MOST_SEEN))) == {8}
    entries, lost = LabelFiles(files, settings, classes, oriented), _lost(files.values())
    return object_images(Images, labels, entries, settings.path, lost, format="yolo", folder=folder, split=split)


# --- What a folder says of itself


def _settings(folder: Path) -> Settings | None:
    """None where no file names classes."""
    content, path = {}, next((path for path in (folder / name for name in NAMED) if path.is_file()), None)
    for other in () if path else sorted(folder.glob("*.y*ml")):
        with suppress(InputError):
            content = read_yaml(other)
            path = path or (other if isinstance(content, dict) and "names" in content else None)
    if path:
        return _of_yaml(folder, path)
    path = next((path for path in (folder / name for name in LISTS) if path.is_file()), None)
    names = [line.strip() for line in read_lines(path) if line.strip()] if path else []
    return Settings(path, names, _places(folder), [folder]) if path else None


def _of_yaml(folder: Path, path: Path) -> Settings:
    content = read_yaml(path)
    given = content.get("names") if isinstance(content, dict) else None
    names = list(given.values()) if isinstance(given, dict) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int | float) for name in names):
        raise InputError(f"{path}: `names` lists the names of the classes, number 0 first, got {given!r}")
    if isinstance(given, dict) and [str(key) for key in given] != [str(number) for number in range(len(names))]:
        raise InputError(f"{path}: `names` numbers the classes from 0 on, none left out; got {list(given)[:12]}")
    if content.get("nc") not in (None, len(names)):
        raise InputError(f"{path}: `nc` says {content['nc']} classes, `names` has {len(names)}; correct one of them")
    keypoints = content.get("kpt_shape") or [0]
    if not isinstance(keypoints, list) or not all(isinstance(number, int) for number in keypoints):
        raise InputError(f"{path}: `kpt_shape` is the number of keypoints and of their columns, got {keypoints!r}")
    lists = {key: value if isinstance(value, list) else [value] for key, value in content.items()}
    lists = {key: value for key, value in lists.items() if key not in OTHER_KEYS and all(map(_is_path, value))}
    roots = [*([folder / content["path"]] if _is_path(content.get("path")) else []), folder]
    places = {
        str(key): value
        for key, value in lists.items()
        if key in SPLITS or all(_resolved(each, roots) for each in value)
    }
    keypoints, polygons = prod(keypoints), content.get("task") == "segment"
    return Settings(path, list(map(str, names)), places or _places(folder), roots, keypoints, polygons)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _places(folder: Path) -> dict[str, list[str]]:
    """By split, where pictures lie in a folder that does not say so."""
    lists = {name: [f"{name}.txt"] for name in SPLITS if (folder / f"{name}.txt").is_file()}
    inner = sorted(path.name for path in folder.glob("images/*") if path.is_dir())
    outer = sorted(path.parent.name for path in folder.glob("*/images"))
    whole = next((name for name in ("images.txt", "images") if (folder / name).exists()), ".")
    folders = {name: [f"images/{name}"] for name in inner} or {name: [f"{name}/images"] for name in outer}
    return lists or folders or {ALL: [whole]}


def _splits(settings: Settings) -> Iterator[str]:
    """Those whose places are there, and hold pictures."""
    for split in settings.places:
        with suppress(InputError):
            _pictures(settings, split)
            yield split


def _pictures(settings: Settings, split: str) -> list[Path]:
    found: list[Path] = []
    for name in settings.places[split]:
        place = _resolved(name, settings.roots)
        if place is None:
            raise InputError(
                f"{settings.path}: {split}: {name!r} is neither there nor, without its first parts, in "
                f"{settings.roots[-1]}; correct it"
            )
        if place.is_dir():
            found += Pictures(place).paths
        else:
            lines = [line.strip() for line in read_lines(place) if line.strip()]
            found += [_resolved(line, [place.parent, *settings.roots]) or place.parent / line for line in lines]
    if not found:
        raise InputError(f"{settings.path}: {split}: no picture in {', '.join(settings.places[split])}; correct it")
    return found


def _resolved(name: str, roots: Sequence[Path]) -> Path | None:
    """What a path means, perhaps of another machine: seen from a root, or from the last one without its first parts."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/")]
    shorter = [parts[at:] for at in range(len(parts))]
    shorter = [each for each in shorter if each != ["images"]]  # what the folders of all splits lie in is none of them
    paths = (root / name for root in roots), (roots[-1].joinpath(*each) for each in shorter)
    return next((Path(os.path.normpath(path)) for path in chain(*paths) if os.path.exists(path)), None)


def _seen_from(roots: Sequence[Path], path: Path) -> Path:
    inside = next((root for root in roots if path.is_relative_to(root)), Path(path.anchor))
    return path.relative_to(inside)


def _label_file(picture: Path) -> Path | None:
    """In the folder `labels` for that called `images`, or beside the picture."""
    before, images, behind = f"{picture.parent}/".rpartition("/images/")
    folders = [Path(before, "labels", behind)] * bool(images) + [picture.parent]
    return first_file(folders, picture.stem, (".txt",))


def _lost(files: Collection[tuple[Path, Path | None]]) -> Iterator[str]:
    """Sentences on label files of no picture, and on second ones."""
    second = [picture.with_suffix(".txt") for picture, path in files if path and path.parent != picture.parent]
    told = "lie beside pictures that have one in `labels`, and are not used"
    yield from counted([path for path in second if path.is_file()], "label files", told)
    for pictures, labels in sorted({(picture.parent, path.parent) for picture, path in files if path}):
        stems = {path.stem for path in pictures.iterdir()}
        lost = [path for path in sorted(labels.glob("*.txt")) if path.stem not in stems and is_label(path)]
        yield from counted(lost, "label files", "belong to no picture and are not used")
