"""The config that `tutored init` writes, with the meaning of every key above it, from the code's own docstrings."""

from __future__ import annotations

import ast
import inspect
import shlex
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import yaml
from pydantic import BaseModel

from tutored.config import Data, Student, Train
from tutored.init.layout import Layout

STORES = {"detection": "stores/boxes", "segmentation": "stores/maps"}
NOUNS = {"detection": "boxes", "segmentation": "masks"}
WIDTH = 100


def config_text(layout: Layout, drawn: Mapping[str, int], images: int) -> str:
    """YAML that `tutored train` takes as it is, as long as somebody teaches something.

    Args:
        drawn: by task, how many of the training split's `images` have something drawn for it.
    """
    data: dict[str, Any] = {"train": layout.data, "split": layout.train}
    if not any(drawn.values()):
        data |= {"classes": ["cat", "dog"], "val_split": None}
    elif layout.val:
        data |= {"val_split": layout.val}
    else:
        data |= {"held_out": 0.2}
    parts = [
        f"# Written by `tutored init`, which found {layout.what}.\n"
        "# Train with it: tutored train THIS_FILE --out runs/first. Any key can be set there, too: --train.epochs 80.\n"
        "# All other keys and their defaults: tutored's documentation, or config.yaml in the folder of a run.",
        _section(
            "data", Data, data, {"classes": "Put in yours: those of the tutor's classes that the student shall learn."}
        ),
        "\n".join(["supervision:", *(_task(task, layout, drawn[task], images, any(drawn.values())) for task in drawn)]),
        _section(
            "student",
            Student,
            {"preset": "light", "weights": None},
            {"weights": "Pretrained weights are worth much, above all with few images: `timm`, with backbone_lr 0.1."},
        ),
        _section(
            "train",
            Train,
            {"epochs": 40, "batch": 8 if images < 500 else 16, "lr": 0.003, "backbone_lr": 1.0},
            {"backbone_lr": "1: the backbone learns like the rest, for it begins with random weights."},
        ),
    ]
    return "\n\n".join(parts) + "\n"


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """The docstring beneath each key."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(made, ast.ClassDef)
    return {
        key.target.id: " ".join(str(below.value.value).split())
        for key, below in pairwise(made.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def label_command(task: str, layout: Layout) -> str:
    """How a tutor is asked for what is missing."""
    kind = {
        "detection": "onnx --weights DETECTOR.onnx",
        "segmentation": "torchvision --model deeplabv3_resnet101 --weights WEIGHTS",
    }
    data, split = shlex.quote(layout.data), shlex.quote(layout.train)
    return f"tutored label {kind[task]} --data {data} --split {split} --out {STORES[task]}"


def _section(name: str, section: type[BaseModel], values: Mapping[str, Any], more: Mapping[str, str]) -> str:
    about = meanings(section)
    lines = [f"{name}:"]
    for key, value in values.items():
        lines += [*_comment(f"{about[key]} {more.get(key, '')}"), f"  {key}: {_yaml(value)}"]
    return "\n".join(lines)


def _task(task: str, layout: Layout, drawn: int, images: int, anything: bool) -> str:
    noun, store = NOUNS[task], STORES[task]
    fill = [
        f"    policy: fill          # {noun} of your own where there are some, a tutor's elsewhere",
        f"    store: {store}",
    ]
    if drawn == images:
        return f"  # All {images} training images have {noun}.\n  {task}:\n    policy: ground_truth"
    missing = f"{drawn} of {images} training images have {noun}." if drawn else f"No training image has {noun}."
    ask = "A tutor that knows your classes can answer for the others, once, before training:"
    lines = [*_comment(f"{missing} {ask}"), f"  #   {label_command(task, layout)}"]
    if not anything:
        return "\n".join([*lines, f"  {task}:", *fill])
    policy = (
        "ground_truth  # images without are not taught this task" if drawn else "none          # the task is not learnt"
    )
    off = "    # Then, instead of the line above:"
    return "\n".join(
        [*lines, f"  {task}:", f"    policy: {policy}", off, *(line.replace("    ", "    # ", 1) for line in fill)]
    )


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text.strip(), WIDTH, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]
