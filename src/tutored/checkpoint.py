"""A trained student as a folder: `model.safetensors` and `checkpoint.json`, enough to use it anywhere."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutored.config import Config, make_config
from tutored.errors import InputError, told_of
from tutored.files import CHECKPOINT, former, read_json, regular, require, seal, whole_folder
from tutored.labels import LabelSpace
from tutored.students import Student, make_student
from tutored.tasks import open_task

FORMAT = 2
WEIGHTS = "model.safetensors"
DESCRIPTION = CHECKPOINT.file


def save_checkpoint(path: Path | str, student: Student, config: Config) -> None:
    """Write a checkpoint folder, whole or not at all; an older checkpoint at `path` is replaced with all it holds.
    Raises InputError: `path` is a file, or a folder that holds something else. Raises OSError: it can't be written,
    such as on a full disk.

    Args:
        student: with the weights to use: the averaged ones, if there are any.
        config: the run's complete configuration; `student` is the network's shape, `tasks` its heads.
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / DESCRIPTION).is_file()):
        raise InputError(f"{path}: exists and is no checkpoint; give a folder that does not exist yet")
    description = {
        "format": FORMAT,
        "tutored": version("tutored"),
        "tasks": {name: list(task.labels.names) for name, task in student.tasks.items()},
        "scores": student.scores,
        "config": config.to_dict(),
    }
    weights = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    with whole_folder(path) as folder:
        save_file(weights, folder / WEIGHTS)
        description["sha256"] = seal(description, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(path: Path | str) -> tuple[Student, Config]:
    """Build the student of a checkpoint folder, in evaluation mode on the CPU, from nothing but that folder. Raises
    InputError: no checkpoint, another format, weights that do not fit its configuration, or bytes that are not those
    that were written.
    """
    path = Path(path)
    folder = path if path.exists() or not former(path).exists() else former(path)
    require(folder, CHECKPOINT)
    description = _describe(folder, path)
    config, labels, scores = _meaning(description, path / DESCRIPTION)
    with told_of(path / DESCRIPTION):
        tasks = {name: open_task(name, labels[name], section) for name, section in config.tasks.items()}
        student = make_student(config.student.model_copy(update={"weights": "random"}), tasks)
    try:
        weights = load_file(regular(folder / WEIGHTS))
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
    if description.pop("sha256", None) != seal(description, folder / WEIGHTS):
        raise InputError(f"{path}: damaged ('sha256' differs from its content); copy or train the checkpoint again")
    student.load_state_dict(weights)
    student.scores |= scores
    return student.eval(), config


def _describe(folder: Path, path: Path) -> dict[str, Any]:
    origin = path / DESCRIPTION
    description: Any = read_json(folder / DESCRIPTION, "copy or train the checkpoint again", "can't be read as JSON")
    number = description.get("format") if isinstance(description, dict) else None
    if number != FORMAT:
        raise InputError(
            f"{origin}: a checkpoint of format {number}, and tutored {version('tutored')} reads format {FORMAT}; "
            "install the version that wrote it"
        )
    found: dict[str, Any] = description
    return found


def _meaning(description: Mapping[str, Any], origin: Path) -> tuple[Config, dict[str, LabelSpace], dict[str, float]]:
    try:
        scores = {str(name): float(score) for name, score in description.get("scores", {}).items()}
        labels = {str(name): LabelSpace(tuple(names)) for name, names in description["tasks"].items()}
        config = dict(description["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{origin}: damaged ({error!r}); copy or train the checkpoint again") from error
    meant = make_config(config, origin=str(origin))
    if meant.tasks.keys() != labels.keys():
        raise InputError(
            f"{origin}: its tasks are {', '.join(labels)}, those of its config {', '.join(meant.tasks)}; "
            "copy or train the checkpoint again"
        )
    return meant, labels, scores
