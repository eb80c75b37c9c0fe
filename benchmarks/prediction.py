"""Prediction: eager, compiled and ONNX, network alone and end to end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from PIL import Image

from benchmarks.data import SIZE, make_data
from benchmarks.timing import side_by_side, table
from tutored.checkpoint import save_checkpoint
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.export import export_onnx
from tutored.labels import VOC
from tutored.predict import Predictor
from tutored.student import BlitzNet

SHAPES = {
    "light, 160": {"preset": "light"},
    "BlitzNet300 s8, ResNet-50": {"preset": "blitznet300-s8"},
    "BlitzNet512 s8, ResNet-50": {"preset": "blitznet512-s8"},
}
BATCHES = (1, 16)


def measure(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """A table for each student and batch."""
    data, _ = make_data(folder, max(32, round(128 * scale)))
    dataset = open_dataset(data, "train")
    pictures = [dataset.image(image_id) for image_id in dataset.ids[: max(BATCHES)]]
    for name, shape in SHAPES.items():
        for batch in BATCHES:
            yield _one(name, shape, pictures[:batch], 3 if batch > 1 else 5)


def _one(name: str, shape: dict[str, Any], pictures: list[Image.Image], rounds: int) -> dict[str, Any]:
    config = make_config({"data": {"train": "voc:somewhere"}, "student": shape})
    torch.manual_seed(0)
    student = BlitzNet(config.student, VOC).eval()
    size, batch = config.student.size, len(pictures)
    images = torch.rand(batch, 3, size, size)
    with tempfile.TemporaryDirectory() as out:
        save_checkpoint(Path(out) / "checkpoint", student, config)
        export_onnx(Path(out) / "checkpoint", Path(out) / "student.onnx")
        session = onnxruntime.InferenceSession(
            (Path(out) / "student.onnx").read_bytes(), _options(), ["CPUExecutionProvider"]
        )
    predictor = Predictor(student, config.decode, batch=batch)
    compiled = torch.compile(student)

    def network(model: Any) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                model(images)

        return run

    things: dict[str, Callable[[], object]] = {
        "network, eager": network(student),
        "network, compiled": network(compiled),
        "network, ONNX Runtime": lambda: session.run(None, {"images": images.numpy()}),
        "end to end, eager": lambda: predictor(pictures),
    }
    note = f"batch {batch}; end to end: {SIZE[0]} x {SIZE[1]} pictures in memory to boxes and masks of their size"
    return table(
        f"prediction: {name}, batch {batch}", side_by_side(things, batch, rounds), "network, eager", "images/s", note
    )


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options
