"""Pictures, VOC XMLs and PNG masks in any folders: which belongs to which, and to which split."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from tutored.data.images import files_in, left_out_of
from tutored.data.text import CLASS_FILES, read_lines, read_xml, refuse_unwritable
from tutored.data.yolo import is_label
from tutored.errors import InputError
from tutored.files import is_special
from tutored.inputs import is_result
from tutored.labels import composed
from tutored.pictures import SUFFIXES

TRAIN = ("train", "train2017", "train2014", "trainval", "default")
VAL = ("val", "val2017", "val2014", "valid", "validation", "test", "test2017")
"""Names of splits, the most likely first."""
PER_CLASS = ("_train", "_val", "_trainval", "_test")
"""How VOC's lists of one class end, which are no splits."""
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
MARK = re.compile("^({0})[ _.-]|[ _.-]?({0})$".format("masks?|seg|segmentation|labels?|labelids|gt"), re.I)
"""What a mask's name may have before or behind its picture's."""
MASKS = re.compile(r"mask(?!ed)|seg|label(?!l?ed)|annot(?!ated)|\bgt\b", re.I)
"""A folder of this name may hold masks; one called "unlabelled" holds pictures."""
LEFT_OUT = re.compile(r"SegmentationObject.*|.*Visuali[sz]ation|__MACOSX", re.I)
"""Folders of instance masks, and of drawings, as labelme's tools write them beside `SegmentationClass`."""
TABLES = tuple(".csv .tsv .jsonl .ndjson .mat .npy .npz .pkl .parquet .tfrecord .record .h5 .hdf5 .xlsx".split())
"""Files that may hold annotations."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, what a person drew on it, and the split in whose folder or on whose list it is, if any."""

    picture: Path
    boxes: Path | None
    mask: Path | None
    split: str | None

    @property
    def kind(self) -> tuple[str, ...]:
        """What there is of "VOC XMLs" and "PNG masks"."""
        return ("VOC XMLs",) * bool(self.boxes) + ("PNG masks",) * bool(self.mask)


class Loose(NamedTuple):
    """What `find_loose` finds.

    Attributes:
        items: pictures by image id.
        unread: files that may be annotations and are not read, a sentence each.
        others: the same of pictures.
        notes: what else was left out, and where splits are from, a sentence each.
    """

    items: dict[str, Item]
    unread: tuple[str, ...]
    others: tuple[str, ...]
    notes: tuple[str, ...]


def find_loose(folder: Path) -> Loose:
    """Pair the files in and under `folder`: an XML or a mask belongs to the picture of its name.

    What tutored wrote there itself, such as the links of a former `init`, is left out. Raises InputError: there is no
    picture, two have one name, one has a name that no list can hold, or masks are JPEGs.
    """
    seen = sorted(files_in(folder))
    files = [path for path in seen if not is_special(path)]
    drawings = {path for path in files if any(map(LEFT_OUT.fullmatch, path.relative_to(folder).parts[:-1]))}
    files = [path for path in files if path not in drawings]
    refuse_unwritable(files)
    ours = _written_by_us(files, folder)
    files = [path for path in files if path not in ours]
    pictures, masks, lost = _told_apart([path for path in files if path.suffix.lower() in SUFFIXES], folder)
    if not pictures:
        told = "; ".join((f"possible: {', '.join(SUFFIXES)}, in and under the folder", *left_out_of(seen)))
        raise InputError(f"{folder}: no picture in it; {told}")
    xmls = [path for path in files if path.suffix.lower() == ".xml" and _is_annotation(path)]
    # Of two files of one name, the first; a mask is also found by its name without what marks it.
    drawn = [
        {(_split(path, folder), stem): path for path in reversed(paths) for stem in (_stem(path), _bare(path))}
        for paths in (xmls, masks)
    ]
    listed, notes = _listed_splits(files, pictures)
    stems = Counter(map(_stem, pictures))
    items: dict[str, Item] = {}
    for path in pictures:
        split, stem = _split(path, folder), _stem(path)
        name = stem if stems[stem] == 1 else f"{split}_{stem}"
        if name in items or name != name.strip():
            raise InputError(f"{path}: another is called {name}, or it begins or ends with a blank; rename the file")
        boxes, mask = (by_name.get((split, stem)) or by_name.get((None, stem)) for by_name in drawn)
        items[name] = Item(path, boxes, mask, listed.get(stem, split))
    used = {each for item in items.values() for each in (item.boxes, item.mask)}
    if lost and not used - {None}:
        raise InputError(
            f"{min(lost)}: by its place a mask, and like all {len(lost):,} there it has the name of no picture; name "
            "masks as their pictures, one PNG for all classes of a picture, or take them out of the folder"
        )
    lost += [path for path in (*xmls, *masks) if path not in used]
    if listed:
        items = {name: item for name, item in items.items() if _stem(item.picture) in listed}
    annotations = set(xmls)
    left = unread([path for path in files if path not in annotations])
    others = left_out_of([path for path in seen if path not in drawings | ours])
    return Loose(items, left, tuple(others), (*notes, *_left_out(ours, drawings, lost)))


