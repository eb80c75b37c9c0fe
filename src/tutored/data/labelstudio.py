"""Data sets of Label Studio: exports as JSON, which name pictures that lie beside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tutored.data import tools
from tutored.data.images import Images
from tutored.data.objects import Entry, stated_size
from tutored.data.text import refuse_climbing
from tutored.data.tools import ALL, Drawn, Page, Pictures
from tutored.errors import InputError
from tutored.files import read_json
from tutored.labels import LabelSpace

UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a picture that is uploaded."""
SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels")


def labelstudio_splits(folder: Path) -> list[str]:
    """`all` where a folder holds an export of Label Studio."""
    return [ALL] * bool(_files(folder))


def open_labelstudio(folder: Path, split: str) -> Images:
    """Open the pictures of the JSON exports in FOLDER, in which they lie under their names or those of the upload.

    A task that nobody submitted, or somebody skipped, is not labelled; one that was submitted without a region is
    empty. Rectangles are boxes; polygons and ellipses are masks, and the boxes around them. A picture with strokes of a
    brush, which are not read, counts as not labelled. The classes are those that FOLDER lists (`CLASS_FILES`), or all
    labels, by the alphabet. Raises InputError: another split than `all`, no export in FOLDER, or none of its pictures.
    """
    if split != ALL:
        raise InputError(f"{folder}: Label Studio has no splits, got {split!r}; give {ALL}")
    tasks = [(path, task) for path in _files(folder) for task in _tasks(path)]
    if not tasks:
        raise InputError(f"{folder}: no export of Label Studio in it; export as JSON (not JSON-MIN)")
    pictures, pages, guessed, seen = Pictures(folder), [], [], []
    for path, task in tasks:
        what, given, name = f"{path}: task {task.get('id')}", _given(task), _name(task)
        refuse_climbing(str(name), path)
        annotation, faults = _annotation(task, what)
        results = (annotation or {}).get("result") or []
        own = UPLOADED.sub("", name.name)
        entry = Entry(
            number=task.get("id"),
            picture=pictures.find(str(name)) or pictures.find(own) or (given if "://" in given else folder / name),
            stated_size=next((size for size in map(_size, results) if size), None),
            instances=[],
            path=path,
            labelled=annotation is not None and not any(str(each.get("type")).startswith("brush") for each in results),
            faults=faults,
        )
        shapes = [(f"{what}: {each.get('type')} {number}", each) for number, each in enumerate(results, start=1)]
        pages.append(Page(name.with_name(own), entry, shapes))
        seen += [label for result in results for label in _labels(result)]
        guessed += [given] * bool(task.get("predictions"))
    left, labels = pictures.unused([page.entry.picture for page in pages]), tools.classes_of(folder, seen)
    unread = (
        *tools.counted(left, "pictures", "are in no task and are not used"),
        *tools.counted(guessed, "pictures", "have predictions of a model, which are not read"),
    )
    return tools.images_of("labelstudio", folder, split, labels, pages, partial(_read, labels=labels), unread)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if path.is_file() and _is_export(path)]


def _is_export(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
        return head.lstrip()[:1] == b"[" and b'"annotations"' in head + file.read()


def _tasks(path: Path) -> Iterator[dict[str, Any]]:
    for number, task in enumerate(read_json(path), start=1):
        try:
            results = [result for annotation in task["annotations"] for result in annotation.get("result") or ()]
            good = all(isinstance(result, dict) for result in results) and _name(task).name
        except (TypeError, KeyError, AttributeError, ValueError):
            good = False
        if not good:
            raise InputError(f"{path}: task {number} has no picture in `data`, or no `annotations`; export it again")
        yield task


def _given(task: Mapping[str, Any]) -> str:
    """The path or address of the task's picture."""
    values = (task["data"].get("image"), *task["data"].values())
    return next((value for value in values if isinstance(value, str)), "")


def _name(task: Mapping[str, Any]) -> PurePosixPath:
    """The same as a path, without what leads to it on the server."""
    parts = urlsplit(_given(task))
    return PurePosixPath(unquote(parse_qs(parts.query).get("d", [parts.path])[0]).lstrip("/"))


def _annotation(task: Mapping[str, Any], what: str) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The one that was submitted; None: there is none. And the fault of several."""
    submitted = [each for each in task["annotations"] if not each.get("was_cancelled")]
    if len(submitted) < 2:
        return next(iter(submitted), None), []
    chosen = [each for each in submitted if each.get("ground_truth")]
    if len(chosen) == 1:
        return chosen[0], []
    return {}, [f"{what}: {len(submitted)} annotations for one picture; mark one of them as ground truth"]


def _size(result: Mapping[str, Any]) -> tuple[float, float] | None:
    return stated_size(result.get("original_height"), result.get("original_width"))


def _labels(result: Mapping[str, Any]) -> list[Any]:
    value = result.get("value")
    names = value.get(str(result.get("type"))) if isinstance(value, dict) else None
    return names if isinstance(names, list) else []


def _read(result: Mapping[str, Any], what: str, labels: LabelSpace) -> Drawn:
    kind, names, size = str(result.get("type")), _labels(result), _size(result)
    if kind not in SHAPES:
        return None, f"regions of the kind {kind}, which are not read"
    if size is None or len(names) != 1:
        raise InputError(f"{what}: a region has one label, and the size of its picture; got {names}, {size}")
    if result.get("image_rotation"):
        raise InputError(f"{what}: drawn on the picture turned by {result['image_rotation']} degrees; turn it back")
    number, value, (down, across) = tools.class_of(names[0], labels, what), result["value"], size
    if kind == "polygonlabels":
        points = tools.as_points(value.get("points"), what)
        return tools.outlined(what, number, [(x * across / 100, y * down / 100) for x, y in points]), ""
    sides = ("width", "height") if kind == "rectanglelabels" else ("radiusX", "radiusY")
    given = [[value.get(key) for key in keys] for keys in (("x", "y"), sides)]
    pairs = tools.as_points([*given, (value.get("rotation") or 0, 0)], what)
    (x, y), (width, height) = ((one * across / 100, other * down / 100) for one, other in pairs[:2])
    if kind == "rectanglelabels":
        return tools.boxed(what, number, (x, y, x + width, y + height), (x, y), pairs[2][0])
    return tools.outlined(what, number, tools.ellipse((x, y), width, height, pairs[2][0])), ""
