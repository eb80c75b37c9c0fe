"""Which images each step sees, and the gradients of a batch that micro-batches and processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tutored import losses
from tutored.config import Config, Loss
from tutored.data.training import TrainingSet, epoch_batches
from tutored.errors import InputError
from tutored.students import Student
from tutored.types import Batch


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of a run, this process' part of each.

    Attributes:
        positions: of the images to draw.
        done: steps that an interrupted run has behind it.
    """

    positions: Sequence[int]
    images: int
    batch: int
    epochs: int
    seed: int
    rank: int = 0
    processes: int = 1
    done: int = 0

    @property
    def seen(self) -> int:
        """Images of one step, of all processes together."""
        return min(self.batch, self.images)

    @property
    def epoch_steps(self) -> int:
        return max(self.images // self.batch, 1)

    @property
    def steps(self) -> int:
        return self.epoch_steps * self.epochs

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """(round, position) pairs for `TrainingSet`, from step `done` to the end."""
        first, skipped = divmod(self.done, self.epoch_steps)
        for epoch in range(first, self.epochs):
            batches = epoch_batches(
                self.positions, self.images, self.batch, self.seed, epoch, rank=self.rank, processes=self.processes
            )
            yield from list(batches)[skipped if epoch == first else 0 :]


def make_plan(config: Config, data: TrainingSet, name: str, accelerator: Accelerator) -> Plan:
    """The batches of a run and of this process. Raises InputError: nobody teaches anything, or images are too few for
    the batch or for the processes.
    """
    positions, images, batch = data.taught(), len(data), config.train.batch
    processes = accelerator.num_processes
    if not positions:
        raise InputError(f"{name}: nobody teaches any image; see tasks.*.policy and .hidden")
    if images < 2:
        raise InputError(f"{name}: one image is too few for batch statistics; add images")
    uneven = batch % processes or batch < 2 * processes or images < batch
    if processes > 1 and (uneven or not config.student.splittable):
        raise InputError(
            f"{processes} processes share a batch of {batch} of {images} images: the batch must be a multiple of the "
            "processes, two images for each at least, and no larger than the data, and student.mining must be 'image'"
        )
    return Plan(positions, images, batch, config.train.epochs, config.train.seed, accelerator.process_index, processes)


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Micro-batches of `size` images or fewer, as even as possible, none of one image; None: the batch as it is."""
    count = len(batch.image_ids)
    parts = max(min(-(-count // (size or count)), count // 2), 1)
    edges = [count * part // parts for part in range(parts + 1)]
    return [
        batch._replace(image_ids=batch.image_ids[first:last]).map(lambda tensor, a=first, b=last: tensor[a:b])
        for first, last in pairwise(edges)
    ]


def backward(
    model: nn.Module,
    student: Student,
    parts: Sequence[Batch],
    config: Loss,
    accelerator: Accelerator,
    *,
    mixture: Mapping[str, tuple[float, float]] | None = None,
    assign: Callable[..., losses.Assigned] = losses.assign,
    sums: Callable[..., dict[str, Tensor]] = losses.sums,
) -> dict[str, Tensor]:
    """Add the whole batch's gradients to the parameters'; nothing in it waits for the device. Returns every term,
    divided and weighted; over the processes their mean is the batch's. A term that nobody teaches in this process' part
    may be missing.

    Args:
        model: the student as `accelerator.prepare` gave it.
        parts: this process' micro-batches, on the device.
        mixture: as `losses.divide`.
        assign, sums: those of `losses`, or what the compiler made of them.
    """
    heads = dict(student.heads.items())
    assigned = [assign(heads, part, config) for part in parts]
    names = list(assigned[0].weights)
    weights = torch.stack([torch.stack([each.weights[name] for name in names]) for each in assigned]).sum(0)
    total = dict(zip(names, accelerator.reduce(weights, "sum"), strict=True))
    factors = losses.divide(total, heads, config, mixture=mixture, processes=accelerator.num_processes)
    images = sum(len(part.image_ids) for part in parts)
    values: dict[str, Tensor] = {}
    for number, (part, targets) in enumerate(zip(parts, assigned, strict=True), start=1):
        # Gradients travel between processes once, with the last micro-batch.
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            pictures = part.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
            found = sums(model(pictures), part, targets, heads)
            terms = dict(zip(found, losses.weigh(found, factors), strict=True))
            accelerator.backward(student.combine(terms, len(part.image_ids) / images))
        values = {name: values.get(name, 0) + term.detach() for name, term in terms.items()}
    return values


def means(terms: Mapping[str, Tensor], names: Sequence[str], steps: int, accelerator: Accelerator) -> dict[str, float]:
    """Each term's mean over some steps, from its sum over them in every process; some may lack a term.

    Args:
        names: of all possible terms, the same in every process.
    """
    nothing = torch.zeros((), device=accelerator.device)
    rows = [torch.stack([terms.get(name, nothing), nothing + (name in terms)]) for name in names]
    values = accelerator.reduce(torch.stack(rows), "mean").tolist()
    return {name: value / steps for name, (value, taught) in zip(names, values, strict=True) if taught}
