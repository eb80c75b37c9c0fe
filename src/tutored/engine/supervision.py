"""Tutors of one run beside its data, opened and checked against each other before anything is trained."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.audit import Advice, read_sidecar
from tutored.config import Config, Data, Loss, MoreData, Task
from tutored.data import open_dataset
from tutored.data.sources import drawn_and_hidden
from tutored.engine.datasets import open_datasets, own_classes
from tutored.engine.idle import idle_notes
from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.softlabels import Folded, Store
from tutored.structures import Dataset, SoftLabels
from tutored.tutors.stores import open_store


class OpenSupervision(NamedTuple):
    """What a run learns from.

    Attributes:
        train: images and ground truth.
        val: what it is validated on, or None.
        soft_labels: by task, the tutor's answers by image id in the label space of `train`.
        stores: by task, the identities of the stores behind them, each with what was taken from its `audit`, if so.
        loss: the config's, with the band of scores that the tutor's audit found where the config leaves it open.
        notes: what the user should know, a sentence each.
    """

    train: Dataset
    val: Dataset | None
    soft_labels: dict[str, Mapping[str, SoftLabels]]
    stores: dict[str, list[dict[str, Any]]]
    loss: Loss
    notes: tuple[str, ...]


def open_supervision(config: Config) -> OpenSupervision:
    """Open data sets and stores.

    Raises:
        InputError: train and validation share images, a store answers for no image, two stores for the same one, a
            tutor's classes and the student's have nothing in common, nobody has one of `data.classes`, or a store's
            audit is of another labelling; whatever opening one of them raises.
    """
    train, val = open_datasets(config)
    soft_labels: dict[str, Mapping[str, SoftLabels]] = {}
    stores: dict[str, list[dict[str, Any]]] = {}
    loss, notes = config.loss, idle_notes(config, train, val)
    reached: set[int | None] = set()
    for name, task in config.supervision.tasks.items():
        opened = [open_store(path, name) for path in task.stores]
        advice = [_advice(store, name, config, train, val, notes) for store in opened]
        if name == "detection":
            loss = _with_band(config.loss, advice, notes)
        answers: ChainMap[str, SoftLabels] = ChainMap()
        stores[name] = []
        for store, advised in zip(opened, advice, strict=True):
            renamed = _renamed(task, store, opened)
            class_map = ClassMap.by_name(store.labels, train.labels, renamed=renamed, elsewhere=task.elsewhere)
            reached.update(class_map.to)
            taken = _taken(advised, class_map, name, config.loss)
            folded = Folded(
                store, class_map, background=config.loss.background, muted_score=loss.silent_score, task=name, **taken
            )
            twice = next((image_id for image_id in folded if image_id in answers), None)
            if twice is not None:
                raise InputError(
                    f"store {store.path}: another store of {name} answers for {twice} too; give one of them"
                )
            answers.maps.append(folded)  # type: ignore[arg-type]  # read only
            audited = taken if loss is config.loss or name != "detection" else taken | _band(loss)
            stores[name].append({**store.identity, **({"audit": audited} if audited else {})})
            notes.append(f"{name} tutor {store.path}: {class_map.describe()}{_told(taken, train)}")
        if task.stores:
            notes += _coverage(name, task.stores, answers, train)
            soft_labels[name] = answers
    if config.data.classes:
        _refuse_unknown(config.data, train.labels, reached)
    return OpenSupervision(train, val, soft_labels, stores, loss, tuple(notes))


def _refuse_unknown(data: Data, labels: LabelSpace, reached: Container[int | None]) -> None:
    """Raises InputError for a class that no data set has and no tutor's answers reach, such as a misspelt one."""
    own = LabelSpace.of(own_classes(data))
    for index, name in enumerate(labels.classes, start=1):
        if index not in reached and same_class(name, own) is None:
            try:
                own.index(name)
            except InputError as error:
                raise InputError(f"data.classes: no data set and no tutor knows one of them: {error}") from error


def _renamed(task: Task, store: Store, stores: Sequence[Store]) -> dict[str, str | None]:
    """What `renamed` says of a store: the names that it knows, and those that none does, which are refused."""
    known = {name for each in stores for name in each.labels.names}
    return {name: ours for name, ours in task.renamed.items() if name in store.labels.names or name not in known}


