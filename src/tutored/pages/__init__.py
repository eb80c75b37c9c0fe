"""Self-contained pages: the chrome and charts of all of them, the page of a run, and that of an audit."""

from tutored.pages.chrome import BROAD, COLOURS, INK, NARROW, PAPER, Chart, render, standalone, svg, uri
from tutored.pages.run import Run, RunPage, read_run, write_page

__all__ = [
    "BROAD",
    "COLOURS",
    "INK",
    "NARROW",
    "PAPER",
    "Chart",
    "Run",
    "RunPage",
    "read_run",
    "render",
    "standalone",
    "svg",
    "uri",
    "write_page",
]
