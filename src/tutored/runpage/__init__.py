"""A run's page `report.html`: one self-contained file, made from the run's folder alone, as often as one likes."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from tutored.files import write_text
from tutored.page import render
from tutored.runpage import content
from tutored.runpage.charts import draw_charts
from tutored.runpage.kept import (
    SOURCES,
    TRUTH,
    TUTOR,
    keep_facts,
    keep_picture,
    keep_sources,
    keep_validation,
    validation_name,
)
from tutored.runpage.read import read_run

__all__ = [
    "SOURCES",
    "TRUTH",
    "TUTOR",
    "keep_facts",
    "keep_picture",
    "keep_sources",
    "keep_validation",
    "validation_name",
    "write_page",
]


def write_page(path: Path, *, refresh: int | None = None) -> Path:
    """Write `report.html` into a run's folder; the same files give the same bytes.

    Args:
        path: the run's folder, finished or not; of an older run, what it holds is shown.
        refresh: seconds after which a browser reads the page again; None: never.

    Returns:
        The page.

    Raises:
        InputError: the folder holds no run, or a file of it is damaged.
        OSError: the page can't be written.
    """
    run = read_run(path)
    chosen = run.config.model_dump(mode="json", exclude_defaults=True)
    values = {
        "refresh": refresh,
        "head": content.head(run),
        "run_id": run.config.run_id,
        "recipe": run.config.recipe,
        "command": shlex.join(["tutored", "train", f"{path / 'config.yaml'}", "--out", f"{path}", "--resume"]),
        "charts": draw_charts(run),
        "classes": content.classes(run),
        "curves": content.curves(run),
        "confusion": content.confusion(run),
        "coverage": content.coverage(run),
        "pictures": content.pictures(run),
        "stores": content.stores(run),
        "facts": run.facts,
        "chosen": yaml.safe_dump(chosen, sort_keys=False),
        "complete": yaml.safe_dump(run.config.to_dict(), sort_keys=False),
    }
    page = path / "report.html"
    write_text(page, render("tutored.runpage", "page.html.j2", values))
    return page
