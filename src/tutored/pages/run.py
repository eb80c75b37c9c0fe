"""A run's page `report.html`: one self-contained file, made from the run's folder alone, as often as one likes.

`RunPage` watches a training: what only the training knows goes to `page/` in the run's folder, small pictures included,
and the page is written now and then. `write_page` writes it again from the folder, of a finished run or another.
"""

import csv
import io
import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from tutored.config import Config, load_config
from tutored.data.training import ranks
from tutored.errors import InputError
from tutored.files import RUN, read_json, require, write_encoded, write_json, write_text
from tutored.pages import content, render
from tutored.students import answer
from tutored.tasks import DenseTask, Task, task_class
from tutored.types import Dataset, PerTask, Prediction
from tutored.visualise import draw
from tutored.watch import Report, Source, Start, Validation, Watcher, read_log, unharmed

FOLDER = "page"
TRUTH, TUTOR = "truth", "tutor"
SIDE, QUALITY = 320, 70
"""Longer side of a picture in pixels, and JPEG's quality."""
SCORE = 0.4
"""Answers that have scores are drawn from this one on."""
REFRESH = 30
"""Seconds after which a browser reads the page of a running training again."""


class Picture(NamedTuple):
    """An image of the page: of `validation`, or of `training` where a tutor teaches it."""

    image_id: str
    split: str
    dataset: Dataset


class RunPage(Watcher):
    """Keeps what the page shows and writes the page. A training goes on without it, with a warning, where that fails.
    Writing pages, without the last one, takes up to a `share` of the training's time.
    """

    def __init__(self, *, first: float = 20.0, share: float = 0.02) -> None:
        super().__init__()
        self.start: Start | None = None
        self.share, self.due = share, time.monotonic() + first
        self.pictures: list[Picture] = []

    def begin(self, start: Start) -> None:
        self.start = start
        with unharmed("the run's page"):
            self.pictures = _choose(start)
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(("image", "data", *start.tasks))
            writer.writerows((each.image_id, each.data, *map(each.teaches.get, start.tasks)) for each in start.sources)
            write_text(start.out / FOLDER / "sources.csv", text.getvalue())
            more = {
                "epoch_steps": start.epoch_steps,
                "coverage": _count(start.sources),
                "pictures": [{"image": each.image_id, "split": each.split} for each in self.pictures],
            }
            write_json(start.out / FOLDER / "facts.json", {**start.facts, **more})
            for index, (image_id, _, dataset) in enumerate(self.pictures):
                image = dataset.image(image_id)
                _draw(start, index, TRUTH, image, dataset.ground_truth(image_id))
                found = _answers_of_tutors(start, image_id)
                if found is not None:
                    _draw(start, index, TUTOR, image, found.above(SCORE))

    def __call__(self, report: Report) -> None:
        began = time.monotonic()
        if self.start and began >= self.due and (self.start.out / "log.jsonl").exists():
            with unharmed("the run's page"):
                write_page(self.start.out, refresh=REFRESH)
            self.due = time.monotonic() + (time.monotonic() - began) / self.share

    def validated(self, validation: Validation) -> None:
        assert self.start is not None
        start, student = self.start, validation.student
        with unharmed("the run's page"):
            found = {}
            for name, task in start.tasks.items():
                records = [each.tasks[name] for each in validation.records if name in each.tasks]
                details = task.details(records) if records else []
                found[name] = [each._replace(values=each.values.tolist())._asdict() for each in details]
            text = json.dumps(found)
            write_text(start.out / FOLDER / f"{validation_name(validation.epoch)}.json", text + "\n")
            images = [each.dataset.image(each.image_id) for each in self.pictures]
            if images:
                device = next(student.parameters()).device
                for index, given in enumerate(answer(student, images, device, start.config.taught)):
                    _draw(start, index, validation_name(validation.epoch), images[index], given.above(student.scores))

    def end(self) -> None:
        if self.start and (self.start.out / "log.jsonl").exists():
            with unharmed("the run's page"):
                write_page(self.start.out)


