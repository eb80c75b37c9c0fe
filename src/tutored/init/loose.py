"""Pictures, VOC XMLs and PNG masks in any folders: which belongs to which."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from tutored.data.images import files_in
from tutored.data.text import own_name, read_xml, refuse_unwritable
from tutored.data.voc import PICTURE_SUFFIXES
from tutored.errors import InputError
from tutored.init.layout import Layout
from tutored.init.lists import listed_splits
from tutored.init.ours import written_by_us

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
MARK = re.compile(r"[ _.-]?(mask|masks|seg|segmentation|label|labels|labelids|gt)$", re.I)
"""What a mask's name may have behind its picture's."""
MASKS = re.compile(r"mask(?!ed)|seg|label(?!l?ed)|annot(?!ated)|\bgt\b", re.I)
"""A folder of this name may hold masks; one called "unlabelled" holds pictures."""
LEFT_OUT = frozenset({"SegmentationObject", "__MACOSX"})
YOLO = re.compile(r"\d+( +-?[\d.]+){4,}\s*$")


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, what a person drew on it, and the split in whose folder it lies, if in any."""

    picture: Path
    boxes: Path | None
    mask: Path | None
    split: str | None

    @property
    def kind(self) -> str:
        """ "both", "boxes", "masks" or "none"."""
        if self.boxes is None:
            return "none" if self.mask is None else "masks"
        return "boxes" if self.mask is None else "both"


@dataclass(frozen=True, slots=True)
class Loose:
    """What a folder holds.

    Attributes:
        items: by image id.
        alone: the data set of the pictures, where there is nothing else.
        notes: what was left out, a sentence each.
    """

    folder: Path
    items: dict[str, Item]
    alone: Layout | None
    notes: tuple[str, ...]


def find_loose(folder: Path) -> Loose:
    """Pair the files in and under `folder`: an XML or a mask belongs to the picture of its name.

    What tutored wrote there itself, such as the links of a former `init`, is left out.

    Raises:
        InputError: there is no picture, two have one name, one has a name that no list can hold, or masks are JPEGs.
    """
    found = (path for path in sorted(files_in(folder)) if path.is_file())
    files = [path for path in found if not _skipped(path.relative_to(folder))]
    refuse_unwritable(files)
    ours = written_by_us(files)
    files = [path for path in files if path not in ours]
    shown = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    by_base: dict[str, list[Path]] = defaultdict(list)
    for path in shown:
        by_base[MARK.sub("", path.stem)].append(path)
    masks = [path for path in shown if _is_mask(path, by_base[MARK.sub("", path.stem)], folder)]
    masked = {MARK.sub("", path.stem) for path in masks}
    alone = [path for path in shown if MARK.sub("", path.stem) not in masked]
    lost = [path for path in alone if masks and path.suffix.lower() == ".png" and _named(path, folder)]
    pictures = [path for path in shown if path not in {*masks, *lost}]
    if not pictures:
        raise InputError(
            f"{folder}: no picture in it; possible: {', '.join(PICTURE_SUFFIXES)}, in and under the folder"
        )
    xmls = [path for path in files if path.suffix.lower() == ".xml" and _root(path) == "annotation"]
    _refuse_twins(pictures, folder)
    boxes_of, mask_of = _by_name(xmls, folder), _by_name(masks, folder)
    listed, notes = listed_splits(files, pictures)
    stems = Counter(path.stem for path in pictures)
    items: dict[str, Item] = {}
    for path in pictures:
        split = _split(path, folder)
        name = path.stem if stems[path.stem] == 1 else f"{split}_{path.stem}"
        if name in items or name != name.strip():
            raise InputError(f"{path}: another is called {name}, or it begins or ends with a blank; rename the file")
        boxes, mask = _own(boxes_of, path.stem, split), _own(mask_of, path.stem, split)
        items[name] = Item(path, boxes, mask, listed.get(path.stem, split))
    used = {each for item in items.values() for each in (item.boxes, item.mask)}
    lost += [path for path in (*xmls, *masks) if path not in used]
    if listed:
        items = {name: item for name, item in items.items() if item.picture.stem in listed}
    notes = (*notes, *_notes(files, lost, ours))
    return Loose(folder, items, None if xmls or masks else _alone(folder, notes), notes)


