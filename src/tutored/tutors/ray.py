"""Labelling on a cluster: each part of the store is one item of a Ray data set, each worker holds one tutor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.progress import Progress
from tutored.softlabels.writer import finish
from tutored.tutors import Tutor, open_tutor
from tutored.tutors.label import begin, count_parts, identity_of, ids_of, label_part


class Worker:
    """One tutor and the data set, opened where the worker runs."""

    def __init__(self, kind: str, options: Mapping[str, Any], data: str, split: str, out: Path, batch: int) -> None:
        self.tutor: Tutor = open_tutor(kind, **options)
        self.dataset = open_dataset(data, split)
        self.identity = identity_of(self.tutor, self.dataset)
        self.out, self.batch = out, batch

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        part = int(item["part"])
        for _ in label_part(self.tutor, self.dataset, self.identity, self.out, part, self.batch, True):
            pass
        return item


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

    Every machine must see data set, weights and `out` under the same paths; pictures may lie at addresses
    (`images:FOLDER`). Broken pictures are recorded, not fatal; lost workers are replaced and their part is done again.

    Args:
        kind, options: what `open_tutor` takes.
        workers: how many tutors answer at once.
        gpus: that each of them needs; parts of one are possible.
        progress: called with the number of images done, and of all.

    Raises:
        InputError: Ray is not installed; else see `label`.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray; run `pip install 'tutored[ray]'`") from error
    dataset = open_dataset(data, split)
    parts = range(count_parts(dataset))
    identity = identity_of(open_tutor(kind, **options), dataset)
    missing = begin(dataset, identity, out, parts, join=resume, again=resume)
    if missing is None:
        return out
    if missing:
        ray.init(address=os.environ.get("RAY_ADDRESS"), ignore_reinit_error=True, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        done = len(dataset.ids) - sum(len(ids_of(dataset, part)) for part in missing)
        items = ray.data.from_items([{"part": part} for part in sorted(missing)], override_num_blocks=len(missing))
        labelled = items.map(
            Worker,
            fn_constructor_args=(kind, dict(options), data, split, out.absolute(), batch),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
            num_gpus=gpus,
        )
        for item in labelled.iter_rows():
            done += len(ids_of(dataset, item["part"]))
            if progress:
                progress(done, len(dataset.ids))
    finish(out)
    return out
