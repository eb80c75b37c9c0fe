"""Curves with bands in the style of the thesis' figures 14 to 16, and bars by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from tutored.page import BROAD, COLOURS, INK, NARROW, PAPER, svg
from tutored.studies.declare import RECIPES, Recipe
from tutored.studies.outcome import RowOutcome, StudyOutcome

MARKERS = {"thesis": "^", "corrected": "o"}
LEVELS = (":", "-.")
PRINTED, THESIS = "#8a8a8a", "printed in the thesis"
FEW_CLASSES, MANY_CLASSES = 8, 24
"""A broad chart takes more than the first, and names more than the second upright."""


def curve(outcome: StudyOutcome, name: str, title: str) -> str | None:
    """One of the study's figures over its axis; None where no run has it.

    A line joins the means of a recipe's series, its band is from the lowest to the highest seed; a row with one seed
    has none, and a hollow point. Rows without a place on the axis are dotted levels with such a band. The thesis'
    printed values are grey and dashed.
    """
    if not any(row.values(name) for row in outcome.rows):
        return None
    return svg(title, lambda panel: draw_curve(panel, outcome, name))


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
    """A single seed has no spread: its point is hollow, and no band leads to it."""
    places, values, means = zip(*[(_place(row), row.values(name), row.mean(name)) for row in rows], strict=True)
    lowest, highest, several = [*map(min, values)], [*map(max, values)], [len(seeds) > 1 for seeds in values]
    panel.plot(places, means, markersize=4, **style)
    single = [(place, mean) for place, mean, spread in zip(places, means, several, strict=True) if not spread]
    if single:
        hollow = {**style, "label": None, "linestyle": "", "markerfacecolor": PAPER}
        panel.plot(*zip(*single, strict=True), markersize=4, **hollow)
    panel.vlines(places, lowest, highest, color=style["color"], linewidth=1.2)
    panel.fill_between(places, lowest, highest, several, color=style["color"], alpha=0.28, linewidth=0)


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
    shown = [(row, colour) for row, colour in zip(figures.items(), COLOURS, strict=False) if row[1]]
    width = 0.8 / len(shown)

    def draw(panel: Any) -> None:
        for index, ((label, row), colour) in enumerate(shown):
            places = [classes.index(name) + (index - (len(shown) - 1) / 2) * width for name in row]
            panel.bar(places, list(row.values()), width, color=colour, edgecolor=INK, linewidth=0.4, label=label)
        upright = {"rotation": 90, "va": "center", "fontsize": 6} if len(classes) > MANY_CLASSES else {"rotation": 30}
        panel.set_xticks(range(len(classes)), classes, ha="right", rotation_mode="anchor", **upright)
        panel.set(ylabel=measure, ylim=(0, 1))
        panel.set_title(f"recipe {recipe}", loc="left", fontsize=9)
        panel.grid(axis="y", alpha=0.25, linewidth=0.6)

    return svg(title, draw, NARROW if len(classes) <= FEW_CLASSES else BROAD)
