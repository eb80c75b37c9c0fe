"""Ask a tutor about every image of a split, once, and keep its answers in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from tutored.errors import InputError
from tutored.progress import Progress
from tutored.softlabels.codec import TAIL_FLOOR
from tutored.softlabels.writer import PART_ROWS, finish, look, needs_answers, part_name, write_part
from tutored.structures import Dataset, SoftLabels
from tutored.tutors import Tutor

Pictures = dict[str, Image.Image | InputError]
"""Images of one batch by id, or why they can't be read."""


def label(
    tutor: Tutor,
    dataset: Dataset,
    out: Path | str,
    *,
    resume: bool = False,
    rank: int = 0,
    processes: int = 1,
    batch: int = 8,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Label a split. Killed at any moment and started again with `resume`, the store is the same to the byte.

    Args:
        out: folder of the store; new, empty or without a part yet, or a store of the same identity with `resume`.
        rank, processes: this process labels the parts `rank`, `rank + processes`, ... of the store; the processes
            share nothing but the folder, and whichever ends last finishes it.
        batch: images that the tutor gets at once; the next ones are read meanwhile.
        skip_broken: images that can't be read get no answer, and the store says which and why (`Store.failed`);
            `resume` tries them again.
        progress: called with the number of images that this process is done with, and of all its images.

    Returns:
        `out`.

    Raises:
        InputError: a store of another identity (the fields are named), a store without `resume`, another
            folder with something in it; without `skip_broken`, what reading an image raises.
    """
    out = Path(out)
    if not 0 <= rank < processes:
        raise InputError(f"rank {rank} of {processes} processes; ranks are 0 to {processes - 1}")
    mine = range(rank, count_parts(dataset), processes)
    identity = identity_of(tutor, dataset)
    missing = begin(dataset, identity, out, mine, join=resume or processes > 1, again=resume)
    if missing is None:
        return out
    total = sum(len(ids_of(dataset, part)) for part in mine)
    done = 0
    for part in mine:
        if part in missing:
            for answered in label_part(tutor, dataset, identity, out, part, batch, skip_broken):
                if progress:
                    progress(done + answered, total)
        done += len(ids_of(dataset, part))
    if progress:
        progress(total, total)
    finish(out)
    return out


def begin(
    dataset: Dataset, identity: Mapping[str, Any], out: Path, parts: Iterable[int], *, join: bool, again: bool
) -> set[int] | None:
    """Which of these parts are still to be made in the folder `out`; None where the store is finished.

    Args:
        join: a store of the same identity may be there.
        again: parts in which an image failed, and damaged ones of an unfinished store, are made again.

    Raises:
        InputError: see `label`.
    """
    ids = dataset.ids
    if not ids:
        raise InputError(f"{dataset.name}: no images to label; give another split")
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise InputError(f"{dataset.name}: image {twice} is listed twice; correct the split")
    finished = look(out, identity, join=join)
    missing = {part for part in parts if (needs_answers(out, part) if again else not (out / part_name(part)).exists())}
    return None if finished and not missing else missing


def count_parts(dataset: Dataset) -> int:
    """The parts of the store."""
    return -(-len(dataset.ids) // PART_ROWS)


def ids_of(dataset: Dataset, part: int) -> Sequence[str]:
    """The images of one part of the store."""
    return dataset.ids[part * PART_ROWS : (part + 1) * PART_ROWS]


def label_part(
    tutor: Tutor,
    dataset: Dataset,
    identity: Mapping[str, Any],
    out: Path,
    part: int,
    batch: int,
    skip_broken: bool,
) -> Iterator[int]:
    """Label one part and write it, whole or not at all; yields how many of its images are done, batch by batch.

    Args:
        identity: what `identity_of` gives, worked out once for all parts.
    """
    answers: dict[str, SoftLabels] = {}
    failed: dict[str, str] = {}
    for pictures in _read_ahead(dataset, ids_of(dataset, part), batch):
        images = {}
        for image_id, picture in pictures.items():
            if not isinstance(picture, InputError):
                images[image_id] = picture
            elif skip_broken:
                failed[image_id] = str(picture)
            else:
                raise picture
        if images:
            answers |= zip(images, _ask(tutor, images), strict=True)
        yield len(answers) + len(failed)
    write_part(out, identity, part, list(answers), list(answers.values()), failed)


def _read_ahead(dataset: Dataset, ids: Sequence[str], batch: int) -> Iterator[Pictures]:
    """The pictures of each batch; while one is worked on, a thread reads the next."""

    def read(first: int) -> Pictures:
        return {image_id: _read(dataset, image_id) for image_id in ids[first : first + batch]}

    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(read, 0)
        for first in range(batch, len(ids) + batch, batch):
            ready, ahead = ahead.result(), reader.submit(read, first)
            yield ready


def _read(dataset: Dataset, image_id: str) -> Image.Image | InputError:
    try:
        return dataset.image(image_id)
    except InputError as error:
        return error


def _ask(tutor: Tutor, images: Mapping[str, Image.Image]) -> list[SoftLabels]:
    answers = tutor(list(images.values()), list(images))
    sizes = [(image.height, image.width) for image in images.values()]
    assert [answer.size for answer in answers] == sizes, "a tutor answers in each image's own pixels"
    return answers


def identity_of(tutor: Tutor, dataset: Dataset) -> Mapping[str, Any]:
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
