"""From declared studies to distinct runs, each once, in the order in which they are worth having."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tutored.config import Config, make_config, merged
from tutored.studies.declare import Recipe, Row, Study
from tutored.studies.setting import Setting


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a row's config with one seed. Rows of several studies may share it."""

    config: Config
    label: str

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def seed(self) -> int:
        return self.config.train.seed


def config_of(row: Row, recipe: Recipe, setting: Setting, seed: int) -> Config:
    """The complete config of one run.

    Over the recipe's defaults come the setting's own keys, then those for this recipe, then the row's, then the seed.

    Raises:
        InputError: the setting has no tutor of a name that the row asks for, or a key or value is not possible.
    """
    given = merged({"recipe": recipe, "data": setting.data_of(row.split)}, setting.run)
    given = merged(given, setting.recipes.get(recipe, {}))
    given = merged(given, setting.missing_in(row.split))
    given = merged(given, copy.deepcopy(dict(row.changes)))
    given = merged(given, {"train": {"seed": seed}})
    for task in given.get("supervision", {}).values():
        if isinstance(task, dict) and "store" in task:
            task["store"] = setting.store(task["store"], row.split)
    return make_config(given, origin=f"{setting.name}, {row.label}")


def runs_of(row: Row, recipe: Recipe, setting: Setting, seeds: Iterable[int]) -> list[Run]:
    """A row's runs, one for each seed."""
    return [Run(config_of(row, recipe, setting, seed), f"{row.label} ({recipe}, seed {seed})") for seed in seeds]


def plan(studies: Sequence[Study], setting: Setting, seeds: Sequence[int]) -> list[Run]:
    """Every distinct run of the studies: first all of the first seed, study by study, then all of the next."""
    distinct: dict[str, Run] = {}
    for seed in seeds:
        for study in studies:
            for recipe, rows in study.rows.items():
                for row in rows:
                    for run in runs_of(row, recipe, setting, [seed]):
                        distinct.setdefault(run.run_id, run)
    return list(distinct.values())
