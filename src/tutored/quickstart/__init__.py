"""`tutored quickstart`: the whole idea on made-up scenes, in a few minutes on two CPU cores.

Single-task tutors learn on scenes of another style with COCO's class names. They label the student's images, most of
whose ground truth is hidden. Three students follow: on the ground truth that is left, on the same with tutors filling
the gaps, and on all ground truth. Every step is an ordinary command, printed before it runs. What is finished is kept:
the same quickstart again goes on where it stopped.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tutored.config.entries import DEFAULT_TASKS
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.files import read_json, write_encoded, write_json, write_text
from tutored.predict import Predictor
from tutored.scenes import CREDIT, make_scenes
from tutored.tasks import task_class
from tutored.visualise import draw, grid

TRAIN, VAL = 400, 150
TUTOR_EPOCHS, STUDENT_EPOCHS = 8, 6
CLASSES = ("aeroplane", "bus", "cat", "cow", "sheep", "sofa")
HIDDEN = 0.975
"""Share of the annotated images whose ground truth is hidden from two of the students, of each task by itself."""
SIZE = 128
"""Side of the students' and the tutors' input in pixels: as large as the scenes are."""
KEYS: Mapping[str, Mapping[str, Any]] = dict(
    zip(DEFAULT_TASKS, ({"box_floor": 0.35}, {"overlap": 1.0, "temperature": 0.5}), strict=True)
)
"""Of the tasks in all runs. Tutors this young are unsure: boxes count from .35 on, and maps are sharpened."""
PICTURES = 6
STUDENTS = {
    "left": f"the {1 - HIDDEN:.1%} of ground truth that is left",
    "tutored": f"the same {1 - HIDDEN:.1%}, tutors fill the gaps",
    "all": "all ground truth",
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""One thread a process; and memory that glibc keeps for the next step is not asked of the system again."""
WRONG_USE = 2
"""The exit code of a command that refused its input."""
OWN_DATA = """
On your own pictures, some with boxes, some with masks:
  tutored init FOLDER      looks at them, says what is missing, and writes tutored.yaml
  tutored train tutored.yaml --out runs/first
  tutored predict runs/first/checkpoint PICTURES --out seen"""


