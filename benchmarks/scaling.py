"""How cost grows: with images, boxes, classes, input size and rows of the store; and memory with rows."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from benchmarks.data import config, make_data
from benchmarks.evaluation import made_boxes
from tutored import losses
from tutored.config import Loss, Student
from tutored.evaluate import detection
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.softlabels.codec import BLOCK_ROWS
from tutored.softlabels.writer import PART_ROWS, finish, look, part_name, write_part
from tutored.structures import SoftLabels
from tutored.student import BlitzNet, decode
from tutored.targets import Batch, Targets

ROUNDS = 5


def measure(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Curves with the exponent of growth between first and last point: 1 is linear, less is better."""
    yield _curve("matching and VOC AP", "images", [500, 1000, 2000, 4000], _evaluation)
    yield _curve("assigning anchors", "boxes an image", [1, 10, 100], _assigning)
    yield _curve("decoding", "classes", [20, 80, 1000], _decoding)
    yield _curve("forward, light student", "pixels of a side", [96, 160, 224, 320], _forward)
    yield _processes(folder, max(64, round(256 * scale)))
    yield _store(folder, [1_000, 10_000, 100_000, 1_000_000])


def _processes(folder: Path, images: int) -> dict[str, Any]:
    """Seconds a training image takes, by processes of one thread that share each batch."""
    data, store = make_data(folder, images)
    points = []
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as out:
            one, run = Path(out) / "config.yaml", Path(out) / "run"
            train = {"threads": 1, "epochs": 4, "device": "cpu"}
            one.write_text(yaml.safe_dump(config(data, store, "both", train=train).to_dict()))
            several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
            words = (sys.executable, *several, "-m", "tutored", "train", str(one), "--out", str(run))
            subprocess.run(words, capture_output=True, check=True)
            told = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        points.append((processes, 1 / statistics.median(entry["images_per_second"] for entry in told[1:])))
    note = "the light student, batch 16, both sources; by images/s of the run's log, without its start"
    return _described("training, an image", "processes", points) | {"note": note}


def _curve(title: str, axis: str, sizes: list[int], prepare: Callable[[int], Callable[[], object]]) -> dict[str, Any]:
    points = []
    for size in sizes:
        do = prepare(size)
        do()
        points.append((size, statistics.median(_seconds(do) for _ in range(ROUNDS))))
    return _described(title, axis, points)


def _described(title: str, axis: str, points: list[tuple[int, float]]) -> dict[str, Any]:
    (first, quick), (last, slow) = points[0], points[-1]
    exponent = math.log(slow / quick) / math.log(last / first)
    rows = [{"size": size, "seconds": round(seconds, 6)} for size, seconds in points]
    return {"title": title, "axis": axis, "exponent": round(exponent, 3), "points": rows}


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _evaluation(images: int) -> Callable[[], object]:
    pairs = made_boxes(images)

    def run() -> object:
        matches = [detection.match(truth, found, 20) for truth, found in pairs]
        return detection.voc_ap(detection.rank(matches, 20))

    return run


def _assigning(boxes: int) -> Callable[[], object]:
    student, batch = _light(20), 8
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(batch, boxes, 2, generator=rng) * 100
    xyxy = torch.cat([corners, corners + 10 + 40 * torch.rand(batch, boxes, 2, generator=rng)], dim=-1)
    classes = torch.randint(1, 21, (batch, boxes), generator=rng)
    probs = torch.nn.functional.one_hot(classes, 21).float()
    side = student.sides[0]
    one = torch.ones(batch)
    targets = Targets(
        xyxy,
        classes,
        probs,
        torch.zeros(batch, boxes, dtype=torch.bool),
        torch.full((batch, 21, side, side), 1 / 21),
        torch.ones(batch, side, side, dtype=torch.bool),
        torch.zeros(batch, 21, dtype=torch.bool),
        torch.zeros(batch, 21, dtype=torch.bool),
        one,
        one,
    )
    made = Batch(tuple(map(str, range(batch))), torch.zeros(batch, 3, 160, 160), targets, None)
    return lambda: losses.assign(student.anchors_xyxy, made, Loss())


def _decoding(classes: int) -> Callable[[], object]:
    student = _light(classes).eval()
    with torch.no_grad():
        outputs = student(torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    return lambda: decode(outputs, [(375, 500)] * 4, student_decode(), 160)


def student_decode() -> Any:
    """The limits that `predict` has by default."""
    from tutored.config import Decode

    return Decode()


def _forward(size: int) -> Callable[[], object]:
    student = _light(20, size=size).eval()
    images = torch.rand(4, 3, size, size)

    def run() -> object:
        with torch.no_grad():
            return student(images)

    return run


def _light(classes: int, **changes: int) -> BlitzNet:
    torch.manual_seed(0)
    shape = Student.model_validate({"preset": "light", **changes})
    return BlitzNet(shape, LabelSpace.of([f"class {number}" for number in range(classes)]))


def _store(folder: Path, sizes: Iterable[int]) -> dict[str, Any]:
    """Opening a store of synthetic rows and reading 1,000 at random, in a process of its own each."""
    points = []
    for rows in sizes:
        path = folder / f"synthetic-{rows}"
        _write_rows(path, rows)
        command = [sys.executable, "-m", "benchmarks.scaling", str(path), str(rows)]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        opened, read, more, peak = map(float, out.stdout.split())
        points.append(
            {"size": rows, "seconds": round(opened, 4), "read 1,000": round(read, 4), "MB more": more, "peak MB": peak}
        )
    described = _described("opening a store", "rows", [(int(row["size"]), row["seconds"]) for row in points])
    note = "MB more: at most, than the process had before it opened the store; half of the peak is torch itself"
    return described | {"points": points, "note": note}


def _write_rows(path: Path, rows: int) -> None:
    """Rows of two boxes and a small map, the same answers again and again; where they are not there yet."""
    identity = {"kind": "synthetic", "labels": ["background", "cat"], "images": rows}
    if look(path, identity, join=True):
        return
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    cells = torch.full((2, 8, 8), 0.5)
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 50, 60]])
    answer = SoftLabels(size=(64, 64), boxes_xyxy=boxes, classes=torch.tensor([1, 1]), probs=probs, map=cells)
    names = [_name(row) for row in range(rows)]
    parts = [names[first : first + PART_ROWS] for first in range(0, rows, PART_ROWS)]
    write_part(path, identity, 0, parts[0], [answer] * len(parts[0]))
    table = pq.read_table(path / part_name(0))
    for index, ids in enumerate(parts[1:], start=1):
        # As `write_part`, which would work out the same answers a million times.
        renamed = table.slice(0, len(ids)).set_column(0, table.schema.field(0), pa.array(ids, pa.string()))
        pq.write_table(renamed, path / part_name(index), compression="zstd", row_group_size=BLOCK_ROWS)
    finish(path)


def _name(row: int) -> str:
    return f"image{row:08d}"


def _read_store(path: Path, rows: int) -> None:
    """Prints seconds to open, seconds to read 1,000 rows far apart, and MB: more than before, and the peak."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, started = _megabytes("VmRSS"), time.perf_counter()
    store = Store.open(path)
    opened = time.perf_counter()
    for row in torch.randint(0, rows, (1000,), generator=torch.Generator().manual_seed(0)).tolist():
        store[_name(row)]
    seconds, peak = time.perf_counter() - opened, _megabytes("VmHWM")
    print(opened - started, seconds, peak - before, peak)


def _megabytes(field: str) -> int:
    """Of this process: VmRSS now, VmHWM at most; `getrusage` would give its parent's, where that is larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    _read_store(Path(sys.argv[1]), int(sys.argv[2]))
