"""What grows with the data: memory and time of the commands, and of reading a store."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.work import run
from benchmarks.harness import SMALLEST, Table, counted_memory
from benchmarks.package import SMALL, TINY, Store, make_data, row_name, write_rows
from tutored.cli import main

NOTE = "scenes of 160 x 120 pixels, a test's student; MB more: at most, than after all imports"


def measure(work: Path, scale: float) -> Iterator[Table]:
    """Commands by images, and a store by rows."""
    yield _commands(work, scale)
    yield _store(work, [1000] if scale < SMALLEST else [1000, 10_000, 100_000, 1_000_000])


def _commands(work: Path, scale: float) -> Table:
    """Each command on some images and on ten times as many, in a process of its own."""
    small, rows = scale < SMALLEST, []
    few = 8 if small else max(32, round(200 * scale))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (few,) if small else (few, 10 * few):
            data, _ = make_data(work, images, scale if small else 1.0, size=SMALL)
            split, trained = ["--data", data, "--split", "train"], folder / f"run-{images}"
            config = folder / f"{images}.yaml"
            given = {"data": {"train": data, "val_split": None}, "student": TINY}
            given["train"] = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu"}
            config.write_text(yaml.safe_dump(given))
            checkpoint, store = str(folder / f"run-{few}" / "checkpoint"), str(folder / f"store-{images}")
            pictures = data.removeprefix("voc:") + "/JPEGImages"
            commands = [
                ["train", str(config), "--out", str(trained)],
                ["label", "student", "--weights", checkpoint, *split, "--out", store],
                ["evaluate", checkpoint, *split],
                ["predict", checkpoint, pictures, "--out", str(folder / f"seen-{images}"), "--score", "0.5"],
            ]
            for words in commands:
                rows.append({"name": f"{words[0]}, {images} images", **_costs(words, folder, small)})
    rows.sort(key=lambda row: row["name"].partition(",")[0])  # a command's two rows beside each other
    return {"title": "commands by number of images", "note": NOTE, "rows": rows}


def _costs(words: list[str], folder: Path, small: bool) -> dict[str, Any]:
    if small:
        assert main(words) == 0, words
        return {}
    ended = run(words, folder / "said")
    if ended.code:
        raise RuntimeError(f"{' '.join(words)}: {ended.text}")
    return {"seconds": round(ended.seconds, 2), "MB more": ended.megabytes}


def _store(work: Path, sizes: list[int]) -> Table:
    """Opening a store of made-up rows and reading 1,000 of them far apart."""
    rows = []
    for size in sizes:
        write_rows(work / f"rows-{size}", size)
        with counted_memory() as megabytes:
            started = time.perf_counter()
            store = Store.open(work / f"rows-{size}")
            opened = time.perf_counter()
            for position in range(1000):
                store[row_name(position * 7919 % size)]
        times = {"open, s": round(opened - started, 4), "read 1,000, s": round(time.perf_counter() - opened, 4)}
        rows.append({"name": f"{size:,} rows", **times, "MB more": megabytes()})
    return {"title": "a store by its rows", "note": "MB more: at most, than the process had before", "rows": rows}
