"""What an audit of any kind of task is made of: what an auditor does, and verdicts on classes.

Nothing is said about a class with fewer than `ENOUGH` objects (of maps: images), or about its answers if there are
fewer, and nothing about a share unless its whole 95 % interval lies on one side of the threshold.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from tutored.labels import ClassMap, same_class
from tutored.section import Section
from tutored.tasks.calibrate import Answers, Bools, Calibration, Floats, Ints, Rate, calibrate, ece, reliability
from tutored.tasks.task import Task
from tutored.types import BACKGROUND, Size

ENOUGH = 20
"""Boxes, objects or images."""
ENOUGH_BLIND = 40
"""Objects or images of a class before silence means anything: the interval of 0 of 40 ends at .09."""
WRONG = 0.3
"""Precision below which a class teaches more harm than good: more than two of three answers are wrong."""
BLIND = 0.1
"""Recall below which the tutor is blind to a class: it would teach nearly all its objects as background."""
MISCALIBRATED = 0.1
"""Expected calibration error."""


class Finding(Section):
    """A sentence about a tutor.

    Attributes:
        kind: `swap`, `wrong`, `blind` and `miscalibrated` are complaints.
        name: our name of the class it is about.
        renamed: what corrects a swap: the tutor's class and ours.
    """

    kind: Literal["swap", "wrong", "blind", "miscalibrated", "temperature", "calibrated", "band", "few"]
    text: str
    name: str | None = None
    renamed: dict[str, str] = Field(default_factory=dict)

    @property
    def complaint(self) -> bool:
        return self.kind in ("swap", "wrong", "blind", "miscalibrated")


class Advice(Section):
    """What training takes from the audit of one task.

    Attributes:
        muted: our classes that the tutor should not teach, each with the tutor's classes that become it.
        temperature: p^(1/T) of the tutor's probabilities is calibrated; 1 where nothing is to be done.
        band: keys of the task's section with the values to train with, after the temperature, where the config leaves
            all of them at their defaults.
    """

    muted: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    temperature: float = 1.0
    band: dict[str, float] = Field(default_factory=dict)

    def muted_in(self, class_map: ClassMap) -> tuple[int, ...]:
        """Classes of `class_map.target` to mute, without those that the tutor's classes were renamed away from."""
        numbers = set()
        for name, sources in self.muted.items():
            number = same_class(name, class_map.target)
            if number is not None and number in {class_map.to[class_map.source.index(source)] for source in sources}:
                numbers.add(number)
        return tuple(sorted(numbers))


class Judged(NamedTuple):
    """What the ground truth says about a tutor.

    Attributes:
        figures: JSON-ready: `classes`, a row a class (`class`, counts and figures under the names that a table shows,
            `..._interval`, `ece`, `answers`, `bins`, and `curve`: threshold, precision, recall), `calibration`
            (`Calibration`), `coverage`, and figures of the kind's own.
        summary: the figures over all classes, in a sentence or two.
        contradictions: by image, how much tutor and ground truth contradict each other (0: not at all), and in what.
    """

    figures: dict[str, Any]
    summary: str
    findings: tuple[Finding, ...]
    advice: Advice
    contradictions: dict[str, tuple[float, str]]


class Agreed(NamedTuple):
    """How far two tutors agree, JSON-ready: a figure over all classes (None: unknown), what it means, a row a class."""

    figure: str
    value: float | None
    meaning: str
    rows: list[dict[str, Any]]


class Confusion(NamedTuple):
    """Objects (of maps: pixels) by image, true class and answer; int64 [N] each."""

    image: Ints
    true: Ints
    answer: Ints
    number: Ints

    def rate(self, right: Bools, of: Bools) -> Rate:
        """The share of some entries among others."""
        size = int(self.image.max(initial=0)) + 1
        return Rate.of(*(np.bincount(self.image[each], self.number[each], minlength=size) for each in (right & of, of)))


class ClassFigures(NamedTuple):
    """What is known about a tutor's answers for one class.

    Attributes:
        precision: of its answers, those that are right.
        recall: of its objects (of maps: pixels), those that are found.
        there: its objects, or the images that show it.
        answered: answers of it, or the images in which it is answered.
        calls: objects that are called by its name, or the same images.
        own: figures of the kind's own for its row.
        sure, right: of each of its answers the confidence, and whether it is right; [N].
    """

    precision: Rate
    recall: Rate
    there: int
    answered: int
    calls: int
    own: dict[str, Any]
    sure: Floats
    right: Bools


class Measured(NamedTuple):
    """What a kind of task measures after the temperature; see `Judged`, and `Advice` for `band`.

    Attributes:
        classes: by number of the class, of the classes that the tutor knows; background may be among them.
        confusion: what each object, or pixel, is called.
    """

    classes: dict[int, ClassFigures]
    confusion: Confusion
    figures: dict[str, Any]
    summary: str
    findings: list[Finding]
    band: dict[str, float]


