"""Train what is missing of the studies, the rows that matter most first, many at once on one GPU, until a time is up.

`python train.py STUDY_FOLDER PROCESSES SECONDS`; started again, it goes on where it was. A row is left out where its
tutors have no store.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tutored.data.voc import Voc
from tutored.studies import Run, run_all
from tutored.studies.declare import Recipe
from tutored.studies.folder import judge_tutors, load_folder

ORDER: list[tuple[tuple[str, ...], Recipe | None, int]] = [
    (("beyond/no-ground-truth", "beyond/single-task"), "corrected", 3),
    (("thesis/table-12", "thesis/table-13", "thesis/figure-14", "beyond/segmentation-tutor"), None, 1),
    (("beyond/no-ground-truth", "beyond/budget-both", "beyond/budget-masks", "beyond/budget-boxes"), None, 1),
    (("thesis/figure-15", "thesis/figure-16", "thesis/table-17", "thesis/table-19"), None, 1),
    (("thesis/table-12", "thesis/table-13", "beyond/no-ground-truth", "beyond/segmentation-tutor"), None, 3),
    (("thesis/figure-15", "thesis/figure-16", "thesis/figure-14", "thesis/table-19", "beyond/tuned"), None, 3),
    (("beyond/budget-both", "beyond/budget-masks", "beyond/budget-boxes"), None, 3),
    (("all",), None, 3),
]


def ordered(path: Path) -> list[Run]:
    folder = load_folder(path)
    large = Path(folder.setting.store("detection", "large")).exists()
    runs = {run.run_id: run for names, recipe, seeds in ORDER for run in folder.runs(names, recipe, seeds)}
    return [run for run in runs.values() if large or run.config.data.split != folder.setting.large]


def remembered(read: Callable[[Voc, str], Any]) -> Callable[[Voc, str], Any]:
    """A process reads the same few photographs and masks in every run; decoding them is half of its work."""
    known: dict[tuple[Path, str], Any] = {}

    @functools.wraps(read)
    def found(dataset: Voc, image_id: str) -> Any:
        place = dataset.folder, image_id
        if place not in known:
            known[place] = read(dataset, image_id)
        return known[place]

    return found


def work(path: Path) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for name in ("image", "ground_truth"):
        setattr(Voc, name, remembered(getattr(Voc, name)))
    with contextlib.suppress(KeyboardInterrupt):  # the time is up
        run_all(ordered(path), path)


def main() -> None:
    path, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tutored.engine", "tutored.studies.folder"])
    workers = [context.Process(target=work, args=(path,)) for _ in range(count)]
    for worker in workers:
        worker.start()
        time.sleep(0.1)
    judge_tutors(load_folder(path))
    for worker in workers:
        worker.join(max(end - time.monotonic(), 0))
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(20)
        worker.kill()


if __name__ == "__main__":
    main()
