"""Tutors of one run beside its data, opened and checked against each other before anything is trained."""

from collections import ChainMap
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.config import Config, TaskSection
from tutored.data.text import few
from tutored.data.training import drawn_and_hidden
from tutored.engine.data_sets import by_task, open_datasets, open_parts, open_tasks, own_classes, parts_of
from tutored.errors import InputError, told_of
from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.softlabels import Remapped, Store
from tutored.softlabels.advice import read_sidecar
from tutored.tasks import Task
from tutored.tasks.audit import Advice
from tutored.tasks.calibrate import averaged_classes
from tutored.types import Dataset, SoftLabels
from tutored.visualise import lacking_letters

READ_BY = {
    "share": ("replace",),
    "resampled": ("replace",),
    "weights": ("both",),
    **dict.fromkeys(("vetted_by", "renamed", "elsewhere"), ("fill", "replace", "both")),
}
"""Keys of a task that only some policies read."""


class OpenSupervision(NamedTuple):
    """What a run learns from.

    Attributes:
        val: what it is validated on, or None.
        tasks: by name, in the label spaces of `train`, with the band of scores that a tutor's audit found where the
            config leaves it open.
        soft_labels: by task, the tutor's answers by image id.
        stores: by task, the identities of the stores behind them, each with what was taken from its `audit`, if any.
        notes: what the user should know, a sentence each.
    """

    train: Dataset
    val: Dataset | None
    tasks: dict[str, Task]
    soft_labels: dict[str, Mapping[str, SoftLabels]]
    stores: dict[str, list[dict[str, Any]]]
    notes: tuple[str, ...]


def open_supervision(config: Config) -> OpenSupervision:
    """Open data sets and stores. Raises InputError: train and validation share images, a store answers for no image,
    two stores answer for the same one, a tutor's classes and the student's have nothing in common, nobody has one of a
    task's `classes`, or a store's audit is of another labelling; whatever opening one of them raises.
    """
    train, val = open_datasets(config)
    tasks = open_tasks(config, train)
    notes = [*few((*train.notes, *(val.notes if val else ()))), *_idle_notes(config, val)]
    soft_labels: dict[str, Mapping[str, SoftLabels]] = {}
    stores: dict[str, list[dict[str, Any]]] = {}
    for name, section in config.tasks.items():
        with told_of(f"tasks.{name}.reported"):
            averaged_classes(tasks[name].labels, getattr(section, "reported", None))
        opened = [Store.teaching(path, tasks[name]) for path in section.stores]
        advice = [_advice(store, tasks[name], config, train, val, notes) for store in opened]
        tasks[name] = task = _with_band(tasks[name], advice, notes)
        answers: ChainMap[str, SoftLabels] = ChainMap()
        stores[name] = []
        reached: set[int | None] = set()
        for store, advised in zip(opened, advice, strict=True):
            class_map = map_classes(task, store.labels, [each.labels for each in opened], f"store {store.path}")
            reached.update(class_map.to)
            taken = _taken(advised, class_map, config.tasks[name])
            remapped = Remapped(store, class_map, task, **taken)
            twice = next((image_id for image_id in remapped if image_id in answers), None)
            if twice is not None:
                raise InputError(
                    f"store {store.path}: another store of {name} answers for {twice} too; give one of them"
                )
            answers.maps.append(remapped)  # type: ignore[arg-type]  # read only
            audited = taken | ({} if task.section is section or advised is None else dict(advised.band))
            stores[name].append({**store.identity, **({"audit": audited} if audited else {})})
            notes.append(f"{name} tutor {store.path}: {class_map.describe()}{_told(taken, task.labels)}")
        if section.stores:
            notes += _coverage(name, section.stores, answers, train)
            soft_labels[name] = answers
        if getattr(section, "classes", None):
            _refuse_unknown(name, config, task.labels, reached)
    return OpenSupervision(train, val, tasks, soft_labels, stores, (*notes, *lacking_letters(tasks)))


def _idle_notes(config: Config, val: Dataset | None) -> list[str]:
    """What a config asks for and does not get, a sentence each."""
    notes = [
        f"{name}: its tutor teaches nothing, because the policy is '{task.policy}'; possible: fill, replace, both"
        for name, task in config.tasks.items()
        if (task.store or task.tutor) and not task.tutored
    ]
    for name, task in config.tasks.items():
        idle = [key for key, policies in READ_BY.items() if task.policy not in policies and _is_set(task, key)]
        if idle:
            notes.append(f"{name}: the policy '{task.policy}' does not read {', '.join(idle)}")
        notes += [f"{name}: {note}" for note in task.idle(config)]
    if val is None:
        notes.append(
            "no figures: nothing to validate on; set data.held_out (such as 0.2), or data.val_split, "
            "where images are annotated"
        )
    elif not any(map(val.annotated_tasks, val.ids)):
        notes.append(f"{val.name}: no image has ground truth to validate on, so there will be no figures")
    return notes


def _is_set(task: TaskSection, key: str) -> bool:
    field = type(task).model_fields.get(key)
    return field is not None and bool(getattr(task, key) != field.get_default(call_default_factory=True))


