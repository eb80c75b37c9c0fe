"""Which images each step sees, a batch cut into micro-batches, and brought to the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from accelerate import Accelerator

from tutored.config import Config
from tutored.data.training import TrainingSet, epoch_batches
from tutored.errors import InputError
from tutored.targets import Batch, Targets


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of a run, this process' part of each.

    Attributes:
        positions: of the images to draw.
        images: in the split.
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
    """The batches of a run and of this process.

    Args:
        name: of the data set, for messages.

    Raises:
        InputError: nobody teaches anything, or images are too few for the batch or for the processes.
    """
    positions, images, batch = data.taught(), len(data), config.train.batch
    processes = accelerator.num_processes
    if not positions:
        raise InputError(f"{name}: nobody teaches any image; see supervision.*.policy and .hidden")
    if images < 2:
        raise InputError(f"{name}: one image is too few for batch statistics; add images")
    uneven = batch % processes or batch < 2 * processes or images < batch
    if processes > 1 and (uneven or config.loss.mining == "batch"):
        raise InputError(
            f"{processes} processes share a batch of {batch} of {images} images: the batch must be a multiple of the "
            "processes, two images for each at least, and no larger than the data, and loss.mining must be 'image'"
        )
    return Plan(positions, images, batch, config.train.epochs, config.train.seed, accelerator.process_index, processes)


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Micro-batches of `size` images or fewer, as even as possible, none of one image; None: the batch as it is."""
    count = len(batch.image_ids)
    parts = max(min(-(-count // (size or count)), count // 2), 1)
    edges = [count * part // parts for part in range(parts + 1)]
    return [
        Batch(
            batch.image_ids[first:last],
            batch.images[first:last],
            *[None if part is None else Targets(*[tensor[first:last] for tensor in part]) for part in batch[2:]],
        )
        for first, last in pairwise(edges)
    ]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on a device."""

    def moved(targets: Targets | None) -> Targets | None:
        return None if targets is None else Targets(*[t.to(device, non_blocking=True) for t in targets])

    images = batch.images.to(device, non_blocking=True)
    return Batch(batch.image_ids, images, moved(batch.ground_truth), moved(batch.tutor))
