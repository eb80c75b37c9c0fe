"""`tutored quickstart`: the whole idea on made-up scenes, in a few minutes on two CPU cores.

Two single-task tutors learn on scenes of another style with COCO's class names. They label the student's images, most
of whose ground truth is hidden. Three students follow: on the ground truth that is left, on the same with tutors
filling the gaps, and on all ground truth. Every step is an ordinary command, printed before it runs. What is finished
is kept: the same quickstart again goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tutored.checkpoint import load_checkpoint
from tutored.data import open_dataset
from tutored.data.text import read_json
from tutored.errors import InputError
from tutored.files import write_encoded, write_json, write_text
from tutored.predict import Predictor
from tutored.quickstart.together import run_together
from tutored.scenes import CREDIT, make_scenes
from tutored.visualise import draw, grid

TRAIN, VAL = 600, 150
TUTOR_EPOCHS, STUDENT_EPOCHS = 12, 8
HIDDEN = 0.95
"""Share of the images whose boxes, and of those whose masks, are hidden from two of the students."""
STUDENT = {"backbone": "test_resnet", "size": 128, "extra": 2, "extra_width": 64, "up_width": 48, "map_width": 32}
PICTURES = 6
DRAWN_FROM = 0.4

STUDENTS = {
    "left": f"the {1 - HIDDEN:.0%} of ground truth that is left",
    "tutored": f"the same {1 - HIDDEN:.0%}, tutors fill the gaps",
    "all": "all ground truth",
}


def run_quickstart(out: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Make the data, train tutors and students, compare them.

    Args:
        out: a new or empty folder, or that of a quickstart of the same seed and scale, which goes on.
        scale: share of the images and epochs; 1 is the real thing, less is a rehearsal.

    Returns:
        The picture `out/predictions.png`; `out/table.json` holds the figures.

    Raises:
        InputError: `out` is in use, the extra `quickstart` is not installed, or a command refused its input.
        OSError: a command failed; the message is the command's own.
    """
    started = time.monotonic()
    claim(out, {"tutored": version("tutored"), "seed": seed, "scale": scale})
    counts = {"train": _images(TRAIN, scale), "val": _images(VAL, scale)}
    if not (out / "scenes").exists():
        print(f"making {sum(counts.values())} scenes: {out}/scenes", flush=True)
        make_scenes(out / "scenes", "student", counts, seed=seed)
    if not (out / "foreign").exists():
        print(f"making as many in another style, with COCO's names: {out}/foreign", flush=True)
        make_scenes(out / "foreign", "tutor", counts, seed=seed + 1)
    configs = write_configs(out, seed, scale)

    def training(name: str) -> list[str]:
        return ["train", str(configs[name]), "--out", str(out / name)]

    def labelling(task: str) -> list[str]:
        data = ["--data", f"voc:{out / 'scenes'}", "--split", "train", "--out", str(out / f"{task}-store")]
        return ["label", "student", "--weights", str(out / f"{task}-tutor" / "checkpoint"), *data]

    run_together([training("detection-tutor"), training("segmentation-tutor")])
    run_together([labelling("detection"), labelling("segmentation")])
    run_together([training(name) for name in ("left", "tutored", "all")])

    table = compare(out)
    write_json(out / "table.json", table)
    show(table)
    picture = draw_predictions(out)
    minutes = (time.monotonic() - started) / 60
    print(f"\nwrote {picture} and {out / 'table.json'} in {minutes:.1f} minutes. {CREDIT}")
    print(OWN_DATA)
    return picture


