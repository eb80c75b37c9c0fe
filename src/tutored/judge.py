"""The figures of whatever answers for a split: a checkpoint or a store, by the same code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.evaluate import Result, evaluate
from tutored.labels import ClassMap
from tutored.predict import Predictor, predict_dataset
from tutored.softlabels import Folded, Store
from tutored.structures import Dataset, Prediction, SoftLabels
from tutored.student import BlitzNet

Progress = Callable[[int, int], None]


def judge(
    subject: Path,
    data: str,
    split: str,
    classes: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Evaluate a checkpoint or a store of soft labels on one split.

    Args:
        subject: a checkpoint's folder, or a store's.
        classes: the classes that the means are over.

    Raises:
        InputError: `subject` is neither, its classes do not fit, or the store lacks images of the split.
    """
    if (subject / "manifest.json").exists():
        dataset = open_dataset(data, split)
        store = Store.open(subject)
        folded = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
        return _evaluate(predictions_of(folded, dataset, subject, progress), dataset, classes)
    student, config, labels = load_checkpoint(subject)
    dataset = open_dataset(data, split, classes=labels.classes)
    student.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return evaluate_student(student, dataset, config, classes, progress)


def evaluate_student(
    student: BlitzNet,
    dataset: Dataset,
    config: Config,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """A student's figures on a data set of its own label space, on the device where the student is."""
    predictor = Predictor(student, config.decode, student.anchors_xyxy.device, tasks=config.taught)
    return _evaluate(predict_dataset(predictor, dataset, progress), dataset, classes)


def _evaluate(predictions: Iterable[tuple[str, Prediction]], dataset: Dataset, classes: Sequence[str] | None) -> Result:
    pairs = ((image_id, dataset.ground_truth(image_id), prediction) for image_id, prediction in predictions)
    return evaluate(pairs, dataset.labels, classes)


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
    """The boxes as they are, and the map enlarged bilinearly to the image, then its likeliest class."""
    mask = None
    if answer.map is not None:
        packed = answer.map[None].contiguous(memory_format=torch.channels_last)
        enlarged = F.interpolate(packed, size=answer.size, mode="bilinear", align_corners=False)
        mask = enlarged[0].argmax(dim=0).to(torch.uint8)
    if answer.boxes_xyxy is None:
        return Prediction(size=answer.size, mask=mask)
    return Prediction(
        size=answer.size, boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, scores=answer.scores, mask=mask
    )
