"""Train what is missing of the studies, the rows that matter most first, many at once on one GPU, until a time is up.

`python train.py STUDY_FOLDER PROCESSES SECONDS`; started again, it goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

import torch

from tutored.studies import Run, run_all
from tutored.studies.folder import judge_tutors, load_folder

ORDER = [
    (("beyond/no-ground-truth", "beyond/single-task"), "corrected", 3),
    (("thesis/table-12",), None, 1),
    (("tune",), "corrected", 1),
    (("thesis/figure-14", "beyond/segmentation-tutor"), None, 1),
    (("thesis/figure-15", "thesis/figure-16", "beyond/budget-both"), None, 1),
    (("thesis/table-17", "thesis/table-19"), None, 1),
    (("thesis/table-13", "beyond/ablation"), None, 1),
    (("beyond/budget-boxes", "beyond/budget-masks"), None, 1),
    (("all",), None, 3),
]


def ordered(path: Path) -> list[Run]:
    folder = load_folder(path)
    large = Path(folder.setting.store("detection", "large")).exists()
    runs = {run.run_id: run for names, recipe, seeds in ORDER for run in folder.runs(names, recipe, seeds)}
    return [run for run in runs.values() if large or run.config.data.split != folder.setting.large]


def work(path: Path) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    run_all(ordered(path), path)


def main() -> None:
    path, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
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
