"""A student of one's own in one file: three convolutions, and a map for every dense task.

    student: {kind: "tiny_student:Tiny", size: 64, width: 16}

A student is a module from images to raw outputs by task, with a head for each task. `DenseHead` brings targets, loss
and decoding of any dense task; `students/anchors.py` has a head for boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from tutored.config import StudentSection
from tutored.errors import InputError
from tutored.students import DenseHead, Student
from tutored.tasks import DenseTask, Task


class TinySection(StudentSection):
    """The config keys of the section `student`."""

    width: int = 16
    """Channels."""


class MapOf(nn.Module):
    """A 1x1 convolution. The layer whose outputs are classes is called `logits`."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.logits(features)
        return found


class Tiny(Student):
    """A map of stride 8."""

    Section: ClassVar[type[StudentSection]] = TinySection

    def __init__(self, config: TinySection, tasks: Mapping[str, Task]) -> None:
        super().__init__(config, tasks)
        steps = [(3, config.width), (config.width, config.width), (config.width, config.width)]
        self.backbone = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in steps)
        )
        for name, task in tasks.items():
            if not isinstance(task, DenseTask):
                raise InputError(
                    f"tasks.{name}: the student tiny has no head for kind {task.kind}; possible: any dense kind"
                )
            self.heads[name] = DenseHead(task, MapOf(config.width, task.channels), grid=-(-config.size // 8))

    def forward(self, images: Tensor) -> dict[str, Any]:
        features = self.backbone(self.checked(images))
        return {name: head(features) for name, head in self.heads.items()}
