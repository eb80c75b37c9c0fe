"""What a tutor's store is worth, found out before it teaches: figures, verdicts by name, advice for training.

`audit` holds the answers against ground truth, `agreement` against another tutor's. `write_audit` puts the audit where
training finds it, `audit.json` in the store, with a page beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutored.audit.agree import agreement
from tutored.audit.boxes import judge_boxes
from tutored.audit.facts import BoxFacts, PixelFacts, Said, box_facts, boxes_said, pixel_facts, without_maps
from tutored.audit.maps import judge_maps
from tutored.audit.sidecar import (
    SIDECAR,
    Advice,
    Finding,
    Sidecar,
    TaskAudit,
    fingerprint,
    read_sidecar,
    tutor_of,
    write_sidecar,
)
from tutored.audit.verdicts import Verdict, verdict_on_boxes, verdict_on_maps
from tutored.data.sources import ranks
from tutored.errors import InputError
from tutored.labels import ClassMap, Elsewhere
from tutored.progress import Progress
from tutored.softlabels import Folded, Store
from tutored.softlabels.draw import Rule
from tutored.structures import Dataset

__all__ = [
    "SIDECAR",
    "Advice",
    "Audit",
    "Finding",
    "Sidecar",
    "TaskAudit",
    "agreement",
    "audit",
    "read_sidecar",
    "write_sidecar",
]

PIXELS, LEAST_PIXELS, MOST_PIXELS = 1_000_000, 16, 512
"""Pixels drawn for calibration: in all, and from one image."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit.

    Attributes:
        sidecar: what training reads.
        folded: the answers in the data set's classes.
        class_map: how the tutor's classes became the data set's.
        contradictions: by task and image, how much tutor and ground truth contradict each other, and in what.
    """

    sidecar: Sidecar
    dataset: Dataset
    folded: Folded
    class_map: ClassMap
    contradictions: Mapping[str, Mapping[str, tuple[float, str]]]

    def worst(self, task: str, count: int) -> list[tuple[str, float, str]]:
        """The images where tutor and ground truth contradict each other most: id, how much, in what."""
        found = [(image_id, much, text) for image_id, (much, text) in self.contradictions[task].items() if much > 0]
        return sorted(found, key=lambda each: (-each[1], each[0]))[:count]


def audit(
    store: Store,
    dataset: Dataset,
    *,
    renamed: Mapping[str, str | None] | None = None,
    elsewhere: Elsewhere = "background",
    background: Rule = "noisy_or",
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Hold a store against the ground truth of a data set's images, as far as each has any.

    Args:
        renamed, elsewhere: how the tutor's classes become the data set's, as in `Task`.
        background: how a map is drawn from instances, as in `Loss`.
        tasks: of the store's; None: all. Maps of more classes than a mask can tell apart are left out.

    Raises:
        InputError: store and data set have no class or image in common, no image that is answered has ground truth, or
            only such maps are there.
    """
    class_map = ClassMap.by_name(store.labels, dataset.labels, renamed=renamed, elsewhere=elsewhere)
    folded = Folded(store, class_map, background=background)
    ids = [image_id for image_id in dataset.ids if image_id in store]
    if not ids:
        raise InputError(f"{store.path} answers for none of the {len(dataset.ids)} images of {dataset.name}")
    tasks = without_maps(store.tasks if tasks is None else tasks, dataset.labels)
    seen = _look(folded, dataset, ids, tasks, progress)
    if not seen.boxes and not seen.maps:
        raise InputError(
            f"{dataset.name} has no ground truth for {' or '.join(tasks)} of the {len(ids)} images that "
            f"{store.path} answers for; --against OTHER_STORE compares it with another tutor instead"
        )
    told = {
        "data": dataset.source,
        "split": dataset.split,
        "renamed": dict(renamed or {}),
        "elsewhere": elsewhere,
        "background": background,
        "unannotated": tuple(dataset.labels.names[index] for index in sorted(seen.unannotated)),
    }
    found, contradictions = _judge(seen, ids, class_map, told)
    sidecar = Sidecar(store=fingerprint(store), tutor=tutor_of(store), tasks=found)
    return Audit(sidecar, dataset, folded, class_map, contradictions)


@dataclass(slots=True)
class _Seen:
    """By image: what was said, and for those with ground truth what that makes of it.

    Attributes:
        unannotated: classes that some of the images are not annotated for.
    """

    said: dict[str, Said]
    boxes: dict[str, BoxFacts]
    confident: dict[str, float]
    maps: dict[str, PixelFacts]
    unannotated: set[int]


def _look(
    folded: Folded, dataset: Dataset, ids: Sequence[str], tasks: Sequence[str], progress: Progress | None
) -> _Seen:
    seen = _Seen({}, {}, {}, {}, set())
    classes = len(dataset.labels.classes)
    samples = min(MOST_PIXELS, max(LEAST_PIXELS, PIXELS // len(ids)))
    for done, image_id in enumerate(ids, start=1):
        truth, answer = dataset.ground_truth(image_id), folded[image_id]
        if truth.size != answer.size:
            raise InputError(
                f"{dataset.name}: image {image_id} has {truth.size[1]} x {truth.size[0]} pixels, the tutor saw "
                f"{answer.size[1]} x {answer.size[0]}; label these very images"
            )
        if truth.annotated is not None:
            seen.unannotated.update(set(range(1, classes + 1)).difference(truth.annotated))
        if "detection" in tasks and answer.boxes_xyxy is not None:
            seen.said[image_id], ordered = boxes_said(answer, truth.annotated)
            if truth.boxes_xyxy is not None:
                seen.boxes[image_id] = box_facts(truth, ordered, len(seen.said[image_id].classes), classes)
        if "segmentation" in tasks and answer.map is not None:
            rng = np.random.default_rng([0, done])
            facts, seen.confident[image_id] = pixel_facts(truth, answer, classes, samples, rng)
            if facts is not None:
                seen.maps[image_id] = facts
        if progress:
            progress(done, len(ids))
    return seen


def _judge(
    seen: _Seen, ids: Sequence[str], class_map: ClassMap, told: Mapping[str, Any]
) -> tuple[dict[str, TaskAudit], dict[str, dict[str, tuple[float, str]]]]:
    """Each task's part, and its contradictions by image.

    Args:
        told: what each part says of the data and of how it was audited.
    """
    fitted = {image_id for image_id, place in ranks(ids, 0, "audit").items() if place < 0.5}
    knows, labels = {to for to in class_map.to if to}, class_map.target
    found, contradictions = {}, {}
    if seen.boxes:
        boxes = judge_boxes(seen.boxes, seen.said, fitted, labels, knows)
        found["detection"] = _task(told, seen.boxes, boxes.figures, verdict_on_boxes(boxes, class_map))
        contradictions["detection"] = boxes.contradictions
    if seen.maps:
        maps = judge_maps(seen.maps, seen.confident, fitted, labels, knows)
        found["segmentation"] = _task(told, seen.maps, maps.figures, verdict_on_maps(maps, class_map))
        contradictions["segmentation"] = maps.contradictions
    return found, contradictions


def _task(
    told: Mapping[str, Any], seen: Mapping[str, object], figures: dict[str, object], verdict: Verdict
) -> TaskAudit:
    return TaskAudit(
        **told,
        ids="\n".join(sorted(seen)),
        figures=_rounded(figures),
        findings=tuple(verdict.findings),
        advice=verdict.advice,
    )


def _rounded(value: Any) -> Any:
    """Numbers to five places: what differs beyond differs by machine."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value
