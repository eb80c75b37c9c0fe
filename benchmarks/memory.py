"""What a training step keeps for its backward pass, by student and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.data import config, make_data
from tutored import losses
from tutored.config import Config
from tutored.data.training import TrainingSet, collate
from tutored.engine.supervision import open_supervision
from tutored.student import BlitzNet
from tutored.targets import Batch

SHAPES = ("light", "blitznet300-s8", "blitznet512-s8", "blitznet512-s4")
BATCH, FEW, MORE = 32, 2, 4
"""Images of the batch that counts, and of two that are measured; what grows with neither is counted once."""
BYTES_A_PARAMETER = 20
"""Weight, gradient, Adam's two averages, and the averaged weight, in float32."""


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Steps of two and of four images on the CPU, counted byte by byte, and from them a batch of 32."""
    data, store = make_data(folder, max(32, round(128 * scale)))
    rows = []
    for shape in SHAPES:
        one = config(data, store, "both", student={"preset": shape})
        supervision = open_supervision(one)
        torch.manual_seed(0)
        student = BlitzNet(one.student, supervision.train.labels).train()
        examples = TrainingSet(supervision.train, one, student.sides[0], supervision.soft_labels)
        every = [examples[0, position] for position in range(MORE)]
        weights = sum(weight.numel() for weight in student.parameters()) * BYTES_A_PARAMETER
        for precision in ("fp32", "bf16"):
            few, more = (_kept(student, every[:count], one, bf16=precision == "bf16") for count in (FEW, MORE))
            kept = few + (more - few) / (MORE - FEW) * (BATCH - FEW)
            rows.append(
                {
                    "name": f"{shape}, {precision}",
                    "kept for backward, GB": round(kept / 1e9, 2),
                    "weights and optimiser, GB": round(weights / 1e9, 2),
                    "together, GB": round((kept + weights) / 1e9, 2),
                }
            )
    note = "both tasks taught by both sources; counted on the CPU. A device needs workspace for its kernels beyond that"
    return [{"title": f"memory of a training step, batch {BATCH}", "note": note, "rows": rows}]


def _kept(student: BlitzNet, examples: list[Any], settings: Config, *, bf16: bool) -> int:
    """Bytes of all tensors but the weights that autograd holds between forward and backward pass."""
    batch = collate(examples)
    assert isinstance(batch, Batch)
    with held(student) as count:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = student(batch.images.float() / 255)
        outputs = type(outputs)(outputs.anchors_xyxy, *[each.float() for each in outputs[1:]])
        assigned = losses.assign(student.anchors_xyxy, batch, settings.loss)
        factors = losses.divide(assigned.weights, settings.loss)
        losses.mix(losses.sums(outputs, batch, assigned, settings.loss), factors)
    return count()


@contextmanager
def held(network: nn.Module) -> Iterator[Callable[[], int]]:
    """A function that counts the bytes which autograd took to keep inside, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(storage.nbytes() for storage in storages.values())
