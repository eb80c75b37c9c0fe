"""Data sets of Label Studio: exports as JSON, which name pictures that lie beside."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tutored.data import tools
from tutored.data.images import Images
from tutored.data.objects import Entry, Instance, stated_size
from tutored.data.text import refuse_climbing
from tutored.data.tools import ALL, Drawn, Page, Pictures
from tutored.errors import InputError
from tutored.files import read_json
from tutored.labels import LabelSpace
from tutored.types import Size

UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a picture that is uploaded."""
FORMS = {"points": "polygon", "radiusX": "ellipse", "rle": "brush", "height": "rectangle"}
"""Of a region that is read, by a key that its value has; the control `Labels` names its regions by no form."""


def labelstudio_splits(folder: Path) -> list[str]:
    """`all` where a folder holds an export of Label Studio."""
    return [ALL] * bool(_files(folder))


def open_labelstudio(folder: Path, split: str) -> Images:
    """Open the pictures of the JSON exports in FOLDER, in which they lie under their names or those of the upload.

    A task that nobody submitted, or somebody skipped, is not labelled; one that was submitted without a region is
    empty. Rectangles are boxes; polygons, ellipses and strokes of a brush are masks, and the boxes around them. The
    classes are those that FOLDER lists (`CLASS_FILES`), or all labels, by the alphabet. Raises InputError: another
    split than `all`, no export in FOLDER, or none of its pictures.
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
            labelled=annotation is not None,
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
    kind, names, size, value = str(result.get("type")), _labels(result), _size(result), result.get("value")
    form = next((form for key, form in FORMS.items() if isinstance(value, dict) and key in value), None)
    if form is None or not kind.endswith("labels"):
        return None, f"regions of the kind {kind}, which are not read"
    if size is None or len(names) != 1:
        raise InputError(f"{what}: a region has one label, and the size of its picture; got {names}, {size}")
    if result.get("image_rotation"):
        raise InputError(f"{what}: drawn on the picture turned by {result['image_rotation']} degrees; turn it back")
    assert isinstance(value, dict)
    number, (down, across) = tools.class_of(names[0], labels, what), size
    if form == "brush":
        drawn = _brushed(value["rle"], (int(down), int(across)), what)
        (top, bottom), (left, right) = ((at.min(), at.max() + 1) for at in np.nonzero(drawn))
        pixels = partial(tools.pasted, drawn[top:bottom, left:right].copy(), left, top, what=what)
        return Instance(what, (left, top, right, bottom), number, segmentation=pixels), ""
    if form == "polygon":
        points = tools.as_points(value.get("points"), what)
        return tools.outlined(what, number, [(x * across / 100, y * down / 100) for x, y in points]), ""
    sides = ("width", "height") if form == "rectangle" else ("radiusX", "radiusY")
    given = [[value.get(key) for key in keys] for keys in (("x", "y"), sides)]
    pairs = tools.as_points([*given, (value.get("rotation") or 0, 0)], what)
    (x, y), (width, height) = ((one * across / 100, other * down / 100) for one, other in pairs[:2])
    if form == "rectangle":
        return tools.boxed(what, number, (x, y, x + width, y + height), (x, y), pairs[2][0])
    return tools.outlined(what, number, tools.ellipse((x, y), width, height, pairs[2][0])), ""


def _brushed(runs: Any, size: Size, what: str) -> NDArray[np.bool_]:
    """The pixels of a brush, bool [H, W]: where the last of four channels of each pixel is not 0.

    The bits of the bytes are: how many values there are (32 bits), how many bits a value has (5), and how many a length
    has, in four sizes (4 bits each). Then, in turn: whether one value is repeated (1), the size of the length (2), the
    length, and that value, or as many values. All but the first and the values are less by one.
    """
    at = 0
    try:
        bits = "".join(f"{byte:08b}" for byte in bytes(runs))

        def read(count: int) -> int:
            nonlocal at
            at += count
            return int(bits[at - count : at], 2)

        total, wide, sizes, done = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)], 0
        if total != size[0] * size[1] * 4 or total > len(bits) << 16:  # so many values no stretches can hold
            raise ValueError
        values = np.zeros(total, np.bool_)
        while done < total:
            repeated, length = read(1), read(sizes[read(2)]) + 1
            values[done : done + length] = [read(wide) for _ in range(1 if repeated else length)]
            done += length
        drawn: NDArray[np.bool_] = values.reshape(*size, 4)[..., 3]
        if done > total or at > len(bits) or not drawn.any():
            raise ValueError
    except (TypeError, ValueError) as error:
        told = f"its run lengths are not those of a stroke on {size[1]}x{size[0]} pixels; draw it again"
        raise InputError(f"{what}: {told}") from error
    return drawn
