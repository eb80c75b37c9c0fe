"""Curves of an audit: reliability, precision and recall over score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutored.page import COLOURS, Chart, svg

MOST_LINES = 8
"""Classes in one chart: those with the most answers."""
EVEN = "#8a8a8a"


def reliability_chart(title: str, lines: Mapping[str, Sequence[Sequence[float]]], *, bars: bool = False) -> Chart:
    """The share that is right over the mean confidence, bin by bin; on the dashed line both are the same.

    Args:
        lines: `calibrate.Bin`s by name.
        bars: draw the 95 % interval of each bin.
    """

    def draw(panel: Any) -> None:
        panel.plot([0, 1], [0, 1], color=EVEN, linestyle="--", linewidth=1)
        for (name, bins), colour in zip(lines.items(), COLOURS, strict=False):
            x, y, low, high = ([each[column] for each in bins] for column in range(4))
            style = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.3, "label": name}
            if bars:
                ends = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
                panel.errorbar(x, y, yerr=ends, elinewidth=0.8, **style)
            else:
                panel.plot(x, y, **style)
        panel.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))


def score_chart(title: str, lines: Mapping[str, Sequence[Sequence[float]]], column: int, what: str) -> Chart:
    """Precision (`column` 1) or recall (2) of the boxes from each score on."""

    def draw(panel: Any) -> None:
        for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
            panel.plot([each[0] for each in points], [each[column] for each in points], color=colour, label=name)
        panel.set(xlabel="score from which on boxes count", ylabel=what, xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))


def charts(task: str, figures: Mapping[str, Any]) -> list[Chart]:
    """Those of one task, from its figures."""
    unit = "Boxes" if task == "detection" else "Pixels"
    found = figures["calibration"]
    most = sorted(figures["classes"], key=lambda row: -row["answers"])[:MOST_LINES]
    told = [row for row in figures["classes"] if row in most and row["bins"]]
    drawn = []
    if found["bins"]:
        lines = {"as they are": found["bins"]}
        if found["temperature"] != 1:
            lines[f"at temperature {found['temperature']:.2f}"] = found["bins_with_temperature"]
        drawn.append(reliability_chart(f"{unit}: reliability", lines, bars=True))
    if told:
        by_class = {row["class"]: row["bins"] for row in told}
        drawn.append(reliability_chart(f"{unit}: reliability by class", by_class))
    if task == "detection":
        curves = {row["class"]: row["curve"] for row in told if row["curve"]}
        for column, what in ((1, "precision"), (2, "recall")):
            if curves:
                drawn.append(score_chart(f"Boxes: {what} over score", curves, column, what))
    return drawn
