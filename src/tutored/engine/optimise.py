"""What a step is: its images, the gradients of a batch that micro-batches and processes share, optimiser, learning rate
and averaged weights; all but the weights are functions of the step alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tutored import losses
from tutored.config import Config, Loss, Train
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
    """Each term's mean over some steps, from its sum over them in every process; some may lack a term. `names` are all
    possible terms, the same in every process.
    """
    nothing = torch.zeros((), device=accelerator.device)
    rows = [torch.stack([terms.get(name, nothing), nothing + (name in terms)]) for name in names]
    values = accelerator.reduce(torch.stack(rows), "mean").tolist()
    return {name: value / steps for name, (value, taught) in zip(names, values, strict=True) if taught}


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


def make_optimizer(student: Student, config: Train) -> torch.optim.Optimizer:
    """Adam with coupled or AdamW with decoupled weight decay; convolution kernels decay, norms and biases do not. An
    update walks through the memory once, on a GPU in one kernel for many parameters, and asks nothing of the host.
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
    alive = all(not parameter.is_meta for parameter in student.parameters())
    return kind([group for group in groups if group["params"]], fused=alive or None)


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
    `averaged` is whole; where the model is in pieces, `fill` brings it up to date.
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
    precision fp16, whose gradients have another scale in each step. `since` has by task what taught since its last
    update: the images, and the sum of their shares of their batches.
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
