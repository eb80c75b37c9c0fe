"""Weights, gradients and Adam's averages in pieces, one a process: torch's FSDP. Files hold them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

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
