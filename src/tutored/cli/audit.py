"""The command `tutored audit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutored.cli.output import say, say_next, write_json
from tutored.cli.values import refuse
from tutored.errors import InputError

if TYPE_CHECKING:
    from tutored.audit import Audit
    from tutored.config import Loss, Task
    from tutored.softlabels import Store
    from tutored.structures import Dataset


def audit(given: argparse.Namespace) -> None:
    from tutored.audit.facts import too_many
    from tutored.softlabels import Store

    store = Store.open(given.store)
    dataset, settings, loss = _ground_truth(given, store)
    maps_left_out = too_many(dataset.labels if dataset.labels.classes else store.labels)
    if maps_left_out and len(store.tasks) > 1:
        say(f"note: {maps_left_out}")
    if given.against is not None:
        if given.others:
            raise InputError("--for is not for --against, which writes no audit; leave it out")
        why = "is not for --against, which compares two stores by class names, without ground truth"
        refuse(given, why, "renamed", "photos", "worst")
        _agreement(given, store.path, dataset)
        return
    if not any(map(dataset.annotated_tasks, dataset.ids)):
        raise InputError(
            f"{dataset.name}: no image has ground truth to hold {given.store} against; "
            "--against OTHER_STORE compares it with another tutor instead"
        )
    from tutored.audit import audit as audit_store
    from tutored.audit import write_sidecar
    from tutored.audit.page import WORST, write_page
    from tutored.audit.sidecar import refuse_another_tutor, tutor_of
    from tutored.cli.progress import bar

    stores = [store, *map(Store.open, given.others)]
    for other in stores:
        refuse_another_tutor(other, tutor_of(store))
    page, parts = given.page or store.path / "audit.html", {}
    for names, task in settings:
        with bar("auditing") as step:
            found = audit_store(
                store,
                dataset,
                renamed=task.renamed,
                elsewhere=task.elsewhere,
                background=loss.background,
                tasks=names,
                progress=step,
            )
        _say_verdicts(found)
        for other in stores:
            path = write_sidecar(other, found.sidecar)
            say(f"wrote {path}; training uses it (supervision.TASK.audit: ignore does not)")
        its_page = page if len(settings) == 1 else page.with_stem(f"{page.stem}-{names[0]}")
        write_page(
            found, given.store, its_page, photos=given.photos, worst=WORST if given.worst is None else given.worst
        )
        say(f"wrote {its_page}")
        parts.update(found.sidecar.tasks)
    write_json(given.json, found.sidecar.model_copy(update={"tasks": parts}).model_dump(mode="json"))
    tasks = " and ".join(f"supervision.{name}" for name in parts)
    say_next(f"tutored train CONFIG.yaml --out RUN, with this store in {tasks}")


def _say_verdicts(found: Audit) -> None:
    for name, part in found.sidecar.tasks.items():
        say(f"{name}, {len(part.ids.splitlines())} images:")
        for finding in part.findings:
            say(f"  {'! ' if finding.complaint else ''}{finding.text}")


def _ground_truth(given: argparse.Namespace, store: Store) -> tuple[Dataset, list[tuple[tuple[str, ...], Task]], Loss]:
    """The data set to hold a store against, what a run says of the store's classes, for which tasks, and of drawing."""
    from tutored.config import Loss, Task, load_config
    from tutored.data import open_dataset
    from tutored.engine.datasets import open_visible

    renamed = _renamed(given.renamed or ())
    if given.config is None:
        if given.data is None or given.split is None:
            raise InputError("give --data FORMAT:FOLDER and --split, or the --config of the run that is to be taught")
        return open_dataset(given.data, given.split), [(store.tasks, Task(renamed=renamed))], Loss()
    if given.data is not None or given.split is not None:
        raise InputError("--config says which data: give no --data and --split beside it")
    config = load_config(given.config)
    dataset = open_visible(config)
    own = {
        name: Task(renamed=_of_store(task, store) | renamed, elsewhere=task.elsewhere)
        for name, task in config.supervision.tasks.items()
        if given.store.resolve() in [path.resolve() for path in task.stores]
    }
    first = next(iter(own.values()), Task(renamed=renamed))
    settings: list[tuple[tuple[str, ...], Task]] = [(store.tasks, first)]
    if any(each != first for each in own.values()):
        drawn = {name for image_id in dataset.ids for name in dataset.annotated_tasks(image_id)}
        settings = [((name,), own[name]) for name in store.tasks if name in drawn] or settings
    return dataset, settings, config.loss


def _of_store(task: Task, store: Store) -> dict[str, str | None]:
    """What a task renames, without the classes of its other stores."""
    return {name: ours for name, ours in task.renamed.items() if len(task.stores) == 1 or name in store.labels.names}


def _renamed(pairs: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for pair in pairs:
        source, equals, target = pair.partition("=")
        if not equals:
            raise InputError(
                f"--renamed {pair}: give pairs such as couch=sofa, with commas; "
                "NAME=ignore or NAME=background drops a class"
            )
        found[source.strip()] = target.strip() or None
    return found


def _agreement(given: argparse.Namespace, path: Path, dataset: Dataset) -> None:
    from tutored.audit import agreement
    from tutored.audit.page import write_agreement
    from tutored.cli.progress import bar
    from tutored.softlabels import Store

    one, other = Store.open(path), Store.open(given.against)
    labels = dataset.labels if dataset.labels.classes else one.labels
    with bar("comparing") as step:
        found = agreement(one, other, labels, dataset.ids, step)
    say(f"{found['images']} images, {len(found['classes'])} classes that both know")
    if "boxes" in found:
        f1 = found["boxes_all"]["f1"]
        say(f"boxes: F1 {'unknown, neither has a box' if f1 is None else f'{f1:.3f}'}")
    if "maps" in found:
        kappa = found["kappa"]
        say(f"maps: Cohen's kappa {'unknown, all is one class' if kappa is None else f'{kappa:.3f}'}")
    page = given.page or path / "agreement.html"
    write_agreement(found, (path, given.against), f"{dataset.source}, {dataset.split}", page)
    say(f"wrote {page}")
    write_json(given.json, found)
