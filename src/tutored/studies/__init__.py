"""The thesis' tables and figures and what lies beyond, as declared runs with seeds; and one report of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutored.errors import InputError
from tutored.studies.ablation import ABLATION, MENDED
from tutored.studies.beyond import BEYOND_STUDIES
from tutored.studies.declare import Recipe, Row, Study
from tutored.studies.outcome import StudyOutcome, gather
from tutored.studies.plan import Run, plan
from tutored.studies.run import Standing, run_all
from tutored.studies.setting import Setting, load_setting
from tutored.studies.thesis import THESIS_STUDIES
from tutored.studies.tune import tune, tuned

__all__ = [
    "Row",
    "Run",
    "Setting",
    "Standing",
    "Study",
    "StudyOutcome",
    "choose",
    "gather",
    "load_setting",
    "plan",
    "run_all",
    "studies_of",
]


def studies_of(setting: Setting) -> tuple[Study, ...]:
    """Every declared study, with the rows that the setting has the tutors for.

    `tune` tries the setting's candidates; `beyond/tuned` is there once some were chosen.
    """
    chosen = [tuned(setting)] if setting.chosen else []
    declared = (tune(setting), *THESIS_STUDIES, *BEYOND_STUDIES, ABLATION, MENDED, *chosen)
    return tuple(study.within(setting.tutors) for study in declared)


def choose(names: Sequence[str], setting: Setting, recipe: Recipe | None = None) -> list[Study]:
    """Studies by name, or by the part before the slash; `all` is all but `tune`. In the order given.

    Args:
        recipe: leave out the rows of the other one.

    Raises:
        InputError: no study has such a name.
    """
    there = studies_of(setting)
    chosen: dict[str, Study] = {}
    for name in names:
        found = [
            study
            for study in there
            if study.name == name or study.name.startswith(f"{name}/") or (name == "all" and study.name != "tune")
        ]
        if not found:
            raise InputError(f"no study {name!r}; possible: all, {', '.join(study.name for study in there)}")
        chosen |= {study.name: study for study in found}
    if recipe is None:
        return list(chosen.values())
    return [replace(study, rows={recipe: study.rows.get(recipe, ())}) for study in chosen.values()]
