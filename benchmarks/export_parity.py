"""How far exported networks are from PyTorch, on real images: JSON, and the tables in docs/export.md.

python -m benchmarks.export_parity CHECKPOINT... --data voc:FOLDER --split val --into docs/export.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnxruntime
import torch
from PIL import Image

from benchmarks.timing import machine
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.export import Options, export_onnx, export_program
from tutored.files import write_text
from tutored.labels import VOC
from tutored.predict import Predictor
from tutored.structures import Prediction
from tutored.student import BlitzNet, preprocess

BEGIN, END = "<!-- parity -->\n", "<!-- /parity -->\n"
PACKAGES = ("tutored", "torch", "onnx", "onnxruntime", "numpy", "pillow")
EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "onnx_only.py"
SCORE_APART, PIXELS_APART = 1e-3, 0.05
"""Between a box of the example, which rounds to .001 and to .01 pixels, and its partner of `predict`."""


class Kind(NamedTuple):
    """A way to export: its name and options; `program` is torch.export."""

    name: str
    options: Options = Options()
    program: bool = False


KINDS = (
    Kind("ONNX"),
    Kind("ONNX `--nms --mask`", Options(nms=True, mask=True)),
    Kind("ONNX `--nms --mask --half`", Options(nms=True, mask=True, half=True)),
    Kind("torch.export", program=True),
    Kind("torch.export `--half`", Options(half=True), program=True),
)


def main() -> None:
    given = options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = save_pictures(given.data, given.split, given.images, folder)
        checkpoints = list(given.checkpoints)
        if given.random:
            checkpoints.append(random_checkpoint(folder / "random"))
        exports = [row for checkpoint in checkpoints for row in measured(checkpoint, list(pictures.values()), folder)]
        examples = [example(checkpoint, list(pictures.values()), folder) for checkpoint in checkpoints]
    packages = {package: version(package) for package in PACKAGES}
    content = {
        "machine": machine() | {"packages": packages},
        "images": {"source": open_dataset(given.data, given.split).source, "split": given.split, "ids": [*pictures]},
        "exports": exports,
        "example": examples,
    }
    write_text(given.out, json.dumps(content, indent=1) + "\n")
    text = report(content)
    sys.stdout.write(text)
    if given.into:
        before, rest = given.into.read_text().split(BEGIN)
        write_text(given.into, f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def options() -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export_parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoints", type=Path, nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--random", action="store_true", help="also a BlitzNet300 on ResNet-50 with random weights")
    parser.add_argument("--data", required=True, metavar="FORMAT:FOLDER")
    parser.add_argument("--split", required=True)
    parser.add_argument("--images", type=int, default=20, help="how many, evenly over the split (default 20)")
    parser.add_argument("--out", type=Path, default=Path("results/export/parity.json"), metavar="FILE.json")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help=f"between {BEGIN.strip()} and {END.strip()}")
    given = parser.parse_args()
    if not (given.checkpoints or given.random):
        parser.error("no network: give a CHECKPOINT, or --random")
    return given


def save_pictures(data: str, split: str, count: int, folder: Path) -> dict[str, Path]:
    """Image id -> file."""
    dataset = open_dataset(data, split)
    files = {image_id: folder / f"{image_id}.png" for image_id in dataset.ids[:: -(-len(dataset.ids) // count)]}
    for image_id, file in files.items():
        dataset.image(image_id).save(file)
    return files


def random_checkpoint(folder: Path) -> Path:
    torch.manual_seed(0)
    config = make_config({"data": {"train": "voc:none"}})
    save_checkpoint(folder, BlitzNet(config.student, VOC), config)
    return folder


def title(checkpoint: Path) -> str:
    _, config, _ = load_checkpoint(checkpoint)
    weights = "random weights" if checkpoint.name == "random" else f"run {config.run_id}"
    return f"{config.student.backbone}, {config.student.size} px, {weights}"


def measured(checkpoint: Path, pictures: Sequence[Path], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each kind."""
    for kind in KINDS:
        out = folder / "exported"
        if kind.program:
            parity = export_program(checkpoint, out, half=kind.options.half, pictures=pictures)
        else:
            parity = export_onnx(checkpoint, out, kind.options, pictures)
        enlarged = enlarged_apart(checkpoint, out, pictures) if kind.options.mask else None
        yield {
            "network": title(checkpoint),
            "file": kind.name,
            "bytes": out.stat().st_size,
            **parity._asdict(),
            "mask_enlarged": enlarged,
        }


