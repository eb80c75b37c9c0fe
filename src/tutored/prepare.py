"""A training from its beginning: the tutors that its config names are asked, and their answers audited."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from tutored import engine
from tutored.audit import NothingToAuditError, as_a_run_sees, audit, write_page
from tutored.config import Config
from tutored.data import open_dataset
from tutored.engine.data_sets import open_tasks, open_visible, parts_of
from tutored.engine.supervision import map_classes
from tutored.errors import InputError, Progress
from tutored.softlabels import Store, read_manifest
from tutored.softlabels.advice import read_sidecar, write_sidecar
from tutored.tasks import Task
from tutored.tutors import Tutor, open_tutor
from tutored.tutors.label import kinds_of, label, told
from tutored.types import Dataset
from tutored.watch import Watcher

__all__ = ["ask_tutors", "train"]

Bar = Callable[[str], AbstractContextManager[Progress]]
"""Given what is being done, a context whose value is told how far it is."""


def train(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    watch: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Ask the tutors that the config names (`ask_tutors`), then train (`engine.train`), as `tutored train` does.

    Args and what is returned: as of `engine.train`. Raises as both.
    """
    run, folder = engine.config_and_folder(config, out)

    def unseen(what: str) -> AbstractContextManager[Progress]:
        return nullcontext(lambda done, of: None)

    ask_tutors(run, folder, bar=unseen, tell=tell or (lambda line: None), resume=resume)
    return engine.train(run, folder, resume=resume, watch=watch, tell=tell)


def ask_tutors(config: Config, out: Path | str, *, bar: Bar, tell: Callable[[str], None], resume: bool = False) -> None:
    """Label the training images with the tutors of the config's tasks, and audit them as the run sees the images.

    A store that is there is gone on with, or left as it is where it is finished. Every tutor is opened, and its classes
    and kinds of answer compared with the tasks', before the first one labels. Processes that torchrun starts share the
    labelling; each of them writes the same audit. Raises InputError: another run is in `out`, a store holds another
    tutor's answers or other images' (the fields are named), a tutor answers nothing of what its tasks learn, or they
    share no class; whatever opening data sets and tutors, labelling and auditing raise.

    Args:
        out: the run's folder, which `engine.train` is to be given afterwards, with the same `resume`.
        tell: is given what was done and found, a line each.
    """
    if not any(task.tutored and task.tutor is not None for task in config.tasks.values()):
        return
    out = Path(out)
    rank, processes = (int(os.environ.get(name, usual)) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1)))
    if rank == 0:
        engine.check_folder(out, config, resume)
    config = config.placed(out)
    visible = open_visible(config)
    for tutor, dataset, store in list(_questions(config, open_tasks(config, visible))):
        for line in tutor.notes:
            tell(f"note: {line}")
        before = read_manifest(store)
        with bar(f"labelling {store.name}") as step:
            label(tutor, dataset, store, resume=True, rank=rank, processes=processes, progress=step)
        while not (read_manifest(store) or {}).get("complete"):  # another process is at its share
            time.sleep(1)
        for line in told(store) if before != read_manifest(store) else ():
            tell(line)
        if config.recipe != "thesis":
            _audit(Store.open(store), visible, config, bar, tell)


def _questions(config: Config, tasks: dict[str, Task]) -> Iterator[tuple[Tutor, Dataset, Path]]:
    """Each tutor with the images that it is asked about, all of a training data set, and the store for its answers."""
    parts = [open_dataset(part.train, part.split) for part in parts_of(config)]
    asked: dict[tuple[Path, int, str], list[str]] = {}
    for name, section in config.tasks.items():
        if section.tutored and section.tutor is not None:
            if len(section.stores) != len(parts):
                raise InputError(
                    f"tasks.{name}.store: {len(section.stores)} folders for the tutor's answers about {len(parts)} "
                    "training data sets; give one for each, or leave it out"
                )
            if len({*chain(*(part.ids for part in parts))}) < sum(len(part.ids) for part in parts):
                raise InputError(
                    f"tasks.{name}.tutor: an image is in several training data sets, and needs one answer; let "
                    "`tutored label` write a store of one of them, and give that as `store` instead"
                )
            for number, path in enumerate(section.stores):
                asked.setdefault((path, number, repr(section.tutor)), []).append(name)
    for (path, number, _), names in asked.items():
        given = config.tasks[names[0]].tutor
        assert given is not None
        tutor = open_tutor(given, dataset=parts[number])
        kinds = kinds_of(tutor, parts[number])
        for name in names:
            if not {each.kind for each in tasks[name].answers} & {*kinds}:
                raise InputError(
                    f"tasks.{name}.tutor: {given} answers {' and '.join(kinds)}, which can't teach {tasks[name].kind}; "
                    "give another tutor"
                )
            map_classes(tasks[name], tutor.labels, [tutor.labels], f"tutor {given}")
        yield tutor, parts[number], path


def _audit(store: Store, visible: Dataset, config: Config, bar: Bar, tell: Callable[[str], None]) -> None:
    """Write what ground truth says about the answers into the store, where that has not been done."""
    sections = {name: each for name, each in as_a_run_sees(store, config.tasks, {}).items() if each.audit == "use"}
    with suppress(InputError):  # of an audit that is damaged, or of answers that were there before
        if not sections or read_sidecar(store):
            return
    try:
        with bar("auditing") as step:
            found = audit(store, visible, sections, progress=step)
    except NothingToAuditError:
        tell(f"{store.path}: not audited, since nothing that it answers has ground truth here")
        return
    for line in (*found.notes, *found.told):
        tell(line)
    write_page(found, store.path / "audit.html")
    tell(f"wrote {write_sidecar(store, found.sidecar)} and audit.html beside it; training uses the audit")
