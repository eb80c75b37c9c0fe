"""One network for both tasks against two of its kind: a training step and a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Table, side_by_side, table
from benchmarks.package import TASKS, Student, students, total, untrained

JOINT = "joint student"


def measure(_work: Path, scale: float) -> Iterator[Table]:
    """For each student two tables, training steps and predictions."""
    for name, (shape, batch) in students(scale).items():
        joint = untrained(shape)
        pairs = {JOINT: [joint], "two students, same backbone": [untrained(shape, (task,)) for task in TASKS]}
        size = joint.config.size
        images = torch.rand(max(2, batch // 2), 3, size, size, generator=torch.Generator().manual_seed(0))
        note = f"{size} x {size} pixels into every network, batch {len(images)}, random weights, no loader"
        for title, do in (("training step", _step), ("prediction", _answer)):
            things = {who: do(nets, images) for who, nets in pairs.items()}
            # What went before, such as a network of another size, weighs less on a thing that has just been done.
            timed = side_by_side(things, len(images), 3, scale=scale, before=lambda who, things=things: things[who]())
            yield table(f"{title}: {name}", timed, JOINT, note)


def _step(networks: list[Student], images: Tensor) -> Callable[[], None]:
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-5, foreach=True) for net in networks]

    def run() -> None:
        for net, optimizer in zip(networks, optimizers, strict=True):
            total(net.train()(images)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def _answer(networks: list[Student], images: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        for net in networks:
            net.eval()(images)

    return run
