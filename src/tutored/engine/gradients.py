"""Gradients and terms of a batch that micro-batches and processes share: those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tutored import losses
from tutored.config import Loss
from tutored.targets import Batch

NAMES = tuple(f"{term}/{source}" for source in losses.SOURCES for term in losses.TASK)


def backward(
    model: nn.Module,
    anchors_xyxy: Tensor,
    parts: Sequence[Batch],
    config: Loss,
    accelerator: Accelerator,
    *,
    mixture: Mapping[str, tuple[float, float]] | None = None,
    assign: Callable[..., losses.Assigned] = losses.assign,
    sums: Callable[..., dict[str, Tensor]] = losses.sums,
) -> dict[str, Tensor]:
    """Add the whole batch's gradients to the parameters'; nothing in it waits for the device.

    Args:
        model: as `accelerator.prepare` gave it.
        parts: this process' micro-batches, on the device.
        mixture: as `losses.divide`.
        assign, sums: those of `losses`, or what the compiler made of them.

    Returns:
        Every term, divided and weighted; over the processes their mean is the batch's. A term that nobody teaches in
        this process' part may be missing.
    """
    assigned = [assign(anchors_xyxy, part, config) for part in parts]
    total = _total([each.weights for each in assigned], accelerator)
    factors = losses.divide(total, config, mixture=mixture, processes=accelerator.num_processes)
    names: list[str] = []
    values: list[Tensor] = []
    for number, (part, targets) in enumerate(zip(parts, assigned, strict=True), start=1):
        # Gradients travel between processes once, with the last micro-batch.
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            images = part.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
            found = sums(model(images), part, targets, config)
            weighed = losses.weigh(found, factors)
            accelerator.backward(weighed.sum())
        names, values = list(found), [*values, weighed.detach()]
    return dict(zip(names, sum(values[1:], values[0]), strict=True))


def _total(weights: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> dict[str, Tensor]:
    """Weights of the whole batch: all micro-batches, all processes."""
    names = list(weights[0])
    total = torch.stack([torch.stack([each[name] for name in names]) for each in weights]).sum(0)
    return dict(zip(names, accelerator.reduce(total, "sum"), strict=True))


def means(terms: Mapping[str, Tensor], steps: int, accelerator: Accelerator) -> dict[str, float]:
    """Each term's mean over some steps, from its sum over them in every process; some may lack a term."""
    nothing = torch.zeros((), device=accelerator.device)
    rows = [torch.stack([terms.get(name, nothing), nothing + (name in terms)]) for name in NAMES]
    values = accelerator.reduce(torch.stack(rows), "mean").tolist()
    return {name: value / steps for name, (value, taught) in zip(NAMES, values, strict=True) if taught}
