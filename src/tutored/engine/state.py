"""What a training needs to go on exactly where it stopped; safetensors and JSON, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutored.errors import InputError
from tutored.files import former, regular, seal, whole_folder
from tutored.softlabels.manifest import changed

STATE = "state"
Stores = Mapping[str, Sequence[Mapping[str, Any]]]


def save_state(
    run: Path, model: dict[str, Tensor], average: dict[str, Tensor], optimizer: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write `run/state` whole or not at all; the last good one stays until the new one is complete.

    Args:
        optimizer: a torch optimiser's `state_dict()`.
        facts: JSON-ready; the step, the run id, the scaler's state.
    """
    tensors = {f"model/{name}": value for name, value in model.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for index, slots in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    with whole_folder(run / STATE) as folder:
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(whole, folder / "state.safetensors")
        written = {**facts, "groups": optimizer["param_groups"]}
        written["sha256"] = seal(written, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


def load_state(run: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """The parts that `save_state` was given, or None where nothing was saved yet.

    Raises:
        InputError: the saved state is damaged.
    """
    places = (run / STATE, former(run / STATE))
    folder = next((place for place in places if (place / "state.json").exists()), None)
    if folder is None:
        return None
    try:
        return _read(folder)
    except Exception as error:
        raise InputError(f"{folder}: damaged training state ({error}); delete the run folder to start anew") from error


def check_stores(run: Path, began: Stores, now: Stores) -> None:
    """Raise InputError where a run does not go on with the stores, by task, that it began with: in which fields."""
    none: dict[str, Any] = {}
    pairs = chain.from_iterable(zip_longest(began.get(task, []), now[task], fillvalue=none) for task in now)
    fields = sorted({name for one, other in pairs for name in changed(one, other)})
    if fields:
        raise InputError(
            f"{run}: a store has changed since the run began (its identity differs in {', '.join(fields)}); "
            "bring the former store back, or train into another --out"
        )


def check_images(run: Path, began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where a run does not go on with the images that it began with.

    Args:
        began, now: `TrainingSet.fingerprint`.
    """
    if began != now:
        raise InputError(
            f"{run}: the training images, or their ground truth, have changed since the run began "
            f"({began['count']} then, {now['count']} now); bring them back, or train into another --out, as with "
            f"--train.start {run / 'checkpoint'}"
        )


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    facts = json.loads(regular(folder / "state.json").read_bytes())
    tensors = load_file(regular(folder / "state.safetensors"))
    if facts.pop("sha256", None) != seal(facts, folder / "state.safetensors"):
        raise ValueError("'sha256' differs from its content")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, slot = rest.partition("/")
            slots.setdefault(int(index), {})[slot] = value
        else:
            parts[kind][rest] = value
    optimizer = {"state": slots, "param_groups": facts.pop("groups")}
    return parts["model"], parts["average"], optimizer, facts
