"""Which files in a folder of pictures tutored itself wrote there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutored.predict.inputs import DRAWN, MASK


def written_by_us(files: Sequence[Path]) -> set[Path]:
    """Links to others of these files, what lies in folders of runs, and drawn predictions with their masks.

    Args:
        files: all in and under a folder.
    """
    there = {path.resolve() for path in files if not path.is_symlink()}
    runs = {path.parent for path in files if path.name == "config.yaml" and (path.parent / "log.jsonl").exists()}
    predicted = {path.parent for path in files if path.name.endswith(DRAWN) or path.name == "predictions.json"}
    return {
        path
        for path in files
        if (path.is_symlink() and path.resolve() in there)
        or not runs.isdisjoint(path.parents)
        or (path.name.endswith((DRAWN, MASK, "predictions.json")) and path.parent in predicted)
    }
