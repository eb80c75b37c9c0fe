"""Lists of splits, as VOC has them in `ImageSets`, and which of them are for training and for validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tutored.data.text import read_lines

TRAIN = ("train", "train2017", "train2014", "trainval", "default")
VAL = ("val", "val2017", "val2014", "valid", "validation", "test", "test2017")
"""Names of splits, the most likely first."""
PER_CLASS = ("_train", "_val", "_trainval", "_test")
"""How VOC's lists of one class end, which are no splits."""


def first(wanted: Iterable[str], there: Iterable[str]) -> str | None:
    """The first of the wanted names that is there."""
    there = set(there)
    return next((name for name in wanted if name in there), None)


def listed_splits(files: Iterable[Path], pictures: Sequence[Path]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The splits of pictures as the lists among some files have them.

    What is on two lists belongs to the later one of train, val, test; without a list for training, all that is on no
    list is for training.

    Returns:
        By the name without suffix of each picture that is used "train", "val" or "test"; empty where no list names any.
        And what should be known of the lists, a sentence each.
    """
    lists: dict[str, set[str]] = {}
    for path in files:
        if path.suffix == ".txt" and path.parent.parent.name == "ImageSets":
            lists.setdefault(path.stem, set()).update(PurePosixPath(line.strip()).name for line in read_lines(path))
    train, val = first(TRAIN, lists), first(VAL, lists)
    chosen = {"train": train, "val": val, "test": "test" if "test" in lists and val != "test" else None}
    stems = {path.stem for path in pictures}
    splits = {name: split for split, wanted in chosen.items() if wanted for name in lists[wanted] & stems}
    if not splits:
        return {}, ()
    if train is None:
        splits = dict.fromkeys(stems, "train") | splits
    used = [name for name in chosen.values() if name]
    others = [name for name in lists if name not in {*used, *TRAIN} and not name.endswith(PER_CLASS)]
    notes = [f"splits are those of the lists in ImageSets: {', '.join(used)}"]
    if others:
        notes.append(f"other lists there are not used: {', '.join(others)}")
    if left := len(stems - splits.keys()):
        notes.append(f"{left:,} pictures are on none of these lists, and are not used")
    return splits, tuple(notes)
