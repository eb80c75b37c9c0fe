"""Which files in a folder of pictures tutored itself wrote there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutored.predict.inputs import DRAWN, MASK


def written_by_us(files: Sequence[Path]) -> set[Path]:
    """What lies in folders of runs and of links to others of these files, and drawn predictions with their masks.

    Args:
        files: all in and under a folder.
    """
    there = {path.resolve() for path in files if not path.is_symlink()}
    links = {path for path in files if path.is_symlink() and path.resolve() in there}
    folders = {path.parent for path in files if path.name == "config.yaml" and (path.parent / "log.jsonl").exists()}
    folders |= {path.parent.parent for path in links if path.parent.name == "JPEGImages"}
    predicted = {path.parent for path in files if path.name.endswith(DRAWN) or path.name == "predictions.json"}
    return links | {
        path
        for path in files
        if not folders.isdisjoint(path.parents)
        or (path.name.endswith((DRAWN, MASK, "predictions.json")) and path.parent in predicted)
    }
