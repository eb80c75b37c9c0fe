"""On a graphics card: the loop against the bare network, what tutors cost, compiling, prediction, and memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import AbsentError, config, make_data
from benchmarks.timing import side_by_side, table
from benchmarks.training import POLICIES, bare, batches, loop
from tutored.engine.batches import to_device
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.labels import VOC
from tutored.student import BlitzNet

BATCH = 32
WORKERS = max((os.cpu_count() or 1) - 1, 1)


def measure(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Tables of ratios for BlitzNet300-s8, and the most memory of a step of the largest student."""
    if not torch.cuda.is_available():
        raise AbsentError("torch sees no graphics card")
    data, store = make_data(folder, 4 * BATCH)
    steps = max(2, round(20 * scale))
    with tempfile.TemporaryDirectory() as out:
        by = {name: _trainer(data, store, out, policy) for name, policy in POLICIES.items()}
        yield _loops(by["ground truth"], by["both"], steps)
        things = {name: repeated(_step(each), steps) for name, each in by.items()}
        timed = side_by_side(things, BATCH * steps, 3)
        yield table(f"a step by who teaches, batches in memory: {NAME}", timed, "ground truth", "images/s")
        del by, things
        yield _prediction(steps)
        yield _memory(data, store)
        ways = {
            "bf16": _trainer(data, None, out, "ground_truth"),
            "fp32": _trainer(data, None, out, "ground_truth", precision="fp32"),
            "bf16, compiled": _trainer(data, None, out, "ground_truth", compile=True),
        }
        timed = side_by_side({name: bare(each, steps) for name, each in ways.items()}, BATCH * steps, 3)
        yield table(f"bare network by precision: {NAME}", timed, "bf16", "images/s")


def _trainer(data: str, store: Path | None, out: str, policy: str, **train: Any) -> Trainer:
    used = None if policy == "ground_truth" else store
    train = {"batch": BATCH, "precision": "bf16", "epochs": 1000, **train}
    one = config(data, used, policy, student={"preset": "blitznet300-s8"}, train=train)
    return Trainer(one, open_supervision(one), Path(out))


def _loops(plain: Trainer, both: Trainer, steps: int) -> dict[str, Any]:
    things = {
        "bare network": bare(plain, steps),
        "the step on a batch in memory": repeated(_step(plain), steps),
        f"the loop, {WORKERS} workers": loop(plain, steps, WORKERS),
        f"the loop with both sources, {WORKERS} workers": loop(both, steps, WORKERS),
        "reading alone": _reading(plain, steps),
    }
    timed = side_by_side(things, BATCH * steps, 3)
    return table(f"the whole loop: {NAME}", timed, "bare network", "images/s", NOTE)


NAME = "BlitzNet300 s8, ResNet-50"
NOTE = f"batch {BATCH}, bf16; forward, backward and update on one resident batch, against all that training does"


def repeated(do: Callable[[], object], steps: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(steps):
            do()

    return run


def _step(trainer: Trainer) -> Callable[[], object]:
    resident = to_device(next(batches(trainer, 0)), trainer.device)
    return lambda: trainer.step(resident)


def _reading(trainer: Trainer, steps: int) -> Callable[[], None]:
    each = batches(trainer, WORKERS)
    return repeated(lambda: next(each), steps)


def _prediction(steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    made = make_student("blitznet300-s8").cuda().eval()
    images = torch.rand(64, 3, 300, 300, device="cuda")

    def network(count: int, dtype: torch.dtype) -> Callable[[], None]:
        def once() -> None:
            with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                for part in images.split(count):
                    made(part)

        return repeated(once, steps)

    things = {
        f"batch {count}, {name}": network(count, dtype)
        for count in (1, 16, 64)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    timed = side_by_side(things, len(images) * steps, 3)
    return table("prediction, network alone: BlitzNet300 s8, ResNet-50", timed, "batch 1, fp32", "images/s")


def make_student(preset: str) -> BlitzNet:
    return BlitzNet(config("voc:somewhere", student={"preset": preset}).student, VOC)


def _memory(data: str, store: Path) -> dict[str, Any]:
    rows = []
    for shape in ("blitznet300-s8", "blitznet512-s8", "blitznet512-s4"):
        for precision in ("bf16", "fp32"):
            train = {"batch": BATCH, "precision": precision}
            one = config(data, store, "both", student={"preset": shape}, train=train)
            with tempfile.TemporaryDirectory() as out:
                trainer = Trainer(one, open_supervision(one), Path(out))
                batch = next(batches(trainer, 0))
                torch.cuda.reset_peak_memory_stats()
                for _ in range(2):
                    trainer.step(batch)
            peak = torch.cuda.max_memory_allocated() / 1e9
            rows.append({"name": f"{shape}, {precision}", "most memory of a step, GB": round(peak, 2)})
            del trainer
            torch.cuda.empty_cache()
    return {"title": f"memory of a training step, batch {BATCH}", "note": "measured, both sources", "rows": rows}
