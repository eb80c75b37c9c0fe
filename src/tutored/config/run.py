"""One run's complete configuration, and what the recipes set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from tutored.config.sections import TASKS, Augment, Data, Decode, Loss, Section, Student, Supervision, Train

THESIS: dict[str, Any] = {
    "augment": {"zoom_out": "run", "tutor_steers_crop": True},
    "loss": {
        "box_floor": 0.001,
        "ignore_floor": 0.001,
        "conflicts": "keep",
        "normaliser": "positives",
        "joint": False,
        "mining": "batch",
        "min_negatives": 1,
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
            return merged(THESIS, given)
        return given

    def to_dict(self) -> dict[str, Any]:
        """Plain, complete and JSON-ready; `Config.model_validate` reads it back."""
        return self.model_dump(mode="json")

    @property
    def taught(self) -> tuple[str, ...]:
        """The tasks that somebody teaches; the student's answers for another one mean nothing."""
        return tuple(task for task in TASKS if getattr(self.supervision, task).policy != "none")

    @property
    def run_id(self) -> str:
        """Twelve hex digits that change when any field changes."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
