"""Optimiser, learning-rate schedule and averaged weights, all functions of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tutored.config import Loss, Train
from tutored.errors import InputError
from tutored.students import Student
from tutored.types import Batch

UNIT = 1_000_000
"""Parameters, at least, that are brought together at once: those of a block, for its own passes alone."""


def shard(network: nn.Module, device: torch.device) -> None:
    """Cut every parameter into pieces, in place. Pieces are of contiguous memory: no longer channels-last."""
    network.to(memory_format=torch.contiguous_format)
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    _shard_blocks(network, mesh)
    fully_shard(network, mesh=mesh)


def _shard_blocks(module: nn.Module, mesh: DeviceMesh) -> int:
    """Innermost blocks first; only what an `nn.Sequential` calls is one. Returns the parameters that are in none."""
    left = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    for child in module.children():
        count = _shard_blocks(child, mesh)
        if count >= UNIT and isinstance(module, nn.Sequential):
            fully_shard(child, mesh=mesh)
            count = 0
        left += count
    return left


def piece(whole: Tensor, like: Tensor) -> Tensor:
    """This process' piece of a tensor that every process has, where `like` is in pieces; otherwise the tensor."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None).clone()


def own(value: Tensor) -> Tensor:
    """What this process has of a tensor, in the same memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """A tensor put together from its pieces; every process must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_states(network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both `state_dict`s, put together on the main process' CPU; elsewhere what was in pieces is empty.

    A gradient that waits for its update stands among the optimiser's values of its parameter, as `gradient`.
    """

    def kept(value: Tensor) -> Tensor:
        if not isinstance(value, DTensor):
            return value
        full = whole(value)
        return full.cpu() if distributed.get_rank() == 0 else full.new_empty(0)

    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots = {index: {name: kept(value) for name, value in each.items()} for index, each in state["state"].items()}
    for index, parameter in enumerate(parameters):
        if parameter.grad is not None:
            slots.setdefault(index, {})["gradient"] = kept(parameter.grad)
    return {name: kept(value) for name, value in network.state_dict().items()}, {**state, "state": slots}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`load_state_dict` of whole tensors."""
    there = network.state_dict()
    network.load_state_dict({name: piece(value, there.get(name, value)) for name, value in weights.items()})


def make_optimizer(student: Student, config: Train, device: torch.device) -> torch.optim.Optimizer:
    """Adam with coupled or AdamW with decoupled weight decay; convolution kernels decay, norms and biases do not.

    Args:
        device: of the training; on a GPU an update is one kernel for many parameters, and asks nothing of the host.
    """
    groups = []
    backbone = {id(parameter) for parameter in student.backbone.parameters()}
    for decays in (True, False):
        for inside in (True, False):
            chosen = [
                parameter
                for parameter in student.parameters()
                if parameter.requires_grad and (parameter.dim() > 1) == decays and (id(parameter) in backbone) == inside
            ]
            rate = config.lr * (config.backbone_lr if inside else 1.0)
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], fused=device.type == "cuda" or None)


@torch.no_grad()
def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict`, with every average laid out as its parameter is: fused updates walk through both alike.

    What `shard.whole_states` calls a parameter's `gradient` becomes its gradient.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def laid_out(value: Tensor, like: Tensor) -> Tensor:
        return torch.empty_like(like).copy_(piece(value, like)) if value.shape == like.shape else value

    slots = {
        index: {name: laid_out(value, parameters[index]) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    for index, each in slots.items():
        parameters[index].grad = each.pop("gradient", None)
    optimizer.load_state_dict({**state, "state": slots})


def rate_factor(step: int, steps: int, config: Train) -> float:
    """The share of the peak learning rate at a step (from 0) of a run of `steps`."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    if config.schedule == "step":
        return float(0.1 ** sum(step >= milestone * steps for milestone in config.milestones))
    return 1.0


class Average:
    """A network that follows another one; the tensors of both are found once, which takes longer than to move them.

    Args:
        averaged: whole; where the model is in pieces, `fill` brings it up to date.
    """

    def __init__(self, averaged: nn.Module, model: nn.Module) -> None:
        theirs = model.state_dict()
        self._averaged = averaged.state_dict()
        self._mine = {name: piece(value, theirs[name]) for name, value in self._averaged.items()}
        floats = [name for name, value in theirs.items() if value.is_floating_point()]
        counts = [name for name in theirs if name not in set(floats)]
        self._floats, self._counts = (
            ([own(self._mine[name]) for name in names], [own(theirs[name]) for name in names])
            for names in (floats, counts)
        )

    @torch.no_grad()
    def update(self, decay: float, step: int) -> None:
        """Move towards the model; a young average forgets faster, min(decay, (1+t)/(10+t))."""
        keep = min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._floats, 1 - keep)
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)

    @torch.no_grad()
    def fill(self) -> None:
        """Put the averaged network together from its pieces; every process must call it."""
        for name, value in self._mine.items():
            if value is not self._averaged[name]:
                self._averaged[name].copy_(whole(value))


class Gathered:
    """Gradients that wait for more images than a step has; see `Student.update_after`.

    They stay where they are, in `Parameter.grad`, so that the next steps add theirs. An update takes their mean over
    the images that taught (as `losses.divide` weighs them), as if these had been one batch. Raises InputError:
    precision fp16, whose gradients have another scale in each step.

    Attributes:
        since: by task, since its last update: the images that taught it, and the sum of their shares of their batches.
    """

    def __init__(self, student: Student, config: Loss, accelerator: Accelerator) -> None:
        self._needed = {name: count for name, count in student.update_after.items() if count}
        self._counted, self._accelerator = config.untaught == "counted", accelerator
        if self._needed and accelerator.scaler is not None:
            raise InputError("train.precision fp16: gradients of several steps can't be added up; take bf16 or fp32")
        own = {name: list(head.parameters()) for name, head in student.heads.items()}
        inside = {id(parameter) for each in own.values() for parameter in each}
        self._parameters = {**own, "": [each for each in student.parameters() if id(each) not in inside]}
        self.since: dict[str, tuple[int, float]] = dict.fromkeys(self._needed, (0, 0.0))

    @contextmanager
    def due(self, batch: Batch) -> Iterator[None]:
        """What the optimiser may see after a batch, this process' part of it: no gradients that are to wait."""
        waiting = []
        for name, taught, images in self._count(batch):
            count, shares = self.since[name]
            count, shares = count + taught, shares + (taught / images if self._counted else float(taught > 0))
            ready = count >= self._needed[name]
            self.since[name] = (0, 0.0) if ready else (count, shares)
            there = [(each, each.grad) for each in self._parameters[name] if each.grad is not None]
            if ready:
                torch._foreach_div_([gradient for _, gradient in there], shares)
            else:
                waiting += there
        for parameter, _ in waiting:
            parameter.grad = None
        yield
        for parameter, gradient in waiting:
            parameter.grad = gradient

    def _count(self, batch: Batch) -> Iterator[tuple[str, int, int]]:
        """Each name that waits, how many images of the whole batch teach it, and how many there are."""
        if not self._needed:
            return
        images = len(batch.image_ids)
        counts = [images]
        for name in self._needed:
            weights = [each.weight for each in batch.targets.get(name, {}).values()]
            counts.append(int((torch.stack(weights).sum(0) > 0).sum()) if weights else 0 if name else images)
        summed = self._accelerator.reduce(torch.tensor(counts, device=self._accelerator.device), "sum")
        total, *taught = summed.tolist()
        yield from ((name, count, total) for name, count in zip(self._needed, taught, strict=True))