def _refuse_unknown(name: str, config: Config, labels: LabelSpace, reached: Container[int | None]) -> None:
    """Raises InputError for a class that no data set has and no tutor's answers reach, such as a misspelt one."""
    own = LabelSpace.of(own_classes(open_parts(config)).get(name, ()))
    for index, each in enumerate(labels.classes, start=1):
        if index not in reached and same_class(each, own) is None:
            with told_of(f"tasks.{name}.classes: no data set and no tutor knows one of them"):
                own.index(each)


def map_classes(task: Task, labels: LabelSpace, spaces: Sequence[LabelSpace], whose: str) -> ClassMap:
    """From the classes of a tutor to those of a task; a task without classes has nothing to map. Raises InputError:
    they have no class in common, or one that is renamed is nobody's. `spaces` has the classes of all tutors of the
    task; a class that is renamed is one of theirs.
    """
    section = task.section
    if not hasattr(section, "renamed"):
        return ClassMap(labels, task.labels, (0,) + (None,) * (len(labels) - 1))
    known = {name for each in spaces for name in each.names}
    renamed = {name: ours for name, ours in section.renamed.items() if name in labels.names or name not in known}
    with told_of(f"tasks.{task.name}: {whose}"):
        return ClassMap.by_name(labels, task.labels, renamed=renamed, elsewhere=section.elsewhere)


def _advice(
    store: Store, task: Task, config: Config, train: Dataset, val: Dataset | None, notes: list[str]
) -> Advice | None:
    """What the audit in the store's folder advises; None without one, and where it knows what the run must not."""
    section, name = config.tasks[task.name], task.name
    if section.audit == "ignore" or config.recipe == "thesis":
        return None
    sidecar = read_sidecar(store)
    found = sidecar.of(task) if sidecar else None
    if found is None:
        return None
    left_out = {same_class(each, task.labels) for each in found.unannotated}
    annotated = [task.labels.names[each] for each in sorted(_unannotated(config, task, store) - left_out)]
    unlike = [*found.unlike(section), *([f"{', '.join(annotated)} as annotated"] if annotated else [])]
    if unlike:
        notes.append(
            f"{name} tutor {store.path}: its audit is not used, for it was made with {' and '.join(unlike)}; "
            "tutored audit STORE --config CONFIG.yaml makes it as the run has it"
        )
        return None
    audited = set(found.ids.splitlines())
    hidden = drawn_and_hidden(train, name, section, config.data.seed)[1]
    for ids, what in (
        (val.ids if val else (), "images that are validated on"),
        (hidden, "images whose ground truth this run hides"),
    ):
        shared = len(audited.intersection(ids))
        if shared:
            notes.append(
                f"{name} tutor {store.path}: its audit is not used, for it saw the ground truth of {shared} {what}; "
                "tutored audit STORE --config CONFIG.yaml sees only what the run may see"
            )
            return None
    return found.advice


def _unannotated(config: Config, task: Task, store: Store) -> set[int]:
    """Numbers of the classes that a data set with images in the store has and does not annotate."""
    found: set[int] = set()
    for part, own in zip(parts_of(config), open_parts(config), strict=True):
        annotated = by_task(part.annotated, config)[task.name]
        if annotated is not None and task.name in own.labels and any(image_id in store for image_id in own.ids):
            left = [same_class(each, task.labels) for each in own.labels[task.name].classes if each not in annotated]
            found.update(number for number in left if number is not None)
    return found


def _with_band(task: Task, advice: Sequence[Advice | None], notes: list[str]) -> Task:
    """The task with the keys that the audits of its stores advise, if they agree and the config leaves the defaults."""
    bands = [dict(each.band) if each else {} for each in advice]
    if not any(bands) or any(_is_set(task.section, key) for band in bands for key in band):
        return task
    if any(band != bands[0] for band in bands):
        notes.append(f"the stores of {task.name} have audits with different advice on scores: the config's is used")
        return task
    told = ", ".join(f"{key} {value:.2f}" for key, value in bands[0].items())
    notes.append(f"{task.name}: {told}, as the audit of the tutor found")
    return type(task)(task.name, task.labels, task.section.model_copy(update=bands[0]))


def _taken(advice: Advice | None, class_map: ClassMap, section: TaskSection) -> dict[str, Any]:
    """What `Remapped` is told. Probabilities that the config's own keys treat are not calibrated."""
    if advice is None:
        return {}
    muted = list(advice.muted_in(class_map))
    calibrates = advice.temperature != 1 and not any(_is_set(section, key) for key in section.OWN_SCALE)
    return {**({"muted": muted} if muted else {}), **({"temperature": advice.temperature} if calibrates else {})}


def _told(taken: Mapping[str, Any], labels: LabelSpace) -> str:
    told = []
    if "muted" in taken:
        told.append("does not teach " + ", ".join(labels.names[index] for index in taken["muted"]))
    if "temperature" in taken:
        told.append(f"is taken at temperature {taken['temperature']:.2f}")
    return f"; by its audit it {' and '.join(told)}" if told else ""


def _coverage(name: str, paths: Sequence[Path], answers: Container[str], train: Dataset) -> list[str]:
    stores = ", ".join(map(str, paths))
    absent = sum(image_id not in answers for image_id in train.ids)
    if absent == len(train.ids):
        raise InputError(
            f"{name} tutor {stores} answers for none of the {absent} images of {train.name}; label this split: "
            "tutored label ... --data FORMAT:FOLDER --split SPLIT --out STORE"
        )
    return [f"{name} tutor {stores}: no answer for {absent} of {len(train.ids)} images"] if absent else []
