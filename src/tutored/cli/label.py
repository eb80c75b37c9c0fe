"""`tutored label`: a tutor's answers into a store, here, in several processes or on a cluster."""

from __future__ import annotations

import argparse
import os

from tutored.cli.output import quoted, say, say_next
from tutored.cli.values import refuse

TUTOR_OPTIONS = (
    "weights", "threads", "model", "download", "folders", "values", "missing", "labels", "boxes", "maps", "score_floor",
    "device", "instances", "full", "join", "shares", "flip", "scales",
)  # fmt: skip


def label(given: argparse.Namespace) -> None:
    from tutored.cli.progress import bar
    from tutored.data import open_dataset
    from tutored.softlabels.manifest import read_manifest
    from tutored.tutors import open_tutor
    from tutored.tutors.files_coco_ids import CocoIds
    from tutored.tutors.label import label as label_split
    from tutored.tutors.ray import label_with_ray

    dataset = open_dataset(given.data, given.split)
    options = {name: getattr(given, name) for name in TUTOR_OPTIONS if getattr(given, name, None) is not None}
    if given.kind == "files":
        options["default_labels"] = dataset.labels if dataset.labels.classes else None
        options["own_ids"] = CocoIds.of(dataset)
        options["image_ids"] = dataset.ids
    common = {"resume": given.resume, "batch": given.batch}
    with bar("labelling") as step:
        if given.engine == "ray":
            refuse(given, "is not for --engine ray, whose --workers share the work", "processes", "rank")
            workers, gpus = given.workers or 1, given.worker_gpus or 0.0
            whose = given.data, given.split, given.out
            label_with_ray(given.kind, options, *whose, **common, workers=workers, gpus=gpus, progress=step)
        else:
            refuse(given, "is for --engine ray; here --processes share the work", "workers", "worker_gpus")
            rank, processes = _share_of_work(given)
            work = {"rank": rank, "processes": processes, "skip_broken": given.skip_broken, "progress": step}
            label_split(open_tutor(given.kind, **options), dataset, given.out, **common, **work)
    manifest = read_manifest(given.out)
    if manifest is None or not manifest["complete"]:
        say("this process' part is done; whichever process ends last finishes the store")
        return None
    failed = {name: why for part in manifest["parts"] for name, why in part.get("failed", {}).items()}
    count = len(dataset.ids) - len(failed)
    size = sum((given.out / name).stat().st_size for name in (part["file"] for part in manifest["parts"]))
    say(f"wrote {given.out}: {count} images, {size / max(count, 1) / 1000:.1f} kB an image")
    if failed:
        say(f"{len(failed)} others could not be read, such as {next(iter(failed.values()))}; --resume tries again")
    elif any(map(dataset.annotated_tasks, dataset.ids)):
        return say_next(quoted("tutored", "evaluate", given.out, "--data", given.data, "--split", given.split))
    return say_next("tutored train CONFIG.yaml --out RUN, with this store in supervision.TASK.store")


def _share_of_work(given: argparse.Namespace) -> tuple[int, int]:
    """Rank and number of processes: as given, else as torchrun and `accelerate launch` say."""
    processes = given.processes or int(os.environ.get("WORLD_SIZE", 1))
    rank = given.rank if given.rank is not None else int(os.environ.get("RANK", 0)) if not given.processes else 0
    return rank, processes
