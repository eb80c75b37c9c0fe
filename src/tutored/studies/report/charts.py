"""Curves with bands in the style of the thesis' figures 14 to 16, and bars by class, as SVG that follows dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

from tutored.studies.declare import RECIPES, Recipe
from tutored.studies.outcome import RowOutcome, StudyOutcome

INK = "#123456"
"""Stands for the colour of text and axes, `var(--ink)`: the page's own, or that of `standalone`."""
STYLE = "<style>:root{--ink:#1f2328}@media(prefers-color-scheme:dark){:root{--ink:#d1d7e0}}</style>"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
"""Okabe and Ito's, which colour-blind people can tell apart; two more."""
MARKERS = {"thesis": "^", "corrected": "o"}
LEVELS = (":", "-.")
PRINTED, THESIS = "#8a8a8a", "printed in the thesis"
WIDTH, BROAD = 4.6, 10.0
"""Inches; many classes need a broad chart."""
FEW_CLASSES = 8
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def curve(outcome: StudyOutcome, name: str, title: str) -> str | None:
    """One of the study's figures over its axis; None where no run has it.

    A line joins the means of a recipe's series, its band is from the lowest to the highest seed. Rows without a place
    on the axis are dotted levels with such a band. The thesis' printed values are grey and dashed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not any(row.values(name) for row in outcome.rows):
        return None
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": title}):
        figure = Figure(layout="constrained")
        draw_curve(figure.subplots(), outcome, name)
        return _svg(figure, title, WIDTH)


def draw_curve(panel: Any, outcome: StudyOutcome, name: str) -> None:
    """The same, on matplotlib's axes."""
    panel.set(xlabel=outcome.study.axis, ylabel=name)
    panel.grid(alpha=0.25, linewidth=0.6)
    colours = cycle(COLOURS)
    for recipe in RECIPES:
        rows = outcome.of(recipe)
        points = sorted((row for row in rows if row.row.x is not None), key=_place)
        hues = {series: next(colours) for series in dict.fromkeys(row.row.series for row in points)}
        for series, colour in hues.items():
            own = [row for row in points if row.row.series == series and row.values(name)]
            if own:
                _line(panel, own, name, color=colour, marker=MARKERS[recipe], label=f"{recipe}: {series}")
        levels = [row for row in rows if row.row.x is None and row.values(name)]
        for row, style in zip(levels, cycle(LEVELS), strict=False):
            colour = next(iter(hues.values()), COLOURS[-1])
            values = row.values(name)
            panel.axhspan(min(values), max(values), color=colour, alpha=0.18, linewidth=0)
            panel.axhline(row.mean(name), color=colour, linestyle=style, label=f"{recipe}: {row.row.label}")
    _draw_printed(panel, [row for row in outcome.rows if name in row.row.printed], name)


def _draw_printed(panel: Any, rows: Sequence[RowOutcome], name: str) -> None:
    """What both recipes' rows carry is drawn once."""
    lines: dict[str, dict[float, float]] = {}
    levels: dict[str, float] = {}
    for row in rows:
        if row.row.x is None:
            levels[row.row.label] = row.row.printed[name]
        else:
            lines.setdefault(row.row.series, {})[row.row.x] = row.row.printed[name]
    style = {"color": PRINTED, "linestyle": "--", "linewidth": 1}
    for points in lines.values():
        panel.plot(*zip(*sorted(points.items()), strict=True), marker="s", markersize=3.5, label=THESIS, **style)
    for label, value in levels.items():
        panel.axhline(value, label=f"{THESIS}: {label}", **style)


def _line(panel: Any, rows: Sequence[RowOutcome], name: str, **style: Any) -> None:
    places, values = [_place(row) for row in rows], [row.values(name) for row in rows]
    panel.plot(places, [row.mean(name) for row in rows], markersize=4, **style)
    panel.fill_between(places, [*map(min, values)], [*map(max, values)], color=style["color"], alpha=0.28, linewidth=0)


def _place(row: RowOutcome) -> float:
    assert row.row.x is not None
    return row.row.x


def bars(
    figures: Mapping[str, Mapping[str, float]], classes: Sequence[str], measure: str, recipe: Recipe, title: str
) -> str:
    """Bars by class, one for each row, in the rows' order.

    Args:
        figures: row to class to share, 0..1. A row without any keeps its colour for the others' sake.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [(row, colour) for row, colour in zip(figures.items(), COLOURS, strict=False) if row[1]]
    width = 0.8 / len(shown)
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": title}):
        figure = Figure(layout="constrained")
        panel = figure.subplots()
        for index, ((label, row), colour) in enumerate(shown):
            places = [classes.index(name) + (index - (len(shown) - 1) / 2) * width for name in row]
            panel.bar(places, list(row.values()), width, color=colour, edgecolor=INK, linewidth=0.4, label=label)
        panel.set_xticks(range(len(classes)), classes, rotation=30, ha="right", rotation_mode="anchor")
        panel.set(ylabel=measure, ylim=(0, 1))
        panel.set_title(f"recipe {recipe}", loc="left", fontsize=9)
        panel.grid(axis="y", alpha=0.25, linewidth=0.6)
        return _svg(figure, title, WIDTH if len(classes) <= FEW_CLASSES else BROAD)


def standalone(svg: str) -> str:
    """A chart as a file of its own, with the colours of light and dark mode."""
    inside = svg.index(">") + 1
    return svg[:inside] + STYLE + svg[inside:] + "\n"


def _svg(figure: Any, title: str, width: float) -> str:
    """Without the ids of groups, which nothing refers to: a page holds many charts."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left")
    figure.set_size_inches(width, 2.9 + 0.19 * len(labels))
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :].rstrip())
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).replace(INK, "var(--ink)")
    return text.replace("'DejaVu Sans'", "system-ui, sans-serif")
