"""One chart as SVG that follows a page's dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

INK, PAPER = "#123456", "#fedcba"
"""Stand for the colours of text and axes, and of what is behind: `var(--ink)` and `var(--paper)` of the page, or of
`standalone`."""
STYLE = (
    "<style>:root{--ink:#1f2328;--paper:#fff}"
    "@media(prefers-color-scheme:dark){:root{--ink:#d1d7e0;--paper:#0d1117}}</style>"
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
"""Okabe and Ito's, which colour-blind people can tell apart; two more."""
NARROW, BROAD = 4.6, 10.0
"""Inches; many classes need a broad chart."""
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


class Chart(NamedTuple):
    """A drawn chart under its title."""

    title: str
    svg: str


def svg(title: str, draw: Callable[[Any], None], width: float = NARROW) -> str:
    """The text of an `<svg>` element; the same drawing gives the same text.

    Args:
        title: for those who can't see it.
        draw: draws on matplotlib's axes, text and edges in `INK`; what it labels stands in a legend below.
        width: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": title}):
        figure = Figure(layout="constrained")
        panel = figure.subplots()
        draw(panel)
        handles, labels = panel.get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower left")
        figure.set_size_inches(width, 2.9 + 0.19 * len(labels))
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    # Nothing refers to the ids of groups, and a page holds many charts.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :].rstrip())
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    text = text.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    return text.replace("'DejaVu Sans'", "system-ui, sans-serif")


def standalone(drawn: str) -> str:
    """A chart as a file of its own, with the colours of light and dark mode."""
    inside = drawn.index(">") + 1
    return drawn[:inside] + STYLE + drawn[inside:] + "\n"
