"""The network that is exported: a student whose outputs need no code of ours, with final answers where asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tutored.errors import InputError
from tutored.students import Student
from tutored.tasks import DenseTask
from tutored.tasks.detection.decode import BoxExport
from tutored.tasks.instances import InstanceSegmentation
from tutored.tasks.instances.onnx import InstanceExport


class Options(NamedTuple):
    """What an exported network does beyond giving raw outputs.

    Attributes:
        nms: final boxes in the place of all candidates.
        mask: final maps of the S x S input, such as the class of each pixel, in the place of raw ones.
        half: computes in float16; inputs and outputs stay float32.
    """

    nms: bool = False
    mask: bool = False
    half: bool = False


class MapExport:
    """One dense task of an exported student; members as those of `BoxExport`."""

    option: ClassVar[str] = "mask"
    gives: ClassVar[str] = "maps"
    most_apart: ClassVar[tuple[float, float]] = (1e-4, 1e-2)

    def __init__(self, task: DenseTask, side: int) -> None:
        self.task, self.side = task, side
        self.facts = task.facts
        name, _, meaning = task.onnx(torch.zeros(1, task.channels, 1, 1), side)
        self.meanings = {"map": "on a grid over the whole input, as the head gives it (classes: logits)", name: meaning}

    def raw(self, raw: Tensor) -> dict[str, Tensor]:
        return {"map": raw.float()}

    def final(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        name, value, _ = self.task.onnx(raw["map"], self.side)
        return {name: value}

    def apart(self, final: Mapping[str, Tensor], raw: Mapping[str, Tensor], tolerance: float) -> tuple[int, int]:
        ((name, want),) = self.final(raw).items()
        bound = tolerance * max(1.0, float(want.abs().max())) if want.is_floating_point() else 0
        return int(((final[name].double() - want.double()).abs() > bound).sum()), want.numel()


class Network(nn.Module):
    """A student's copy that answers as its exported file does: float32 [B, 3, S, S] to the outputs `names`.

    Attributes:
        exports: by task.
        names: of the outputs, `{task}_{name}`, with type, shape and meaning of each.

    Raises:
        InputError: a task can't be exported, or an option asks for answers that no task gives.
    """

    def __init__(self, student: Student, tasks: Sequence[str], options: Options) -> None:
        super().__init__()
        self.student = deepcopy(student).to(memory_format=torch.contiguous_format).eval()
        self.options, self.size = options, student.size
        self.exports = {name: _export(self.student, name) for name in tasks}
        for export in (BoxExport, MapExport):
            if getattr(options, export.option) and not any(isinstance(each, export) for each in self.exports.values()):
                raise InputError(f"no task that was taught gives {export.gives}; export it without {export.option}")
        if options.half:
            # What is no weight, such as anchors, stays: float16 has steps of a quarter of a pixel from 256 on.
            weights = self.student.state_dict()
            fixed = {name: each for name, each in self.student.named_buffers() if name not in weights}
            self.student.half()
            for name, each in fixed.items():
                place, _, leaf = name.rpartition(".")
                setattr(self.student.get_submodule(place), leaf, each)
        with torch.no_grad():
            found = self.answers(torch.zeros(1, 3, self.size, self.size))
        self.names = {
            f"{task}_{name}": f"{str(value.dtype)[6:]} {['B', *value.shape[1:]]}: {self.exports[task].meanings[name]}"
            for task, values in found.items()
            for name, value in values.items()
        }

    def is_final(self, task: str) -> bool:
        """Whether a task has final outputs in the place of raw ones."""
        return bool(getattr(self.options, self.exports[task].option))

    def answers(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        """The outputs by task and name."""
        raw = self.student(images.half() if self.options.half else images)
        found = {task: export.raw(raw[task]) for task, export in self.exports.items()}
        return {
            task: self.exports[task].final(values) if self.is_final(task) else values for task, values in found.items()
        }

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for values in self.answers(images).values() for value in values.values())


def _export(student: Student, task: str) -> BoxExport | MapExport:
    head: Any = student.heads[task]
    if isinstance(head.task, InstanceSegmentation):
        return InstanceExport(head, student.size)
    if hasattr(head, "boxes_and_probs"):
        return BoxExport(head, student.size)
    if isinstance(head.task, DenseTask):
        return MapExport(head.task, student.size)
    raise InputError(f"the task {task}: answers of kind {head.task.kind} can't be exported yet")
