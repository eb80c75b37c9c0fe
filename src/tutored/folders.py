"""The folders that commands write, each told by a file in it, and formats of data: known before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tutored.errors import InputError


class Kind(NamedTuple):
    """What such a folder is called, the file that tells it, and the command that writes it."""

    what: str
    file: str
    command: str


CHECKPOINT = Kind("checkpoint", "checkpoint.json", "`tutored train`")
RUN = Kind("run", "config.yaml", "`tutored train`")
FINISHED = Kind("finished run", "result.json", "`tutored train`")
STORE = Kind("store of soft labels", "manifest.json", "`tutored label`")
STORES = "stores"
"""In a run's folder: the stores of tutors that the config names without saying where their answers go."""
STUDY = Kind("study folder", "study.yaml", "`tutored study run`")
FORMATS = ("voc", "coco", "yolo", "cvat", "labelme", "labelstudio", "images")
"""Of the folders of data sets, which are named as FORMAT:FOLDER."""


def require(path: Path, *kinds: Kind) -> None:
    """Raise InputError where a folder is of none of these kinds."""
    if any((path / kind.file).exists() for kind in kinds):
        return
    inside = path / "checkpoint"
    if CHECKPOINT in kinds and (inside / CHECKPOINT.file).exists():
        raise InputError(f"{path} is a run, and its checkpoint lies in it; give {inside}")
    what, files, commands = map(" or ".join, zip(*kinds, strict=True))
    raise InputError(f"{path}: no {what} (it has no {files}); {commands} writes one")
