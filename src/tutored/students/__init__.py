"""Students: pictures to input, a network from input to raw outputs by task, outputs to answers. One file a student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tutored.config import StudentSection
from tutored.config.entries import STUDENTS, resolve
from tutored.errors import InputError
from tutored.students.backbone import quicken
from tutored.students.heads import DenseHead, Head, Student
from tutored.tasks import Task
from tutored.types import Prediction, SoftLabels

__all__ = ["DenseHead", "Head", "Student", "answer", "make_student", "preprocess", "soft_answer"]


def make_student(config: StudentSection, tasks: Mapping[str, Task]) -> Student:
    """The student that a section describes, with a head for each task. Raises InputError: it has no head for a task,
    see the student's own class; or a user's own student lacks a member.
    """
    student = resolve(config.kind, STUDENTS, "student")(config, tasks)
    if not isinstance(student, Student):
        raise InputError(f"student.kind {config.kind!r}: derive the class from tutored.students.Student")
    lacking = ["forward"] if type(student).forward is nn.Module.forward else []
    lacking += [] if hasattr(student, "backbone") else ["backbone"]
    lacking += [f"heads[{name!r}]" for name in tasks if name not in student.heads]
    lacking += [
        f"{type(head).__name__}.{name}"
        for head in student.heads.values()
        for name in ("assign", "decode", "soften")
        if getattr(type(head), name, None) in (None, getattr(Head, name))
    ]
    if lacking:
        raise InputError(f"student.kind {config.kind!r}: the student lacks {', '.join(lacking)}; see docs/extend.md")
    quicken(student)
    return student


def preprocess(images: Sequence[Image.Image], size: int) -> Tensor:
    """Resize to a square without keeping the aspect ratio, by PIL's bilinear filter, which averages when it shrinks.
    Returns float32 [B, 3, size, size], RGB in 0..1.
    """
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def answer(
    student: Student,
    images: Sequence[Image.Image],
    device: torch.device | str = "cpu",
    tasks: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Prediction]:
    """Predictions for pictures of any size, in their own pixels, from one forward pass in evaluation mode. Raises
    FloatingPointError: the student's training diverged, so that it answers NaN.

    Args:
        device: where the student is.
        tasks: those to answer for; None: all.
        sizes: (height, width) in whose pixels the answers are, where the pictures were shrunk before; None: their own.
    """
    sizes = sizes or [(image.height, image.width) for image in images]
    raw = student(preprocess(images, student.size).to(device))
    found = {name: _head(student, name).decode(raw[name], sizes) for name in tasks or student.tasks}
    return [
        Prediction(size, {name: each[row] for name, each in found.items() if each[row] is not None})
        for row, size in enumerate(sizes)
    ]


@torch.no_grad()
def soft_answer(
    student: Student, images: Sequence[Image.Image], device: torch.device | str, tasks: Sequence[str]
) -> list[SoftLabels]:
    """Soft labels by kind, where the student is a tutor; of each kind there may be one task. Raises as `answer`."""
    sizes = [(image.height, image.width) for image in images]
    raw = student(preprocess(images, student.size).to(device))
    found: list[Any] = [_head(student, name).soften(raw[name], sizes) for name in tasks]
    return [SoftLabels.of(size, *(each[row] for each in found)) for row, size in enumerate(sizes)]


def _head(student: Student, name: str) -> Head:
    head = student.heads[name]
    assert isinstance(head, Head)
    return head
