"""What a study is: rows of runs that differ in a few keys of the config, and the comparisons that answer a question."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tutored.errors import InputError

Recipe = Literal["thesis", "corrected"]
RECIPES: tuple[Recipe, ...] = ("thesis", "corrected")
Changes = Mapping[str, Any]
"""Sections of a config and their keys, as in `Config`. A `store` names one of the setting's tutors."""


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one line of a table or one point of a curve: one for each seed.

    Attributes:
        label: what is special about it, in a few words.
        changes: to the recipe's and the setting's config.
        series: the curve that a point belongs to.
        x: where it lies on the study's axis; None: no point of a curve, or a level drawn across.
        split: which of the setting's training splits.
        printed: the thesis' own figures, "mAP" and "mIoU", shares in 0..1.
    """

    label: str
    changes: Changes = field(default_factory=dict)
    series: str = ""
    x: float | None = None
    split: Literal["small", "large"] = "small"
    printed: Mapping[str, float] = field(default_factory=dict)

    @property
    def tutors(self) -> set[str]:
        """The names of the tutors that it needs."""
        keys = self.changes.get("supervision", {}).values()
        return {task["store"] for task in keys if isinstance(task, Mapping) and "store" in task}


@dataclass(frozen=True, slots=True)
class Study:
    """One table or figure.

    Attributes:
        name: such as `thesis/table-12`.
        title: one line.
        question: what it answers, a sentence or two.
        rows: by recipe, what is trained; a recipe that is absent has no runs.
        against: pairs of labels (better?, than what?) to be compared, of rows of one recipe.
        axis: what x means, for a figure; None: a table.
        figures: which figures the thesis shows, in its order.
        single_task: labels of the row that is taught boxes alone and of that taught maps alone; the others are compared
            with the two of them.
        lacks: tutors that the setting does not name; the rows that need them are left out.

    Raises:
        InputError: `single_task` or `against` names a row that no recipe has.
    """

    name: str
    title: str
    question: str
    rows: Mapping[Recipe, tuple[Row, ...]]
    against: tuple[tuple[str, str], ...] = ()
    axis: str | None = None
    figures: tuple[str, ...] = ("mAP", "mIoU")
    single_task: tuple[str, str] | None = None
    lacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = list(dict.fromkeys(row.label for rows in self.rows.values() for row in rows))
        named = {"single_task": self.single_task or (), "against": [label for pair in self.against for label in pair]}
        for key, wanted in named.items():
            unknown = [label for label in wanted if label not in labels]
            if unknown and labels and not self.lacks:
                raise InputError(
                    f"study {self.name}: `{key}` names {', '.join(map(repr, unknown))}, of no row; "
                    f"possible: {', '.join(map(repr, labels))}"
                )

    def within(self, tutors: Collection[str]) -> Study:
        """The same with the rows that these tutors suffice for."""
        needed = {name for rows in self.rows.values() for row in rows for name in row.tutors}
        possible = {
            recipe: tuple(row for row in rows if row.tutors <= set(tutors)) for recipe, rows in self.rows.items()
        }
        return replace(self, rows=possible, lacks=tuple(sorted(needed - set(tutors))))


def both(*rows: Row) -> dict[Recipe, tuple[Row, ...]]:
    """The same rows in both recipes."""
    return dict.fromkeys(RECIPES, rows)


def supervision(detection: Changes | None = None, segmentation: Changes | None = None, **sections: Changes) -> Changes:
    """Changes of who answers for each task, and of other sections; None: ground truth."""
    tasks = {"detection": detection, "segmentation": segmentation}
    return {"supervision": {name: dict(task) for name, task in tasks.items() if task}, **sections}


def tutor(name: str, share: float = 1.0, *, resampled: bool = False) -> Changes:
    """The tutor answers instead of the ground truth on a share of the images."""
    return {"policy": "replace", "store": name, "share": share, "resampled": resampled}


def filled(name: str, hidden: float) -> Changes:
    """A share of the ground truth is hidden, and the tutor answers there."""
    return {"policy": "fill", "store": name, "hidden": hidden}


def hidden(share: float) -> Changes:
    """A share of the ground truth is hidden, and nobody answers there."""
    return {"hidden": share}


def summed(name: str) -> Changes:
    """Half the loss of the ground truth and half the tutor's, on every image."""
    return {"policy": "both", "store": name}


NOBODY: Changes = {"policy": "none"}
"""The task is not trained."""
