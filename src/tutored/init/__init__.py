"""`tutored init`: look at a folder of pictures, say what is there, and write a config to start from.

What a folder lacks to be a data set (lists of splits, names of classes, VOC's folders) is made beside the config, of
links; nothing in the folder itself is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tutored.config import TASKS
from tutored.data import open_dataset
from tutored.data.check import Report, check
from tutored.errors import InputError
from tutored.files import write_text
from tutored.init.arrange import arrange
from tutored.init.example import make_example
from tutored.init.known import known_layout
from tutored.init.layout import Layout
from tutored.init.loose import find_loose
from tutored.init.text import config_text
from tutored.progress import Progress

__all__ = ["Layout", "Start", "init", "make_example"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What `init` found and wrote.

    Attributes:
        layout: the data set that the config names.
        report: what is in its splits, as `tutored data check` has it.
        drawn: by task, the training images that have something drawn for it, be it broken.
        config: the file that was written.
        arranged: the folder of links that was made, or None where the folder is a data set as it is.
    """

    layout: Layout
    report: Report
    drawn: Mapping[str, int]
    config: Path
    arranged: Path | None


def init(folder: Path, out: Path, progress: Progress | None = None) -> Start:
    """Look at `folder` and write the config `out`, and beside it, where needed, the folder `OUT-data` of links.

    Args:
        progress: called with (images read, images in all).

    Raises:
        InputError: there is no such folder or nothing in it to learn from, what is there is ambiguous, or one of the
            two outputs exists.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the one that holds your pictures")
    links = out.with_name(f"{out.stem}-data")
    for path in (out, links):
        if path.exists():
            raise InputError(f"{path} exists, and is left alone; remove it, or give another --out")
    layout, arranged = known_layout(folder), None
    if layout is None:
        loose = find_loose(folder)
        layout = loose.alone or arrange(loose, links)
        arranged = None if loose.alone else links
    try:
        splits = {split: open_dataset(layout.data, split) for split in (layout.train, layout.val) if split}
        report = check(splits, progress)
        there = splits[layout.train]
        drawn = {task: sum(task in there.annotated_tasks(image_id) for image_id in there.ids) for task in TASKS}
        write_text(out, config_text(layout, drawn, len(there.ids)))
    except BaseException:
        if arranged:
            shutil.rmtree(arranged)
        raise
    return Start(layout=layout, report=report, drawn=drawn, config=out, arranged=arranged)
