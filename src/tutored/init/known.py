"""Folders that are data sets as they are: VOC's layout with lists of splits, and COCO's."""

from __future__ import annotations

from pathlib import Path

from tutored.data import open_dataset
from tutored.data.voc import PICTURE_SUFFIXES
from tutored.errors import InputError
from tutored.init.layout import Layout
from tutored.init.lists import TRAIN, VAL, first
from tutored.init.loose import objects_in
from tutored.labels import VOC


def known_layout(folder: Path) -> Layout | None:
    """The folder as a data set, or None where something is missing or it is none."""
    return _voc(folder) or _coco(folder)


def _voc(folder: Path) -> Layout | None:
    inner = [path for path in (folder, *sorted(folder.glob("VOC*"))) if (path / "JPEGImages").is_dir()]
    if not inner:
        return None
    if len(inner) > 1:
        raise InputError(f"{folder}: holds several data sets; give one: {', '.join(map(str, inner))}")
    lists = {path.stem for path in inner[0].glob("ImageSets/*/*.txt")}
    data = f"voc:{inner[0]}"
    train, val = (first(names, [name for name in lists if _opens(data, name)]) for names in (TRAIN, VAL))
    classes_known = (inner[0] / "labels.txt").is_file() or _only_voc(inner[0])
    if not train or not val or not classes_known:
        return None
    listed = {image_id for split in (train, val) for image_id in open_dataset(data, split).ids}
    pictures = {path.stem for path in (inner[0] / "JPEGImages").iterdir() if path.suffix.lower() in PICTURE_SUFFIXES}
    left = len(pictures - listed)
    note = f"{left:,} pictures are neither on the list of {train} nor on that of {val}, and are not used"
    return Layout(what="a VOC folder", data=data, train=train, val=val, notes=(note,) if left else ())


def _coco(folder: Path) -> Layout | None:
    files = [*folder.glob("annotations/instances_*.json"), *folder.glob("*.json"), *folder.glob("annotations/*.json")]
    names = dict.fromkeys(path.stem.removeprefix("instances_") for path in files)
    data = f"coco:{folder}"
    train, val = (
        first(known, [name for name in names if name in known and _opens(data, name)]) for known in (TRAIN, VAL)
    )
    train = train or next((name for name in names if name != val and _opens(data, name)), None)
    if not train:
        return None
    note = "there is one split alone: a fifth of its images is held out to validate on"
    return Layout(what="a COCO folder", data=data, train=train, val=val, notes=() if val else (note,))


def _opens(data: str, split: str) -> bool:
    try:
        return bool(open_dataset(data, split).ids)
    except InputError:
        return False


def _only_voc(folder: Path) -> bool:
    """Whether every object has one of VOC's names; without objects, masks have VOC's numbers."""
    return all(name in VOC.classes for path in (folder / "Annotations").glob("*.xml") for name in objects_in(path))
