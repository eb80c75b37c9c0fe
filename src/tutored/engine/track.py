"""TensorBoard, Weights & Biases, MLflow and trackio through accelerate: they are told what the log holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from tutored.config import Config, flat
from tutored.errors import InputError

PROJECT = "tutored"
IN_EXTRA = ("tensorboard", "trackio")


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


def start_trackers(accelerator: Accelerator, config: Config, out: Path, done: int) -> None:
    """Begin this run at every tracker, under the name of its folder; TensorBoard's files go to `out/tensorboard`.

    Args:
        done: steps of an interrupted run that goes on. TensorBoard hides what it was told of later ones, trackio goes
            on with the run of that name; the others begin a new one.

    Raises:
        InputError: a tracker can't begin.
    """
    name = f"{out.resolve().name}-{config.run_id}"
    arguments = {
        "tensorboard": {"purge_step": done + 1 if done else None},
        "wandb": {"name": name, "dir": str(out)},
        "mlflow": {"run_name": name},
        "trackio": {"name": name, "resume": "allow" if done else "never"},
    }
    settings = {
        key: value if isinstance(value, (str, int, float)) else json.dumps(value)
        for key, value in flat(config.to_dict()).items()
    }
    try:
        accelerator.init_trackers(PROJECT, config=settings, init_kwargs=arguments)
    except Exception as error:
        accelerator.trackers.clear()
        raise InputError(
            f"train.trackers: {', '.join(config.train.trackers)} can't begin ({type(error).__name__}: {error}); "
            "see to their settings, or leave them out"
        ) from error


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """What trackers are told of an entry of the log: `train/...` or, of a validation, the means as `val/...`.

    Names are of letters, digits and `_./-` alone, since some trackers take no others.
    """
    part, found = ("val", entry["val"]) if "val" in entry else ("train", {**entry, **_losses(entry)})
    return {
        f"{part}/{re.sub(r'[^A-Za-z0-9_./-]', '_', name)}": float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and name not in ("step", "images", "images_with_boxes", "images_with_masks")
    }


def _losses(entry: Mapping[str, Any]) -> dict[str, float]:
    terms = {f"loss/{name}": value for name, value in entry["loss"].items()}
    return {"loss/all": sum(terms.values()), **terms}