def objects_in(path: Path) -> list[str]:
    """Class names of the objects of a VOC XML; none where it can't be read."""
    try:
        return [(name.text or "").strip() for name in read_xml(path).iterfind("object/name")]
    except InputError:
        return []


def _alone(folder: Path, notes: tuple[str, ...]) -> Layout:
    parent, name = folder.parent if folder.name else Path(".."), own_name(folder)
    if (parent / f"{name}.txt").is_file():
        raise InputError(f"{parent / name}.txt would be taken for the list of the pictures in {folder}; rename it")
    what = "pictures that nobody annotated"
    return Layout(what=what, data=f"images:{parent}", train=name, val=None, notes=notes)


def _skipped(path: Path) -> bool:
    return any(part.startswith(".") or part in LEFT_OUT for part in path.parts)


def _split(path: Path, folder: Path) -> str | None:
    parts = path.relative_to(folder).parts[:-1]
    return next((SPLIT_FOLDERS[part.lower()] for part in parts if part.lower() in SPLIT_FOLDERS), None)


def _is_mask(path: Path, alike: Sequence[Path], folder: Path) -> bool:
    """Whether it is the mask of another picture: by its name or its folder's, or as a PNG that alone holds indices."""
    split = _split(path, folder)
    others = [other for other in alike if other != path and (not split or _split(other, folder) in (None, split))]
    if not others:
        return False
    told = MARK.search(path.stem) or (_named(path, folder) and not all(_named(other, folder) for other in others))
    if told and path.suffix.lower() != ".png":
        raise InputError(
            f"{path}: by its name the mask of {others[0]}, and JPEG changes the numbers of classes; save masks as PNG "
            "(if it is a picture, rename it)"
        )
    return bool(told) or (_holds_indices(path) and not any(map(_holds_indices, others)))


def _named(path: Path, folder: Path) -> bool:
    return bool(MARK.search(path.stem) or MASKS.search(path.relative_to(folder).parent.as_posix()))


@cache
def _holds_indices(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.mode in ("P", "L")
    except Exception:  # decoders raise all sorts of errors on broken bytes; `check` names the file
        return False


def _root(path: Path) -> str:
    try:
        return read_xml(path).tag
    except InputError:
        return "annotation"  # broken: `check` names it


def _by_name(paths: Iterable[Path], folder: Path) -> dict[tuple[str | None, str], Path]:
    """By split and name; a mask's also by the name without what marks it."""
    pairs = [(path, stem) for path in paths for stem in (MARK.sub("", path.stem), path.stem)]
    return {(_split(path, folder), stem): path for path, stem in reversed(pairs)}  # of two, the first


def _own(paths: dict[tuple[str | None, str], Path], stem: str, split: str | None) -> Path | None:
    return paths.get((split, stem)) or paths.get((None, stem))


def _refuse_twins(pictures: Sequence[Path], folder: Path) -> None:
    first: dict[tuple[str | None, str], Path] = {}
    for path in pictures:
        other = first.setdefault((_split(path, folder), path.stem), path)
        if other != path:
            raise InputError(
                f"{other} and {path}: both are called {path.stem}, and a picture's XML and mask are found by its name; "
                "rename one (if one is a mask, put it into a folder `masks`)"
            )


def _notes(files: Sequence[Path], lost: Sequence[Path], ours: Collection[Path]) -> Iterable[str]:
    if ours:
        yield f"{len(ours):,} files that tutored itself wrote, such as {min(ours)}, are left out"
    if lost:
        yield (
            f"{len(lost):,} files belong to no picture, such as {lost[0]}: their names differ, or another has it "
            "already, and they are left out"
        )
    others = [path for path in files if path.suffix.lower() in (".bmp", ".webp", ".tif", ".tiff", ".gif", ".heic")]
    if others:
        yield f"{len(others):,} pictures such as {others[0]} are left out; save them as JPEG or PNG"
    texts = [path for path in files if path.suffix == ".txt" and _is_yolo(path)]
    if texts:
        yield f"{len(texts):,} files of YOLO's boxes, such as {texts[0]}, are not read; convert them to COCO's JSON"
    tables = [path for path in files if path.suffix.lower() == ".json"]
    if tables:
        yield f"{tables[0]} is not read; of COCO's boxes, FOLDER/SPLIT.json is, with the pictures in FOLDER/SPLIT"


def _is_yolo(path: Path) -> bool:
    with path.open(errors="replace") as file:
        return bool(YOLO.match(file.readline()))
