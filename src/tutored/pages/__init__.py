"""What all self-contained pages are made of: their chrome, pictures and charts."""

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

QUALITY = 65
"""JPEG's, of pictures in a page."""
INK, PAPER = "#123456", "#fedcba"
"""Stand for the colours of text and axes, and of what is behind: `var(--ink)` and `var(--paper)` of the page, or of
`standalone`."""
STYLE = (
    "<style>:root{--ink:#1f2328;--paper:#fff}"
    "@media(prefers-color-scheme:dark){:root{--ink:#d1d7e0;--paper:#0d1117}}</style>"
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
"""Okabe and Ito's, which colour-blind people can tell apart; two more."""
WIDTH = 4.6
"""Of charts, in inches."""
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


def render(package: str, template: str, values: Mapping[str, Any]) -> str:
    """The text of a template that lies in a package, such as `page.html.j2`.

    A page extends `base.html.j2` (blocks `title`, `head` and `body`) and takes `wide`, for what may be broader than
    the screen, and `share`, for figures, from `macros.html.j2`. What goes into HTML is escaped; charts are passed
    through `| safe`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("tutored", "pages")]),
        autoescape=lambda name: ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # In a cell of a Markdown table, or in plain Markdown.
    environment.filters["plain"] = lambda text: str(text).replace("\n", " ").replace("|", "\\|").replace("<", "\\<")
    return environment.get_template(template).render(values).rstrip() + "\n"


def uri(picture: Image.Image) -> str:
    """A picture as JPEG inside a page."""
    written = io.BytesIO()
    picture.save(written, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


class Chart(NamedTuple):
    """A drawn chart under its title."""

    title: str
    svg: str


def svg(title: str, draw: Callable[[Any], None]) -> str:
    """The text of an `<svg>` element; the same drawing gives the same text.

    Args:
        title: for those who can't see it.
        draw: draws on matplotlib's axes, text and edges in `INK`; what it labels stands in a legend below.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": title}), warnings.catch_warnings():
        # The reader's own fonts show the text, whatever letters ours lacks.
        warnings.filterwarnings("ignore", "Glyph")
        figure = Figure(layout="constrained")
        panel = figure.subplots()
        draw(panel)
        handles, labels = panel.get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower left")
        figure.set_size_inches(WIDTH, 2.9 + 0.19 * len(labels))
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    # Nothing refers to the ids of groups, and a page holds many charts.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :].rstrip())
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    text = text.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    return text.replace("'DejaVu Sans'", "system-ui, sans-serif")


def in_legend(name: str) -> str:
    """A name as a label: matplotlib leaves out of legends what begins with `_`, but not behind a mark without width."""
    return f"\N{WORD JOINER}{name}" if name.startswith("_") else name


def standalone(drawn: str) -> str:
    """A chart as a file of its own, with the colours of light and dark mode."""
    inside = drawn.index(">") + 1
    return drawn[:inside] + STYLE + drawn[inside:] + "\n"
