"""The page of an audit, and that of the agreement of two tutors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.files import write_text
from tutored.pages import COLOURS, Chart, in_legend, render, svg
from tutored.softlabels.advice import TaskAudit
from tutored.tasks.audit import BLIND, ENOUGH, ENOUGH_BLIND, MISCALIBRATED, WRONG, Auditor

MOST_LINES = 8
"""Classes in one chart: those with the most answers."""
EVEN = "#8a8a8a"
NOT_IN_THE_TABLE = ("class", "bins", "curve")
"""Of the rows of classes; they are drawn."""


class Pair(NamedTuple):
    """One image: ground truth and tutor as JPEGs, how much they contradict each other, and in what."""

    image: str
    much: float
    text: str
    truth: str
    tutor: str


class Part(NamedTuple):
    """One task.

    Attributes:
        summary: see `tasks.audit.Judged`.
        class_map: how the tutor's classes become the task's, a sentence.
        pairs: the images with the largest contradictions.
    """

    name: str
    audit: TaskAudit
    summary: str
    class_map: str
    auditor: Auditor
    pairs: Sequence[Pair]

    @property
    def images(self) -> int:
        return len(self.audit.ids.splitlines())

    @property
    def columns(self) -> list[str]:
        """The figures of a class that the table shows."""
        rows = self.audit.figures["classes"]
        names = dict.fromkeys(name for row in rows for name in row)
        return [name for name in names if name not in NOT_IN_THE_TABLE and not name.endswith("_interval")]

    @property
    def charts(self) -> list[Chart]:
        """Reliability of all answers and by class; precision and recall over the threshold where there are curves."""
        figures, drawn = self.audit.figures, []
        found = figures["calibration"]
        if found["bins"]:
            lines = {"as they are": found["bins"]}
            if found["temperature"] != 1:
                lines[f"at temperature {found['temperature']:.2f}"] = found["bins_with_temperature"]
            drawn.append(_reliability(f"{self.name}: reliability", lines, bars=True))
        most = sorted(figures["classes"], key=lambda row: -row["answers"])[:MOST_LINES]
        shown = [row for row in figures["classes"] if row in most and row["bins"]]
        if shown:
            by_class = {row["class"]: row["bins"] for row in shown}
            drawn.append(_reliability(f"{self.name}: reliability by class", by_class))
        curves = {row["class"]: row["curve"] for row in shown if row.get("curve")}
        for column, what in ((1, "precision"), (2, "recall")) if curves else ():
            drawn.append(_over_score(f"{self.name}: {what} over score", curves, column, what))
        return drawn


def draw_audit(page: Path, store: str, tutor: Mapping[str, Any], parts: Sequence[Part], *, photos: bool) -> None:
    """Write the page of an audit.

    Args:
        store: its name.
        photos: whether the pairs are drawn on photographs.
    """
    limits = {"few": ENOUGH, "blind_few": ENOUGH_BLIND, "wrong": WRONG, "blind": BLIND, "ece": MISCALIBRATED}
    values = {"store": store, "tutor": tutor, "parts": parts, "photos": photos, "limits": limits}
    write_text(page, render("tutored.pages", "audit.html.j2", values))


def draw_agreement(page: Path, found: Mapping[str, Any], stores: Sequence[Path | str], data: str) -> None:
    """Write the page of an agreement.

    Args:
        found: see `audit.agreement`.
        stores: their folders, of which the names are shown.
        data: the data set and its split.
    """
    values = {"found": found, "stores": [Path(each).resolve().name for each in stores], "data": data}
    write_text(page, render("tutored.pages", "agreement.html.j2", values))


def _reliability(title: str, lines: Mapping[str, Sequence[Sequence[float]]], *, bars: bool = False) -> Chart:
    """The share that is right over the mean confidence, bin by bin; on the dashed line both are the same.

    Args:
        lines: `calibrate.Bin`s by name.
        bars: draw the 95 % interval of each bin.
    """

    def draw(panel: Any) -> None:
        panel.plot([0, 1], [0, 1], color=EVEN, linestyle="--", linewidth=1)
        for (name, bins), colour in zip(lines.items(), COLOURS, strict=False):
            x, y, low, high = ([each[column] for each in bins] for column in range(4))
            ends = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
            style = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.3, "label": in_legend(name)}
            panel.errorbar(x, y, yerr=ends if bars else None, elinewidth=0.8, **style)
        panel.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))


def _over_score(title: str, lines: Mapping[str, Sequence[Sequence[float]]], column: int, what: str) -> Chart:
    """Precision (`column` 1) or recall (2) of the answers from each score on."""

    def draw(panel: Any) -> None:
        for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
            panel.plot(
                [each[0] for each in points], [each[column] for each in points], color=colour, label=in_legend(name)
            )
        panel.set(xlabel="score from which on answers count", ylabel=what, xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.25, linewidth=0.6)

    return Chart(title, svg(title, draw))
