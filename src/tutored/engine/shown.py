"""The few images that a run's page shows: ground truth and tutor once, the student's answers at each validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tutored.config import Config
from tutored.data.sources import ranks
from tutored.engine.sources import Row
from tutored.engine.supervision import OpenSupervision
from tutored.judge import as_prediction
from tutored.predict import Predictor
from tutored.runpage import TRUTH, TUTOR, keep_picture, validation_name
from tutored.structures import Dataset, Prediction, SoftLabels

SCORE = 0.4
"""Boxes from this score on are drawn."""


class Shown(NamedTuple):
    """One image: of `validation`, or of `training` where a tutor teaches it."""

    image_id: str
    split: str
    dataset: Dataset


def choose_images(config: Config, supervision: OpenSupervision, rows: Sequence[Row]) -> list[Shown]:
    """Validation images with ground truth, the same for every seed of training.

    Half as many training images follow where tutors teach, but answer for no validation image.
    """
    count, seed = config.train.shown, config.supervision.seed
    found = []
    val = supervision.val
    if val is not None:
        annotated = (image_id for image_id in ranks(val.ids, seed, "shown") if val.annotated_tasks(image_id))
        found = [Shown(image_id, "validation", val) for image_id in islice(annotated, count)]
    if not any(_answer_of_tutors(supervision.soft_labels, each.image_id) for each in found):
        taught = [image_id for image_id, _, *sources in rows if {"tutor", "both"} & set(sources)]
        chosen = islice(ranks(taught, seed, "shown"), -(-count // 2))
        found += [Shown(image_id, "training", supervision.train) for image_id in chosen]
    return found


def keep_references(out: Path, shown: Sequence[Shown], supervision: OpenSupervision) -> None:
    """Draw the ground truth and, where there are any, the tutors' answers."""
    for index, (image_id, _, dataset) in enumerate(shown):
        image, labels = dataset.image(image_id), dataset.labels
        keep_picture(out, index, TRUTH, image, dataset.ground_truth(image_id), labels)
        answer = _answer_of_tutors(supervision.soft_labels, image_id)
        if answer is not None:
            keep_picture(out, index, TUTOR, image, answer.above(SCORE), labels)


def keep_answers(out: Path, shown: Sequence[Shown], epoch: int, predictor: Predictor) -> None:
    """Draw what the student says after an epoch."""
    images = [dataset.image(image_id) for image_id, _, dataset in shown]
    for index, (image, answer) in enumerate(zip(images, predictor(images), strict=True)):
        keep_picture(out, index, validation_name(epoch), image, answer.above(SCORE), shown[index].dataset.labels)


def _answer_of_tutors(soft_labels: Mapping[str, Mapping[str, SoftLabels]], image_id: str) -> Prediction | None:
    """The boxes of one tutor and the map of another."""
    found = {
        task: as_prediction(answer)
        for task, answers in soft_labels.items()
        if (answer := answers.get(image_id)) is not None
    }
    if not found:
        return None
    nothing = Prediction(size=next(iter(found.values())).size)
    boxes, maps = found.get("detection", nothing), found.get("segmentation", nothing)
    return Prediction(
        size=nothing.size,
        boxes_xyxy=boxes.boxes_xyxy,
        classes=boxes.classes,
        scores=boxes.scores,
        mask=maps.mask,
    )
