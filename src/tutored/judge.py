"""The figures of a checkpoint or a store on a split, by the same code."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from tutored import processes
from tutored.checkpoint import load_checkpoint
from tutored.config import TaskSection
from tutored.config.training import Annotates, Empty
from tutored.data import TaskSource, open_dataset
from tutored.data.check import told_first
from tutored.data.images import Images, with_tasks
from tutored.data.views import Subset, relabelled
from tutored.errors import InputError, Progress
from tutored.evaluate import Record, Result, figures, record
from tutored.files import CHECKPOINT, STORE, require
from tutored.labels import ClassMap, LabelSpace
from tutored.processes import choose_device
from tutored.section import Names
from tutored.softlabels import Remapped, Store
from tutored.students import Precision, Student, answer, prepare
from tutored.tasks import Task, task_class
from tutored.tasks.calibrate import averaged_classes
from tutored.types import Dataset, Prediction

BATCH = 16
"""Pictures that a student sees at once."""


def judge(
    subject: Path | str,
    data: str,
    split: str,
    classes: Annotates = None,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    annotated: Annotates = None,
    empty: Empty = "unannotated",
    tell: Callable[[str], object] = lambda note: None,
    sections: Mapping[str, TaskSection] = MappingProxyType({}),
) -> Result:
    """Evaluate a checkpoint or a store of soft labels on one split.

    A store is evaluated in the data set's classes, for the tasks that its format has and those of `sections`; a
    checkpoint in its own classes, for the tasks that it was taught. The result's notes say where the two label spaces
    differ. Several processes (torchrun) share the images; all return the figures of the whole split, to the bit those
    of one process. Raises InputError: `subject` is neither, the split has no ground truth, it and `subject` have no
    task or class in common, a task or class is unknown, the store lacks images of the split, or `sections` are given
    with a checkpoint.

    Args:
        classes: the classes that means are over, for all tasks or by task; None: those that the checkpoint's config
            reports, or all.
        device: of a checkpoint; see `choose_device`.
        precision: of a checkpoint's passes.
        annotated: the data set's classes that it annotates, likewise; None: all.
        empty: as in `open_dataset`.
        tell: is given the result's notes before the work, a sentence each.
        sections: of a store: tasks of a run's config, whose annotations may lie in folders of their own.
    """
    subject = Path(subject)
    require(subject, CHECKPOINT, STORE)
    if (subject / STORE.file).exists():
        return _judge_store(
            subject, open_dataset(data, split, empty=empty), classes, progress, annotated, tell, sections
        )
    if sections:
        raise InputError(f"{subject} is a checkpoint, which knows its tasks; give a config with stores alone")
    student, config = load_checkpoint(subject)
    sources = _sources({name: each for name, each in config.tasks.items() if name in config.taught})
    if not sources:
        raise InputError(f"{subject}: nobody taught it any task, so that there is nothing to evaluate")
    given = open_dataset(data, split, sources, empty)
    tasks = _reporting(_annotated({name: student.tasks[name] for name in sources}, given), classes)
    maps = {
        name: _class_map(given.labels[name], task.labels, given.name, f"the checkpoint {subject}")
        for name, task in tasks.items()
    }
    own = {name: task.labels.classes for name, task in tasks.items()}
    dataset = relabelled(given, own, _by_task(annotated, tasks, "annotated"))
    processes.place()  # says which GPU is this process' own
    prepare(student, choose_device(device), precision)
    notes = _by_text({name: _differences(each, subject, given.name) for name, each in maps.items()})
    notes = _told((*told_first(given), *notes), tell)
    records = record_student(student, dataset, tasks, progress)
    return processes.from_main(lambda: figures(records, tasks))._replace(notes=notes)


def _judge_store(
    subject: Path,
    given: Images,
    classes: Annotates,
    progress: Progress | None,
    annotated: Annotates,
    tell: Callable[[str], object],
    sections: Mapping[str, TaskSection],
) -> Result:
    store = Store.open(subject)
    sources = {kind: TaskSource(kind, required=False) for kind in (*given.labels, *given.further)} | _sources(sections)
    answers = {name: each for name, each in sources.items() if store.teaches(task_class(each.kind))}
    given = with_tasks(given, answers) if answers.keys() - (given.labels.keys() - sections.keys()) else given
    bound = {name: task_class(sources[name].kind)(name, labels) for name, labels in given.labels.items()}
    answered = {name: task for name, task in bound.items() if store.teaches(task)}
    if not answered:
        both = (", ".join(store.kinds) or "nothing", ", ".join(bound) or "nothing")
        raise InputError(
            f"{subject} answers {both[0]}, {given.name} annotates {both[1]}; give data of the same tasks, or a "
            "config whose tasks have their annotations in folders of their own"
        )
    answered = _annotated(answered, given)
    maps, foreign = {}, []
    for name, task in answered.items():
        try:
            maps[name] = _class_map(store.labels, task.labels, f"the store {subject}", given.name)
        except InputError as error:
            foreign.append(f"{name} is not evaluated: {error}")
    if not maps:
        raise InputError(foreign[0])
    tasks = _reporting({name: answered[name] for name in maps}, classes)
    dataset = relabelled(given, {}, _by_task(annotated, tasks, "annotated"))
    unread = [image_id for image_id in dataset.ids if image_id in store.failed]
    if unread:
        raise InputError(
            f"{subject} has no answer for {len(unread)} images of {dataset.name} that could not be read, such as "
            f"{store.failed[unread[0]]}; then label with --resume, or take them off the split's list"
        )
    seen = {name: Remapped(store, maps[name], task) for name, task in tasks.items()}
    notes = _by_text({name: (f"{subject}: {each.describe()}",) for name, each in maps.items() if each.target.classes})
    notes = _told((*told_first(given), *foreign, *notes), tell)
    records = _gathered(_answers(store, seen, _share(dataset), _of_main(progress)), dataset, tasks)
    return processes.from_main(lambda: figures(records, tasks))._replace(notes=notes)


def _sources(sections: Mapping[str, TaskSection]) -> dict[str, TaskSource]:
    return {
        name: TaskSource(each.kind, each.folder, getattr(each, "labels", None), required=False)
        for name, each in sections.items()
    }


def _told(notes: tuple[str, ...], tell: Callable[[str], object]) -> tuple[str, ...]:
    for note in notes:
        tell(note)
    return notes


def _annotated(tasks: Mapping[str, Task], dataset: Dataset) -> dict[str, Task]:
    """The tasks that an image of the data set is annotated for."""
    there = {name for image_id in dataset.ids for name in dataset.annotated_tasks(image_id)}
    found = {name: task for name, task in tasks.items() if name in there}
    if not found:
        raise InputError(
            f"{dataset.name}: no image has ground truth of {', '.join(tasks)} to evaluate against; "
            "give a split that has"
        )
    return found


def _by_task(given: Annotates, tasks: Mapping[str, Task], what: str) -> dict[str, Names | None]:
    """What is given for all tasks that have classes, or by task."""
    if not isinstance(given, Mapping):
        return {name: given if task.labels.classes else None for name, task in tasks.items()}
    unknown = sorted(given.keys() - tasks.keys())
    if unknown:
        raise InputError(f"{what}: the task {unknown[0]!r} is not evaluated; possible: {', '.join(tasks)}")
    return dict(given)


def _reporting(tasks: Mapping[str, Task], classes: Annotates) -> dict[str, Task]:
    """The tasks with other classes that their means are over."""
    found = dict(tasks)
    for name, wanted in _by_task(classes, tasks, "classes").items():
        if wanted is not None:
            task = tasks[name]
            section = task.section.model_copy(update={"reported": averaged_classes(task.labels, wanted)})
            found[name] = type(task)(name, task.labels, section)
    return found


def _class_map(source: LabelSpace, target: LabelSpace, source_name: str, target_name: str) -> ClassMap:
    if not target.classes:  # a task without classes
        return ClassMap(source, target, (0, *[None] * len(source.classes)))
    try:
        return ClassMap.by_name(source, target)
    except InputError as error:
        raise InputError(
            f"{source_name} and {target_name} have no class in common: the one has {_some(source.classes)}, "
            f"the other {_some(target.classes)}; give a data set of the same classes"
        ) from error


def _differences(class_map: ClassMap, checkpoint: Path, data: str) -> tuple[str, ...]:
    """From the data set's classes to the checkpoint's: classes that only one of them has."""
    notes = []
    if not class_map.target.classes:
        return ()
    if class_map.unmapped:
        notes.append(
            f"{checkpoint} does not know {_some(class_map.unmapped)} of {data}: "
            "they are left out, and in maps count as background"
        )
    if class_map.unreached:
        notes.append(f"{data} does not have {_some(class_map.unreached)} of {checkpoint}: they are not evaluated")
    return tuple(notes)


def _by_text(notes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Notes on tasks, each once, with the tasks' names where it is not true of all."""
    texts = dict.fromkeys(text for each in notes.values() for text in each)
    of = {text: [name for name, each in notes.items() if text in each] for text in texts}
    return tuple(text if len(of[text]) == len(notes) else f"{', '.join(of[text])}: {text}" for text in texts)


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:20]) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def record_student(
    student: Student, dataset: Dataset, tasks: Mapping[str, Task], progress: Progress | None = None
) -> list[Record]:
    """A student's answers compared with a data set in the tasks' label spaces, on the device where the student is.

    Of several processes each answers for its share of the images, and the main one gets all records, in the data set's
    order; the others get none.
    """
    return _gathered(_predictions(student, _share(dataset), tuple(tasks), _of_main(progress)), dataset, tasks)