class Auditor(ABC):
    """Compares a tutor's answers for one task, which are classes, with ground truth, or with another tutor's.

    Attributes:
        unit: what calibration is about, in the plural.
        table: what the columns of the table of classes mean.
        order: what makes a contradiction large.
        words: how verdicts speak of its answers, of what is to be found, and of what is counted.
        floor: the smallest probability that a store can tell from 0.
    """

    unit: ClassVar[str]
    table: ClassVar[str]
    order: ClassVar[str]
    words: ClassVar[tuple[str, str, str]]
    floor: ClassVar[float]

    def __init__(self, task: Task) -> None:
        self.task = task

    def settings(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of the task's section, with their values, that shaped its answer from these of a store, by kind."""
        return {}

    @abstractmethod
    def observe(self, truth: Any | None, answer: Any, size: Size, rng: np.random.Generator, samples: int) -> Any:
        """What an annotation, or None, and an answer in the task's label space tell: a few kilobytes.

        From a dense answer, `samples` values may be drawn at random.
        """

    @abstractmethod
    def answers(self, found: Any) -> Answers:
        """Distributions whose confidence is calibrated, from what one image tells."""

    @abstractmethod
    def figures(
        self, images: Sequence[Any], every: Sequence[Any], temperature: float, known: Sequence[int]
    ) -> Measured:
        """Args: images: what those with ground truth tell. every: what all tell. known: classes of the tutor's."""

    @abstractmethod
    def contradiction(
        self, found: Any, temperature: float, band: Mapping[str, float], known: Sequence[int]
    ) -> tuple[float, str]:
        """See `Judged.contradictions`."""

    def confident(self, prediction: Any, advice: Advice) -> Any:
        """The part of a final answer that would teach."""
        return prediction

    @abstractmethod
    def compare(self, one: Any, other: Any, size: Size) -> Any:
        """What one image tells about two tutors' answers in the task's label space."""

    @abstractmethod
    def agree(self, compared: Sequence[Any], classes: Sequence[int]) -> Agreed:
        """How far two tutors agree on the classes that both know, from what `compare` returned."""

    def judge(self, seen: Mapping[str, Any], truths: Collection[str], fit: Collection[str], to: ClassMap) -> Judged:
        """The verdict.

        Args:
            seen: what `observe` returned, by image.
            truths: images with ground truth.
            fit: images that a temperature is fitted on; calibration is reported on the others.
            to: how the tutor's classes became the task's.
        """
        ids, known, names = sorted(truths), sorted({number for number in to.to if number}), to.target.names
        fitted, others = (
            [self.answers(seen[each]) for each in ids if (each in fit) == first] for first in (True, False)
        )
        calibration = calibrate(fitted, others, self.floor)
        found = self.figures([seen[each] for each in ids], [*seen.values()], calibration.temperature, known)
        findings = self._verdicts({number: found.classes[number] for number in known}, found.confusion, to)
        findings += [calibration_finding(calibration, self.words[0]), *found.findings]
        judged = {finding.name for finding in findings}
        few = {names[number]: found.classes[number] for number in known if found.classes[number].there < ENOUGH}
        findings += self._uncertain({name: each for name, each in few.items() if name not in judged})
        figures = {
            "classes": [_row(names[number], each) for number, each in found.classes.items()],
            **found.figures,
            "calibration": calibration._asdict(),
        }
        muted = {each.name for each in findings if each.kind in ("wrong", "blind", "swap") and each.name}
        advice = Advice(
            muted={names[number]: _sources(number, to) for number in known if names[number] in muted},
            temperature=calibration.temperature,
            band=found.band,
        )
        contradictions = {
            each: self.contradiction(seen[each], calibration.temperature, found.band, known) for each in ids
        }
        return Judged(figures, found.summary, tuple(findings), advice, contradictions)

    def _verdicts(self, classes: Mapping[int, ClassFigures], confusion: Confusion, to: ClassMap) -> list[Finding]:
        swaps = [each for number in classes if (each := self._swap(number, classes[number], confusion, to))]
        swapped = {each.name for each in swaps}
        useless = [each for number in classes for each in self._useless(number, classes[number], confusion, to)]
        return swaps + [each for each in useless if each.name not in swapped]

    def _swap(self, number: int, found: ClassFigures, confusion: Confusion, to: ClassMap) -> Finding | None:
        """The tutor answers a class where most is another one, while most of the class is called otherwise."""
        names, called = to.target.names, confusion.answer == number
        counts = np.bincount(confusion.true[called], confusion.number[called], minlength=len(names))
        other = int(counts[1:].argmax()) + 1
        if other == number or min(found.there, found.calls) < ENOUGH:
            return None
        own = confusion.rate(called, confusion.true == number)
        if confusion.rate(confusion.true == other, called).low <= 0.5 or own.high >= 0.5:
            return None
        sources = _sources(number, to)
        count = f"{int(counts[other]):,} of {int(counts.sum()):,} {self.words[1]}"
        text = f"the tutor answers {names[number]} where the ground truth has {names[other]} ({count})"
        remedy = ", ".join(f"{source}: {names[other]}" for source in sources)
        return Finding(
            kind="swap",
            name=names[number],
            text=f"{text}; to correct it, set renamed: {{{remedy}}}",
            renamed=dict.fromkeys(sources, names[other]),
        )

    def _useless(self, number: int, found: ClassFigures, confusion: Confusion, to: ClassMap) -> list[Finding]:
        """The tutor's answers of a class are mostly wrong, or it hardly ever finds the class."""
        name, findings = to.target.names[number], []
        if found.answered >= ENOUGH and found.precision.high < WRONG:
            text = f"{name}: {_percent(found.precision)} of its {self.words[0]} are right"
            findings.append(Finding(kind="wrong", name=name, text=f"{text}; muted, most of them would teach wrong"))
        if found.there >= ENOUGH_BLIND and found.recall.high < BLIND:
            true = confusion.true == number
            counts = np.bincount(confusion.answer[true], confusion.number[true], minlength=len(to.target))
            total, counts, instead = counts.sum(), counts[: len(to.target)], ""
            counts[[BACKGROUND, number]] = 0
            if counts.sum() > 0.3 * total:
                instead = f", most of the others are called {to.target.names[int(counts.argmax())]}"
            text = (
                f"{name}: the tutor is blind to it, it finds {_percent(found.recall)} of its {self.words[1]}{instead}"
            )
            findings.append(Finding(kind="blind", name=name, text=f"{text}; muted"))
        return findings

    def _uncertain(self, few: Mapping[str, ClassFigures]) -> list[Finding]:
        """What little is known about classes of which there is too little for a verdict."""
        seen = {name: each for name, each in few.items() if each.there or each.answered}
        told = [
            f"{name} ({_range(each.precision)} of its {self.words[0]} are right, {_range(each.recall)} of its "
            f"{self.words[1]} are found)"
            for name, each in seen.items()
        ]
        texts = [f"uncertain, with fewer than {ENOUGH} {self.words[2]}: {', '.join(told)}"] * bool(told)
        if absent := [name for name in few if name not in seen]:
            texts.append(f"neither in the ground truth nor answered: {', '.join(absent)}")
        return [Finding(kind="few", text=text) for text in texts]


def _sources(number: int, to: ClassMap) -> tuple[str, ...]:
    """The tutor's classes that become one of ours."""
    return tuple(name for name, target in zip(to.source.names, to.to, strict=True) if target == number)


def _percent(rate: Rate) -> str:
    return f"{100 * (rate.share or 0):.0f} % (at most {100 * rate.high:.0f} %, {rate.right:,} of {rate.total:,})"


def _range(rate: Rate) -> str:
    return f"{100 * rate.low:.0f} to {100 * rate.high:.0f} %"


def _row(name: str, found: ClassFigures) -> dict[str, Any]:
    bins = reliability(found.sure, found.right)
    return {
        "class": name,
        **found.own,
        "precision": found.precision.share,
        "recall": found.recall.share,
        "ece": ece(bins),
        "answers": len(found.sure),
        "bins": bins,
    }


def calibration_finding(found: Calibration, unit: str) -> Finding:
    """Whether a tutor is as sure as it is right."""
    before, after = found.ece, found.ece_with_temperature
    if before is None or after is None or not found.enough:
        few = f"{found.answers} {unit} in {found.images} images are too few to speak of calibration"
        return Finding(kind="few", text=few)
    remedy = f"temperature {found.temperature:.2f} brings it to {after:.3f}"
    if before > MISCALIBRATED:
        gaps = [(each.confidence - each.right) * each.total for each in found.bins]
        # Where confidence is off both ways, the temperature tells whether it is too extreme.
        sure = sum(gaps) > 0 if abs(sum(gaps)) > 0.5 * sum(map(abs, gaps)) else found.fitted_temperature > 1
        better = remedy if found.temperature != 1 else "no temperature surely improves it"
        text = f"the tutor is {'too sure' if sure else 'not sure enough'} of its {unit}: calibration error {before:.3f}"
        return Finding(kind="miscalibrated", text=f"{text}; {better}")
    if found.temperature != 1:
        return Finding(kind="temperature", text=f"calibration error {before:.3f} of {unit}; {remedy}")
    return Finding(kind="calibrated", text=f"calibration error {before:.3f} of {unit}; no temperature is needed")
