"""What all students are made of: heads, each one task with its loss, over a shared network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tutored.config import StudentSection
from tutored.errors import InputError
from tutored.losses import Term
from tutored.tasks import DenseTask, Task
from tutored.tasks.task import Size


class Head(nn.Module):
    """One task of one student: raw outputs from features, what they learn, their loss terms, and answers.

    Attributes:
        task: what it answers.
        grid: cells along one side of the map for which the task's targets are made; 0 for a head without a map.
        terms: of its loss; an entry more is a term more.
        by_class: beginnings of the names of its parameters whose first axis is [n x classes] of the label space, by
            which a training that starts from another student takes over what it knows of each class.
    """

    by_class: tuple[str, ...] = ()

    def __init__(self, task: Task, terms: Mapping[str, Term], grid: int = 0) -> None:
        super().__init__()
        self.task, self.grid, self.terms = task, grid, dict(terms)

    @property
    def weight(self) -> float:
        """Of its terms in the loss."""
        weight: float = self.task.section.weight
        return weight

    def assign(self, targets: Any, *, tutor: bool) -> Any:
        """What its outputs learn from one source, built from targets alone."""
        raise NotImplementedError

    def decode(self, raw: Any, sizes: Sequence[Size]) -> list[Any]:
        """Predictions for images of these sizes, in their own pixels, on the CPU.

        Raises:
            FloatingPointError: the outputs are NaN, as those of a student whose training diverged.
        """
        raise NotImplementedError

    def soften(self, raw: Any, sizes: Sequence[Size]) -> list[Any]:
        """Soft answers, where the student is a tutor. Raises as `decode`."""
        raise NotImplementedError


USUAL_SCORE = 0.5
"""From which answers are shown where no validation has said better."""


class DenseHead(Head):
    """A map for a task that any student can learn; the task brings targets, loss and decoding.

    Args:
        network: from the student's features to [B, task.channels, grid, grid].
    """

    task: DenseTask
    by_class = ("network.logits.",)

    def __init__(self, task: DenseTask, network: nn.Module, grid: int) -> None:
        super().__init__(task, task.terms, grid)
        self.network = network

    def forward(self, features: Any) -> Tensor:
        raw: Tensor = self.network(features)
        return raw

    def assign(self, targets: Any, *, tutor: bool) -> Any:
        return self.task.assign(targets, tutor=tutor)

    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        return self.task.decode(raw, sizes)

    def soften(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        return self.task.soften(raw, sizes)


class Student(nn.Module):
    """A network with a trunk and a head for each task: images to raw outputs by task.

    Takes float32 [B, 3, S, S], S = `size`, RGB in 0..1, resized without keeping the aspect ratio.

    Attributes:
        Section: the config keys of its shape and heads.
        config: the section that it was built from.
        tasks: by name.
        heads: by name of the task.
        scores: by task, from which score on its answers are worth showing, where they have scores; validation finds
            it (`Figures.score`), and a checkpoint keeps it.
        backbone: the trunk; its parameters learn at `train.backbone_lr`.
    """

    Section: ClassVar[type[StudentSection]] = StudentSection
    backbone: nn.Module

    def __init__(self, config: StudentSection, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.config, self.tasks = config, dict(tasks)
        self.heads = nn.ModuleDict()
        self.scores = dict.fromkeys(tasks, USUAL_SCORE)

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return self.config.size

    @property
    def update_after(self) -> Mapping[str, int]:
        """By task, how many images must have taught it before the optimiser updates the parameters of its head; under
        the empty name, how many images before it updates all other parameters. Until then their gradients add up.

        What is not named, or by 0, is updated in each step, as everything is in a student that names nothing.
        """
        return {}

    @property
    def grids(self) -> dict[str, int]:
        """`Head.grid` by task."""
        return {name: head.grid for name, head in self.heads.items()}  # type: ignore[misc]

    def checked(self, images: Tensor) -> Tensor:
        """The images, channels-last. Raises ValueError where they are of another shape."""
        if images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"images must have shape [B, 3, {self.size}, {self.size}], got {tuple(images.shape)}")
        return images.contiguous(memory_format=torch.channels_last)

    def combine(self, terms: Mapping[str, Tensor], share: float) -> Tensor:
        """The loss from its terms, `task/term/source`, each divided and weighted already: their sum.

        A student may combine them in another way, also with parameters of its own, such as learnt task weights.

        Args:
            share: of the batch whose terms these are, where it is cut into micro-batches; the losses are added up.
        """
        return torch.stack(list(terms.values())).sum()


def refuse_kind(student: str, task: Task, kinds: Sequence[type[Task]]) -> InputError:
    """The error for a task that a student has no head for."""
    possible = ", ".join([*(kind.kind for kind in kinds), "any dense kind"])
    return InputError(
        f"tasks.{task.name}: the student {student} has no head for kind {task.kind}; possible: {possible}"
    )
