"""A training step: the whole loop against the bare network, by source; and where the time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.data import config, make_data
from benchmarks.timing import side_by_side, table
from tutored import losses
from tutored.data.training import collate
from tutored.engine.batches import to_device
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.targets import Batch

POLICIES = {"ground truth": "ground_truth", "tutors": "replace", "both": "both"}
STUDENTS: dict[str, dict[str, Any]] = {
    "light, 160 pixels": {"student": {"preset": "light"}, "train": {"batch": 16}},
    "BlitzNet300 s8, ResNet-50": {"student": {"preset": "blitznet300-s8"}, "train": {"batch": 8}},
}


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """For each student three tables: the loop's efficiency, what tutors cost, and the parts of a step."""
    data, store = make_data(folder, max(32, round(128 * scale)))
    tables = []
    for number, (name, changes) in enumerate(STUDENTS.items()):
        steps = max(1, round((1 if number else 6) * scale))
        with tempfile.TemporaryDirectory() as out:
            trainers = {
                who: Trainer(
                    one := config(data, None if policy == "ground_truth" else store, policy, **changes),
                    open_supervision(one),
                    Path(out),
                )
                for who, policy in POLICIES.items()
            }
            found = [
                _efficiency(trainers["ground truth"], steps),
                _sources(trainers, steps),
                _parts(trainers["both"]),
            ]
        tables += [{**each, "title": f"{each['title']}: {name}"} for each in found]
    return tables


def _efficiency(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Forward, backward and update of one batch that is in memory, against the loop with its loader."""
    resident = to_device(next(_batches(trainer, 0)), trainer.device)
    images = resident.images.float() / 255

    def bare() -> None:
        for _ in range(steps):
            trainer.model.train()
            outputs = trainer.model(images)
            trainer.accelerator.backward(outputs.deltas.mean() + outputs.logits.mean() + outputs.map_logits.mean())
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)

    loops = {f"the loop, {workers} workers": loop(trainer, steps, workers) for workers in (0, 1)}
    timed = side_by_side({"bare network": bare, **loops}, len(images) * steps)
    note = (
        "forward, backward and update on one resident batch; the loop also reads, augments, assigns, sums and averages"
    )
    return table("the whole loop against the bare network", timed, "bare network", "images/s", note)


def _sources(trainers: dict[str, Trainer], steps: int) -> dict[str, Any]:
    timed = side_by_side(
        {name: loop(trainer, steps, 0) for name, trainer in trainers.items()},
        trainers["both"].config.train.batch * steps,
    )
    return table("a step by who teaches", timed, "ground truth", "images/s", "one process reads and trains in turns")


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Seconds of each part of a step that both sources teach, an image."""
    places = next(iter(trainer.plan))
    examples = [trainer.set[place] for place in places]
    batch = collate(examples)
    assert isinstance(batch, Batch)
    student, settings = trainer.student, trainer.config.loss
    student.train()
    images = batch.images.float() / 255
    assigned = losses.assign(student.anchors_xyxy, batch, settings)
    outputs = student(images)
    detached = type(outputs)(outputs.anchors_xyxy, *[each.detach().requires_grad_() for each in outputs[1:]])

    def total(raw: Any) -> torch.Tensor:
        return losses.mix(losses.sums(raw, batch, assigned, settings), losses.divide(assigned.weights, settings))

    def network() -> None:
        made = student(images)
        (made.deltas.mean() + made.logits.mean() + made.map_logits.mean()).backward()
        student.zero_grad()

    parts: dict[str, Callable[[], object]] = {
        "read, decode, augment": lambda: [trainer.set[place] for place in places],
        "collate": lambda: collate(examples),
        "assign": lambda: losses.assign(student.anchors_xyxy, batch, settings),
        "loss terms, with gradients": lambda: total(detached).backward(),
        "network, forward": lambda: student(images),
        "network, forward and backward": network,
        "the whole step": lambda: trainer.step(batch),
    }
    timed = side_by_side(parts, len(places))
    return table(
        "parts of a step, taught by both", timed, "the whole step", "images/s", "a ratio of 10 is a tenth of the step"
    )


def loop(trainer: Trainer, steps: int, workers: int) -> Callable[[], None]:
    """Steps as `Trainer` takes them: a loader before each. Workers live on from round to round."""
    batches = _batches(trainer, workers)

    def run() -> None:
        for _ in range(steps):
            trainer.step(next(batches))

    return run


def _batches(trainer: Trainer, workers: int) -> Any:
    loader = DataLoader(
        trainer.set,
        batch_sampler=list(trainer.plan),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return (batch for _ in cycle([0]) for batch in loader)
