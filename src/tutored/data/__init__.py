"""Images and what is known about them: `open_dataset` reads VOC and COCO folders, and pictures alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tutored.data.coco import open_coco
from tutored.data.images import Images, open_images
from tutored.data.relabelled import relabelled
from tutored.data.voc import open_voc
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import Dataset


def open_dataset(
    spec: str,
    split: str,
    annotated: tuple[str, ...] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Open one split of a data set; images and ground truth are read when asked for.

    Args:
        spec: `voc:FOLDER`, `coco:FOLDER` or `images:FOLDER`.
        split: see `open_voc`, `open_coco` and `open_images`.
        annotated: the classes that the data set annotates; None means all of its own.
        classes: the object classes to see the data set in; None means its own. See `relabelled`.

    Raises:
        InputError: an unknown format, folder, split or class; what is possible is named.
    """
    openers: dict[str, Callable[[Path, str], Dataset]] = {
        "voc": open_voc,
        "coco": open_coco,
        "images": open_images,
    }
    kind, _, folder = spec.partition(":")
    if kind not in openers or not folder:
        raise InputError(
            f"data {spec!r}: give the format and the folder; possible: voc:FOLDER, coco:FOLDER, images:FOLDER"
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"data {spec!r}: there is no folder {path}")
    dataset = openers[kind](path, split)
    if isinstance(dataset, Images) and classes is not None:
        return replace(dataset, labels=LabelSpace.of(classes))
    return relabelled(dataset, annotated, classes)
