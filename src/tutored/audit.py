"""What a tutor's store is worth, found out before it teaches: figures, verdicts by name, advice for training.

`audit` compares the answers with ground truth, `agreement` with another tutor's. `write_sidecar` puts the audit where
training finds it, `audit.json` in the store. What is measured is each kind of task's own matter (`tasks.audit`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutored.config import TaskSection
from tutored.config.entries import TASKS
from tutored.data.training import ranks
from tutored.errors import InputError, Progress
from tutored.files import write_text
from tutored.labels import ClassMap, Elsewhere
from tutored.pages import COLOURS, Chart, in_legend, render, svg, uri
from tutored.softlabels import Remapped, Store
from tutored.softlabels.advice import Sidecar, TaskAudit, fingerprint, refuse_another_tutor, tutor_of
from tutored.tasks import Task, open_task, task_class
from tutored.tasks.audit import BLIND, ENOUGH, ENOUGH_BLIND, MISCALIBRATED, WRONG, Auditor, Judged
from tutored.types import Dataset, GroundTruth, Prediction
from tutored.visualise import draw

MOST_LINES = 8
"""Classes in one chart: those with the most answers."""
EVEN = "#8a8a8a"
NOT_IN_THE_TABLE = ("class", "bins", "curve")
"""Of the rows of classes; they are drawn."""


class Pair(NamedTuple):
    """One image: ground truth and tutor as JPEGs, how much they contradict each other, and in what."""

    image: str
    much: float
    text: str
    truth: str
    tutor: str


class Part(NamedTuple):
    """One task.

    Attributes:
        summary: see `tasks.audit.Judged`.
        class_map: how the tutor's classes become the task's, a sentence.
        pairs: the images with the largest contradictions.
    """

    name: str
    audit: TaskAudit
    summary: str
    class_map: str
    auditor: Auditor
    pairs: Sequence[Pair]

    @property
    def images(self) -> int:
        return len(self.audit.ids.splitlines())

    @property
    def columns(self) -> list[str]:
        """The figures of a class that the table shows."""
        rows = self.audit.figures["classes"]
        names = dict.fromkeys(name for row in rows for name in row)
        return [name for name in names if name not in NOT_IN_THE_TABLE and not name.endswith("_interval")]

    @property
    def charts(self) -> list[Chart]:
        """Reliability of all answers and by class; precision and recall over the threshold where there are curves."""
        figures, drawn = self.audit.figures, []
        found = figures["calibration"]
        if found["bins"]:
            lines = {"as they are": found["bins"]}
            if found["temperature"] != 1:
                lines[f"at temperature {found['temperature']:.2f}"] = found["bins_with_temperature"]
            drawn.append(_reliability(f"{self.name}: reliability", lines, bars=True))
        most = sorted(figures["classes"], key=lambda row: -row["answers"])[:MOST_LINES]
        shown = [row for row in figures["classes"] if row in most and row["bins"]]
        if shown:
            by_class = {row["class"]: row["bins"] for row in shown}
            drawn.append(_reliability(f"{self.name}: reliability by class", by_class))
        curves = {row["class"]: row["curve"] for row in shown if row.get("curve")}
        for column, what in ((1, "precision"), (2, "recall")) if curves else ():
            drawn.append(_over_score(f"{self.name}: {what} over score", curves, column, what))
        return drawn


def draw_agreement(page: Path, found: Mapping[str, Any], stores: Sequence[Path | str], data: str) -> None:
    """Write the page of an `agreement`."""
    values = {"found": found, "stores": [Path(each).resolve().name for each in stores], "data": data}
    write_text(page, render("tutored.pages", "agreement.html.j2", values))


def _reliability(title: str, lines: Mapping[str, Sequence[Sequence[float]]], *, bars: bool = False) -> Chart:
    """The share that is right over the mean confidence, of `calibrate.Bin`s by name; `bars`: with 95 % intervals."""

    def draw(panel: Any) -> None:
        panel.plot([0, 1], [0, 1], color=EVEN, linestyle="--", linewidth=1)
        for (name, bins), colour in zip(lines.items(), COLOURS, strict=False):
            x, y, low, high = ([each[column] for each in bins] for column in range(4))
            ends = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            style = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.3, "label": in_legend(name)}
            panel.errorbar(x, y, yerr=ends if bars else None, elinewidth=0.8, **style)
        panel.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))


def _over_score(title: str, lines: Mapping[str, Sequence[Sequence[float]]], column: int, what: str) -> Chart:
    """Precision (`column` 1) or recall (2) of the answers from each score on."""

    def draw(panel: Any) -> None:
        for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
            panel.plot(
                [each[0] for each in points], [each[column] for each in points], color=colour, label=in_legend(name)
            )
        panel.set(xlabel="score from which on answers count", ylabel=what, xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))


SAMPLES, LEAST, MOST = 1_000_000, 16, 512
"""Values drawn at random from dense answers: in all, and the least and the most from one image."""
SIDE, WORST = 300, 12
"""On the page: the longer side of a picture in pixels, and images of each task."""


class NothingToAuditError(InputError):
    """No image that a store answers for has ground truth of what it answers, or of a kind that can be audited."""


@dataclass(slots=True)
class Audited:
    """One task of an audit.

    Attributes:
        answers: the tutor's in the task's label space, without the advice.
        unannotated: numbers of classes that some of these are not annotated for.
        settings: keys of the task's section that shaped the answers.
    """

    auditor: Auditor
    answers: Remapped
    settings: dict[str, Any]
    seen: dict[str, Any] = field(default_factory=dict)
    truths: list[str] = field(default_factory=list)
    unannotated: set[int] = field(default_factory=set)
    judged: Judged | None = None

    @property
    def task(self) -> Task:
        return self.auditor.task

    def worst(self, count: int) -> list[tuple[str, float, str]]:
        """The images where tutor and ground truth contradict each other most: id, how much, in what."""
        assert self.judged is not None
        found = [(image_id, much, text) for image_id, (much, text) in self.judged.contradictions.items() if much > 0]
        return sorted(found, key=lambda each: (-each[1], each[0]))[:count]


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit.

    Attributes:
        sidecar: what training reads.
        notes: what was left out, a sentence each.
    """

    sidecar: Sidecar
    dataset: Dataset
    tasks: Mapping[str, Audited]
    notes: tuple[str, ...]

    @property
    def told(self) -> list[str]:
        """What was found about each task, line by line; complaints begin with `!`."""
        lines = []
        for name, task in self.sidecar.tasks.items():
            lines.append(f"audit of {name}, {len(task.ids.splitlines())} images with ground truth:")
            lines += [f"  {'! ' if finding.complaint else ''}{finding.text}" for finding in task.findings]
        return lines


