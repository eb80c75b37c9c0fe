"""Images and what is known about them: `open_dataset` reads the folders of data sets and tools, and pictures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tutored import files
from tutored.config.training import Empty
from tutored.data.coco import open_coco
from tutored.data.cvat import cvat_splits, open_cvat
from tutored.data.images import Images, TaskSource, open_images, with_tasks
from tutored.data.labelme import labelme_splits, open_labelme
from tutored.data.labelstudio import labelstudio_splits, open_labelstudio
from tutored.data.own import open_own
from tutored.data.voc import open_voc
from tutored.data.yolo import open_yolo, yolo_splits
from tutored.errors import InputError

__all__ = ["TaskSource", "open_dataset"]

READERS = (open_voc, open_coco, open_yolo, open_cvat, open_labelme, open_labelstudio, open_images)
FORMATS: dict[str, Callable[[Path, str], Images]] = dict(zip(files.FORMATS, READERS, strict=True))
TOOLS: Mapping[str, tuple[str, Callable[[Path], list[str]]]] = {
    "yolo": ("a YOLO folder", yolo_splits),
    "cvat": ("a folder of CVAT for images", cvat_splits),
    "labelstudio": ("an export of Label Studio", labelstudio_splits),
    "labelme": ("a folder of Labelme", labelme_splits),
}
"""By format, what a folder of a tool is called, and the splits that it has; none where it is no such folder."""


def open_dataset(
    spec: str, split: str, tasks: Mapping[str, TaskSource] | None = None, empty: Empty = "unannotated"
) -> Images:
    """Open one split of a data set; images and ground truth are read when asked for.

    Args:
        spec: such as `voc:FOLDER`, see `FORMATS`; or `python:MODULE:NAME`, see `open_own`.
        split: see `open_voc` and the other functions of `FORMATS`.
        tasks: a run's tasks; None: what the format has, under the names of kinds of task. What is not among them is
            not read.
        empty: what an image is that has no object in the files of a format that leaves it open.

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
    dataset = replace(dataset, empty=empty)
    return dataset if tasks is None else with_tasks(dataset, tasks)
