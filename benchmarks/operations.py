"""How many operations a training step asks for, by part: counted, without a clock and without a graphics card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.data import config, make_data
from tutored import losses
from tutored.data.training import collate
from tutored.engine.optimise import make_optimizer
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.targets import Batch

T = TypeVar("T")
STUDENT = "blitznet300-s8"
SOURCES = {"ground truth": "ground_truth", "both": "both"}
MEMORY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "_unsafe_view")
"""Operations that look at tensors or make room for them, and compute nothing."""


class Operations(TorchDispatchMode):
    """Counts the operations that compute: a GPU launches one kernel or a few for each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        self.count += space == "aten" and not func.is_view and name not in MEMORY
        return func(*args, **kwargs or {})


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """The operations of a step's parts, by precision and by who teaches."""
    data, store = make_data(folder, 32)
    found: dict[str, dict[str, int]] = {}
    for who, policy in SOURCES.items():
        for precision in ("fp32", "bf16"):
            train = {"batch": 2, "precision": precision, "clip": 5.0}
            used = None if policy == "ground_truth" else store
            one = config(data, used, policy, student={"preset": STUDENT}, train=train)
            with tempfile.TemporaryDirectory() as out:
                trainer = Trainer(one, open_supervision(one), Path(out))
            found[f"{precision}, {who}"] = _parts(trainer)
    names = next(iter(found.values()))
    rows = [{"name": name, **{column: parts[name] for column, parts in found.items()}} for name in names]
    return [{"title": f"operations of a training step, {STUDENT}", "note": NOTE, "rows": rows}]


NOTE = (
    "counted on the CPU, with the optimiser that a GPU gets; views do not count, an operation on a list of tensors "
    "counts once, and precision casts count"
)


def _parts(trainer: Trainer) -> dict[str, int]:
    """Operations of each part of the second step, and of the step as the trainer takes it."""
    trainer.optimizer.optimizer = make_optimizer(trainer.student, trainer.config.train, torch.device("cuda"))
    batch = collate([trainer.set[place] for place in next(iter(trainer.plan))])
    assert isinstance(batch, Batch)
    trainer.step(batch)  # the optimiser's state is made at the first
    parts: dict[str, int] = {}

    def counted(name: str, do: Callable[[], T]) -> T:
        with Operations() as operations:
            result = do()
        parts[name] = operations.count
        return result

    settings, anchors_xyxy = trainer.config.loss, trainer.student.anchors_xyxy
    images = counted("images", lambda: batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255))
    outputs = counted("network, forward", lambda: trainer.model(images))
    raw = type(outputs)(outputs.anchors_xyxy, *[each.detach().requires_grad_() for each in outputs[1:]])
    assigned = counted("losses, assignment", lambda: losses.assign(anchors_xyxy, batch, settings))
    factors = counted("losses, normalisers", lambda: losses.divide(assigned.weights, settings))
    loss = counted("losses, terms", lambda: losses.mix(losses.sums(raw, batch, assigned, settings), factors))
    counted("losses, backward", loss.backward)
    gradients = [each.grad for each in raw[1:]]
    counted("network, backward", lambda: torch.autograd.backward(outputs[1:], gradients))
    counted("clipping", lambda: trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), 5.0))
    counted("optimiser", trainer.optimizer.step)
    counted("averaged weights", lambda: trainer.average.update(0.998, 1))
    trainer.optimizer.zero_grad(set_to_none=True)
    counted("the whole step", lambda: trainer.step(batch))
    return parts
