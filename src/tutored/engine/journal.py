"""A run's own record: the log, what trackers are told, who teaches each image, and what is known of the machine."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from tutored.config import Config, flat
from tutored.data.training import TrainingSet, source_weights
from tutored.data.views import Joined, Subset
from tutored.engine.supervision import OpenSupervision
from tutored.errors import InputError
from tutored.files import write_text
from tutored.types import Dataset
from tutored.watch import Source, read_log, unharmed

PROJECT = "tutored"
PACKAGES = ("tutored", "torchvision", "timm", "numpy", "pillow")
"""On whose versions, beside those of Python and torch, a run's weights may depend."""
IN_EXTRA = ("tensorboard", "trackio")


class Journal:
    """A run's log and trackers; of several processes the main one writes."""

    def __init__(self, config: Config, accelerator: Accelerator, out: Path) -> None:
        self.config, self.accelerator, self.out, self._log = config, accelerator, out, out / "log.jsonl"
        self.entries: list[dict[str, Any]] = []

    def begin(self, done: int) -> None:
        """Begin this run at every tracker, under the name of its folder; TensorBoard's files go to `out/tensorboard`.
        Raises InputError: a tracker can't begin.

        Args:
            done: steps of an interrupted run that goes on. TensorBoard hides what it was told of later ones, trackio
                goes on with the run of that name; the others begin a new one.
        """
        name = f"{self.out.resolve().name}-{self.config.run_id}"
        arguments = {
            "tensorboard": {"purge_step": done + 1 if done else None},
            "wandb": {"name": name, "dir": str(self.out)},
            "mlflow": {"run_name": name},
            "trackio": {"name": name, "resume": "allow" if done else "never"},
        }
        settings = {
            key: value if isinstance(value, (str, int, float)) else json.dumps(value)
            for key, value in flat(self.config.to_dict()).items()
        }
        try:
            self.accelerator.init_trackers(PROJECT, config=settings, init_kwargs=arguments)
        except Exception as error:
            self.accelerator.trackers.clear()
            raise InputError(
                f"train.trackers: {', '.join(self.config.train.trackers)} can't begin ({type(error).__name__}: "
                f"{error}); see to their settings, or leave them out"
            ) from error

    def add(self, entry: dict[str, Any]) -> None:
        """A new entry of the log, which is written by `save`."""
        self.entries.append(entry)
        with unharmed("a tracker"):
            self.accelerator.log(numbers(entry), step=entry["step"])

    def save(self) -> None:
        write_text(self._log, "".join(json.dumps(entry) + "\n" for entry in self.entries))

    def load(self, done: int) -> None:
        """Take up the log as far as the step `done`. Raises InputError where it is damaged."""
        self.entries = [entry for entry in read_log(self._log) if entry["step"] <= done]

    @property
    def figures(self) -> dict[str, Any] | None:
        """Those of the last validation, by task."""
        return next((entry["val"]["tasks"] for entry in reversed(self.entries) if "val" in entry), None)

    def close(self) -> None:
        """However training ended, end the trackers."""
        for tracker in self.accelerator.trackers:
            with unharmed("a tracker"):
                tracker.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError where a tracker's package is missing; accelerate would leave it out in silence."""
    there = {str(name) for name in get_available_trackers()}
    missing = [name for name in names if name not in there]
    if missing:
        packages = ["'tutored[track]'"] if set(missing) & set(IN_EXTRA) else []
        packages += [name for name in missing if name not in IN_EXTRA]
        raise InputError(
            f"train.trackers: {', '.join(missing)} can't be used, a package is missing; pip install "
            f"{' '.join(packages)}, or leave it out"
        )


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """What trackers are told of an entry of the log: `train/...` or, of a validation, the means as `val/TASK/...`.

    Names are of letters, digits and `_./-` alone, since some trackers take no others.
    """
    if "val" in entry:
        found = {
            f"val/{task}/{name}": value for task, each in entry["val"]["tasks"].items() for name, value in each.items()
        }
        found = {name: value for name, value in found.items() if not name.endswith("/images")}
    else:
        terms = {f"loss/{name}": value for name, value in entry["loss"].items()}
        named = {**entry, "loss/all": sum(terms.values()), **terms}
        found = {f"train/{name}": value for name, value in named.items() if name != "step"}
    return {
        re.sub(r"[^A-Za-z0-9_./-]", "_", name): float(value)
        for name, value in found.items()
        if isinstance(value, (int, float))
    }


def list_sources(training: TrainingSet) -> list[Source]:
    """Who teaches each training image, in the data set's order."""
    partly: dict[tuple[str, str], bool] = {}
    sources = []
    for image_id in training.dataset.ids:
        homes = _homes(training.dataset, image_id)
        teaches = {name: _teaches(training, homes, name, image_id, partly) for name in training.tasks}
        sources.append(Source(image_id, " + ".join(f"{home.source}, {home.split}" for home in homes), teaches))
    return sources


def _homes(dataset: Dataset, image_id: str) -> tuple[Dataset, ...]:
    """The data sets that an image is from, where several are joined."""
    if isinstance(dataset, Subset):
        return _homes(dataset.inner, image_id)
    return dataset.homes[image_id] if isinstance(dataset, Joined) else (dataset,)


def _teaches(
    training: TrainingSet, homes: Sequence[Dataset], name: str, image_id: str, partly: dict[tuple[str, str], bool]
) -> str:
    section = training.tasks[name].section
    drawn, answered = image_id in training.drawn[name], image_id in training.soft_labels.get(name, ())
    truth, tutor = source_weights(section, training.ranks[name][image_id], drawn=drawn, answered=answered)
    if drawn and answered:
        if section.policy == "replace" and section.resampled and 0 < section.share < 1:
            return "both"
        if section.policy == "fill":
            home = next(each for each in homes if name in each.annotated_tasks(image_id))
            if (home.name, name) not in partly:
                annotation = home.ground_truth(image_id).tasks[name]
                partly[home.name, name] = getattr(annotation, "annotated", None) is not None
            return "both" if partly[home.name, name] else "ground_truth"
    both = {(True, True): "both", (True, False): "ground_truth", (False, True): "tutor"}
    return both.get((truth > 0, tutor > 0), "nobody")


def make_facts(config: Config, supervision: OpenSupervision, device: torch.device) -> dict[str, Any]:
    """What is known of a run before its first step; JSON-ready."""
    return {
        "run_id": config.run_id,
        "images": len(supervision.train.ids),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with its build
            **{name: version(name) for name in PACKAGES},
        },
        "stores": supervision.stores,
        "notes": list(supervision.notes),
    }
