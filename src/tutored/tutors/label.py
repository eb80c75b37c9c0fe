"""Ask a tutor about every image of a split, once, and keep its answers in a store: here, or on a cluster with Ray."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from tutored.data import open_dataset
from tutored.errors import InputError, Progress, needing
from tutored.softlabels import read_manifest
from tutored.softlabels.writer import PART_ROWS, finish, look, needs_answers, part_name, write_part
from tutored.tutors import Tutor, open_tutor
from tutored.types import Dataset, SoftLabels


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
    """Label a split. Killed at any moment and started again with `resume`, the store is the same to the byte. Returns
    `out`. Raises InputError: a store of another identity (the fields are named), a store without `resume`, another
    folder with something in it; without `skip_broken`, what reading an image raises.

    Args:
        out: folder of the store; new, empty or without a part yet, or a store of the same identity with `resume`.
        rank, processes: this process labels the parts `rank`, `rank + processes`, ... of the store; the processes
            share nothing but the folder, and whichever ends last finishes it.
        batch: images that the tutor gets at once; the next ones are read meanwhile.
        skip_broken: images that can't be read get no answer, and the store says which and why (`Store.failed`);
            `resume` tries them again.
        progress: called with the number of images that this process is done with, and of all its images.
    """
    if not 0 <= rank < processes:
        raise InputError(f"rank {rank} of {processes} processes; ranks are 0 to {processes - 1}")
    work = Work(tutor, dataset, Path(out), batch, skip_broken)
    mine = range(rank, work.parts, processes)
    missing = work.begin(mine, join=resume or processes > 1, again=resume)
    if missing is None:
        return work.out
    done, total = 0, sum(len(work.ids(part)) for part in mine)
    for part in mine:
        for answered in work.make(part) if part in missing else ():
            if progress:
                progress(done + answered, total)
        done += len(work.ids(part))
    if progress:
        progress(total, total)
    finish(work.out)
    return work.out


def label_with_ray(
    kind: str,
    options: Mapping[str, Any],
    data: str,
    split: str,
    out: Path,
    *,
    workers: int = 1,
    gpus: float = 0.0,
    resume: bool = False,
    batch: int = 8,
    progress: Progress | None = None,
) -> Path:
    """Label a split on the cluster at `RAY_ADDRESS`, or on this machine; the store's bytes are those of `label`.

    Each part of the store is one item of a Ray data set. Every machine must see data set, weights and `out` under the
    same paths; pictures may lie at addresses (`images:FOLDER`). Pictures that can't be read are recorded, not fatal;
    lost workers are replaced and their part is done again. Raises InputError: Ray is not installed; else see `label`.

    Args:
        kind, options: what `open_tutor` takes.
        workers: how many tutors answer at once.
        gpus: GPUs that each of them needs, such as 0.5.
        progress: called with the number of images done, and of all.
    """
    with needing("--engine ray needs", "ray"):
        import ray
    work = _work(kind, options, data, split, out, batch)
    missing = work.begin(range(work.parts), join=resume, again=resume)
    if missing is None:
        return out
    if missing:
        ray.init(address=os.environ.get("RAY_ADDRESS"), ignore_reinit_error=True, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        total = len(work.dataset.ids)
        done = total - sum(len(work.ids(part)) for part in missing)
        items = ray.data.from_items([{"part": part} for part in sorted(missing)], override_num_blocks=len(missing))
        labelled = items.map(
            RayWorker,
            fn_constructor_args=(kind, dict(options), data, split, out.absolute(), batch),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
            num_gpus=gpus,
        )
        for item in labelled.iter_rows():
            done += len(work.ids(item["part"]))
            if progress:
                progress(done, total)
    finish(out)
    return out


def kinds_of(tutor: Tutor, dataset: Dataset) -> tuple[str, ...]:
    """The kinds of answer that a tutor gives, found by asking about one image after the other until it has an answer.
    Raises InputError: it says nothing about any of them; whatever reading an image raises.
    """
    for image_id in dataset.ids:
        (answer,) = tutor([dataset.image(image_id)], [image_id])
        if answer.tasks:
            return tuple(answer.tasks)
    raise InputError(f"the tutor has no answer for any image of {dataset.name}; give another tutor or split")


def told(out: Path) -> list[str]:
    """What a finished store holds, and which pictures could not be read, a sentence each."""
    manifest = read_manifest(out)
    assert manifest is not None
    failed = {name: why for part in manifest["parts"] for name, why in part.get("failed", {}).items()}
    count = manifest["identity"]["images"] - len(failed)
    size = sum((out / part["file"]).stat().st_size for part in manifest["parts"])
    lines = [f"wrote {out}: {count} images, {size / max(count, 1) / 1000:.1f} kB an image"]
    if failed:
        why = next(iter(failed.values()))
        lines.append(f"{len(failed)} others could not be read, such as {why}; --resume tries again")
    return lines


class RayWorker:
    """A tutor and the data set, opened where Ray runs it."""

    def __init__(self, *given: Any) -> None:
        self.work = _work(*given)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        for _ in self.work.make(int(item["part"])):
            pass
        return item


def _work(kind: str, options: Mapping[str, Any], data: str, split: str, out: Path, batch: int) -> "Work":
    dataset = open_dataset(data, split)
    return Work(open_tutor(kind, dataset=dataset, **options), dataset, out, batch, skip_broken=True)


class Work:
    """One tutor, one data set and the store that they make, part by part."""

    def __init__(self, tutor: Tutor, dataset: Dataset, out: Path, batch: int, skip_broken: bool) -> None:
        self.tutor, self.dataset, self.out = tutor, dataset, out
        self.batch, self.skip_broken = batch, skip_broken
        self.parts = -(-len(dataset.ids) // PART_ROWS)
        # Without the place of the data on this machine.
        self.identity: Mapping[str, Any] = {
            **tutor.identity,
            "labels": list(tutor.labels.names),
            "data": dataset.source,
            "split": dataset.split,
            "images": len(dataset.ids),
            "ids_sha256": hashlib.sha256("\n".join(dataset.ids).encode()).hexdigest(),
        }

    def ids(self, part: int) -> Sequence[str]:
        """The images of one part of the store."""
        return self.dataset.ids[part * PART_ROWS : (part + 1) * PART_ROWS]

    def begin(self, parts: Iterable[int], *, join: bool, again: bool) -> set[int] | None:
        """Which of these parts are still to be made; None where the store is finished. Raises InputError: see `label`.

        Args:
            join: a store of the same identity may be there.
            again: parts in which an image failed, and damaged ones of an unfinished store, are made again.
        """
        ids, out = self.dataset.ids, self.out
        if not ids:
            raise InputError(f"{self.dataset.name}: no images to label; give another split")
        if len(set(ids)) < len(ids):
            twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
            raise InputError(f"{self.dataset.name}: image {twice} is listed twice; correct the split")
        finished = look(out, self.identity, join=join)
        missing = {
            each for each in parts if (needs_answers(out, each) if again else not (out / part_name(each)).exists())
        }
        return None if finished and not missing else missing

    def make(self, part: int) -> Iterator[int]:
        """Label one part and write it, whole or not at all; yields how many of its images are done, batch by batch."""
        answers: dict[str, SoftLabels] = {}
        failed: dict[str, str] = {}
        for pictures in self._read_ahead(self.ids(part)):
            images = {}
            for image_id, picture in pictures.items():
                if not isinstance(picture, InputError):
                    images[image_id] = picture
                elif self.skip_broken:
                    failed[image_id] = str(picture)
                else:
                    raise picture
            if images:
                answers |= self._ask(images)
            yield len(answers) + len(failed)
        write_part(self.out, self.identity, part, list(answers), list(answers.values()), failed)

    def _read_ahead(self, ids: Sequence[str]) -> Iterator[dict[str, Image.Image | InputError]]:
        """The pictures of each batch, or why they can't be read; while one is worked on, a thread reads the next."""

        def read(first: int) -> dict[str, Image.Image | InputError]:
            return {image_id: self._read(image_id) for image_id in ids[first : first + self.batch]}

        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(read, 0)
            for first in range(self.batch, len(ids) + self.batch, self.batch):
                ready, ahead = ahead.result(), reader.submit(read, first)
                yield ready

    def _read(self, image_id: str) -> Image.Image | InputError:
        try:
            return self.dataset.image(image_id)
        except InputError as error:
            return error

    def _ask(self, images: Mapping[str, Image.Image]) -> dict[str, SoftLabels]:
        answers = dict(zip(images, self.tutor(list(images.values()), list(images)), strict=True))
        for image_id, image in images.items():
            if answers[image_id].size != (image.height, image.width):
                raise InputError(
                    f"image {image_id}: the tutor answers for (height, width) {answers[image_id].size}, the image has "
                    f"{(image.height, image.width)}; a tutor must answer in each image's own pixels"
                )
        return answers
