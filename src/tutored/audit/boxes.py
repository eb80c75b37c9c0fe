"""The audit of a tutor's boxes: figures, where its scores begin to be right, and what it confuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.audit.calibrate import Bin, Floats, crossings, reliability, tempered
from tutored.audit.confused import confuse
from tutored.audit.facts import BoxFacts, Said
from tutored.audit.figures import Answers, Calibration, Rate, calibrate, curve_points, reliability_row
from tutored.config import Loss
from tutored.evaluate import detection
from tutored.evaluate.figures import known, known_mean
from tutored.labels import LabelSpace
from tutored.softlabels.codec import TAIL_FLOOR
from tutored.structures import BACKGROUND

SAMPLES = 200
"""Resamples of the images behind an interval of AP."""
TEACH, IGNORE = 0.5, 0.1
"""Shares of right boxes at which they begin to teach, and to be ignored."""
BAND_BOXES, BAND_BOTH = 300, 50
"""A band is read off so many boxes, of which so many are right and as many wrong."""


class Band(NamedTuple):
    """From which scores on boxes teach, and are ignored; scores after the temperature. `why` says where it is from."""

    box_floor: float
    ignore_floor: float
    advised: bool
    why: str


class BoxReport(NamedTuple):
    """What the verdicts on boxes rest on.

    Attributes:
        precision, recall: of each class, from `Band.box_floor` and from `Band.ignore_floor` on; only classes that the
            tutor knows.
        objects: the class (rows) of each object to find, and what its best-scored box from `box_floor` on says
            (columns; 0: nothing), [C+1, C+1].
        own: of each class' objects, how many are called that.
        swapped: float64 [C+1, C+1], the lower end of the interval of "what is called b (columns) is a (rows)".
        figures: ready for JSON.
        contradictions: by image, how much it contradicts the ground truth, and in what.
    """

    calibration: Calibration
    band: Band
    precision: dict[str, Rate]
    recall: dict[str, Rate]
    objects: NDArray[np.int64]
    own: dict[str, Rate]
    swapped: NDArray[np.float64]
    figures: dict[str, Any]
    contradictions: dict[str, tuple[float, str]]


def judge_boxes(
    facts: Mapping[str, BoxFacts], said: Mapping[str, Said], fitted: set[str], labels: LabelSpace, tutor_knows: set[int]
) -> BoxReport:
    """Figures from the facts of all images.

    Args:
        facts: of the images with ground truth.
        said: the boxes that are heard, of these and of images without ground truth.
        fitted: images that the temperature is fitted on; calibration is reported on the others.
        tutor_knows: the classes that the tutor can answer.
    """
    ids = sorted(facts)
    calibration = calibrate([_answers(facts[each], said[each], each in fitted) for each in ids], TAIL_FLOOR / 2)
    scores = {each: tempered(_two(said[each]), calibration.temperature)[:, 1] for each in said}
    all_scores, classes, hits = (
        np.concatenate([np.zeros(0), *(part(each) for each in ids)])
        for part in (scores.__getitem__, lambda each: said[each].classes, lambda each: _hits(facts[each], said[each]))
    )
    counted = hits >= 0
    homes = np.repeat(np.arange(len(ids)), [len(said[each].classes) for each in ids])[counted]
    all_scores, classes, hits = all_scores[counted], classes[counted].astype(int), hits[counted] > 0
    band = find_band(all_scores, hits)
    names = {index: labels.names[index] for index in sorted(tutor_knows)}
    matches = [facts[each].matches for each in ids]
    confused = confuse(ids, facts, said, scores, band.box_floor)
    objects = np.bincount(confused.true, minlength=len(labels))
    teaches, heard = all_scores >= band.box_floor, all_scores >= band.ignore_floor
    precision, recall = {}, {}
    for index, name in names.items():
        own, taught = classes == index, teaches & (classes == index)
        precision[name] = Rate.of(homes[taught & hits], homes[taught])
        recall[name] = Rate.of(homes[heard & own & hits], confused.home[confused.true == index])
    ap = _average_precisions(matches, len(labels.classes))
    rows = [
        _row(name, all_scores[classes == index], hits[classes == index], int(objects[index]), ap[:, index])
        | {"boxes": precision[name].total, "precision": precision[name].share, "recall": recall[name].share}
        for index, name in names.items()
    ]
    figures = {
        "classes": rows,
        "mAP": known(known_mean(ap[0, sorted(tutor_knows)])),
        "objects": int(objects.sum()),
        "curve": curve_points(all_scores, hits, int(objects[sorted(tutor_knows)].sum())),
        "calibration": calibration.to_dict(),
        "coverage": _coverage(scores, band),
    }
    contradictions = {
        each: _contradiction(facts[each], said[each], scores[each], band, labels, tutor_knows) for each in ids
    }
    matrix, called = confused.matrix(len(labels)), confused.own(labels)
    swapped = confused.swapped(matrix)
    return BoxReport(calibration, band, precision, recall, matrix, called, swapped, figures, contradictions)


def _row(name: str, scores: Floats, hits: NDArray[np.bool_], objects: int, ap: Floats) -> dict[str, Any]:
    """Of one class; `ap` with the ends of its interval."""
    return {
        "class": name,
        "objects": objects,
        "AP": known(ap[0]),
        "AP_interval": [known(ap[1]), known(ap[2])],
        **reliability_row(scores, hits),
        "curve": curve_points(scores, hits, objects),
    }


def find_band(scores: Floats, right: NDArray[np.bool_]) -> Band:
    """Where boxes begin to be right half of the time, and one time in ten: `TEACH` and `IGNORE`."""
    usual = Loss()
    if len(scores) < BAND_BOXES or min(right.sum(), (~right).sum()) < BAND_BOTH:
        few = f"{len(scores)} boxes, {int(right.sum())} of them right, are too few to tell"
        return Band(usual.box_floor, usual.ignore_floor, False, few)
    bins: Sequence[Bin] = reliability(scores, right, most=40, least=50)
    ends = []
    for found, default in zip(crossings(bins, (TEACH, IGNORE)), (usual.box_floor, usual.ignore_floor), strict=True):
        if found is None:
            return Band(usual.box_floor, usual.ignore_floor, False, "no score is right that often")
        floor, lowest = found
        ends.append(np.floor(100 * (min(floor, default) if lowest else floor)) / 100)
    return Band(float(ends[0]), float(min(ends)), True, f"of {len(scores)} boxes, {int(right.sum())} of them right")


def _two(said: Said) -> NDArray[np.float64]:
    """Each box's probability of being wrong and of being right, float64 [K, 2]."""
    scores = said.scores.astype(np.float64)
    return np.stack([1 - scores, scores], axis=1)


