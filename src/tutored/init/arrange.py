"""A VOC folder of links to loose files, with lists of splits and classes."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tutored.data.sources import ranks
from tutored.data.text import read_classes
from tutored.errors import InputError
from tutored.files import whole_folder, write_text
from tutored.init.layout import Layout
from tutored.init.loose import Item, Loose, objects_in
from tutored.labels import VOC, LabelSpace
from tutored.structures import IGNORE

CLASS_FILES = ("labels.txt", "classes.txt")
HELD_OUT = 0.2
"""Share of the annotated pictures, of each kind, that becomes the split `val`."""


def arrange(loose: Loose, out: Path) -> Layout:
    """Make the folder `out`.

    Raises:
        InputError: it can't be known which class a number in the masks means.
    """
    labels, source = _classes(loose)
    splits = _splits(loose.items)
    with whole_folder(out) as folder:
        for part in ("JPEGImages", "Annotations", "SegmentationClass"):
            (folder / part).mkdir()
        for name, item in loose.items.items():
            _link(item.picture, folder / "JPEGImages" / f"{name}{item.picture.suffix.lower()}")
            if item.boxes:
                _link(item.boxes, folder / "Annotations" / f"{name}.xml")
            if item.mask:
                _link(item.mask, folder / "SegmentationClass" / f"{name}.png")
        for split, ids in splits.items():
            write_text(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in ids))
        write_text(folder / "labels.txt", "".join(f"{name}\n" for name in labels.classes))
    notes = [f"classes are {source}", *loose.notes]
    if "val" in splits and not any(item.split == "val" for item in loose.items.values()):
        notes.append(
            "val is a fifth of what is annotated, drawn at random; pictures that resemble each other, such as those of "
            f"one film, belong on one side: the lists are in {out}/ImageSets/Main"
        )
    what = "pictures with " + " and ".join(_drawn(loose.items))
    return Layout(
        what=what, data=f"voc:{out}", train="train", val="val" if "val" in splits else None, notes=tuple(notes)
    )


def _drawn(items: Mapping[str, Item]) -> list[str]:
    xmls, masks = (sum(item.kind in ("both", kind) for item in items.values()) for kind in ("boxes", "masks"))
    return [f"{count:,} {what}" for count, what in ((xmls, "VOC XMLs"), (masks, "PNG masks")) if count]


def _splits(items: Mapping[str, Item]) -> dict[str, list[str]]:
    """As folders say; else a fifth of each kind that is annotated."""
    splits: dict[str, list[str]] = defaultdict(list)
    told = any(item.split == "val" for item in items.values())
    kinds = Counter(item.kind for item in items.values() if item.split != "test")
    left = {kind: max(round(count * HELD_OUT), min(count - 1, 1)) for kind, count in kinds.items() if kind != "none"}
    for name in ranks(tuple(items), 0, "held out"):
        split, kind = items[name].split, items[name].kind
        if not told and split != "test" and left.get(kind, 0):
            left[kind] -= 1
            split = "val"
        splits[split or "train"].append(name)
    return {split: sorted(names) for split, names in splits.items()}


def _classes(loose: Loose) -> tuple[LabelSpace, str]:
    """The classes in the order of their numbers in masks, and where they are from."""
    file = next((loose.folder / name for name in CLASS_FILES if (loose.folder / name).is_file()), None)
    if file:
        return read_classes(file), f"those of {file}"
    xmls = [item.boxes for item in loose.items.values() if item.boxes]
    names = sorted({name for path in xmls for name in objects_in(path)} - {""})
    values = sorted(set().union(*(_values(item.mask) for item in loose.items.values() if item.mask)) - {0, IGNORE})
    if not any(item.mask for item in loose.items.values()) or (len(names) == 1 and values == [1]):
        if not names:
            raise InputError(f"{loose.folder}: the XMLs hold no object, so there is no class to learn")
        return LabelSpace.of(names), "the names in the XMLs, by the alphabet"
    if not values:
        raise InputError(
            f'{loose.folder}: the masks hold no class: 0 is background and {IGNORE} is "ignore"; '
            "write classes as 1, 2, 3, ... (colours are not read)"
        )
    if names and set(names) <= set(VOC.classes) and set(values) <= {VOC.index(name) for name in names}:
        return VOC, "VOC's twenty, for all objects in the XMLs have their names"
    raise InputError(
        f"{loose.folder}: the masks hold {', '.join(map(str, values[:12]))}, and nothing says what these numbers mean; "
        f"write {loose.folder / CLASS_FILES[0]}, one class a line, number 1 first"
        + (f" (the XMLs have {', '.join(names[:12])})" if names else "")
    )


def _values(mask: Path) -> set[int]:
    """The numbers in a mask; none where it can't be read or holds colours: `check` names it."""
    try:
        with Image.open(mask, formats=("PNG",)) as picture:
            return set(np.unique(np.asarray(picture)).tolist()) if picture.mode in ("P", "L") else set()
    except Exception:  # decoders raise all sorts of errors on broken bytes
        return set()


def _link(target: Path, place: Path) -> None:
    """A link that still holds when both are moved together; a copy where links are not to be had.

    It is made in a folder that will be renamed to its final name, beside this one, so that the way to it is the same.
    """
    try:
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))
    except (OSError, ValueError):
        shutil.copyfile(target, place)
