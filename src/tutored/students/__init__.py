"""Students: pictures to input, a network from input to raw outputs by task, outputs to answers. One file a student."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tutored.config import StudentSection
from tutored.config.entries import STUDENTS, resolve
from tutored.errors import InputError, needing
from tutored.files import regular
from tutored.labels import LabelSpace
from tutored.students.backbone import fold, quicken
from tutored.students.heads import DenseHead, Head, Student
from tutored.tasks import Task, open_task, task_class
from tutored.types import Prediction, Size, SoftLabels

__all__ = ["DenseHead", "Head", "Student", "answer", "make_student", "prepare", "preprocess", "soft_answer"]

Precision = Literal["fp32", "bf16"]
"""Of a network's passes; weights, and what becomes of the outputs, stay in float32."""


class Exported(Student):
    """Raw outputs of a task are those of the file, by the name behind `{task}_`. Raises InputError: onnxruntime is
    missing, the file can't be read, or `tutored export` did not write it.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        with needing("exported files need", "onnx"):
            import onnxruntime
        try:
            providers = ["CPUExecutionProvider"] if device.type == "cpu" else onnxruntime.get_available_providers()
            session = onnxruntime.InferenceSession(str(regular(path)), providers=providers)
            about = session.get_modelmeta().custom_metadata_map
            side = int(session.get_inputs()[0].shape[2])
            tasks = {name: _task(name, **facts) for name, facts in json.loads(about["tasks"]).items()}
            outputs = {
                output.name: max((name for name in tasks if output.name.startswith(f"{name}_")), key=len)
                for output in session.get_outputs()
            }
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise InputError(
                f"{path}: no student that `tutored export` wrote ({type(error).__name__}: {error}); another network "
                "can be a tutor, see docs/tutors.md"
            ) from error
        super().__init__(StudentSection(kind="exported", size=side), tasks)
        self.session, self.outputs = session, outputs
        self.heads.update({name: _ExportedHead(task, side) for name, task in tasks.items()})
        self.scores |= json.loads(about["scores"])

    def forward(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        values = self.session.run(list(self.outputs), {"images": images.cpu().numpy()})
        raw: dict[str, dict[str, Tensor]] = {name: {} for name in self.tasks}
        for (output, task), value in zip(self.outputs.items(), values, strict=True):
            raw[task][output.removeprefix(f"{task}_")] = torch.from_numpy(value)
        return raw


class _ExportedHead(Head):
    def __init__(self, task: Task, side: int) -> None:
        super().__init__(task, {})
        self.side = side

    def decode(self, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Any]:
        return self.task.from_file(raw, sizes, self.side)


def _task(name: str, kind: str, names: Sequence[str], **section: Any) -> Task:
    return open_task(name, LabelSpace(tuple(names)), task_class(kind).Section(kind=kind, **section))


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


def prepare(student: Student, device: torch.device, precision: Precision = "fp32") -> Student:
    """The student as it answers soonest: on a device, in evaluation mode, norms folded, its passes in a precision."""
    fold(student.to(device).eval())
    if precision == "bf16":
        student.forward = torch.autocast(device.type, torch.bfloat16)(student.forward)
    return student


def preprocess(images: Sequence[Image.Image], size: int) -> Tensor:
    """Resize to a square without keeping the aspect ratio, by PIL's bilinear filter, which averages when it shrinks.
    Returns float32 [B, 3, size, size], RGB in 0..1.
    """
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float().div_(255)


@torch.no_grad()
def answer(
    student: Student,
    images: Sequence[Image.Image],
    device: torch.device | str = "cpu",
    tasks: Sequence[str] | None = None,
    sizes: Sequence[Size] | None = None,
) -> list[Prediction]:
    """Predictions for pictures of any size, in their own pixels, from one forward pass in evaluation mode. Raises
    FloatingPointError: the student's training diverged, so that it answers NaN.

    Args:
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