def _answers(facts: BoxFacts, said: Said, fitted: bool) -> Answers:
    hits = _hits(facts, said)
    counted = hits >= 0
    right = (hits[counted] > 0).astype(np.int64)
    return _two(said)[counted], right, np.ones_like(right), fitted


def _hits(facts: BoxFacts, said: Said) -> NDArray[np.int8]:
    return facts.matches.hits[: len(said.classes)]


def _average_precisions(matches: Sequence[detection.Matches], count: int) -> NDArray[np.float64]:
    """VOC's area, and the ends of its 95 % interval over resamples of the images; float64 [3, C+1], NaN for none."""
    ranked = detection.rank(matches, count)
    rng, once = np.random.default_rng(0), np.full(len(matches), 1 / len(matches))
    drawn = [detection.voc_ap(ranked, rng.multinomial(len(matches), once))[0] for _ in range(SAMPLES)]
    ap = detection.voc_ap(ranked)[0]
    sampled = np.where(np.isnan(drawn), ap, drawn)
    return np.stack([ap, *np.quantile(sampled, [0.025, 0.975], axis=0)])


def _coverage(scores: Mapping[str, Floats], band: Band) -> dict[str, Any]:
    """Over all images of the split that the store answers for."""
    teach = [int((each >= band.box_floor).sum()) for each in scores.values()]
    return {
        "images": len(scores),
        "images_with_a_box": sum(count > 0 for count in teach) / len(scores),
        "boxes_per_image": sum(teach) / len(scores),
    }


def _contradiction(
    facts: BoxFacts, said: Said, scores: Floats, band: Band, labels: LabelSpace, tutor_knows: set[int]
) -> tuple[float, str]:
    """Scores of teaching boxes that are wrong, and how surely known objects were missed; larger ones count more.

    An object counts one from a tenth of the drawn objects' frame on, below it in proportion: detectors miss what is
    small, and that says little about labels.
    """
    truth, names = facts.matches, labels.names
    total, told = 0.0, []
    for row in np.flatnonzero((scores >= band.box_floor) & (facts.matches.hits[: len(scores)] == 0)):
        total += scores[row]
        drawn = int(truth.truth_classes[facts.thing[row]]) if facts.thing[row] >= 0 else BACKGROUND
        says = f"says {names[said.classes[row]]} {scores[row]:.2f}"
        where = "no drawn box fits" if drawn == BACKGROUND else f"{names[drawn]} is drawn"
        told.append(f"{says} again" if drawn == said.classes[row] else f"{says} where {where}")
    missed: dict[str, int] = {}
    if len(truth.truth_boxes_xyxy):
        sides = truth.truth_boxes_xyxy[:, 2:] - truth.truth_boxes_xyxy[:, :2]
        frame = np.prod(truth.truth_boxes_xyxy[:, 2:].max(axis=0))
        for index in np.flatnonzero(~truth.difficult & np.isin(truth.truth_classes, [*tutor_knows])):
            on = (facts.thing == index) & (said.classes == truth.truth_classes[index])
            best = scores[on].max(initial=0)
            if best < band.ignore_floor:
                total += (1 - best) * min(1.0, 10 * float(np.prod(sides[index])) / max(frame, 1))
                name = names[truth.truth_classes[index]]
                missed[name] = missed.get(name, 0) + 1
    if missed:
        told.append("does not find " + ", ".join(f"{count} {name}" for name, count in missed.items()))
    return float(total), "; ".join(told)
