"""A study: rows of runs that differ in a few keys of the config, and the comparisons that answer a question."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.config import merged, read_yaml
from tutored.section import Section

Recipe = Literal["thesis", "corrected"]
RECIPES: tuple[Recipe, ...] = ("thesis", "corrected")
Changes = Mapping[str, Any]
"""Sections of a config and their keys. A task's `store` names one of the setting's tutors."""


class Row(Section):
    """One line of a table or one point of a curve: one run for each seed.

    Attributes:
        label: what is special about these runs, in a few words.
        recipes: the recipes that have this row.
        config: the keys in which the runs differ from the setting's, in every recipe. It may be given as several
            mappings, of which later ones win; so may the next two.
        thesis: further keys in the recipe `thesis`.
        corrected: further keys in the recipe `corrected`.
        against: labels of the rows to compare it with: is this one better?
        split: which of the setting's training splits.
        series: the curve that a point belongs to.
        x: its place on the study's axis; None: a row of a table, or a level drawn across a figure.
        printed: the thesis' own figures, "mAP" and "mIoU", shares in 0..1.
    """

    label: str
    recipes: tuple[Recipe, ...] = RECIPES
    config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    thesis: dict[str, dict[str, Any]] = Field(default_factory=dict)
    corrected: dict[str, dict[str, Any]] = Field(default_factory=dict)
    against: tuple[str, ...] = ()
    split: Literal["small", "large"] = "small"
    series: str = ""
    x: float | None = None
    printed: dict[str, float] = Field(default_factory=dict)

    @field_validator("config", "thesis", "corrected", mode="before")
    @classmethod
    def _merge(cls, given: Any) -> Any:
        if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
            return given
        found: Mapping[str, Any] = {}
        for each in given:
            found = merged(found, each)
        return found

    def changes(self, recipe: Recipe) -> Changes:
        """All keys in which the runs of one recipe differ from the setting's."""
        return merged(self.config, {"thesis": self.thesis, "corrected": self.corrected}[recipe])

    @property
    def tutors(self) -> set[str]:
        """The names of the tutors that it needs."""
        tasks = [task for recipe in RECIPES for task in self.changes(recipe).get("tasks", {}).values()]
        return {task["store"] for task in tasks if "store" in task}

    @property
    def needs(self) -> set[str]:
        """What it asks of a setting: `the tutor NAME`, and `student.KEY` for keys of the setting's student."""
        students = [self.changes(recipe).get("student", {}) for recipe in RECIPES]
        keys = {f"student.{key}" for each in students if "kind" not in each for key in each}
        return keys | {f"the tutor {name}" for name in self.tutors}


class Study(Section):
    """One table or figure, of rows that a setting makes into runs.

    Attributes:
        name: such as `thesis/table-12`.
        title: one line.
        question: what it answers, a sentence or two.
        recipes: the recipes in which its rows are trained.
        axis: what `x` means, for a figure; None: a table.
        figures: the figures that are drawn, in this order.
        single_task: labels of the row that is taught boxes alone and of the row that is taught maps alone; every other
            row is compared with these two.
        lacks: what the setting does not have of `Row.needs`; the rows that need it are left out.
    """

    name: str
    title: str
    question: str
    recipes: tuple[Recipe, ...] = RECIPES
    rows: tuple[Row, ...]
    axis: str | None = None
    figures: tuple[Literal["mAP", "mIoU"], ...] = ("mAP", "mIoU")
    single_task: tuple[str, str] | None = None
    lacks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        labels = [row.label for row in self.rows]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ValueError(f"study {self.name}: two rows are called {twice[0]!r}")
        named = [("against", name) for row in self.rows for name in row.against]
        for key, name in [*named, *(("single_task", name) for name in self.single_task or ())]:
            if name not in labels:
                raise ValueError(f"study {self.name}: `{key}` names {name!r}; possible: {', '.join(map(repr, labels))}")
        return self

    def of(self, recipe: Recipe) -> tuple[Row, ...]:
        """The rows of one recipe."""
        return tuple(row for row in self.rows if recipe in row.recipes and recipe in self.recipes)

    def within(self, has: Collection[str]) -> Study:
        """The same study with only the rows that need nothing else (`Row.needs`)."""
        lacks = {need for row in self.rows for need in row.needs} - set(has)
        rows = tuple(row for row in self.rows if not row.needs & lacks)
        return self.model_copy(update={"rows": rows, "lacks": tuple(sorted(lacks))})

    def key(self, recipe: Recipe, row: Row) -> str:
        """What names a row in the results, such as `thesis/table-12 | corrected | ground truth`."""
        return f"{self.name} | {recipe} | {row.label}"


class Answer(Section):
    """A line at the head of a report: a question, and the comparison of two rows that answers it.

    Attributes:
        question: in one sentence.
        study: the name of the study that has both rows.
        row: label of the row that is asked about.
        against: label of the row that it is held to; `row` has it among its own `against`.
    """

    question: str
    study: str
    row: str
    against: str
    recipe: Recipe = "corrected"


def _declared(file: str) -> tuple[Study, ...]:
    return tuple(Study.model_validate(each) for each in read_yaml(Path(__file__).with_name(file))["studies"])


DECLARED = (*_declared("thesis.yaml"), *_declared("beyond.yaml"))
"""The thesis' studies, and those beyond."""
