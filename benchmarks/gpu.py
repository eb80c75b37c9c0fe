"""On a GPU, in at most eight minutes: the loop against a resident batch, compiling, waiting, operations and memory."""

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import SMALLEST, AbsentError, Table, repeated, side_by_side, table
from benchmarks.package import Run, make_data, make_run_config, students

WORKERS = max((os.cpu_count() or 1) - 1, 1)
MODES = {"compiled": "default", "compiled, CUDA graphs": "reduce-overhead"}
"""Of torch's compiler; a trial only traces, because generating code takes minutes."""
BARE, STEP, LOOP = ": bare network", ": the step on a resident batch", ": the loop"
MEMORY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "_unsafe_view")
"""Operations that look at tensors or make room for them, and compute nothing."""


def measure(work: Path, scale: float) -> Iterator[Table]:
    """For each student, eager and compiled; on a CPU only at a scale below `SMALLEST`, as a trial of the script."""
    trial = scale < SMALLEST
    if not (trial or torch.cuda.is_available()):
        raise AbsentError("torch sees no GPU; --scale 0.01 tries the script on a CPU")
    batch = 2 if trial else 128
    data, store = make_data(work, 4 * batch, min(scale, 1.0) if trial else 1.0)
    steps, workers = max(2, round(20 * scale)), 1 if trial else WORKERS
    for name, (shape, _) in students(scale).items():
        train = {"batch": batch, "precision": "bf16", "workers": workers}
        modes = dict(list(MODES.items())[-1:]) if trial else MODES
        ways = {way: Run(make_run_config(data, store, shape, "both", train=train)) for way in ("eager", *modes)}
        for way, mode in modes.items():
            how = {"backend": "eager"} if trial else {"mode": mode}
            trainer = ways[way].trainer
            trainer.student.compile(**how)
            trainer.losses = {part: torch.compile(do, **how) for part, do in trainer.losses.items()}
        yield _training(name, ways, steps, workers, scale)
        del ways


def _training(name: str, ways: dict[str, Run], steps: int, workers: int, scale: float) -> Table:
    things: dict[str, Callable[[], object]] = {}
    extra: dict[str, dict[str, Any]] = defaultdict(dict)
    for way, run in ways.items():
        resident, batches = run.resident(), run.batches(workers)
        bare, step = partial(run.network, resident, update=True), partial(run.step, resident)
        step()
        things |= {
            f"{way}{BARE}": repeated(bare, steps),
            f"{way}{STEP}": repeated(step, steps),
            f"{way}{LOOP}": repeated(run.loop(workers), steps),
        }
        if way == "eager":
            things["reading alone"] = repeated(partial(next, batches), steps)
            for part, do in ((BARE, bare), (STEP, step)):
                extra[f"{way}{part}"]["operations"] = count_operations(do)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            step()
            extra[f"{way}{STEP}"]["peak GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    timed = side_by_side(things, ways["eager"].batch_size * steps, 3, scale=scale)
    for way in ways:
        on_resident, whole = (statistics.median(timed[f"{way}{part}"].seconds) for part in (STEP, LOOP))
        extra[f"{way}{LOOP}"]["share of waiting"] = round(max(1 - on_resident / whole, 0.0), 3)
    note = f"batch {ways['eager'].batch_size}, bf16, both tasks taught by both sources, {workers} processes read"
    found = table(f"training: {name}", timed, f"eager{BARE}", note)
    for row in found["rows"]:
        row |= extra[row["name"]]
    return found


class Operations(TorchDispatchMode):
    """Counts the operations that compute: a GPU launches one kernel or a few for each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        self.count += space == "aten" and not func.is_view and name not in MEMORY
        return func(*args, **kwargs or {})


def count_operations(do: Callable[[], object]) -> int:
    with Operations() as operations:
        do()
    return operations.count
