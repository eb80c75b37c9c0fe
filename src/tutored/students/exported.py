"""A student from the ONNX file that `tutored export` wrote: it answers as a checkpoint does, and can't learn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutored.config import StudentSection
from tutored.errors import InputError
from tutored.files import regular
from tutored.labels import LabelSpace
from tutored.students.heads import Head, Student
from tutored.tasks import Task, open_task, task_class
from tutored.tasks.task import Size


class Exported(Student):
    """Raw outputs of a task are those of the file, by the name behind `{task}_`. Raises InputError: onnxruntime is
    missing, the file can't be read, or `tutored export` did not write it.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("exported files need onnxruntime; run `pip install 'tutored[onnx]'`") from error
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
