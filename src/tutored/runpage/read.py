"""A run's folder as plain values; what an older or unfinished run lacks is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutored.config import Config, load_config
from tutored.data.text import read_lines
from tutored.errors import InputError
from tutored.runpage.kept import FOLDER, validation_name


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run.

    Attributes:
        steps: entries of the log on training: loss terms, images/s, and the learning rate in newer runs.
        validations: entries of the log on validation, by epoch.
        details: of the last validation, where it left them; see `keep_validation`.
        facts: see `keep_facts`; of a finished run without them, what its result says.
        finished: there is a result.
    """

    path: Path
    config: Config
    steps: Sequence[Mapping[str, Any]]
    validations: Mapping[int, Mapping[str, Any]]
    details: Mapping[str, Any]
    facts: Mapping[str, Any]
    finished: bool

    @property
    def done(self) -> int:
        """The step of the last entry."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def epoch_steps(self) -> int | None:
        """Steps of an epoch; None where nothing tells."""
        if "epoch_steps" in self.facts:
            return int(self.facts["epoch_steps"])
        return next((int(entry["step"]) // epoch for epoch, entry in self.validations.items()), None)

    @property
    def step_images(self) -> int:
        """Images of a step: all of the training data where it is smaller than a batch."""
        batch = self.config.train.batch
        images = sum(sum(tasks["detection"].values()) for tasks in self.facts.get("coverage", {}).values())
        return min(batch, images or batch)


def read_run(path: Path) -> Run:
    """Read a run's folder.

    Raises:
        InputError: it holds no run, or a file of it is damaged.
    """
    if not (path / "config.yaml").exists():
        raise InputError(f"{path}: no run (config.yaml is missing); give the folder that `tutored train --out` wrote")
    config = load_config(path / "config.yaml")
    entries = read_log(path / "log.jsonl") if (path / "log.jsonl").exists() else []
    validations = {entry["epoch"]: entry for entry in entries if "val" in entry}
    result = _read(path / "result.json")
    last = validation_name(max(validations, default=0))
    return Run(
        path,
        config,
        [entry for entry in entries if "loss" in entry],
        validations,
        _read(path / FOLDER / f"{last}.json") or {},
        {**(result or {}), **(_read(path / FOLDER / "facts.json") or {})},
        result is not None,
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's log. Raises InputError where one is damaged."""
    entries = [_parsed(path, line) for line in read_lines(path)]
    if not all(
        isinstance(entry.get(name), int) for entry in entries for name in ("step", *["epoch"] * ("val" in entry))
    ):
        raise InputError(f"{path}: damaged (an entry without its step or epoch); train the run again")
    return entries


def _read(path: Path) -> dict[str, Any] | None:
    return _parsed(path, "\n".join(read_lines(path))) if path.exists() else None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged (no mapping); train the run again")
    return found
