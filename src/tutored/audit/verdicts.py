"""From figures to verdicts in words, and to what training takes over.

Nothing is said of a class on fewer objects (maps: images) than `ENOUGH`, or of its answers on fewer answers, and of a
share only where its whole 95 % interval lies on one side of the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.audit.boxes import BoxReport
from tutored.audit.calibrate import ece
from tutored.audit.figures import Calibration, Rate
from tutored.audit.maps import MapReport
from tutored.audit.sidecar import Advice, Finding
from tutored.labels import ClassMap
from tutored.structures import BACKGROUND

ENOUGH = 20
"""Boxes, objects or images."""
ENOUGH_BLIND = 40
"""Objects or images of a class before silence means anything: the interval of 0 of 40 ends at .09."""
WRONG = 0.3
"""Precision below which a class' lessons do harm: more than two of three are wrong."""
BLIND = 0.1
"""Recall below which the tutor is blind to a class: it would teach nearly all its objects as background."""
MISCALIBRATED = 0.1
"""Expected calibration error."""


class Verdict(NamedTuple):
    findings: list[Finding]
    advice: Advice


def verdict_on_boxes(report: BoxReport, class_map: ClassMap) -> Verdict:
    """What is wrong with a tutor's boxes, by name, and what training should do about it."""
    names = class_map.target.names
    answered = {name: rate.total for name, rate in report.precision.items()}
    objects = {name: rate.total for name, rate in report.recall.items()}
    said = report.objects[:, 1:].sum(axis=0)
    enough = {
        name: objects.get(name, 0) >= ENOUGH and said[index - 1] >= ENOUGH for index, name in enumerate(names) if index
    }
    findings = _swaps(report.objects, report.swapped, report.own, enough, class_map, "objects")
    muted = _muted(report.precision, report.recall, answered, objects, report.objects, names, "boxes", "objects")
    findings += _beside(findings, muted)
    findings += _calibration(report.calibration, "boxes")
    if report.band.advised:
        where = f"boxes teach from {report.band.box_floor:.2f} on, are ignored from {report.band.ignore_floor:.2f} on"
        text = f"{where}: there they are right half of the time, and one time in ten ({report.band.why})"
    else:
        text = f"the band of scores stays at its defaults: {report.band.why}"
    findings.append(Finding(kind="band", text=text))
    findings += _few(objects, findings, "objects")
    band = (report.band.box_floor, report.band.ignore_floor) if report.band.advised else (None, None)
    return Verdict(
        findings,
        Advice(
            muted=_muted_names(findings, class_map),
            temperature=report.calibration.temperature,
            box_floor=band[0],
            ignore_floor=band[1],
        ),
    )


def verdict_on_maps(report: MapReport, class_map: ClassMap) -> Verdict:
    """The same for a tutor's maps."""
    names = class_map.target.names
    shown = {name: counts[0] for name, counts in report.images.items()}
    answered = {name: counts[1] for name, counts in report.images.items()}
    square = report.confusion[:, : len(names)]
    enough = {name: min(counts) >= ENOUGH for name, counts in report.images.items()}
    findings = _swaps(square, report.swapped, report.recall, enough, class_map, "pixels")
    muted = _muted(report.precision, report.recall, answered, shown, square, names, "pixels", "pixels")
    findings += _beside(findings, muted)
    findings += _calibration(report.calibration, "pixels")
    findings += _few({name: shown[name] for name in report.recall}, findings, "images")
    advice = Advice(muted=_muted_names(findings, class_map), temperature=report.calibration.temperature)
    return Verdict(findings, advice)


def _swaps(
    matrix: NDArray[np.int64],
    lower: NDArray[np.float64],
    own: Mapping[str, Rate],
    enough: Mapping[str, bool],
    class_map: ClassMap,
    unit: str,
) -> list[Finding]:
    """Classes that the tutor says where most is of another one, while most of their own is called otherwise.

    Args:
        matrix: true class (rows) and answer (columns).
        lower: of what is said to be each class (columns), the share that is each class (rows), its interval's lower
            end.
        own: of each class, how much is called that.
    """
    names = class_map.target.names
    findings = []
    for said in range(1, len(names)):
        name = names[said]
        true = int(lower[1:, said].argmax()) + 1
        if name not in own or true == said or not enough.get(name) or lower[true, said] <= 0.5 or own[name].high >= 0.5:
            continue
        found, total = (
            int(matrix[true, said]),
            int(matrix[1:, said].sum() if unit == "objects" else matrix[:, said].sum()),
        )
        source = [class_map.source.names[index] for index, to in enumerate(class_map.to) if to == said]
        renamed = dict.fromkeys(source, names[true])
        count = f"{found} of {total} {unit}" if unit == "objects" else f"{100 * found / total:.0f} % of its pixels"
        text = f"the tutor says {name} where the ground truth says {names[true]} ({count})"
        mends = ", ".join(f"{tutor}: {ours}" for tutor, ours in renamed.items())
        findings.append(
            Finding(kind="swap", name=name, text=f"{text}; mend it by renamed: {{{mends}}}", renamed=renamed)
        )
    return findings


