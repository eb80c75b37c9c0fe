"""Where a study runs: a data set with its splits, the tutors' stores, and what all its runs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator, model_validator

from tutored.config import merged, read_yaml
from tutored.config.section import Section
from tutored.errors import InputError

Split = Literal["small", "large"]
AS_SET = "as set"
"""What `tune` calls the setting without a candidate."""
WORDS = {"train": "data", "split": "small, large", "val": "data", "val_split": "evaluation", "reported": "reported"}
"""Keys of a config's `data` that a setting has words of its own for, which studies and report go by."""


class Setting(Section):
    """One data set on which any study runs. Read from a YAML file of these keys; see `VOC2012` for one.

    Attributes:
        name: for the report.
        data: such as `voc:FOLDER`.
        small: a split whose images have boxes and masks.
        large: a larger split of which many images lack masks, for table 17.
        large_hidden: share of the masks of `large` that are hidden, where the data set has more of them than that.
        evaluation: the split that figures are of. Nothing is chosen on it.
        reported: the classes that means are over; null: all.
        tutors: by name (`detection`, `segmentation`, `instances`, `vouched`), the store's folder; `{split}` in it
            stands for the split's name, with `-` for `/`.
        run: keys of the config that all runs have in common.
        recipes: by recipe, further keys.
        scales: by name, further keys of the config, such as fewer epochs for a first look.
        held_out: share of the training images on which `tune` compares the candidates.
        candidates: by name, keys of the config that `tune` tries, each in every arm alike.
        tutor_candidates: the same for keys that matter only where tutors teach, such as a temperature.
        chosen: by arm of `tune`, the keys that were best for it there; `beyond/tuned` trains the arms with
            them in the recipe `corrected`.
    """

    name: str
    data: str
    small: str
    large: str
    large_hidden: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluation: str
    reported: tuple[str, ...] | None = None
    tutors: dict[Annotated[str, StringConstraints(pattern=r"^\w[\w. -]*$")], str]
    run: dict[str, Any] = Field(default_factory=dict)
    recipes: dict[Literal["thesis", "corrected"], dict[str, Any]] = Field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = Field(default_factory=dict)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    candidates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tutor_candidates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("run", "recipes", "scales", "candidates", "tutor_candidates", "chosen")
    @classmethod
    def _check_sections(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for sections in [given] if info.field_name == "run" else given.values():
            _refuse_what_is_lost(sections)
        return given

    @model_validator(mode="after")
    def _name_candidates_apart(self) -> Self:
        names = [AS_SET, *self.candidates, *self.tutor_candidates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two candidates of `tune` are called {twice!r}; give each a name of its own")
        return self

    def data_of(self, split: Split) -> dict[str, Any]:
        """The section `data` of a run."""
        return {
            "train": self.data,
            "split": getattr(self, split),
            "val_split": self.evaluation,
            "reported": self.reported,
        }

    def missing_in(self, split: Split) -> dict[str, Any]:
        """Masks that a run on this split does not get to see, unless its row hides a share of its own."""
        if split == "small" or not self.large_hidden:
            return {}
        return {"supervision": {"segmentation": {"hidden": self.large_hidden}}}

    def store(self, tutor: str, split: Split | Literal["evaluation"]) -> str:
        """The store of a tutor's answers for a split. Raises InputError where there is no such tutor."""
        if tutor not in self.tutors:
            raise InputError(
                f"setting {self.name} has no tutor {tutor!r}, it has {', '.join(self.tutors)}; "
                f"name the store under `tutors: {tutor}:`"
            )
        return self.tutors[tutor].replace("{split}", getattr(self, split).replace("/", "-"))

    def scaled(self, scale: str | None) -> Setting:
        """The same with the keys of a scale. Raises InputError where there is none of that name."""
        if scale is None:
            return self
        if scale not in self.scales:
            raise InputError(
                f"setting {self.name} has no scale {scale!r}; possible: {', '.join(self.scales) or 'none'}"
            )
        keys = self.scales[scale]
        recipes = {recipe: merged(own, keys) for recipe, own in self.recipes.items()}
        return self.model_copy(update={"run": merged(self.run, keys), "recipes": recipes})


def _refuse_what_is_lost(given: dict[str, Any]) -> None:
    """What can't be merged into a config section by section, or would make the figures those of other images."""
    if "recipe" in given:
        raise ValueError("leave `recipe` out: a study says which of its rows are in which")
    for name, section in given.items():
        if not isinstance(section, dict):
            raise ValueError(f"`{name}` is {section!r}; a section is a mapping of its keys")
    for key in WORDS.keys() & given.get("data", {}).keys():
        raise ValueError(f"leave `data.{key}` out: the setting's `{WORDS[key]}` says it")
    for task in given.get("supervision", {}).values():
        if isinstance(task, dict) and not isinstance(task.get("store", ""), str):
            raise ValueError(f"`store` is {task['store']!r}; give the name of one tutor")


VOC2012: dict[str, Any] = {
    "name": "VOC2012",
    "data": "voc:VOCdevkit/VOC2012",
    "small": "Segmentation/train",
    "large": "Main/train",
    "evaluation": "Segmentation/val",
    "tutors": {
        "detection": "stores/detection-{split}",
        "segmentation": "stores/segmentation-{split}",
        "instances": "stores/instances-{split}",
        "vouched": "stores/vouched-{split}",
    },
    "run": {
        "student": {"weights": "timm"},
        "train": {"epochs": 200, "precision": "bf16", "workers": 8},
    },
    "recipes": {"thesis": {"train": {"precision": "fp32"}}},
    "scales": {"small": {"train": {"epochs": 20}}},
    "candidates": {f"lr {rate}": {"train": {"lr": rate}} for rate in (2.5e-4, 5e-4, 1e-3)},
    "tutor_candidates": {f"T = {value}": {"loss": {"temperature": value}} for value in (0.5, 2.0)},
}
"""The thesis' own: seg train 1,464 images, det train 5,717 of which 4,566 lack masks, seg val 1,449."""


def load_setting(path: Path | None, **over: Any) -> Setting:
    """Read a setting's YAML; without a path, VOC2012's. `over` takes the place of single keys.

    Raises:
        InputError: the file can't be read, or a key or value is not possible.
    """
    given: Any = VOC2012
    if path is not None:
        given = read_yaml(path)
        if not isinstance(given, dict):
            raise InputError(f"{path}: a setting is a mapping with {', '.join(Setting.model_fields)}")
    try:
        return Setting.model_validate(given | {key: value for key, value in over.items() if value is not None})
    except ValidationError as error:
        found = [
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()
        ]
        lines = [f"{place}: {text}" if place else text for place, text in found]
        raise InputError(f"{path or 'setting'}: " + "; ".join(lines)) from error