def objects_in(path: Path) -> list[str]:
    """Class names of the objects of a VOC XML; none where it can't be read."""
    try:
        return [composed((name.text or "").strip()) for name in read_xml(path).iterfind("object/name")]
    except InputError:
        return []


def first(wanted: Iterable[str], there: Collection[str]) -> str | None:
    """The first of the wanted names that is there."""
    return next((name for name in wanted if name in there), None)


def _written_by_us(files: Sequence[Path], folder: Path) -> set[Path]:
    """What lies in folders of runs and of links to others of these files, and results of `tutored predict`."""
    there = {path.resolve() for path in files if not path.is_symlink()}
    links = {path for path in files if path.is_symlink() and path.resolve() in there}
    folders = {path.parent for path in files if path.name == "config.yaml" and (path.parent / "log.jsonl").exists()}
    folders |= {path.parent.parent for path in links if path.parent.name == "JPEGImages"}
    results = (path for path in files if is_result(path.relative_to(folder)) or path.name == "predictions.json")
    return {*links, *results, *(path for path in files if not folders.isdisjoint(path.parents))}


def _is_annotation(path: Path) -> bool:
    try:
        return read_xml(path).tag == "annotation"
    except InputError:
        return True  # broken: `check` names it


def _stem(path: Path) -> str:
    return composed(path.stem)


def _bare(path: Path) -> str:
    return MARK.sub("", _stem(path))


def _split(path: Path, folder: Path) -> str | None:
    parts = path.relative_to(folder).parts[:-1]
    return next((SPLIT_FOLDERS[part.lower()] for part in parts if part.lower() in SPLIT_FOLDERS), None)