def write_configs(out: Path, seed: int, scale: float) -> dict[str, Path]:
    """One YAML file a run, in `out/configs`."""

    def config(data: str, usual_epochs: int, supervision: Mapping[str, Any]) -> dict[str, Any]:
        epochs = max(1, round(usual_epochs * scale))
        train = {"seed": seed, "epochs": epochs, "batch": 8, "lr": 3e-3, "backbone_lr": 1.0, "warmup": 0.05}
        return {
            "data": {"train": f"voc:{out / data}"},
            "supervision": dict(supervision),
            "student": STUDENT,
            "augment": {"colour": False, "crop": False, "zoom_out": "never"},
            # Tutors this young are unsure of themselves: take boxes from .3 on, and sharpen maps.
            "loss": {"box_floor": 0.3, "temperature": 0.5, "segmentation_weight": 3.0},
            "train": {**train, "threads": 1, "workers": 0, "val_every": epochs, "save_every": epochs},
        }

    def task(name: str, **more: Any) -> dict[str, Any]:
        # A rehearsal keeps ground truth of two images.
        return {name: {"hidden": min(HIDDEN, 1 - 2 / _images(TRAIN, scale)), **more}}

    fill = {
        **task("detection", policy="fill", store=str(out / "detection-store")),
        **task("segmentation", policy="fill", store=str(out / "segmentation-store")),
    }
    contents = {
        "detection-tutor": config("foreign", TUTOR_EPOCHS, {"segmentation": {"policy": "none"}}),
        "segmentation-tutor": config("foreign", TUTOR_EPOCHS, {"detection": {"policy": "none"}}),
        "left": config("scenes", STUDENT_EPOCHS, {**task("detection"), **task("segmentation")}),
        "tutored": config("scenes", STUDENT_EPOCHS, fill),
        "all": config("scenes", STUDENT_EPOCHS, {}),
    }
    paths = {name: out / "configs" / f"{name}.yaml" for name in contents}
    for name, content in contents.items():
        write_text(paths[name], yaml.safe_dump(content, sort_keys=False))
    return paths


def claim(out: Path, record: Mapping[str, Any]) -> None:
    """Make the folder ours: new, or the same quickstart's."""
    file = out / "quickstart.json"
    there = read_json(file) if file.exists() else None
    if not isinstance(there, dict) and out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no quickstart; choose another --out")
    if there not in (None, record):
        former, wanted = (", ".join(f"{key} {value}" for key, value in each.items()) for each in (there, record))
        raise InputError(
            f"{out} holds a quickstart of {former}, asked for {wanted}; choose another --out, or delete it"
        )
    write_text(file, json.dumps(record) + "\n")


def compare(out: Path) -> list[dict[str, Any]]:
    """Figures of the three students on their validation scenes."""
    rows = []
    for name, meaning in STUDENTS.items():
        result = json.loads((out / name / "result.json").read_text())
        figures = result["figures"]
        row = {"student": name, "taught by": meaning, "mAP": figures["mAP_voc_area@.5"], "mIoU": figures["mIoU"]}
        rows.append({**row, "seconds": result["seconds"]})
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("taught by", title="Three students, one network each, on unseen scenes")
    for column in ("mAP", "mIoU", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["taught by"], f"{row['mAP']:.3f}", f"{row['mIoU']:.3f}", f"{row['seconds']:.0f}")
    Console().print(table)


def draw_predictions(out: Path) -> Path:
    """The same validation scenes as drawn by a person and as seen by each student, in one picture."""
    dataset = open_dataset(f"voc:{out / 'scenes'}", "val")
    ids = dataset.ids[:PICTURES]
    images = [dataset.image(image_id) for image_id in ids]
    columns = [
        [
            draw(image, dataset.ground_truth(image_id), dataset.labels)
            for image_id, image in zip(ids, images, strict=True)
        ]
    ]
    for name in STUDENTS:
        student, config, labels = load_checkpoint(out / name / "checkpoint")
        found = Predictor(student, config.decode)(images)
        columns.append([draw(image, each.above(DRAWN_FROM), labels) for image, each in zip(images, found, strict=True)])
    picture = grid([list(row) for row in zip(*columns, strict=True)], ["ground truth", *STUDENTS.values()])
    write_encoded(out / "predictions.png", partial(picture.save, format="PNG"))
    return out / "predictions.png"


OWN_DATA = """
On your own pictures, some with boxes, some with masks:
  tutored init FOLDER      looks at them, says what is missing, and writes tutored.yaml
  tutored train tutored.yaml --out runs/first
  tutored predict runs/first/checkpoint PICTURES --out seen"""


def _images(usual: int, scale: float) -> int:
    return max(8, round(usual * scale))
