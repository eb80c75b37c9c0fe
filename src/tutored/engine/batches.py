"""A batch cut into micro-batches, and brought to the device."""

from __future__ import annotations

import torch

from tutored.structures import Batch, Targets


def split(batch: Batch, size: int | None) -> list[Batch]:
    """Micro-batches of `size` images; None: the batch as it is."""
    count = len(batch.image_ids)
    size = size or count
    return [
        Batch(
            batch.image_ids[first : first + size],
            batch.images[first : first + size],
            *[None if part is None else Targets(*[t[first : first + size] for t in part]) for part in batch[2:]],
        )
        for first in range(0, count, size)
    ]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on a device."""

    def moved(targets: Targets | None) -> Targets | None:
        return None if targets is None else Targets(*[t.to(device, non_blocking=True) for t in targets])

    images = batch.images.to(device, non_blocking=True)
    return Batch(batch.image_ids, images, moved(batch.ground_truth), moved(batch.tutor))
