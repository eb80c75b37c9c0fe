"""Curves with bands in the style of the thesis' figures 14 to 16, and bars by class, as SVG that follows dark mode."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tutored.studies.declare import RECIPES
from tutored.studies.outcome import RowOutcome, StudyOutcome

INK = "#123456"
"""Stands for the colour of text and axes, which the viewer's light or dark mode decides."""
STYLE = "<style>:root{--ink:#1f2328}@media(prefers-color-scheme:dark){:root{--ink:#d1d7e0}}</style>"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
"""Okabe and Ito's, which colour-blind people can tell apart."""
PRINTED = "#8a8a8a"
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tutored",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def curves(outcome: StudyOutcome) -> str | None:
    """A panel for each figure of the study; None where no point has a result.

    A line joins the means of a recipe's series, its band is from the lowest to the highest seed. Rows without a place
    on the axis are drawn across. The thesis' printed values are grey and dashed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not any(row.values(name) for row in outcome.rows for name in outcome.study.figures):
        return None
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(4.6 * len(outcome.study.figures), 3.9), layout="constrained")
        panels = figure.subplots(1, len(outcome.study.figures), squeeze=False)[0]
        for panel, name in zip(panels, outcome.study.figures, strict=True):
            _panel(panel, outcome, name)
        handles = {
            label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5)
        return _svg(figure)


def _panel(panel: Any, outcome: StudyOutcome, name: str) -> None:
    panel.set(xlabel=outcome.study.axis, ylabel=name)
    panel.grid(alpha=0.25, linewidth=0.6)
    colours = iter(COLOURS)
    printed: dict[float, float] = {}
    for recipe in RECIPES:
        rows = outcome.of(recipe)
        for series in dict.fromkeys(row.row.series for row in rows if row.row.x is not None):
            colour = next(colours)
            points = sorted((row for row in rows if row.row.series == series and row.row.x is not None), key=_place)
            _line(panel, [row for row in points if row.values(name)], name, colour, f"{recipe}: {series}")
            printed |= {_place(row): row.row.printed[name] for row in points if name in row.row.printed}
        for row in rows:
            if row.row.x is None:
                label, level = f"{recipe}: {row.row.label}", row.mean(name)
                panel.axhline(float("nan") if level is None else level, color=next(colours), linestyle=":", label=label)
    if printed:
        places, values = zip(*sorted(printed.items()), strict=True)
        panel.plot(places, values, "--s", color=PRINTED, linewidth=1, markersize=3.5, label="thesis (VOC2012)")


def _line(panel: Any, rows: Sequence[RowOutcome], name: str, colour: str, label: str) -> None:
    places = [_place(row) for row in rows]
    values = [row.values(name) for row in rows]
    panel.plot(places, [statistics.mean(each) for each in values], "-o", color=colour, markersize=4, label=label)
    panel.fill_between(places, [min(each) for each in values], [max(each) for each in values], color=colour, alpha=0.18)


def _place(row: RowOutcome) -> float:
    assert row.row.x is not None
    return row.row.x


def bars(figures: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Bars by class, one for each row.

    Args:
        figures: row to class to share, 0..1.
    """
    import matplotlib
    from matplotlib.figure import Figure

    classes = list(dict.fromkeys(name for row in figures.values() for name in row))
    width = 0.8 / len(figures)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.6 if len(classes) <= 8 else 10, 3.4), layout="constrained")
        panel = figure.subplots()
        for index, (label, row) in enumerate(figures.items()):
            places = [place + (index - (len(figures) - 1) / 2) * width for place in range(len(classes))]
            panel.bar(places, [row.get(name, 0.0) for name in classes], width, color=COLOURS[index], label=label)
        panel.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 8 else 0)
        panel.set(ylabel=title, ylim=(0, 1))
        panel.grid(axis="y", alpha=0.25, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
        return _svg(figure)


def _svg(figure: Any) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    start = text.index("<svg")
    inside = text.index(">", start) + 1
    return (text[start:inside] + STYLE + text[inside:]).replace(INK, "var(--ink)")
