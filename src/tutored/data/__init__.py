"""Images and what is known about them: `open_dataset` reads VOC and COCO folders, and pictures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tutored.data.coco import open_coco
from tutored.data.images import Images, TaskSource, open_images, with_tasks
from tutored.data.own import open_own
from tutored.data.voc import open_voc
from tutored.errors import InputError

__all__ = ["TaskSource", "open_dataset"]

FORMATS: Mapping[str, Callable[[Path, str], Images]] = {"voc": open_voc, "coco": open_coco, "images": open_images}


def open_dataset(spec: str, split: str, tasks: Mapping[str, TaskSource] | None = None) -> Images:
    """Open one split of a data set; images and ground truth are read when asked for.

    Args:
        spec: `voc:FOLDER`, `coco:FOLDER` or `images:FOLDER`; or `python:MODULE:NAME`, see `open_own`.
        split: see `open_voc`, `open_coco` and `open_images`.
        tasks: a run's tasks; None: what the format has, under the names of kinds of task. What is not among them is
            not read.

    Raises:
        InputError: an unknown format, folder or split, or a task that can't be had here; what is possible is named.
    """
    kind, _, folder = spec.partition(":")
    if kind not in (*FORMATS, "python") or not folder:
        possible = ", ".join(f"{each}:FOLDER" for each in FORMATS)
        raise InputError(f"data {spec!r}: give the format and the folder; possible: {possible}, python:MODULE:NAME")
    path = Path(folder).expanduser()
    if kind != "python" and not path.is_dir():
        raise InputError(f"data {spec!r}: there is no folder {path}")
    dataset = open_own(folder, split) if kind == "python" else FORMATS[kind](path, split)
    return dataset if tasks is None else with_tasks(dataset, tasks)