def _told_apart(shown: Sequence[Path], folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Pictures, masks, and masks that belong to no picture. Raises InputError where two pictures have one name."""
    alike: dict[str, list[Path]] = defaultdict(list)
    for path in shown:
        alike[_bare(path)].append(path)
    masks = [path for path in shown if _is_mask(path, alike[_bare(path)], folder)]
    masked = {_bare(path) for path in masks}
    pngs = [path for path in shown if path.suffix.lower() == ".png" and _bare(path) not in masked]
    lost = [path for path in pngs if _is_named(path, folder) and (masks or _holds_indices(path))]
    lost = [] if len(lost) == len(shown) else lost
    pictures = [path for path in shown if path not in {*masks, *lost}]
    by_name: dict[tuple[str | None, str], Path] = {}
    for path in pictures:
        other = by_name.setdefault((_split(path, folder), _stem(path)), path)
        if other != path:
            raise InputError(
                f"{other} and {path}: both are called {path.stem}, and a picture's XML and mask are found by its name; "
                "rename one (if one is a mask, put it into a folder `masks`)"
            )
    return pictures, masks, lost


def _is_mask(path: Path, alike: Sequence[Path], folder: Path) -> bool:
    """Whether it is the mask of another picture: by its name or its folder's, or as a PNG that alone holds indices."""
    split = _split(path, folder)
    others = [other for other in alike if other != path and (not split or _split(other, folder) in (None, split))]
    if not others:
        return False
    told = MARK.search(path.stem) or (_is_named(path, folder) and not all(_is_named(each, folder) for each in others))
    if told and path.suffix.lower() != ".png":
        raise InputError(
            f"{path}: by its name the mask of {others[0]}, and masks are read from PNG alone (JPEG changes the numbers "
            "of classes); save masks as PNG, or, if it is a picture, rename it"
        )
    return bool(told) or (_holds_indices(path) and not any(map(_holds_indices, others)))


def _is_named(path: Path, folder: Path) -> bool:
    """Whether a file's name, or its folder's, is that of a mask."""
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


def _listed_splits(files: Iterable[Path], pictures: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """The splits of pictures as the lists among some files (VOC's `ImageSets`) have them.

    What is on two lists belongs to the later one of train, val, test; without a list for training, all that is on no
    list is for training. Returns by the name without suffix of each picture that is used "train", "val" or "test";
    empty where no list names any. And what should be known of the lists, a sentence each.
    """
    lists: dict[str, set[str]] = defaultdict(set)
    for path in files:
        if path.suffix == ".txt" and path.parent.parent.name == "ImageSets":
            lists[path.stem] |= {composed(PurePosixPath(line.strip()).name) for line in read_lines(path)}
    train, val = first(TRAIN, lists), first(VAL, lists)
    chosen = {"train": train, "val": val, "test": "test" if "test" in lists and val != "test" else None}
    stems = set(map(_stem, pictures))
    splits = {name: split for split, wanted in chosen.items() if wanted for name in lists[wanted] & stems}
    if not splits:
        strange = sorted(name for name in lists if not name.endswith(PER_CLASS))
        told = f"lists in ImageSets that are not called train, val or test are not used: {', '.join(strange)}"
        return {}, [told] * bool(strange)
    if train is None:
        splits = dict.fromkeys(stems, "train") | splits
    used = [name for name in chosen.values() if name]
    others = [name for name in lists if name not in {*used, *TRAIN} and not name.endswith(PER_CLASS)]
    notes = [f"splits are those of the lists in ImageSets: {', '.join(used)}"]
    if others:
        notes.append(f"other lists there are not used: {', '.join(others)}")
    if left := len(stems - splits.keys()):
        notes.append(f"{left:,} pictures are on none of these lists, and are not used")
    return splits, notes


def unread(files: Sequence[Path]) -> tuple[str, ...]:
    """On the files that may be annotations and are not read, a sentence for each kind."""
    markup = [path for path in files if path.suffix.lower() == ".xml" and not _is_annotation(path)]
    yolo = [path for path in files if is_label(path) and path.name not in CLASS_FILES]
    json = [path for path in files if path.suffix.lower() == ".json"]
    tables = [path for path in files if path.suffix.lower() in TABLES]
    return tuple(
        f"{len(paths):,} {what}, such as {min(paths)}, are not read{remedy}"
        for paths, what, remedy in (
            (yolo, "files of YOLO's boxes", "; write `names: [cat, dog]`, the name of number 0 first, into data.yaml"),
            (json, "files of JSON", "; COCO's is FOLDER/SPLIT.json, with the pictures in FOLDER/SPLIT"),
            (markup, "XMLs that are not VOC's", "; VOC's is one a picture, and begins with <annotation>"),
            (tables, "tables", ", should they hold annotations"),
        )
        if paths
    )


def _left_out(ours: Collection[Path], drawings: Collection[Path], lost: Collection[Path]) -> Iterable[str]:
    for paths, what, why in (
        (ours, "files that tutored itself wrote", ""),
        (drawings, "drawings and masks of single objects", ""),
        (lost, "files belong to no picture", ": their names differ, or another file has it already"),
    ):
        if paths:
            yield f"{len(paths):,} {what}, such as {min(paths)}, are left out{why}"
