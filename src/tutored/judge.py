"""The figures of whatever answers for a split: a checkpoint or a store, by the same code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tutored import processes
from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.data import open_dataset
from tutored.data.part import Part
from tutored.data.relabelled import relabelled
from tutored.device import choose_device
from tutored.errors import InputError
from tutored.evaluate import Record, Result, figures, record
from tutored.evaluate.figures import averaged_classes
from tutored.labels import ClassMap, LabelSpace
from tutored.maps import likeliest
from tutored.predict import Predictor, predict_dataset
from tutored.progress import Progress
from tutored.softlabels import Folded, Store
from tutored.structures import IGNORE, Dataset, Prediction, SoftLabels
from tutored.student import BlitzNet

BATCH = 16
"""Pictures that a student sees at once."""


def judge(
    subject: Path,
    data: str,
    split: str,
    classes: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    annotated: tuple[str, ...] | None = None,
) -> Result:
    """Evaluate a checkpoint or a store of soft labels on one split.

    A store is held against the data set's classes, a checkpoint against its own. The result's notes say where the
    two label spaces differ. Several processes (torchrun) share the images; all return the figures of the whole split,
    those of one process to the bit.

    Args:
        subject: a checkpoint's folder, or a store's.
        classes: the classes that the means are over.
        device: of a checkpoint; see `choose_device`.
        annotated: the data set's classes that it annotates; None: all.

    Raises:
        InputError: `subject` is neither, the split has no ground truth, it and `subject` have no class in common, or
            the store lacks images of it.
    """
    if (subject / "manifest.json").exists():
        dataset = _open(data, split, annotated)
        store = Store.open(subject)
        averaged_classes(dataset.labels, classes)
        class_map = _class_map(store.labels, dataset.labels, f"the store {subject}", dataset.name)
        unread = [image_id for image_id in dataset.ids if image_id in store.failed]
        if unread:
            raise InputError(
                f"{subject} has no answer for {len(unread)} images of {dataset.name} that could not be read, such as "
                f"{store.failed[unread[0]]}; then label with --resume, or take them off the split's list"
            )
        part = _share(dataset)
        answers = predictions_of(Folded(store, class_map), part, subject, _of_main(progress))
        records = _gathered(answers, dataset)
        notes: tuple[str, ...] = (f"{subject}: {class_map.describe()}",)
        return replace(processes.from_main(lambda: figures(records, dataset.labels, classes)), notes=notes)
    if not subject.exists():
        raise InputError(f"{subject}: there is no such checkpoint or store; give the folder of one")
    student, config, labels = load_checkpoint(subject)
    averaged_classes(labels, classes)
    given = _open(data, split)
    class_map = _class_map(given.labels, labels, given.name, f"the checkpoint {subject}")
    dataset = relabelled(given, annotated, labels.classes)
    processes.place()  # says which GPU is this process' own
    student.to(choose_device(device))
    records = record_student(student, dataset, config, progress)
    notes = _differences(class_map, subject, given.name)
    return replace(processes.from_main(lambda: figures(records, labels, classes)), notes=notes)


def _open(data: str, split: str, annotated: tuple[str, ...] | None = None) -> Dataset:
    dataset = open_dataset(data, split, annotated)
    if not any(map(dataset.annotated_tasks, dataset.ids)):
        raise InputError(f"{dataset.name}: no image has ground truth to evaluate against; give a split that has")
    return dataset


def _class_map(source: LabelSpace, target: LabelSpace, source_name: str, target_name: str) -> ClassMap:
    try:
        return ClassMap.by_name(source, target)
    except InputError as error:
        raise InputError(
            f"{source_name} and {target_name} have no class in common: the one has {_some(source.classes)}, "
            f"the other {_some(target.classes)}; give a data set of the same classes"
        ) from error


def _differences(class_map: ClassMap, checkpoint: Path, data: str) -> tuple[str, ...]:
    """From the data set's classes to the checkpoint's: what only one of them has."""
    notes = []
    if class_map.unmapped:
        notes.append(
            f"{checkpoint} does not know {_some(class_map.unmapped)} of {data}: "
            "their boxes are left out, their pixels count as background"
        )
    if class_map.unreached:
        notes.append(f"{data} does not have {_some(class_map.unreached)} of {checkpoint}: they are not evaluated")
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:20]) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def record_student(
    student: BlitzNet, dataset: Dataset, config: Config, progress: Progress | None = None
) -> list[Record]:
    """A student's answers held against a data set of its own label space, on the device where the student is.

    Of several processes each answers for its share of the images, and the main one gets all records, in the data set's
    order; the others none.
    """
    predictor = Predictor(student, config.decode, student.anchors_xyxy.device, BATCH, config.taught)
    return _gathered(predict_dataset(predictor, _share(dataset), _of_main(progress)), dataset)


def _share(dataset: Dataset) -> Dataset:
    """Every n-th batch of n processes: whole batches, for a network's last bits may depend on a batch's size."""
    rank, count = processes.place()
    ids = tuple(image_id for index, image_id in enumerate(dataset.ids) if index // BATCH % count == rank)
    return dataset if count == 1 else Part(dataset, f"process {rank + 1} of {count}", ids)


def _of_main(progress: Progress | None) -> Progress | None:
    return progress if processes.place()[0] == 0 else None


def _gathered(predictions: Iterable[tuple[str, Prediction]], dataset: Dataset) -> list[Record]:
    records = [
        record(image_id, dataset.ground_truth(image_id), prediction, dataset.labels)
        for image_id, prediction in predictions
    ]
    place = {image_id: index for index, image_id in enumerate(dataset.ids)}
    return sorted(processes.gather(records), key=lambda each: place[each.image_id])


def predictions_of(
    answers: Mapping[str, SoftLabels], dataset: Dataset, origin: Path, progress: Progress | None = None
) -> Iterator[tuple[str, Prediction]]:
    """Soft labels as final predictions: each box with its class' probability, each pixel its likeliest class.

    Raises:
        InputError: an image of the data set has no answer.
    """
    for done, image_id in enumerate(dataset.ids, start=1):
        answer = answers.get(image_id)
        if answer is None:
            raise InputError(f"{origin} has no answer for {image_id} of {dataset.name}; label this split")
        yield image_id, as_prediction(answer)
        if progress:
            progress(done, len(dataset.ids))


def as_prediction(answer: SoftLabels) -> Prediction:
    """The boxes as they are, and the map enlarged bilinearly to the image, then its likeliest class.

    More classes than a mask can tell apart leave it out.
    """
    mask = None if answer.map is None or len(answer.map) > IGNORE else likeliest(answer.map, answer.size)
    if answer.boxes_xyxy is None:
        return Prediction(size=answer.size, mask=mask)
    return Prediction(
        size=answer.size, boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, scores=answer.scores, mask=mask
    )
