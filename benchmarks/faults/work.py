"""A small training and a small labelling, and whether two of them are the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tutored import runpage
from tutored.checkpoint import load_checkpoint
from tutored.data import open_dataset
from tutored.engine import trainer
from tutored.engine.state import load_state
from tutored.errors import InputError
from tutored.evaluate import resample
from tutored.files import LEFTOVERS, former
from tutored.scenes import make_scenes
from tutored.softlabels import writer
from tutored.tutors import label as label_module

CONFIG: dict[str, Any] = {
    "student": {"backbone": "test_resnet", "size": 64, "extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8},
    "train": {"epochs": 2, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1},
}
EXACT = ("checkpoint/model.safetensors", "checkpoint/checkpoint.json", "state/state.safetensors", "resamples.npz")
CLOCK = ("seconds", "images_per_second", "sha256")
"""What two runs of the same may differ in; the state's own hash is of its seconds too."""
PART_ROWS = 3
BOXES = 6
"""Of an image; with them, every result takes several of the 4,096 bytes that a file system may be too small by."""


class Work:
    """A folder with made-up data, a config, and a tutor's answers.

    Attributes:
        data: a VOC data set with splits train (8 images, some without boxes or mask) and val (4).
        config: of a small student that both tasks' ground truth teaches for four steps.
        answers: boxes and maps for the images of train, as `tutored label files` takes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.config, self.answers = folder / "data", folder / "config.yaml", folder / "answers"
        if not self.data.exists():
            make_scenes(self.data, "student", {"train": 8, "val": 4}, seed=0, size=(72, 56))
            (self.data / "Annotations" / "train_00005.xml").unlink()
            (self.data / "SegmentationClass" / "train_00006.png").unlink()
        self.config.write_text(yaml.safe_dump({"data": {"train": f"voc:{self.data}"}} | CONFIG))
        self._answer()

    def _answer(self) -> None:
        self.answers.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        box = "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
        for name in open_dataset(f"voc:{self.data}", "train").ids:
            probs = rng.random((7, 9, 21)).astype(np.float32)
            np.savez_compressed(self.answers / f"{name}.npz", probs=probs / probs.sum(2, keepdims=True))
            cat = "<object><name>cat</name><confidence>{0:.4f}</confidence>{1}</object>"
            cats = [cat.format(rng.random(), box.format(*rng.integers(0, 20, 2))) for _ in range(BOXES)]
            (self.answers / f"{name}.xml").write_text(f"<r>{''.join(cats)}</r>")

    def train(self, out: Path, *more: str, workers: int = 0) -> tuple[str | Path, ...]:
        """The words of the command, which begins or goes on."""
        return "train", self.config, "--out", out, "--resume", "--train.workers", str(workers), *more

    def label(self, out: Path) -> tuple[str | Path, ...]:
        """The words of the command, which begins or goes on."""
        tutor = ("label", "files", "--from", self.answers)
        return *tutor, "--data", f"voc:{self.data}", "--split", "train", "--out", out, "--batch", "2", "--resume"


def make_small() -> None:
    """Here and now: stores of several parts; runs without what takes longer than they: charts, and many resamples."""
    writer.PART_ROWS = label_module.PART_ROWS = PART_ROWS
    trainer.resample = partial(resample, samples=20)  # type: ignore[attr-defined]
    runpage.draw_charts = lambda _run: []


def steps_done(run: Path) -> int:
    """Steps that a run's folder would go on from; what stands there is read as a whole.

    Raises:
        InputError: checkpoint or state is not whole.
    """
    checkpoint = run / "checkpoint"
    if checkpoint.exists() or former(checkpoint).exists():
        load_checkpoint(checkpoint)
    saved = load_state(run)
    if saved is None:
        return 0
    if not (checkpoint.exists() or former(checkpoint).exists()):
        raise InputError(f"{run}: a state without a checkpoint")
    return int(saved[3]["done"])


def differing_run(run: Path, reference: Path, but: str = "") -> list[str]:
    """The files in which two finished runs differ, but for the clock's, and one more entry by its name."""
    found = [name for name in EXACT if _bytes(run / name) != _bytes(reference / name)]
    for name in ("log.jsonl", "result.json", "state/state.json", "config.yaml"):
        if _content(run / name, but) != _content(reference / name, but):
            found.append(name)
    return found


def differing_files(one: Path, reference: Path) -> list[str]:
    """The files in which two folders differ; what a kill left, and a store sweeps away in time, is none of them."""
    both = [(folder, path) for folder in (one, reference) for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix() for folder, path in both if not path.match(LEFTOVERS)}
    return sorted(name for name in names if _bytes(one / name) != _bytes(reference / name))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _content(path: Path, but: str) -> Any:
    text = path.read_text() if path.exists() else "null"
    if path.suffix == ".yaml":
        return text
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [_without(json.loads(each), {*CLOCK, but}) for each in lines]


def _without(content: Any, names: Collection[str]) -> Any:
    if isinstance(content, Mapping):
        return {key: _without(value, names) for key, value in content.items() if key not in names}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_without(value, names) for value in content]
    return content
