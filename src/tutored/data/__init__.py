"""Images and what is known about them: `open_dataset` reads VOC and COCO folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tutored.data.coco import open_coco
from tutored.data.relabelled import relabelled
from tutored.data.voc import open_voc
from tutored.errors import InputError
from tutored.structures import Dataset


def open_dataset(
    spec: str,
    split: str,
    annotated: tuple[str, ...] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Open one split of a data set; images and ground truth are read when asked for.

    Args:
        spec: `voc:FOLDER` or `coco:FOLDER`.
        split: see `open_voc` and `open_coco`.
        annotated: the classes that the data set annotates; None means all of its own.
        classes: the object classes to see the data set in; None means its own. See `relabelled`.

    Raises:
        InputError: an unknown format, folder, split or class; what is possible is named.
    """
    openers: dict[str, Callable[[Path, str], Dataset]] = {"voc": open_voc, "coco": open_coco}
    kind, _, folder = spec.partition(":")
    if kind not in openers or not folder:
        raise InputError(f"data {spec!r}: give the format and the folder; possible: voc:FOLDER, coco:FOLDER")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"data {spec!r}: there is no folder {path}")
    return relabelled(openers[kind](path, split), annotated, classes)
