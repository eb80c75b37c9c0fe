"""Data sets of Label Studio: exports as JSON, which name pictures that lie beside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tutored.data.coco import Entry, stated_size
from tutored.data.images import Images
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
    outlined,
    turned,
)
from tutored.data.text import is_background, own_classes, read_json
from tutored.errors import InputError
from tutored.files import regular
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
    labels, by the alphabet.

    Raises:
        InputError: another split than `all`, no export in FOLDER, or none of its pictures.
    """
    if split != ALL:
        raise InputError(f"{folder}: Label Studio has no splits, got {split!r}; give {ALL}")
    tasks = [(path, task) for path in _files(folder) for task in _tasks(path)]
    if not tasks:
        raise InputError(f"{folder}: no export of Label Studio in it; export as JSON (not JSON-MIN)")
    pictures, names = Pictures(folder), [_name(task) for _, task in tasks]
    places = [_place(name, pictures) for name in names]
    if not any(places):
        raise InputError(f"{folder}: none of {len(tasks):,} pictures is there, such as {names[0]}; put them into it")
    labels, _ = own_classes(folder) or (LabelSpace.of(_labels(task for _, task in tasks)), None)
    ids = image_ids([PurePosixPath(UPLOADED.sub("", PurePosixPath(name).name)) for name in names], folder)
    read = partial(_read, labels=labels)
    entries = {}
    for image_id, (path, task), name, place in zip(ids, tasks, names, places, strict=True):
        what = f"{path}: task {task.get('id')}"
        annotation, faults = _annotation(task, what)
        results = annotation.get("result") or [] if annotation else []
        size = next((stated_size(each.get("original_height"), each.get("original_width")) for each in results), None)
        kinds = {str(each.get("type")) for each in results}
        labelled = annotation is not None and not any(kind.startswith("brush") for kind in kinds)
        picture = place or (name if "://" in name else folder / name)
        entry = Entry(task.get("id"), picture, size, [], path=path, labelled=labelled, faults=faults)
        shapes = ((f"{what}: {each.get('type')} {number}", each) for number, each in enumerate(results, start=1))
        entries[image_id] = filled(entry, shapes, read)
    guessed = [_name(task) for _, task in tasks if task.get("predictions")]
    left = pictures.unused([place for place in places if place])
    return images_of(
        "labelstudio",
        folder,
        split,
        labels,
        entries,
        folder,
        unread=(
            *counted(left, "pictures", "are in no task and are not used"),
            *counted(guessed, "pictures", "have predictions of a model, which are not read"),
        ),
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if _is_export(regular(path).read_bytes())]


def _is_export(content: bytes) -> bool:
    return content.lstrip()[:1] == b"[" and b'"annotations"' in content and b'"data"' in content


def _tasks(path: Path) -> Iterator[dict[str, Any]]:
    for number, task in enumerate(read_json(path), start=1):
        data = task.get("data") if isinstance(task, dict) else None
        annotations = task.get("annotations") if data else None
        results = [each.get("result") or () if isinstance(each, dict) else None for each in annotations or ()]
        if (
            not isinstance(data, dict)
            or not isinstance(annotations, list)
            or not all(
                isinstance(each, list | tuple) and all(isinstance(one, dict) for one in each) for each in results
            )
        ):
            raise InputError(
                f"{path}: task {number} is none of Label Studio's, with `data` and `annotations`; export it again"
            )
        yield task


def _name(task: Mapping[str, Any]) -> str:
    """The path or address of the task's picture."""
    texts = [value for value in (task["data"].get("image"), *task["data"].values()) if isinstance(value, str)]
    return texts[0] if texts else ""


def _place(name: str, pictures: Pictures) -> Path | None:
    parts = urlsplit(name)
    path = PurePosixPath(unquote(parse_qs(parts.query).get("d", [parts.path])[0]))
    return pictures.find(str(path)) or pictures.find(str(path.with_name(UPLOADED.sub("", path.name))))


def _annotation(task: Mapping[str, Any], what: str) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The one that was submitted; None: there is none. And the fault of several."""
    submitted = [each for each in task["annotations"] if not each.get("was_cancelled")]
    chosen = [each for each in submitted if each.get("ground_truth")] if len(submitted) > 1 else submitted
    if len(submitted) > 1 and len(chosen) != 1:
        return {}, [f"{what}: {len(submitted)} annotations for one picture; mark one of them as ground truth"]
    return (chosen[0] if chosen else None), []


def _labels(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    values = (one.get("value") for task in tasks for each in task["annotations"] for one in each.get("result") or ())
    lists = (value.get(kind) for value in values if isinstance(value, dict) for kind in SHAPES)
    names = {name.strip() for names in lists if isinstance(names, list) for name in names if isinstance(name, str)}
    return sorted(name for name in names if name and not is_background(name))


def _read(result: Mapping[str, Any], what: str, labels: LabelSpace) -> Drawn:
    kind, value = str(result.get("type")), result.get("value")
    if kind not in SHAPES:
        return None, f"regions of the kind {kind}, which are not read"
    size = stated_size(result.get("original_height"), result.get("original_width"))
    names = value.get(kind) if isinstance(value, dict) else None
    if size is None or not isinstance(value, dict) or not isinstance(names, list) or len(names) != 1:
        raise InputError(f"{what}: a region has one label, and the size of its picture; got {names!r}, {size}")
    if result.get("image_rotation"):
        raise InputError(f"{what}: drawn on the picture turned by {result['image_rotation']} degrees; turn it back")
    number, (across, down) = class_of(names[0], labels, what), (size[1] / 100, size[0] / 100)
    if kind == "polygonlabels":
        return outlined(what, number, [[(x * across, y * down) for x, y in as_points(value.get("points"), what)]]), ""
    sides = ("width", "height") if kind == "rectanglelabels" else ("radiusX", "radiusY")
    pairs = [(value.get(one), value.get(other)) for one, other in (("x", "y"), sides)]
    (x, y), (width, height), (degrees, _) = as_points([*pairs, (value.get("rotation") or 0, 0)], what)
    x, y, width, height = x * across, y * down, width * across, height * down
    if kind == "rectanglelabels":
        return boxed(what, number, (x, y, x + width, y + height), (x, y), degrees)
    return outlined(what, number, [turned(ellipse(x, y, width, height), x, y, degrees)]), ""
