"""How far exported networks are from PyTorch on real images: JSON, and the table in docs/export.md.

python -m benchmarks.export_parity CHECKPOINT... --data voc:FOLDER --split val --into docs/export.md
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, markdown, put_between
from benchmarks.package import BLITZNET, open_dataset, save_untrained
from tutored.checkpoint import load_checkpoint
from tutored.export import Options, export_onnx, export_program

KINDS = {
    "ONNX": Options(),
    "ONNX `--nms --mask`": Options(nms=True, mask=True),
    "ONNX `--nms --mask --half`": Options(nms=True, mask=True, half=True),
    "torch.export": Options(),
    "torch.export `--half`": Options(half=True),
}


def main() -> None:
    """Export each checkpoint in five ways, which runs what was written on the images."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_parity", description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--random", action="store_true", help="also a BlitzNet300 on ResNet-50 with random weights")
    parser.add_argument("--data", required=True, metavar="FORMAT:FOLDER")
    parser.add_argument("--split", required=True)
    parser.add_argument("--images", type=int, default=20, help="how many, evenly over the split (default 20)")
    parser.add_argument("--out", type=Path, default=Path("results/export/parity.json"), metavar="FILE.json")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help="a page with <!-- parity --> and <!-- /parity -->")
    given = parser.parse_args()
    if not (given.checkpoints or given.random):
        parser.error("no network: give a CHECKPOINT, or --random")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = [*given.checkpoints, *([save_untrained(folder / "random", BLITZNET)] if given.random else [])]
        content = measure(networks, given.data, given.split, given.images, folder)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(content, indent=1) + "\n")
    print(report(content))
    if given.into:
        put_between(given.into, "parity", report(content))


def measure(networks: Sequence[Path], data: str, split: str, images: int, folder: Path) -> dict[str, Any]:
    """What `export` itself measures of every network in every form."""
    dataset = open_dataset(data, split)
    files = [folder / f"{image_id}.png" for image_id in dataset.ids[:: -(-len(dataset.ids) // images)]]
    for file in files:
        dataset.image(file.stem).save(file)
    rows, out = [], folder / "exported"
    for network in networks:
        _, config = load_checkpoint(network)
        weights = "random weights" if network.name == "random" else f"run {config.run_id}"
        title = f"{config.student.backbone}, {config.student.size} px, {weights}"
        for kind, options in KINDS.items():
            if kind.startswith("torch"):
                parity = export_program(network, out, half=options.half, pictures=files)
            else:
                parity = export_onnx(network, out, options, files)
            rows.append({"network": title, "file": kind, "bytes": out.stat().st_size, **parity._asdict()})
    described = {"source": dataset.source, "split": split, "ids": [file.stem for file in files]}
    return {"machine": machine(), "images": described, "exports": rows}


def report(content: dict[str, Any]) -> str:
    """The table in Markdown, and what it was measured on."""
    rows = []
    for row in content["exports"]:
        raw = {name: f"{apart:.1g} of {row['largest'][name]:.3g}" for name, apart in row["differences"].items()}
        shares = {
            f"{task}: final answers apart": f"{apart:,} of {all_:,} ({100 * apart / max(all_, 1):.2g} %)"
            for task, (apart, all_) in row["final"].items()
        }
        megabytes = f"{row['bytes'] / 1e6:.1f}"
        rows.append({"network": row["network"], "file": row["file"], "MB": megabytes, **raw, **shares})
    images, packages = content["images"], content["machine"]["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("tutored", "torch", "onnx", "onnxruntime", "numpy"))
    return f"{markdown(rows)}\n\n{len(images['ids'])} images of {images['source']}/{images['split']}; {versions}; CPU."


if __name__ == "__main__":
    main()