def _advice(
    store: Store, name: str, config: Config, train: Dataset, val: Dataset | None, notes: list[str]
) -> Advice | None:
    """What the audit in the store's folder advises; None without one, and where it knows what the run must not."""
    task = config.supervision.tasks[name]
    if task.audit == "ignore" or config.recipe == "thesis":
        return None
    sidecar = read_sidecar(store)
    if sidecar is None or name not in sidecar.tasks:
        return None
    found = sidecar.tasks[name]
    drawn = name == "segmentation" and store.is_drawn
    names = [f"{theirs}={ours}" for theirs, ours in found.renamed.items() if task.renamed.get(theirs, "") != ours]
    left_out = {same_class(each, train.labels) for each in found.unannotated}
    annotated = [train.labels.names[each] for each in sorted(_unannotated(config.data, train.labels, store) - left_out)]
    unlike = {
        f"renamed: {','.join(names)}": bool(names),
        f"elsewhere: {found.elsewhere}": found.elsewhere != task.elsewhere,
        f"loss.background: {found.background}": drawn and found.background != config.loss.background,
        f"{', '.join(annotated)} as annotated": bool(annotated),
    }
    if any(unlike.values()):
        notes.append(
            f"{name} tutor {store.path}: its audit is not used, for it was made with "
            f"{' and '.join(key for key, differs in unlike.items() if differs)}; "
            "tutored audit STORE --config CONFIG.yaml makes it as the run has it"
        )
        return None
    audited = set(found.ids.splitlines())
    for ids, what in (
        (val.ids if val else (), "images that are validated on"),
        (drawn_and_hidden(train, config.supervision, name)[1], "images whose ground truth this run hides"),
    ):
        shared = len(audited.intersection(ids))
        if shared:
            notes.append(
                f"{name} tutor {store.path}: its audit is not used, for it saw the ground truth of {shared} {what}; "
                "tutored audit STORE --config CONFIG.yaml sees only what the run may see"
            )
            return None
    return found.advice


def _unannotated(data: Data, labels: LabelSpace, store: Store) -> set[int]:
    """Numbers, in `labels`, of the classes that a data set with images in the store has and does not annotate."""
    found: set[int] = set()
    parts: tuple[Data | MoreData, ...] = (data, *data.more)
    for part in parts:
        if part.annotated is not None:
            own = open_dataset(part.train, part.split)
            if any(image_id in store for image_id in own.ids):
                left = [same_class(name, labels) for name in own.labels.classes if name not in part.annotated]
                found.update(number for number in left if number is not None)
    return found


def _with_band(loss: Loss, advice: Sequence[Advice | None], notes: list[str]) -> Loss:
    """The loss with the band of the stores' audits, if they agree and the config leaves it at the defaults."""
    bands = {(each.box_floor, each.ignore_floor) if each else (None, None) for each in advice}
    if bands <= {(None, None)} or _set_by_hand(loss):
        return loss
    if len(bands) > 1:
        notes.append("the stores of detection have audits with different bands of scores: the config's is used")
        return loss
    ((box_floor, ignore_floor),) = bands
    notes.append(
        f"boxes teach from score {box_floor:.2f} on and are ignored from {ignore_floor:.2f} on, "
        "as the audit of the detection tutor found"
    )
    return loss.model_copy(update={"box_floor": box_floor, "ignore_floor": ignore_floor})


def _band(loss: Loss) -> dict[str, float]:
    return loss.model_dump(include={"box_floor", "ignore_floor"})


def _set_by_hand(loss: Loss) -> bool:
    return _band(loss) != _band(Loss())


def _taken(advice: Advice | None, class_map: ClassMap, name: str, loss: Loss) -> dict[str, Any]:
    """What `Folded` is told. Scores that are held against floors set by hand, and maps with a temperature, stay."""
    if advice is None:
        return {}
    by_hand = _set_by_hand(loss) if name == "detection" else loss.temperature != 1 or loss.map_target != "power"
    muted = list(advice.muted_in(class_map))
    temperature = {} if by_hand or advice.temperature == 1 else {"temperature": advice.temperature}
    return {**({"muted": muted} if muted else {}), **temperature}


def _told(taken: Mapping[str, Any], train: Dataset) -> str:
    told = []
    if "muted" in taken:
        told.append("does not teach " + ", ".join(train.labels.names[index] for index in taken["muted"]))
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
