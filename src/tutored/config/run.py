"""One run's complete configuration, and what the recipes set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from tutored.config.section import Section
from tutored.config.supervision import Data, Supervision
from tutored.config.training import Augment, Decode, Loss, Student, Train

THESIS: dict[str, Any] = {
    "augment": {"zoom_out": "run", "crop_guides": "all"},
    "loss": {
        "box_floor": 0.001,
        "ignore_floor": 0.001,
        "conflicts": "keep",
        "normaliser": "positives",
        "joint": False,
        "untaught": "skipped",
        "mining": "batch",
        "difficult": "train",
        "map_target": "softmax",
        "temperature": 0.4,
        "background": "one",
        "padding": "background",
    },
    "train": {
        "optimizer": "adam",
        "lr": 1e-4,
        "backbone_lr": 1.0,
        "weight_decay": 5e-5,
        "schedule": "step",
        "warmup": 0.0,
        "ema": 0.0,
    },
}
"""What the recipe `thesis` sets: the specification's sections 3 and 4, its defects included."""


class Config(Section):
    """One complete run. `recipe` chooses the defaults of `augment`, `loss` and `train`; every field may be set."""

    recipe: Literal["corrected", "thesis"] = "corrected"
    """Whose defaults `augment`, `loss` and `train` have."""
    data: Data
    supervision: Supervision = Supervision()
    student: Student = Student()
    augment: Augment = Augment()
    loss: Loss = Loss()
    train: Train = Train()
    decode: Decode = Decode()

    @model_validator(mode="before")
    @classmethod
    def _recipe_defaults(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("recipe") == "thesis":
            plain = {
                key: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
                for key, value in given.items()
            }
            return merged(THESIS, plain)
        return given

    @model_validator(mode="after")
    def _whole_batches_for_batch_mining(self) -> Self:
        if self.loss.mining == "batch" and self.train.micro_batch is not None:
            raise ValueError("loss.mining 'batch' needs the whole batch at once; leave train.micro_batch out")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain, complete and JSON-ready; `Config.model_validate` reads it back."""
        return self.model_dump(mode="json")

    @property
    def taught(self) -> tuple[str, ...]:
        """The tasks that somebody teaches; the student's answers for another one mean nothing."""
        return tuple(name for name, task in self.supervision.tasks.items() if task.policy != "none")

    @property
    def run_id(self) -> str:
        """Twelve hex digits that change when any field changes.

        They are of the fields that differ from their defaults, so that a new key whose default changes nothing leaves
        the ids of former runs as they are.
        """
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found
