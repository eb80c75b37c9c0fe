"""Training: the loop against the bare network, what tutors cost, and the shares of a step."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import SMALLEST, Table, repeated, side_by_side, table
from benchmarks.package import POLICIES, Run, in_one_piece, make_data, make_run_config, students


def measure(work: Path, scale: float) -> Iterator[Table]:
    """For each student the loop, the sources, and the shares of a step."""
    data, store = make_data(work, 128, scale)
    for name, (shape, batch) in students(scale).items():
        runs = {
            who: Run(make_run_config(data, store, shape, policy, train={"batch": batch}))
            for who, policy in POLICIES.items()
        }
        plain, both = runs["ground truth"], runs["both"]
        steps = max(1, round(24 * scale / batch))
        half = Run(make_run_config(data, store, shape, train={"batch": batch, "precision": "bf16"}))
        kept = Run(make_run_config(data, store, shape, train={"batch": batch}, data={"cache": str(work / "cache")}))
        resident = plain.resident()
        loops = {
            "bare network": repeated(partial(plain.network, resident, update=True), steps),
            "bare network, bf16": repeated(partial(half.network, resident, update=True), steps),
            "the loop, read by itself": repeated(plain.loop(), steps),
            "the loop, read by 1 process": repeated(plain.loop(1), steps),
            "the same with data.cache": repeated(kept.loop(1), steps),
        }
        timed = side_by_side(loops, batch * steps, scale=scale)
        note = (
            "bare: forward, backward and update on one resident batch; the loop also reads, augments, assigns, averages"
        )
        yield table(f"the loop: {name}", timed, "bare network", note)
        by = {who: repeated(run.loop(), steps) for who, run in runs.items()}
        timed = side_by_side(by, batch * steps, scale=scale)
        yield table(f"a step by what teaches: {name}", timed, "ground truth", "one process reads and trains in turns")
        yield _shares(both, name, scale)
        if shape["kind"] == "compact" or scale < SMALLEST:
            yield _options(data, store, shape, name, batch, scale)


def _options(data: str, store: Path, shape: dict[str, Any], name: str, batch: int, scale: float) -> Table:
    """What a step of the bare network takes with and without what makes it quicker."""
    runs = {
        which: Run(make_run_config(data, store, shape | student, train={"batch": batch, "precision": precision}))
        for which, precision, student in (
            ("fp32", "fp32", {}),
            ("bf16", "bf16", {}),
            ("bf16, a trunk that learns whole", "bf16", {"freeze_norm": False, "frozen": 0}),
        )
    }
    steps = max(1, round(48 * scale / batch))
    things = {
        way: repeated(partial(run.network, run.resident(), update=True), steps)
        for way, run in runs.items()
        if shape["kind"] == "compact" or "whole" not in way
    }
    for way in ("fp32", "bf16"):
        things[f"{way}, depthwise gradients in one piece"] = in_one_piece(things[way])
    note = "forward, backward and update on one resident batch"
    return table(f"options: {name}", side_by_side(things, batch * steps, scale=scale), list(things)[-2], note)


def _shares(run: Run, name: str, scale: float) -> Table:
    """Milliseconds an image of each part of a step that ground truth and tutors teach, and its share."""
    places = next(iter(run.trainer.plan))
    examples, batch = [run.examples[place] for place in places], run.resident()
    things: dict[str, Callable[[], object]] = {
        "read": lambda: [run.examples[place] for place in places],
        "collate": lambda: run.examples.collate(examples),
        "network": lambda: run.network(batch),
        "gradients": lambda: run.gradients(batch),
        "step": lambda: run.step(batch),
    }
    timed = side_by_side(things, scale=scale)
    took = {part: 1000 * statistics.median(each.seconds) / len(places) for part, each in timed.items()}
    parts = {
        "network, forward and backward": took["network"],
        "assignment and loss terms, forward and backward": took["gradients"] - took["network"],
        "update, clipping and averaged weights": took["step"] - took["gradients"],
        "read, decode, augment": took["read"],
        "collate": took["collate"],
    }
    whole = took["step"] + took["read"] + took["collate"]
    rows = [{"name": part, "ms an image": round(ms, 3), "share": round(ms / whole, 3)} for part, ms in parts.items()]
    note = "the second and third row are differences of medians"
    return {"title": f"shares of a step: {name}", "note": note, "rows": rows}
