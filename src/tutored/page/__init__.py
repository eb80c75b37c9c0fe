"""Self-contained pages: one look for all reports, readable on a phone, in print and in dark mode."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from tutored.page.chart import BROAD, COLOURS, INK, NARROW, PAPER, Chart, standalone, svg

__all__ = ["BROAD", "COLOURS", "INK", "NARROW", "PAPER", "Chart", "render", "standalone", "svg", "uri"]

QUALITY = 65
"""JPEG's, of pictures in a page."""


def render(package: str, template: str, values: Mapping[str, Any]) -> str:
    """The text of a template that lies in a package, such as `page.html.j2`.

    A page extends `base.html.j2` (blocks `title`, `head` and `body`) and takes `wide`, for what may be broader than
    the screen, from `macros.html.j2`. What goes into HTML is escaped; charts are passed through `| safe`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("tutored", "page")]),
        autoescape=lambda name: ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment.get_template(template).render(values).rstrip() + "\n"


def uri(picture: Image.Image) -> str:
    """A picture as JPEG inside a page."""
    written = io.BytesIO()
    picture.save(written, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def _plain(text: object) -> str:
    """Text in Markdown, in a table or out of it."""
    return str(text).replace("\n", " ").replace("|", "\\|").replace("<", "\\<")
