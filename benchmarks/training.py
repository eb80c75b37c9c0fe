"""A training step: the whole loop against the bare network, by source; and where the time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
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
    "BlitzNet300 s8, ResNet-50": {"student": {"preset": "blitznet300-s8"}, "train": {"batch": 4}},
}


def measure(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """For each student three tables: the loop's efficiency, what tutors cost, and the parts of a step."""
    data, store = make_data(folder, max(32, round(128 * scale)))
    for number, (name, changes) in enumerate(STUDENTS.items()):
        steps, rounds = (1, 3) if number else (max(1, round(6 * scale)), 5)
        with tempfile.TemporaryDirectory() as out:
            trainers = {
                who: Trainer(
                    one := config(data, None if policy == "ground_truth" else store, policy, **changes),
                    open_supervision(one),
                    Path(out),
                )
                for who, policy in POLICIES.items()
            }
            plain = trainers["ground truth"]
            loops = {f"the loop, {workers} workers": loop(plain, steps, workers) for workers in (0, 1)}
            timed = side_by_side(
                {"bare network": bare(plain, steps), **loops}, plain.config.train.batch * steps, rounds
            )
            yield table(f"the whole loop against the bare network: {name}", timed, "bare network", "images/s", NOTE)
            by = {who: loop(trainer, steps, 0) for who, trainer in trainers.items()}
            timed = side_by_side(by, plain.config.train.batch * steps, rounds)
            yield table(f"a step by who teaches: {name}", timed, "ground truth", "images/s", IN_TURNS)
            yield _parts(trainers["both"], name, rounds)


NOTE = "forward, backward and update on one resident batch; the loop also reads, augments, assigns, sums and averages"
IN_TURNS = "one process reads and trains in turns"


def bare(trainer: Trainer, steps: int) -> Callable[[], None]:
    """Forward, backward and update of one batch that is in memory."""
    images = to_device(next(batches(trainer, 0)), trainer.device).images.float() / 255

    def run() -> None:
        for _ in range(steps):
            trainer.model.train()
            outputs = trainer.model(images)
            trainer.accelerator.backward(outputs.deltas.mean() + outputs.logits.mean() + outputs.map_logits.mean())
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)

    return run


def _parts(trainer: Trainer, name: str, rounds: int) -> dict[str, Any]:
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
    timed = side_by_side(parts, len(places), rounds)
    note = "a ratio of 10 is a tenth of the step"
    return table(f"parts of a step, taught by both: {name}", timed, "the whole step", "images/s", note)


def loop(trainer: Trainer, steps: int, workers: int) -> Callable[[], None]:
    """Steps as `Trainer` takes them: a loader before each."""
    each = batches(trainer, workers)

    def run() -> None:
        for _ in range(steps):
            trainer.step(next(each))

    return run


def batches(trainer: Trainer, workers: int) -> Any:
    """The run's batches, again and again. Workers live on from round to round."""
    loader = DataLoader(
        trainer.set,
        batch_sampler=list(trainer.plan),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=trainer.device.type == "cuda",
    )
    return (batch for _ in cycle([0]) for batch in loader)
