"""One report of studies, from their results alone: a self-contained page, and Markdown with its charts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.files import write_text
from tutored.page import render, standalone
from tutored.studies.declare import Recipe
from tutored.studies.outcome import RowOutcome, StudyOutcome
from tutored.studies.report import content
from tutored.studies.report.charts import FEW_CLASSES, bars, curve
from tutored.studies.report.pictures import Gallery
from tutored.studies.setting import Setting

MOST_ROWS = 8
"""A table with more has neither bars by class nor pictures."""
BARS = {"AP_voc_area@.5": "AP (VOC area)", "IoU": "IoU"}


class Chart(NamedTuple):
    """An SVG with its file's name; bars come with their figures, row by row."""

    file: str
    title: str
    svg: str
    classes: Sequence[str] = ()
    figures: Mapping[str, Mapping[str, float]] | None = None

    @property
    def broad(self) -> bool:
        return len(self.classes) > FEW_CLASSES


def write_report(
    outcomes: Sequence[StudyOutcome],
    setting: Setting,
    out: Path,
    *,
    seeds: Sequence[int],
    command: Callable[[str], str],
    tutors: Mapping[str, Mapping[str, Any]] | None = None,
    photos: bool = False,
) -> tuple[Path, Path]:
    """Write `report.html`, `report.md` and `charts/*.svg`; the same results give the same bytes.

    Args:
        out: folder.
        command: what trains the missing runs of a study, from its name. It is shown as it is given.
        tutors: by name, the figures of the tutors' own stores on the evaluation split.
        photos: draw on the evaluation split's photographs, the ground truth first; else answers on a plain ground, and
            no data set is opened.

    Returns:
        The page and the Markdown file.

    Raises:
        InputError: `photos` and the data set can't be read.
    """
    gallery = Gallery(outcomes, setting, photos=photos)
    studies = [_study(outcome, setting, command, gallery) for outcome in outcomes]
    for study in studies:
        for chart in study["charts"]:
            write_text(out / "charts" / chart.file, standalone(chart.svg))
    values = {
        "head": content.head(outcomes, setting, seeds),
        "tutors": content.tutors(tutors or {}),
        "studies": studies,
        "photos": photos,
        "pictures": gallery.pictures.values(),
        "legend": gallery.legend,
    }
    for name in ("report.html", "report.md"):
        template = f"page.{name.rpartition('.')[2]}.j2"
        write_text(out / name, render("tutored.studies.report", template, values))
    return out / "report.html", out / "report.md"


def _study(outcome: StudyOutcome, setting: Setting, command: Callable[[str], str], gallery: Gallery) -> dict[str, Any]:
    found = content.study(outcome, command)
    found["charts"], found["pictures"] = [], {}
    if outcome.study.axis is not None:
        for name in outcome.study.figures:
            title = f"{outcome.study.title}: {name}"
            drawn = curve(outcome, name, title)
            if drawn is not None:
                found["charts"].append(Chart(f"{found['anchor']}-{name.lower()}.svg", title, drawn))
        return found
    for recipe in outcome.study.rows:
        rows = outcome.of(recipe)
        if len(rows) <= MOST_ROWS:
            found["charts"] += _bars(
                rows, recipe, setting.reported or _classes(outcome), outcome.study.title, found["anchor"]
            )
            found["pictures"][recipe] = gallery.table(rows)
    return found


def _bars(rows: Sequence[RowOutcome], recipe: Recipe, classes: Sequence[str], title: str, anchor: str) -> list[Chart]:
    charts = []
    for metric, measure in BARS.items():
        averaged = ["background", *classes] if metric == "IoU" else classes
        figures = content.by_class(rows, metric, averaged)
        shown = [name for name in averaged if any(name in row for row in figures.values())]
        if shown:
            told = f"{title}: {measure} by class, recipe {recipe}"
            svg = bars(figures, shown, measure, recipe, told)
            file = f"{anchor}-{recipe}-{metric.partition('_')[0].lower()}.svg"
            charts.append(Chart(file, told, svg, shown, figures))
    return charts


def _classes(outcome: StudyOutcome) -> list[str]:
    results = (run.result for row in outcome.rows for run in row.runs if run.result and run.result["figures"])
    return next((result["figures"]["classes"] for result in results), [])
