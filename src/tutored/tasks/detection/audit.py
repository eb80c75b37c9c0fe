"""The audit of a tutor's boxes: figures, from which scores on they are right, and which classes it confuses."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from tutored.config.tasks import DetectionSection
from tutored.tasks import calibrate
from tutored.tasks.audit import Advice, Agreed, Auditor, ClassFigures, Confusion, Finding, Measured
from tutored.tasks.calibrate import Answers, Bools, Floats, Ints, Rate
from tutored.tasks.detection import measure
from tutored.tasks.detection.measure import IOU_FLOOR, Matches
from tutored.tasks.detection.types import TAIL_FLOOR, Boxes, Detections, SoftBoxes
from tutored.types import Size

HEARD = 0.05
"""Weaker boxes count for AP alone."""
TEACH, IGNORE = 0.5, 0.1
"""Shares of right boxes from which on they teach, and from which on they are ignored."""
BAND_BOXES, BAND_BOTH = 300, 50
"""A band is read off at least so many boxes, of which so many are right and as many wrong."""
CURVE = tuple(step / 20 for step in range(1, 20))
"""Scores at which precision and recall are reported."""
USUAL = {key: float(DetectionSection.model_fields[key].default) for key in ("box_floor", "ignore_floor")}
"""From which scores on boxes teach, and are ignored."""


class Evidence(NamedTuple):
    """One image's boxes compared with its objects; without ground truth there are no objects.

    Attributes:
        matches: all boxes by falling score, those from `HEARD` on first.
        nearest: int64 [K], of each box from `HEARD` on the object that it overlaps most, from IoU .5 on, whatever its
            class; -1 where there is none.
    """

    matches: Matches
    nearest: Ints

    @property
    def classes(self) -> Ints:
        return self.matches.classes[: len(self.nearest)]

    @property
    def hits(self) -> Ints:
        """1: right, 0: wrong, -1: neither."""
        return self.matches.hits[: len(self.nearest)].astype(np.int64)

    def two(self, temperature: float = 1.0) -> Floats:
        """float64 [K, 2]: each box's probability of being wrong and of being right.

        It is the score that is calibrated: the stored class distributions know too little about the classes that a box
        was not kept for.
        """
        scores = self.matches.scores[: len(self.nearest)].astype(np.float64)
        return calibrate.tempered(np.stack([1 - scores, scores], axis=1), temperature)


class BoxAuditor(Auditor):
    """Compares boxes with objects."""

    unit: ClassVar[str] = f"boxes from score {HEARD} on"
    table: ClassVar[str] = "Precision of the boxes that teach, recall of those that teach or are ignored."
    order: ClassVar[str] = (
        "By the scores of wrong boxes that teach, and by how surely objects were missed, small ones counting less; a "
        "box fits from IoU .5 on."
    )
    words: ClassVar[tuple[str, str, str]] = ("boxes", "objects", "objects")
    floor: ClassVar[float] = TAIL_FLOOR / 2

    def observe(
        self, truth: Boxes | None, answer: SoftBoxes, size: Size, rng: np.random.Generator, samples: int
    ) -> Evidence:
        matches: Matches = self.task.record(
            truth or _objects(answer.boxes_xyxy[:0], answer.classes[:0]), answer.final()
        )
        nearest = np.full(int((matches.scores >= HEARD).sum()), -1)
        if len(nearest) and len(matches.truth_boxes_xyxy):
            shares = measure.overlaps(matches.boxes_xyxy[: len(nearest), None], matches.truth_boxes_xyxy)
            nearest = np.where(shares.max(axis=1) >= IOU_FLOOR, shares.argmax(axis=1), -1)
        return Evidence(matches, nearest)

    def answers(self, found: Evidence) -> Answers:
        counted = found.hits >= 0
        return Answers(found.two()[counted], found.hits[counted], np.ones(int(counted.sum()), np.int64))

    def figures(
        self, images: Sequence[Evidence], every: Sequence[Evidence], temperature: float, known_numbers: Sequence[int]
    ) -> Measured:
        """Args: as in `Auditor`."""
        names, matches = self.task.labels.names, [each.matches for each in images]
        scores = [each.two(temperature)[:, 1] for each in images]
        classes, hits = (np.concatenate([getattr(each, name) for each in images]) for name in ("classes", "hits"))
        score, home = np.concatenate(scores), np.repeat(np.arange(len(images)), [len(each) for each in scores])
        counted = hits >= 0
        score, classes, right, home = score[counted], classes[counted], hits[counted] > 0, home[counted]
        band, finding = find_band(score, right)
        floors = USUAL | band
        objects = _called(images, scores, floors["box_floor"])
        ranked = measure.rank(matches, len(names) - 1)
        ap = measure.voc_ap(ranked)[0]
        low, high = calibrate.resampled(lambda weights: measure.voc_ap(ranked, weights)[0], len(images))

        def per_image(boxes: Bools) -> Ints:
            return np.bincount(home[boxes], minlength=len(images))

        found = {}
        for number in known_numbers:
            own, there = classes == number, objects.true == number
            taught, heard = (own & (score >= floors[key]) for key in ("box_floor", "ignore_floor"))
            totals = np.bincount(objects.image[there], minlength=len(images))
            precision = Rate.of(per_image(taught & right), per_image(taught))
            row = {
                "objects": int(there.sum()),
                "AP": calibrate.known(ap[number]),
                "AP_interval": [calibrate.known(low[number]), calibrate.known(high[number])],
                "boxes": precision.total,
                "curve": _curve(score[own], right[own], int(there.sum())),
            }
            recall = Rate.of(per_image(heard & right), totals)
            calls = int((objects.answer == number).sum())
            found[number] = ClassFigures(
                precision, recall, int(there.sum()), precision.total, calls, row, score[own], right[own]
            )
        teach = [int((each.two(temperature)[:, 1] >= floors["box_floor"]).sum()) for each in every]
        share, boxes = float(np.mean([count > 0 for count in teach])), sum(teach) / len(teach)
        mean = calibrate.known(calibrate.known_mean(ap[list(known_numbers)]))
        summary = (
            f"mAP {'unknown' if mean is None else f'{mean:.3f}'} (VOC area, IoU .5, over the classes that the tutor "
            f"knows). {100 * share:.0f} % of {len(teach)} images have a box that teaches, {boxes:.1f} boxes an image."
        )
        coverage = {"images": len(teach), "images_with_a_box": share, "boxes_per_image": boxes}
        overall = {"mAP": mean, "objects": len(objects.true), "coverage": coverage}
        return Measured(found, objects, overall, summary, [finding], band)

    def contradiction(
        self, found: Evidence, temperature: float, band: Mapping[str, float], known_numbers: Sequence[int]
    ) -> tuple[float, str]:
        """Scores of teaching boxes that are wrong, and how surely known objects were missed; larger ones count more.

        An object counts fully from a tenth of the frame around all objects on, below that in proportion: detectors miss
        what is small, and that says little about labels.
        """
        truth, names, floors = found.matches, self.task.labels.names, {**USUAL, **band}
        scores, classes = found.two(temperature)[:, 1], found.classes
        total, texts, missed = 0.0, [], dict[str, int]()
        for row in np.flatnonzero((scores >= floors["box_floor"]) & (found.hits == 0)):
            total += float(scores[row])
            there = int(truth.truth_classes[found.nearest[row]]) if found.nearest[row] >= 0 else 0
            where = "where no object fits" if not there else "again" if there == classes[row] else f"on {names[there]}"
            texts.append(f"says {names[classes[row]]} {scores[row]:.2f} {where}")
        sides = truth.truth_boxes_xyxy[:, 2:] - truth.truth_boxes_xyxy[:, :2]
        frame = max(float(np.prod(truth.truth_boxes_xyxy[:, 2:].max(axis=0, initial=0))), 1.0)
        for index in np.flatnonzero(~truth.difficult & np.isin(truth.truth_classes, known_numbers)):
            on = (found.nearest == index) & (classes == truth.truth_classes[index])
            best = float(scores[on].max(initial=0))
            if best < floors["ignore_floor"]:
                total += (1 - best) * min(1.0, 10 * float(np.prod(sides[index])) / frame)
                name = names[truth.truth_classes[index]]
                missed[name] = missed.get(name, 0) + 1
        if missed:
            texts.append("does not find " + ", ".join(f"{count} {name}" for name, count in missed.items()))
        return total, "; ".join(texts)

    def confident(self, prediction: Detections, advice: Advice) -> Detections:
        return prediction.above((USUAL | advice.band)["box_floor"])

    def compare(self, one: SoftBoxes, other: SoftBoxes, size: Size) -> Ints:
        """int64 [C+1, 3]: by class, boxes of both that match, boxes of the first, boxes of the second."""
        first, second = (each.final().above(USUAL["box_floor"]) for each in (one, other))
        found: Matches = self.task.record(_objects(first.boxes_xyxy, first.classes), second)
        counted = (found.classes[found.hits > 0], first.classes.numpy(), second.classes.numpy())
        return np.stack([np.bincount(each, minlength=len(self.task.labels)) for each in counted], axis=1)

    def agree(self, compared: Sequence[Ints], classes: Sequence[int]) -> Agreed:
        """F1, which is the same whichever tutor comes first, apart from chains of overlapping boxes."""
        counts = np.sum(compared, axis=0)
        rows: list[dict[str, Any]] = [
            {
                "class": self.task.labels.names[number],
                "F1": _f1(counts[number]),
                "boxes of the first": int(counts[number, 1]),
                "boxes of the second": int(counts[number, 2]),
            }
            for number in classes
        ]
        meaning = f"of boxes from score {USUAL['box_floor']} on in both: of one class, IoU .5 or more"
        return Agreed("F1", _f1(counts[list(classes)].sum(axis=0)), meaning, rows)


def find_band(scores: Floats, right: Bools) -> tuple[dict[str, float], Finding]:
    """Where boxes begin to be right half of the time, and one time in ten: `TEACH` and `IGNORE`."""
    count = f"of {len(scores)} boxes, {int(right.sum())} of them right"
    stays = "the band of scores stays at its defaults"
    if len(scores) < BAND_BOXES or min(right.sum(), (~right).sum()) < BAND_BOTH:
        return {}, Finding(kind="band", text=f"{stays}: {count[3:]}, are too few to tell")
    ends, bins = [], calibrate.reliability(scores, right, most=40, least=50)
    for crossing, default in zip(calibrate.crossings(bins, (TEACH, IGNORE)), USUAL.values(), strict=True):
        if crossing is None:
            return {}, Finding(kind="band", text=f"{stays}: at no score are boxes right that often")
        floor, lowest = crossing
        ends.append(np.floor(100 * (min(floor, default) if lowest else floor)) / 100)
    band = {"box_floor": float(ends[0]), "ignore_floor": float(min(ends))}
    where = f"boxes teach from {ends[0]:.2f} on and are ignored from {min(ends):.2f} on"
    text = f"{where}: there they are right half of the time, and one time in ten ({count})"
    return band, Finding(kind="band", text=text)


def _objects(boxes_xyxy: torch.Tensor, classes: torch.Tensor) -> Boxes:
    return Boxes(boxes_xyxy=boxes_xyxy, classes=classes, difficult=torch.zeros_like(classes, dtype=torch.bool))


def _called(images: Sequence[Evidence], scores: Sequence[Floats], box_floor: float) -> Confusion:
    """Each object to find, and what its best-scored teaching box is called; 0 where it has none."""
    found = [np.zeros((4, 0), np.int64)]
    for number, (each, score) in enumerate(zip(images, scores, strict=True)):
        called = np.zeros(len(each.matches.truth_classes), np.int64)
        teach = np.flatnonzero((score >= box_floor) & (each.nearest >= 0))
        teach = teach[np.argsort(score[teach], kind="stable")]
        called[each.nearest[teach]] = each.classes[teach]  # of several on one object the last one stays, the best
        find = ~each.matches.difficult
        true = each.matches.truth_classes[find].astype(np.int64)
        found.append(np.stack([np.full(len(true), number), true, called[find], np.ones_like(true)]))
    return Confusion(*np.concatenate(found, axis=1))


def _curve(scores: Floats, right: Bools, objects: int) -> list[list[float]]:
    """Score, precision and recall of the boxes from that score on, where there are any."""
    kept = [(floor, right[scores >= floor]) for floor in CURVE]
    return [[floor, float(each.mean()), float(each.sum() / objects)] for floor, each in kept if len(each) and objects]


def _f1(counts: Ints) -> float | None:
    matched, first, second = counts.tolist()
    return 2 * matched / (first + second) if first + second else None
