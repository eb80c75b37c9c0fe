"""Ask a tutor about every image of a split, once, and keep its answers in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutored.errors import InputError
from tutored.softlabels.codec import TAIL_FLOOR
from tutored.softlabels.writer import PART_ROWS, claim, finish, part_name, write_part
from tutored.structures import Dataset, SoftLabels
from tutored.tutors import Tutor

Progress = Callable[[int, int], None]


def label(
    tutor: Tutor,
    dataset: Dataset,
    out: Path | str,
    *,
    resume: bool = False,
    rank: int = 0,
    processes: int = 1,
    batch: int = 8,
    progress: Progress | None = None,
) -> Path:
    """Label a split. Killed at any moment and started again with `resume`, the store is the same to the byte.

    Args:
        out: folder of the store; new or empty, or an unfinished store of the same identity with `resume`.
        rank, processes: this process labels the parts `rank`, `rank + processes`, ... of the store; the processes
            share nothing but the folder, and whichever ends last finishes it.
        batch: images that the tutor gets at once.
        progress: called with the number of images that this process is done with, and of all its images.

    Returns:
        `out`.

    Raises:
        InputError: a store of another identity (the fields are named), a store without `resume`, another
            folder with something in it; what reading an image raises.
    """
    out = Path(out)
    ids = dataset.ids
    if not 0 <= rank < processes:
        raise InputError(f"rank {rank} of {processes} processes; ranks are 0 to {processes - 1}")
    if not ids:
        raise InputError(f"{dataset.name}: no images to label; give another split")
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise InputError(f"{dataset.name}: image {twice} is listed twice; correct the split")
    if claim(out, _identity(tutor, dataset), join=resume or processes > 1):
        return out
    parts = range(rank, -(-len(ids) // PART_ROWS), processes)
    mine = {part: ids[part * PART_ROWS : (part + 1) * PART_ROWS] for part in parts}
    total, done = sum(map(len, mine.values())), 0
    written = []
    for part, part_ids in mine.items():
        if not (out / part_name(part)).exists():
            answers: list[SoftLabels] = []
            for start in range(0, len(part_ids), batch):
                answers += _ask(tutor, dataset, part_ids[start : start + batch])
                if progress:
                    progress(done + len(answers), total)
            write_part(out, part, part_ids, answers)
            written.append(part)
        done += len(part_ids)
    if progress:
        progress(total, total)
    finish(out, written)
    return out


def _ask(tutor: Tutor, dataset: Dataset, image_ids: Sequence[str]) -> list[SoftLabels]:
    images = [dataset.image(image_id) for image_id in image_ids]
    answers = tutor(images, image_ids)
    sizes = [(image.height, image.width) for image in images]
    assert [answer.size for answer in answers] == sizes, "a tutor answers in each image's own pixels"
    return answers


def _identity(tutor: Tutor, dataset: Dataset) -> Mapping[str, Any]:
    """The tutor's own identity and what was labelled; the place of the data on this machine is left out."""
    return {
        **tutor.identity,
        "labels": list(tutor.labels.names),
        "tail_floor": TAIL_FLOOR,
        "data": dataset.source,
        "split": dataset.split,
        "images": len(dataset.ids),
        "ids_sha256": hashlib.sha256("\n".join(dataset.ids).encode()).hexdigest(),
    }