def audit(
    store: Store,
    dataset: Dataset,
    sections: Mapping[str, TaskSection] | None = None,
    *,
    progress: Progress | None = None,
) -> Audit:
    """Compare a store with the ground truth of a data set's images, as far as each has any. Raises NothingToAuditError:
    no image that the store answers for has ground truth, or no task can be audited. Raises InputError: store and data
    set have no class or image in common.

    Args:
        sections: by task of the data set, how a run sees it; what is not among them is not audited. None: every kind of
            task that the store answers, with default settings. See `as_a_run_sees`.
    """
    tasks, notes = _open(store, dataset, sections)
    ids = [image_id for image_id in dataset.ids if image_id in store]
    if not ids:
        raise InputError(f"{store.path} answers for none of the {len(dataset.ids)} images of {dataset.name}")
    for done, image_id in enumerate(ids, start=1):
        _observe(tasks, dataset, image_id, done, min(MOST, max(LEAST, SAMPLES // len(ids))))
        if progress:
            progress(done, len(ids))
    fit = {image_id for image_id, place in ranks(ids, 0, "audit").items() if place < 0.5}
    audited = {name: each for name, each in tasks.items() if each.truths}
    if not audited:
        raise NothingToAuditError(
            f"{dataset.name} has no ground truth for {' or '.join(tasks)} of the {len(ids)} images that "
            f"{store.path} answers for; --against OTHER_STORE compares it with another tutor instead"
        )
    for each in audited.values():
        each.judged = each.auditor.judge(each.seen, each.truths, fit, each.answers.class_map)
    parts = {name: _part(each, dataset) for name, each in audited.items()}
    sidecar = Sidecar(store=fingerprint(store), tutor=tutor_of(store), tasks=parts)
    return Audit(sidecar, dataset, audited, tuple(notes))


def as_a_run_sees(
    store: Store, sections: Mapping[str, TaskSection], renamed: Mapping[str, str | None]
) -> dict[str, TaskSection]:
    """How a run sees a store: the sections of the tasks that read it, or else of all that it could teach, and what
    else is to be `renamed` in all of them.
    """
    own = {name: each for name, each in sections.items() if store.path.resolve() in [p.resolve() for p in each.stores]}
    found = {}
    for name, section in (own or sections).items():
        if store.teaches(task_class(section.kind)):
            several, given = len(section.stores) > 1, getattr(section, "renamed", {})
            here = {theirs: ours for theirs, ours in given.items() if not several or theirs in store.labels.names}
            found[name] = section.model_copy(update={"renamed": here | dict(renamed)})
    return found


def _open(
    store: Store, dataset: Dataset, sections: Mapping[str, TaskSection] | None
) -> tuple[dict[str, Audited], list[str]]:
    """The tasks to audit, and why others can't be."""
    if sections is None:
        sections = {kind: task_class(kind).Section(kind=kind) for kind in dataset.labels}
    found, notes = {}, []
    for name, section in sections.items():
        if name in dataset.labels and store.teaches(task_class(section.kind)):
            try:
                auditor = open_task(name, dataset.labels[name], section).auditor()
            except InputError as error:
                notes.append(str(error))
                continue
            renamed: Mapping[str, str | None] | None = getattr(section, "renamed", None)
            elsewhere: Elsewhere = getattr(section, "elsewhere", "background")
            class_map = ClassMap.by_name(store.labels, auditor.task.labels, renamed=renamed, elsewhere=elsewhere)
            found[name] = Audited(auditor, Remapped(store, class_map, auditor.task), {"elsewhere": elsewhere})
    if not found:
        raise NothingToAuditError(
            "; ".join(notes)
            or f"{dataset.name} has {' and '.join(dataset.labels) or 'no task'}, and {store.path} answers "
            f"{' and '.join(store.kinds)}; give data with ground truth of what the store answers"
        )
    return found, notes


def _observe(tasks: Mapping[str, Audited], dataset: Dataset, image_id: str, number: int, samples: int) -> None:
    truth = dataset.ground_truth(image_id)
    for name, task in tasks.items():
        if image_id not in task.answers:
            continue
        answer, own = task.answers[image_id], truth.tasks.get(name)
        if truth.size != answer.size:
            raise InputError(
                f"{dataset.name}: image {image_id} has {truth.size[1]} x {truth.size[0]} pixels, the tutor saw "
                f"{answer.size[1]} x {answer.size[0]}; label these very images"
            )
        if not task.seen:
            task.settings |= task.auditor.settings(task.answers.store[image_id].tasks)
        (soft,) = answer.tasks.values()
        rng = np.random.default_rng([0, number])
        task.seen[image_id] = task.auditor.observe(own, soft, truth.size, rng, samples)
        if own is not None:
            task.truths.append(image_id)
            if getattr(own, "annotated", None) is not None:
                task.unannotated |= {*range(1, len(dataset.labels[name]))}.difference(own.annotated)


def _part(found: Audited, dataset: Dataset) -> TaskAudit:
    assert found.judged is not None
    judged, names = found.judged, found.task.labels.names
    return TaskAudit(
        kind=found.task.kind,
        data=dataset.source,
        split=dataset.split,
        renamed=dict(getattr(found.task.section, "renamed", {})),
        settings=found.settings,
        unannotated=tuple(names[number] for number in sorted(found.unannotated)),
        ids="\n".join(sorted(found.truths)),
        figures=_plain(judged.figures),
        findings=judged.findings,
        advice=judged.advice,
    )


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it, numbers to five places: further digits differ between machines."""
    found: dict[str, Any] = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 5))
    return found


def stores_for(paths: Sequence[Path], tutor: Mapping[str, Any]) -> list[Store]:
    """Open further stores that an audit is to be written into. Raises InputError where another tutor answered."""
    found = [Store.open(path) for path in paths]
    for each in found:
        refuse_another_tutor(each, tutor)
    return found


def write_page(found: Audit, page: Path, *, photos: bool = False, worst: int = WORST) -> None:
    """Write the page of an audit; the same audit gives the same bytes.

    Args:
        photos: draw on the photographs; else on a plain ground.
        worst: images of each task where tutor and ground truth contradict each other most.
    """
    parts, stores = [], {each.answers.store.path.resolve().name for each in found.tasks.values()}
    for name, each in found.tasks.items():
        assert each.judged is not None
        pairs = [_pair(found.dataset, each, *these, photos=photos) for these in each.worst(worst)]
        text = each.answers.class_map.describe()
        parts.append(Part(name, found.sidecar.tasks[name], each.judged.summary, text, each.auditor, pairs))
    limits = {"few": ENOUGH, "blind_few": ENOUGH_BLIND, "wrong": WRONG, "blind": BLIND, "ece": MISCALIBRATED}
    values = {"store": stores.pop(), "tutor": found.sidecar.tutor, "parts": parts, "photos": photos, "limits": limits}
    write_text(page, render("tutored.pages", "audit.html.j2", values))


def _pair(dataset: Dataset, found: Audited, image_id: str, much: float, text: str, *, photos: bool) -> Pair:
    assert found.judged is not None
    task, advice, truth = found.task, found.judged.advice, dataset.ground_truth(image_id)
    answers = Remapped(found.answers.store, found.answers.class_map, task, temperature=advice.temperature)
    (answer,) = answers[image_id].tasks.values()
    confident = found.auditor.confident(task.final(answer, truth.size), advice)
    shown = (
        GroundTruth(truth.size, {task.name: truth.tasks[task.name]}),
        Prediction(truth.size, {task.name: confident}),
    )
    photo = dataset.image(image_id) if photos else None
    return Pair(image_id, much, text, *(uri(draw(photo, each, {task.name: task}, at_most=SIDE)) for each in shown))


def agreement(one: Store, other: Store, dataset: Dataset, progress: Progress | None = None) -> dict[str, Any]:
    """How far two tutors agree, class by class, on the kinds of task that both answer.

    Only classes that both know are compared, in the data set's label space, or the first tutor's where it has none.
    Raises InputError: the stores have no task, class or image in common, or none of the tasks can be compared. Returns
    JSON-ready: `images`, `notes`, and by kind in `tasks`: `classes`, a `summary`, and `Agreed`.
    """
    kinds = [kind for kind in TASKS if one.teaches(task_class(kind)) and other.teaches(task_class(kind))]
    ids = [each for each in dataset.ids if each in one and each in other]
    if not kinds or not ids:
        raise InputError(
            f"{one.path} and {other.path} have no {'image of the split' if kinds else 'task'} in common; "
            "give two stores that answer the same task for the same images"
        )
    tasks, notes = {}, []
    for turn, kind in enumerate(kinds):
        labels = dataset.labels.get(kind)
        try:
            auditor = open_task(
                kind, labels if labels and labels.classes else one.labels, task_class(kind).Section(kind=kind)
            ).auditor()
        except InputError as error:
            notes.append(str(error))
            continue
        first, second = (
            Remapped(each, ClassMap.by_name(each.labels, auditor.task.labels), auditor.task) for each in (one, other)
        )
        both = sorted({to for to in first.class_map.to if to} & {*second.class_map.to})
        if not both:
            raise InputError(f"{one.path} and {other.path} have no class in common; give tutors that share classes")
        compared = []
        for done, image_id in enumerate(ids, start=1):
            if image_id in first and image_id in second:
                size, (mine,), (theirs,) = one[image_id].size, *(e[image_id].tasks.values() for e in (first, second))
                compared.append(auditor.compare(mine, theirs, size))
            if progress:
                progress(turn * len(ids) + done, len(kinds) * len(ids))
        if compared:
            found = _plain(auditor.agree(compared, both)._asdict())
            value = "unknown" if found["value"] is None else f"{found['value']:.3f}"
            summary = f"{found['figure']} {value}, {found['meaning']}"
            tasks[kind] = {"classes": [auditor.task.labels.names[to] for to in both], "summary": summary, **found}
    if not tasks:
        raise InputError("; ".join(notes) or f"{one.path} and {other.path} answer no task for the same image")
    return {"images": len(ids), "notes": notes, "tasks": tasks}