def _predictions(
    student: Student, dataset: Dataset, tasks: Sequence[str], progress: Progress | None
) -> Iterator[tuple[str, Prediction]]:
    student.eval()
    device = next(student.parameters()).device
    for first in range(0, len(dataset.ids), BATCH):
        ids = dataset.ids[first : first + BATCH]
        yield from zip(ids, answer(student, [dataset.image(each) for each in ids], device, tasks), strict=True)
        if progress:
            progress(first + len(ids), len(dataset.ids))


def _answers(
    store: Store, answers: Mapping[str, Remapped], dataset: Dataset, progress: Progress | None
) -> Iterator[tuple[str, Prediction]]:
    """A store's soft answers as final ones."""
    for done, image_id in enumerate(dataset.ids, start=1):
        if image_id not in store:
            raise InputError(f"{store.path} has no answer for {image_id} of {dataset.name}; label this split")
        found = {name: soft for name, each in answers.items() if (soft := each.get(image_id)) is not None}
        size = next((each.size for each in found.values()), None) or store[image_id].size
        final = {
            name: answers[name].task.final(each.tasks[answers[name].task.kind], size) for name, each in found.items()
        }
        yield image_id, Prediction(size, final)
        if progress:
            progress(done, len(dataset.ids))


def _share(dataset: Dataset) -> Dataset:
    """Every n-th batch of n processes: whole batches, for a network's last bits may depend on a batch's size."""
    rank, count = processes.place()
    ids = tuple(image_id for index, image_id in enumerate(dataset.ids) if index // BATCH % count == rank)
    return dataset if count == 1 else Subset(dataset, f"process {rank + 1} of {count}", ids)


def _of_main(progress: Progress | None) -> Progress | None:
    return progress if processes.place()[0] == 0 else None


def _gathered(
    predictions: Iterable[tuple[str, Prediction]], dataset: Dataset, tasks: Mapping[str, Task]
) -> list[Record]:
    records = [record(name, dataset.ground_truth(name), found, tasks) for name, found in predictions]
    place = {image_id: index for index, image_id in enumerate(dataset.ids)}
    return sorted(processes.gather(records), key=lambda each: place[each.image_id])
