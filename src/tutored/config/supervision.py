"""Where images come from, and who teaches each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.config.section import Section, Share, Weight

TASKS = ("detection", "segmentation")


class MoreData(Section):
    """Another data set to train on together with the first."""

    train: str
    """Data set, such as `voc:FOLDER`."""
    split: str = "train"
    """Its split."""
    annotated: tuple[str, ...] | None = None
    """Names of the classes that it annotates; null: all of its label space."""


class Data(Section):
    """Where images and ground truth come from."""

    train: str
    """Data set to train on, such as `voc:FOLDER` or `coco:FOLDER`."""
    split: str = "train"
    """Split to train on; of a VOC folder, several are joined by `+`."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images that is kept out of training and validated on, instead of `val`: to choose settings
    on. The same images for every seed."""
    val: str | None = None
    """Data set to validate on; the training data set's folder if absent."""
    val_split: str | None = "val"
    """Split to validate on while training; null: none."""
    val_annotated: tuple[str, ...] | None = None
    """Names of the classes that `val` annotates; without `val`, those of the training data."""
    annotated: tuple[str, ...] | None = None
    """Names of the classes that the training data annotates; null: all of its label space."""
    more: tuple[MoreData, ...] = ()
    """Further training data. Their classes may differ: the student's are then all of them, and in each data set those
    that it does not have count as not annotated."""
    classes: tuple[str, ...] | None = None
    """The student's classes; null: those of all training data."""
    reported: tuple[str, ...] | None = None
    """The classes that the means of a validation are over; null: all."""

    @field_validator("classes", "reported")
    @classmethod
    def _some_class(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names == ():
            raise ValueError("got [], no class at all; name one or more, or give null for all")
        return names


class Task(Section):
    """Who answers for one task: ground truth, tutor or both, per image."""

    policy: Literal["ground_truth", "fill", "replace", "both", "none"] = "ground_truth"
    """`fill`: ground truth, tutor where it is missing; `replace`: tutor on a `share` of images; `both`: their sum."""
    store: Path | tuple[Path, ...] | None = None
    """Folder of the tutor's soft labels; several where several splits or data sets were labelled."""
    hidden: Share = 0.0
    """Share of the annotated training images whose ground truth is hidden; a larger share hides a superset."""
    share: Share = 1.0
    """Share of images that `replace` gives to the tutor."""
    resampled: bool = False
    """The thesis' reading of the `share` that `replace` gives: other images at every step, so that none is without
    ground truth for good."""
    weights: tuple[Weight, Weight] = (0.5, 0.5)
    """Ground truth's and tutor's weight where `both` has both; without `loss.joint`, those of the sources' means over a
    batch, whatever each teaches in it (the thesis' formula 18)."""
    renamed: dict[str, str | None] = Field(default_factory=dict)
    """Tutor class -> our class, where names and aliases don't say it; or `ignore`, `background`, or null (as
    `elsewhere` says) to drop it."""
    elsewhere: Literal["background", "ignore"] = "background"
    """Where the tutor's probability of classes that are none of ours goes: to background (VOC), or nowhere, and
    the cell (with `loss.class_target: soft` the box too) weighs that much less."""
    vetted: bool = False
    """Where the other task's ground truth is there, neither hidden nor replaced, what contradicts it does not teach: in
    a tutor's map a class outside its drawn boxes (and a cell in no box is background), and of a tutor's boxes those
    without a pixel of their class."""
    audit: Literal["use", "ignore"] = "use"
    """What `tutored audit` left in the store: mute classes, calibrate probabilities and set the scores from which boxes
    teach, where `loss` has its defaults. The recipe `thesis` ignores it."""

    @property
    def stores(self) -> tuple[Path, ...]:
        """The stores that this task asks; none where no tutor has a say."""
        if self.store is None or self.policy in ("ground_truth", "none"):
            return ()
        return self.store if isinstance(self.store, tuple) else (self.store,)

    @model_validator(mode="after")
    def _store_where_needed(self) -> Self:
        if self.policy in ("fill", "replace", "both") and not self.store:
            raise ValueError(f"policy '{self.policy}' needs a tutor's `store`; `tutored label` makes one")
        return self

    @field_validator("weights")
    @classmethod
    def _teach_something(cls, weights: tuple[float, float]) -> tuple[float, float]:
        if not any(weights):
            raise ValueError("both are 0, so that nobody teaches; give one of them more, or policy 'none'")
        return weights


class Supervision(Section):
    """The source of each image and task."""

    detection: Task = Task()
    segmentation: Task = Task()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides which images are hidden or given to the tutor; shared by runs that differ in `train.seed` only."""

    @property
    def tasks(self) -> dict[str, Task]:
        """By name, in the order of `TASKS`."""
        return {"detection": self.detection, "segmentation": self.segmentation}
