"""A trained student as a folder: `model.safetensors` and `checkpoint.json`, enough to use it anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutored.config import Config, make_config
from tutored.errors import InputError
from tutored.files import former, seal, whole_folder
from tutored.labels import LabelSpace
from tutored.student import BlitzNet

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "checkpoint.json"


def save_checkpoint(path: Path, student: BlitzNet, config: Config) -> None:
    """Write a checkpoint folder, whole or not at all; an older checkpoint at `path` is replaced with all it holds.

    Args:
        path: the folder.
        student: with the weights to use: the averaged ones, if there are any.
        config: the run's complete configuration; its section `student` is the network's shape.

    Raises:
        InputError: `path` is a file, or a folder that holds something else.
        OSError: it can't be written, such as on a full disk.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / DESCRIPTION).is_file()):
        raise InputError(f"{path}: exists and is no checkpoint; give a folder that does not exist yet")
    description = {
        "format": FORMAT,
        "tutored": version("tutored"),
        "labels": list(student.labels.names),
        "config": config.to_dict(),
    }
    weights = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    with whole_folder(path) as folder:
        save_file(weights, folder / WEIGHTS)
        description["sha256"] = seal(description, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_checkpoint(path: Path, labels: LabelSpace | None = None) -> tuple[BlitzNet, Config, LabelSpace]:
    """Build the student of a checkpoint folder, in evaluation mode on the CPU, from nothing but that folder.

    Args:
        labels: refuse a student of another label space; None takes any.

    Raises:
        InputError: no checkpoint, a newer format, another label space, weights that do not fit its configuration, or
            bytes that are not those that were written.
    """
    folder = path if path.exists() else former(path)
    description = _describe(folder, path)
    config, own = _meaning(description, path / DESCRIPTION)
    if labels is not None and own != labels:
        raise InputError(f"{path}: {_difference(own, labels)}; give a checkpoint trained for these classes")
    try:
        student = BlitzNet(config.student.model_copy(update={"weights": None}), own)
    except InputError as error:
        raise InputError(f"{path / DESCRIPTION}: {error}") from error
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path / WEIGHTS}: can't be read ({error}); copy or train the checkpoint again") from error
    expected = student.state_dict()
    wrong = [key for key in expected if key not in weights or weights[key].shape != expected[key].shape]
    wrong += [key for key in weights if key not in expected]
    if wrong:
        raise InputError(
            f"{path / WEIGHTS}: does not fit {DESCRIPTION} beside it: {len(wrong)} tensors are missing, unexpected or "
            f"of another shape ({', '.join(wrong[:3])}); copy or train the checkpoint again"
        )
    stated = description.pop("sha256", None)  # which former versions did not write
    if stated is not None and stated != seal(description, folder / WEIGHTS):
        raise InputError(f"{path}: damaged ('sha256' differs from its content); copy or train the checkpoint again")
    student.load_state_dict(weights)
    return student.eval(), config, own


def _describe(folder: Path, path: Path) -> dict[str, Any]:
    origin = path / DESCRIPTION
    try:
        description: Any = json.loads((folder / DESCRIPTION).read_text())
    except OSError as error:
        inside = path / "checkpoint"
        if (inside / DESCRIPTION).exists():
            raise InputError(f"{path} is a run, and its checkpoint lies in it; give {inside}") from error
        raise InputError(
            f"{path}: no checkpoint ({DESCRIPTION}: {error.strerror}); give a folder that `tutored train` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: not JSON ({error}); copy or train the checkpoint again") from error
    number = description.get("format") if isinstance(description, dict) else None
    if number != FORMAT:
        raise InputError(
            f"{origin}: a checkpoint of format {number}, and tutored {version('tutored')} reads format {FORMAT}; "
            "install the version that wrote it"
        )
    found: dict[str, Any] = description
    return found


def _meaning(description: Mapping[str, Any], origin: Path) -> tuple[Config, LabelSpace]:
    try:
        labels, config = LabelSpace(tuple(description["labels"])), dict(description["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{origin}: damaged ({error!r}); copy or train the checkpoint again") from error
    return make_config(config, origin=str(origin)), labels


def _difference(own: LabelSpace, wanted: LabelSpace) -> str:
    if sorted(own.names) == sorted(wanted.names):
        return "has the same classes in another order"
    more, less = sorted(set(own.names) - set(wanted.names)), sorted(set(wanted.names) - set(own.names))
    return f"has another label space (only there: {', '.join(more) or 'none'}; only here: {', '.join(less) or 'none'})"
