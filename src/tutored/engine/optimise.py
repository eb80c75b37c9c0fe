"""Optimiser, learning-rate schedule and averaged weights, all functions of the step alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tutored.config import Train
from tutored.engine.shard import own, piece, whole
from tutored.students import Student


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
    """`load_state_dict`, with every average laid out as its parameter is: fused updates walk through both alike."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def laid_out(value: Tensor, like: Tensor) -> Tensor:
        return torch.empty_like(like).copy_(piece(value, like)) if value.shape == like.shape else value

    slots = {
        index: {name: laid_out(value, parameters[index]) for name, value in each.items()}
        for index, each in state["state"].items()
    }
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


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


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