def enlarged_apart(checkpoint: Path, file: Path, pictures: Sequence[Path]) -> tuple[int, int]:
    """Pixels in which the graph's mask, resized to the picture (nearest), differs from that of `predict`; and all."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    apart = every = 0
    for picture, wanted in predicted(checkpoint, pictures):
        pixels = preprocess([picture], session.get_inputs()[0].shape[2])
        (mask,) = session.run(["mask"], {"images": pixels.numpy()})[0]
        got = np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))
        assert wanted.mask is not None
        apart += int((got != wanted.mask.numpy()).sum())
        every += got.size
    return apart, every


def predicted(checkpoint: Path, pictures: Sequence[Path]) -> Iterator[tuple[Image.Image, Prediction]]:
    predictor = Predictor.load(checkpoint, "cpu")
    for path in pictures:
        picture = Image.open(path)
        yield picture, predictor([picture])[0]


def example(checkpoint: Path, pictures: Sequence[Path], folder: Path) -> dict[str, Any]:
    """What docs/examples/onnx_only.py says of each picture, against `predict`."""
    student, mask = folder / "student.onnx", folder / "mask.png"
    export_onnx(checkpoint, student, Options(nms=True), pictures)
    names = load_checkpoint(checkpoint)[0].labels.names
    boxes_apart = boxes_all = pixels_apart = pixels_all = 0
    for path, (_, wanted) in zip(pictures, predicted(checkpoint, pictures), strict=True):
        with mock.patch.object(sys, "argv", [EXAMPLE.name, str(student), str(path), str(mask)]):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                runpy.run_path(str(EXAMPLE))
        boxes_apart += without_partner(said.getvalue(), wanted, names)
        drawn = np.asarray(Image.open(mask))
        assert wanted.scores is not None and wanted.mask is not None
        boxes_all += len(wanted.scores)
        pixels_apart += int((drawn != wanted.mask.numpy()).sum())
        pixels_all += drawn.size
    return {"network": title(checkpoint), "boxes": (boxes_apart, boxes_all), "mask": (pixels_apart, pixels_all)}


def without_partner(said: str, wanted: Prediction, names: Sequence[str]) -> int:
    """Boxes of either side that the other has not; the example prints a line each: class, score, corners."""
    assert wanted.boxes_xyxy is not None and wanted.scores is not None and wanted.classes is not None
    lines = [line.rsplit(" ", 5) for line in said.splitlines()]
    numbers = np.array([line[1:] for line in lines], dtype=float).reshape(-1, 5)
    partners = (
        (np.array([names.index(line[0]) for line in lines])[:, None] == wanted.classes.numpy())
        & (np.abs(numbers[:, :1] - wanted.scores.numpy()) <= SCORE_APART)
        & (np.abs(numbers[:, None, 1:] - wanted.boxes_xyxy.numpy()).max(axis=-1) <= PIXELS_APART)
    )
    return int((~partners.any(axis=0)).sum() + (~partners.any(axis=1)).sum())


def report(content: Mapping[str, Any]) -> str:
    exports = [
        {
            "network": row["network"],
            "file": row["file"],
            "MB": f"{row['bytes'] / 1e6:.1f}",
            **{
                name: f"{row['differences'][key]:.1g} of {row['largest'][key]:.3g}"
                for name, key in (("boxes, px", "boxes"), ("logits", "logits"), ("map logits", "map_logits"))
            },
            "final boxes without a partner": share(row["boxes"]),
            "mask pixels apart": share(row["pixels"]),
            "mask enlarged, apart": share(row["mask_enlarged"]),
        }
        for row in content["exports"]
    ]
    examples = [
        {
            "network": row["network"],
            "example's boxes without a partner": share(row["boxes"]),
            "example's mask pixels apart": share(row["mask"]),
        }
        for row in content["example"]
    ]
    images, packages = content["images"], content["machine"]["packages"]
    versions = ", ".join(f"{package} {packages[package]}" for package in PACKAGES)
    caption = f"{len(images['ids'])} images of {images['source']}/{images['split']}; {versions}; CPU."
    return f"{table(exports)}\n\n{table(examples)}\n\n{caption}\n"


def share(pair: tuple[int, int] | None) -> str:
    return f"{pair[0]:,} of {pair[1]:,} ({100 * pair[0] / pair[1]:.2g} %)" if pair else ""


def table(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [[*rows[0]], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
