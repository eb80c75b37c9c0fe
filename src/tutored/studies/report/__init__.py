"""One report of studies, from their results alone: a self-contained page, and Markdown with its charts beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from tutored.files import write_text
from tutored.studies.outcome import StudyOutcome
from tutored.studies.report import content
from tutored.studies.report.charts import bars, curves
from tutored.studies.report.pictures import pictures
from tutored.studies.setting import Setting

MOST_ROWS = 8
"""A table with more has neither bars by class nor pictures."""
BARS = {"AP_voc_area@.5": "AP (VOC area)", "IoU": "IoU"}


def write_report(
    outcomes: Sequence[StudyOutcome],
    setting: Setting,
    out: Path,
    *,
    seeds: Sequence[int],
    command: str,
    tutors: Mapping[str, Mapping[str, Any]],
    photos: bool = False,
) -> tuple[Path, Path]:
    """Write `report.html`, `report.md` and `charts/*.svg`; the same results give the same bytes.

    Args:
        out: folder.
        command: what trains a study's missing runs, with NAME for the study's name.
        tutors: by name, the figures of the tutors' own stores on the evaluation split.
        photos: show the evaluation split's photographs and ground truth in the page; else answers on a plain ground.

    Returns:
        The page and the Markdown file.

    Raises:
        InputError: `photos` and the data set can't be read.
    """
    studies = [_study(outcome, setting, command, photos=photos) for outcome in outcomes]
    for study in studies:
        for name, svg in study["charts"].items():
            write_text(out / "charts" / name, svg)
    environment = Environment(
        loader=PackageLoader("tutored.studies", "report"),
        autoescape=lambda name: str(name).startswith("page.html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": _svg_uri, "jpeg": _jpeg_uri, "cell": _cell}
    values = {
        "head": content.head(outcomes, setting, seeds),
        "tutors": content.tutors(tutors),
        "studies": studies,
        "photos": photos,
    }
    for name in ("report.html", "report.md"):
        template = environment.get_template(f"page.{name.rpartition('.')[2]}.j2")
        write_text(out / name, template.render(values).rstrip() + "\n")
    return out / "report.html", out / "report.md"


def _study(outcome: StudyOutcome, setting: Setting, command: str, *, photos: bool) -> dict[str, Any]:
    found = content.study(outcome, command)
    found["charts"], found["pictures"] = {}, {}
    drawn = curves(outcome) if outcome.study.axis else None
    if drawn is not None:
        found["charts"][f"{found['anchor']}.svg"] = drawn
    for recipe in outcome.study.rows if outcome.study.axis is None else ():
        rows = outcome.of(recipe)
        if len(rows) > MOST_ROWS:
            continue
        for metric, title in BARS.items():
            classes = [*(["background"] if metric == "IoU" else []), *(setting.reported or _classes(outcome))]
            figures = content.by_class(rows, metric, classes)
            if figures:
                name = f"{found['anchor']}-{recipe}-{metric.partition('_')[0].lower()}.svg"
                found["charts"][name] = bars(figures, f"{title}, {recipe}")
        picture = pictures(rows, setting, photos=photos)
        if picture is not None:
            found["pictures"][recipe] = picture
    return found


def _classes(outcome: StudyOutcome) -> list[str]:
    results = (run.result for row in outcome.rows for run in row.runs if run.result is not None)
    return next((result["figures"]["classes"] for result in results), [])


def _svg_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _jpeg_uri(picture: Image.Image) -> str:
    written = io.BytesIO()
    picture.save(written, format="JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def _cell(text: object) -> str:
    """Text in a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