def _choose(start: Start) -> list[Picture]:
    """Validation images with ground truth, the same for every seed of training.

    Half as many training images follow where tutors teach, but answer for no validation image.
    """
    count, seed, val = start.config.train.shown, start.config.data.seed, start.val
    found = []
    if val is not None:
        annotated = (image_id for image_id in ranks(val.ids, seed, "shown") if val.annotated_tasks(image_id))
        found = [Picture(image_id, "validation", val) for image_id in islice(annotated, count)]
    if not any(_answers_of_tutors(start, each.image_id) for each in found):
        taught = [each.image_id for each in start.sources if {"tutor", "both"} & {*each.teaches.values()}]
        chosen = islice(ranks(taught, seed, "shown"), -(-count // 2))
        found += [Picture(image_id, "training", start.train) for image_id in chosen]
    return found


def _answers_of_tutors(start: Start, image_id: str) -> Prediction | None:
    """What the tutors of all tasks answer for one image, as final answers."""
    found, size = {}, (0, 0)
    for name, answers in start.soft_labels.items():
        soft = answers.get(image_id)
        if soft is not None:
            task, size = start.tasks[name], soft.size
            found[name] = task.final(soft.tasks[task.kind], size)
    found = {name: each for name, each in found.items() if each is not None}
    return Prediction(size, found) if found else None


def _draw(start: Start, index: int, what: str, image: Image.Image, shown: PerTask) -> None:
    """Write `page/INDEX-WHAT.jpg`."""
    taught = {name: task for name, task in start.tasks.items() if name in start.config.taught}
    drawn = draw(image, shown, taught, at_most=SIDE * _maps(taught))
    path = picture_path(start.out, index, what)
    write_encoded(path, partial(drawn.save, format="JPEG", quality=QUALITY, optimize=True))


def _maps(tasks: Mapping[str, Task]) -> int:
    """Panels of a drawing, side by side."""
    return max(1, sum(isinstance(task, DenseTask) for task in tasks.values()))


def _count(sources: Sequence[Source]) -> dict[str, dict[str, dict[str, int]]]:
    """Images by data set, task and who teaches."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for each in sources:
        tasks = counts.setdefault(each.data, {name: Counter() for name in each.teaches})
        for name, who in each.teaches.items():
            tasks[name][who] += 1
    return {data: {name: dict(each) for name, each in tasks.items()} for data, tasks in counts.items()}


def picture_path(run: Path, index: int, what: str) -> Path:
    return run / FOLDER / f"{index:02}-{what}.jpg"


def validation_name(epoch: int) -> str:
    return f"epoch-{epoch:04}"


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run; what an unfinished run lacks is empty.

    Attributes:
        validations: by epoch, the figures (`Result.to_dict`).
        details: by task, those of the last validation (`tasks.task.Detail` as mappings).
        facts: see `Start.facts`; `epoch_steps`, `coverage`, `pictures`; of a finished run also what its result says.
    """

    path: Path
    config: Config
    steps: Sequence[Mapping[str, Any]]
    validations: Mapping[int, Mapping[str, Any]]
    details: Mapping[str, Sequence[Mapping[str, Any]]]
    facts: Mapping[str, Any]
    finished: bool

    @property
    def done(self) -> int:
        """The step of the last entry."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def epoch_steps(self) -> int | None:
        """Steps of an epoch; None where nothing tells."""
        return self.facts.get("epoch_steps")

    @property
    def step_images(self) -> int:
        """Images of a step: all of the training data where it is smaller than a batch."""
        images = sum(sum(next(iter(tasks.values())).values()) for tasks in self.facts.get("coverage", {}).values())
        return min(self.config.train.batch, images or self.config.train.batch)

    @property
    def headlines(self) -> dict[str, tuple[str, str]]:
        """By task, the metric in the figures that tells most, and its short name."""
        return {name: task_class(section.kind).headline for name, section in self.config.tasks.items()}


def read_run(path: Path) -> Run:
    """Read a run's folder. Raises InputError: it holds no run, or a file of it is damaged."""
    require(path, RUN)
    entries = read_log(path / "log.jsonl")
    validations = {entry["epoch"]: entry["val"] for entry in entries if "val" in entry}
    result = _read(path / "result.json")
    return Run(
        path,
        load_config(path / "config.yaml"),
        [entry for entry in entries if "loss" in entry],
        validations,
        _read(path / FOLDER / f"{validation_name(max(validations, default=0))}.json") or {},
        {**(result or {}), **(_read(path / FOLDER / "facts.json") or {})},
        result is not None,
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: Any = read_json(path, "train the run again", "damaged")
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged (no mapping); train the run again")
    return found


def write_page(path: Path, *, refresh: int | None = None) -> Path:
    """Write `report.html` into a run's folder; the same files give the same bytes. Raises InputError: the folder holds
    no run, or a file of it is damaged. Raises OSError: the page can't be written. Returns the page.

    Args:
        path: the run's folder, finished or not.
        refresh: seconds after which a browser reads the page again; None: never.
    """
    run = read_run(path)
    columns = {TRUTH: "ground truth", TUTOR: "tutor"}
    epochs = [epoch for epoch in run.validations if picture_path(path, 0, validation_name(epoch)).exists()]
    # The first, the middle and the last one.
    for epoch in sorted({epochs[0], epochs[(len(epochs) - 1) // 2], epochs[-1]}) if epochs else []:
        columns[validation_name(epoch)] = f"student, epoch {epoch}"
    chosen = run.config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values = {
        **content.of(run),
        "refresh": refresh,
        "run_id": run.config.run_id,
        "recipe": run.config.recipe,
        "command": shlex.join(["tutored", "train", f"{path / 'config.yaml'}", "--out", f"{path}", "--resume"]),
        "pictures": content.pictures(run.facts.get("pictures", ()), columns, partial(picture_path, path)),
        "facts": run.facts,
        "chosen": yaml.safe_dump(chosen, sort_keys=False),
        "complete": yaml.safe_dump(run.config.to_dict(), sort_keys=False),
    }
    page = path / "report.html"
    write_text(page, render("tutored.pages", "run.html.j2", values))
    return page