def run_quickstart(out: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Make the data, train tutors and students, compare them. Raises InputError: `out` is in use, the extra
    `quickstart` is not installed, or a command refused its input. Raises OSError: a command failed; the message is the
    command's own. Returns the picture `out/predictions.png`; `out/table.json` holds the figures.

    Args:
        out: a new or empty folder, or that of a quickstart of the same seed and scale, which goes on.
        scale: share of the images and epochs; 1 is the real thing, less is a rehearsal.
    """
    started = time.monotonic()
    _claim(out, {"tutored": version("tutored"), "seed": seed, "scale": scale})
    counts = {"train": max(8, round(TRAIN * scale)), "val": max(8, round(VAL * scale))}
    if not (out / "scenes").exists():
        print(f"making {sum(counts.values())} scenes: {out}/scenes", flush=True)
        make_scenes(out / "scenes", "student", counts, seed=seed, classes=CLASSES)
    if not (out / "foreign").exists():
        print(f"making as many in another style, with COCO's names: {out}/foreign", flush=True)
        make_scenes(out / "foreign", "tutor", counts, seed=seed + 1, classes=CLASSES)
    configs = _write_configs(out, seed, scale, counts["train"])

    def training(name: str) -> list[str]:
        return ["train", str(configs[name]), "--out", str(out / name)]

    def labelling(task: str) -> list[str]:
        data = ["--data", f"voc:{out / 'scenes'}", "--split", "train", "--out", str(out / f"{task}-store")]
        return ["label", "student", "--weights", str(out / f"{task}-tutor" / "checkpoint"), *data]

    run_together([training(f"{task}-tutor") for task in DEFAULT_TASKS])
    run_together([labelling(task) for task in DEFAULT_TASKS])
    run_together([training(name) for name in STUDENTS])

    rows = []
    for name, meaning in STUDENTS.items():
        result = read_json(out / name / "result.json")
        metrics = {task: task_class(task).headline for task in DEFAULT_TASKS}
        figures = {short: result["figures"][task][metric] for task, (metric, short) in metrics.items()}
        rows.append({"student": name, "taught by": meaning, **figures, "seconds": result["seconds"]})
    write_json(out / "table.json", rows)
    table = Table("taught by", title="Three students, one network each, on unseen scenes")
    columns = list(rows[0])[2:]
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["taught by"], *(f"{row[column]:.{0 if column == 'seconds' else 3}f}" for column in columns))
    Console().print(table)
    picture = _draw_predictions(out)
    minutes = (time.monotonic() - started) / 60
    print(f"\nwrote {picture} and {out / 'table.json'} in {minutes:.1f} minutes. {CREDIT}")
    print(OWN_DATA)
    return picture


def _claim(out: Path, record: Mapping[str, Any]) -> None:
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


def _write_configs(out: Path, seed: int, scale: float, images: int) -> dict[str, Path]:
    """One YAML file a run, in `out/configs`."""

    def config(
        data: str, usual_epochs: int, tasks: Mapping[str, Mapping[str, Any]], *, colour: bool = False
    ) -> dict[str, Any]:
        epochs = max(1, round(usual_epochs * scale))
        train = {"seed": seed, "epochs": epochs, "batch": 8, "backbone_lr": 0.1, "warmup": 0.05}
        return {
            "data": {"train": f"voc:{out / data}"},
            "tasks": {task: {**KEYS[task], **keys} for task, keys in tasks.items()},
            "student": {"size": SIZE},
            "augment": {"colour": colour, "crop": False, "zoom_out": "never"},
            "train": {**train, "threads": 1, "workers": 0, "val_every": epochs, "save_every": epochs},
        }

    hidden = min(HIDDEN, 1 - 2 / images)  # a rehearsal keeps ground truth of two images
    left = {task: {"hidden": hidden} for task in DEFAULT_TASKS}
    filled = {task: {"hidden": hidden, "policy": "fill", "store": f"{out / task}-store"} for task in DEFAULT_TASKS}
    tutors = {task: {other: {} if other == task else {"policy": "none"} for other in left} for task in left}
    contents = {
        f"{task}-tutor": config("foreign", TUTOR_EPOCHS, keys, colour=True) for task, keys in tutors.items()
    } | {
        "left": config("scenes", STUDENT_EPOCHS, left),
        "tutored": config("scenes", STUDENT_EPOCHS, filled),
        "all": config("scenes", STUDENT_EPOCHS, {task: {} for task in DEFAULT_TASKS}),
    }
    paths = {name: out / "configs" / f"{name}.yaml" for name in contents}
    for name, content in contents.items():
        write_text(paths[name], yaml.safe_dump(content, sort_keys=False))
    return paths


def _draw_predictions(out: Path) -> Path:
    """The same validation scenes as drawn by a person and as seen by each student, in one picture."""
    dataset = open_dataset(f"voc:{out / 'scenes'}", "val")
    ids = dataset.ids[:PICTURES]
    images = [dataset.image(image_id) for image_id in ids]
    bound = {task: task_class(task)(task, labels) for task, labels in dataset.labels.items()}
    shown = [[draw(image, dataset.ground_truth(name), bound) for name, image in zip(ids, images, strict=True)]]
    for name in STUDENTS:
        student = Predictor.load(out / name / "checkpoint", "cpu")
        shown.append([result.plot() for result in student(images)])
    picture = grid([list(row) for row in zip(*shown, strict=True)], ["ground truth", *STUDENTS.values()])
    write_encoded(out / "predictions.png", partial(picture.save, format="PNG"))
    return out / "predictions.png"


def run_together(commands: Sequence[Sequence[str]]) -> None:
    """Run commands of `tutored` two at a time, one CPU thread each: twice as fast as one of two threads.

    Where one fails, or this process is stopped, the other is stopped too, and saves its state. Raises InputError,
    OSError: a command refused its input, or failed; the message is the command's own.
    """
    running: list[subprocess.Popen[str]] = []
    stopping = Event()

    def run(command: Sequence[str]) -> None:
        """With its progress on standard error, a line now and then; a finished one is kept."""
        out = Path(command[command.index("--out") + 1])
        if (out / "result.json").exists():
            return print(f"{out}: finished before", flush=True)
        words = [*command, "--resume"] if out.exists() else command
        print(f"tutored {' '.join(words)}\n", end="", flush=True)  # in one piece, beside the other's
        pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [sys.executable, "-m", "tutored", *words], env={**os.environ, **ENVIRONMENT}, **pipes
        )
        running.append(process)
        if stopping.is_set():
            process.terminate()
        complaint: list[str] = []
        with process:
            for line in process.stderr or ():
                if complaint or line.startswith("tutored: "):
                    complaint.append(line)
                else:
                    print(f"{out.name}: {line}", end="", file=sys.stderr, flush=True)
        message = "".join(complaint).removeprefix("tutored: ").strip() or f"ended with exit code {process.returncode}"
        if process.returncode:
            raise (InputError if process.returncode == WRONG_USE else OSError)(f"{out.name}: {message}")
        return None

    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            list(pool.map(run, commands))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stopping.set()
            for process in running:
                process.terminate()
            raise