def _muted(
    precision: Mapping[str, Rate],
    recall: Mapping[str, Rate],
    answered: Mapping[str, int],
    shown: Mapping[str, int],
    matrix: NDArray[np.int64],
    names: Sequence[str],
    said: str,
    there: str,
) -> list[Finding]:
    findings = []
    for name, rate in precision.items():
        if answered[name] >= ENOUGH and rate.high < WRONG:
            text = (
                f"{name}: {_percent(rate)} of its {said} are right; muted, for more than two of three would teach wrong"
            )
            findings.append(Finding(kind="wrong", name=name, text=text))
        found = recall[name]
        if shown[name] >= ENOUGH_BLIND and found.high < BLIND:
            index = names.index(name)
            others = matrix[index].copy()
            others[[BACKGROUND, index]] = 0
            instead = ""
            if others.sum() > 0.3 * matrix[index].sum():
                instead = f", most of the others are called {names[int(others.argmax())]}"
            text = f"{name}: the tutor is blind to it, it finds {_percent(found)} of its {there}{instead}; muted"
            findings.append(Finding(kind="blind", name=name, text=text))
    return findings


def _beside(swaps: Sequence[Finding], muted: Sequence[Finding]) -> list[Finding]:
    """What is not said by a swap of the same class already."""
    return [each for each in muted if each.name not in {swap.name for swap in swaps}]


def _percent(rate: Rate) -> str:
    return f"{100 * (rate.share or 0):.0f} % (at most {100 * rate.high:.0f} %, {rate.right:,} of {rate.total:,})"


def _muted_names(findings: Sequence[Finding], class_map: ClassMap) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(each.name for each in findings if each.kind in ("wrong", "blind", "swap") and each.name)
    numbers = {name: class_map.target.index(name) for name in names}
    return {
        name: tuple(class_map.source.names[index] for index, to in enumerate(class_map.to) if to == number)
        for name, number in numbers.items()
    }


def _calibration(found: Calibration, unit: Literal["boxes", "pixels"]) -> list[Finding]:
    before, after = ece(found.before), ece(found.after)
    if before is None or after is None or not found.enough:
        few = f"{found.answers} {unit} in {found.images} images are too few to speak of calibration"
        return [Finding(kind="few", text=few)]
    mended = f"temperature {found.temperature:.2f} brings it to {after:.3f}"
    if before > MISCALIBRATED:
        better = mended if found.temperature != 1 else "no temperature surely mends it"
        text = f"the tutor is {_leaning(found)} of its {unit}: calibration error {before:.3f}; {better}"
        return [Finding(kind="miscalibrated", text=text)]
    if found.temperature != 1:
        return [Finding(kind="temperature", text=f"calibration error {before:.3f} of {unit}; {mended}")]
    return [Finding(kind="calibrated", text=f"calibration error {before:.3f} of {unit}; no temperature is needed")]


def _leaning(found: Calibration) -> str:
    """Mostly too high or too low confidence is called so; else the temperature says whether it is too extreme."""
    gaps = [(each.confidence - each.right) * each.total for each in found.before]
    whole = sum(gaps)
    one_way = abs(whole) > 0.5 * sum(map(abs, gaps))
    return "too sure" if (whole > 0 if one_way else found.fitted > 1) else "not sure enough"


def _few(counts: Mapping[str, int], said: Sequence[Finding], unit: str) -> list[Finding]:
    judged = {finding.name for finding in said}
    names = [name for name, count in counts.items() if count < ENOUGH and name not in judged]
    if not names:
        return []
    return [Finding(kind="few", text=f"fewer than {ENOUGH} {unit} of {', '.join(names)}: nothing is said of them")]
