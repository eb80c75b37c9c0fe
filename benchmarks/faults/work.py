"""Small data, a small student, answers of a tutor, and commands on them in processes of their own."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.harness import counted_memory
from benchmarks.package import TINY
from tutored.cli import main
from tutored.data import open_dataset
from tutored.scenes import make_scenes

CONFIG: dict[str, Any] = {
    "student": TINY,
    "train": {"epochs": 2, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1},
}
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
SECONDS = 300
"""No command here may take longer."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    "tutored.cli.progress tutored.engine tutored.tutors.files tutored.studies.folder matplotlib.pyplot".split()
)


def make_small(at: Path, **splits: int) -> tuple[str, Path]:
    """Data with these splits, a folder of answers as `tutored label files` takes them, and `config.yaml`."""
    data, folder = f"voc:{make_scenes(at / 'data', 'student', splits, seed=0, size=(72, 56))}", at / "answers"
    (at / "config.yaml").write_text(yaml.safe_dump({"data": {"train": data}} | CONFIG))
    folder.mkdir()
    rng = np.random.default_rng(0)
    corners = "<bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    cat = f"<object><name>cat</name><confidence>{{0:.3f}}</confidence>{corners}</object>"
    for image_id in [each for split in splits for each in open_dataset(data, split).ids]:
        np.savez_compressed(folder / f"{image_id}.npz", probs=rng.dirichlet(np.ones(21), (7, 9)).astype(np.float32))
        cats = [cat.format(rng.random(), *rng.integers(0, 20, 2)) for _ in range(4)]
        (folder / f"{image_id}.xml").write_text(f"<a>{''.join(cats)}</a>")
    return data, folder


class Fault(NamedTuple):
    """A signal just before the `change`th change of a file (0: never), or so many `seconds` after the start.

    With a `limit` in bytes, writing any file beyond it fails half-way, as on a full disk.
    """

    signal: int = signal.SIGKILL
    change: int = 0
    seconds: float | None = None
    limit: int | None = None


class Ended(NamedTuple):
    """Exit code (negative: a signal), all output, changes of files, megabytes beyond its imports, and seconds."""

    code: int | None
    text: str
    changes: int
    megabytes: int
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.text.rstrip().splitlines() or [""])[-1]


def run(words: Sequence[str], out: Path, fault: Fault = Fault()) -> Ended:  # noqa: B008
    """A command whose output folder is `out`, in a process and process group of its own."""
    said, counts, began = out.with_name(f"said-{out.name}"), _context.Array("i", 2), time.monotonic()
    process = _context.Process(target=_child, args=(words, str(out), fault, counts, said))
    process.start()
    if fault.seconds is not None:
        process.join(fault.seconds)
        if process.pid and process.is_alive():
            os.kill(process.pid, fault.signal)
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    return Ended(code, said.read_text() if said.exists() else "", *counts, time.monotonic() - began)


def _child(words: Sequence[str], out: str, fault: Fault, counts: Any, said: Path) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # ignored under nohup and in the background
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    multiprocessing.set_start_method("fork", force=True)  # readers of images, as under a shell
    sys.stdout = sys.stderr = said.open("w", encoding="utf-8", buffering=1)

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_change(event, arguments, out):
            counts[0] += 1
            if counts[0] == fault.change:
                os.killpg(0, fault.signal)  # with the processes that read images for it

    sys.addaudithook(before)
    if fault.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, resource.RLIM_INFINITY))
    with counted_memory() as megabytes:
        code = main(words)
    counts[1] = megabytes()
    sys.exit(code)


def _is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        return arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0 and str(arguments[0]).startswith(folder)
    inside = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # shutil.rmtree names what it removes so
    return inside or (event in CHANGES and str(arguments[0]).startswith(folder))
