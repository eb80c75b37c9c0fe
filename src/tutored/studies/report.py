"""One report of studies, from their results alone: a self-contained page, and Markdown with its charts beside it."""

import base64
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from tutored.files import write_text
from tutored.pages import COLOURS, PAPER, render, standalone, svg
from tutored.softlabels import changed
from tutored.studies import results
from tutored.studies.folder import Folder
from tutored.studies.results import Comparison, Record, RowOutcome, StudyOutcome
from tutored.studies.setting import RECIPES, Row, Setting

MOST_ROWS = 8
"""A table with more rows has neither figures by class nor pictures."""
CHANCE = 0.05
"""A student whose objects' figures are lower on average has learnt nothing of them."""
THESIS_TUTORS = {"detection": "Faster R-CNN: mAP 0.798", "segmentation": "Mask R-CNN: mIoU 0.756"}
"""The thesis' own tutors (section 3.3)."""
MARKERS = {"thesis": "^", "corrected": "o"}
LEVELS = (":", "-.")
PRINTED, THESIS = "#8a8a8a", "printed in the thesis"


def write_report(folder: Folder, outcomes: Sequence[StudyOutcome], out: Path) -> tuple[Path, Path]:
    """Write `report.html`, `report.md` and `charts/*.svg` into `out`; the same results give the same bytes. Returns the
    page and the Markdown file.
    """
    outcomes, setting = results.adjust(outcomes), folder.setting
    tutors = [each for each in results.read_records(folder.path) if each.group == results.TUTORS and each.figures]
    kind, _, source = setting.data.partition(":")
    charts: dict[str, list[tuple[str, str, str]]] = {}
    for each in outcomes:
        for name in each.study.figures:
            title = f"{each.study.title}: {name}"
            if each.study.axis and any(row.values(name) for row in each.rows):
                file = f"{each.study.name.replace('/', '-')}-{name.lower()}.svg"
                drawn = svg(title, partial(draw_curve, outcome=each, name=name))
                charts.setdefault(each.study.name, []).append((file, title, drawn))
                write_text(out / "charts" / file, standalone(drawn))
    values = {
        "folder": folder,
        "setting": setting,
        "data": f"{kind}:{Path(source).absolute().name}",
        "head": head(outcomes),
        "answers": answers(setting, outcomes),
        "tutors": sorted(tutors, key=lambda each: each.label),
        "tutor_figures": columns(tutors),
        "thesis_tutors": THESIS_TUTORS,
        "outcomes": outcomes,
        "charts": charts,
        "figures": results.FIGURES,
        "figures_of": figures_of,
        "most_rows": MOST_ROWS,
        "ours": ours,
        "number": number,
        "sentences": partial(sentences, margin=setting.margin),
        "by_class": by_class,
        "pictures": pictures,
        "commits": commits,
    }
    for page in ("report.html", "report.md"):
        write_text(out / page, render("tutored.studies", f"{page}.j2", values))
    return out / "report.html", out / "report.md"


def head(outcomes: Sequence[StudyOutcome]) -> dict[str, Any]:
    """How many runs there are, what they cost, and what was not the same for all of them."""
    rows = [row for each in outcomes for row in each.rows]
    done = list({(record.run, record.seed): record for row in rows for record in row.records}.values())
    first: dict[str, list[dict[str, Any]]] = {}
    differing: dict[str, set[str]] = {}
    audited: dict[str, list[bool]] = {}
    for record in done:
        for store, identities in record.stores.items():
            answers = [{name: value for name, value in each.items() if name != "audit"} for each in identities]
            pairs = zip(first.setdefault(store, answers), answers, strict=False)
            differing.setdefault(store, set()).update(name for pair in pairs for name in changed(*pair))
            audited.setdefault(store, []).append(any("audit" in each for each in identities))
    return {
        "finished": len(done),
        "failed": len({run.run_id for row in rows for run, _ in row.failed}),
        "missing": len({run.run_id for row in rows for run in row.missing}),
        "hours": sum(record.seconds or 0 for record in done) / 3600,
        "machines": sorted(
            {f"{record.device}, {record.threads} thread{'' if record.threads == 1 else 's'}" for record in done}
        ),
        "versions": sorted({", ".join(map(" ".join, record.versions.items())) for record in done}),
        "unlearnt": unlearnt(done),
        "changed": [f"{store} ({', '.join(sorted(names))})" for store, names in sorted(differing.items()) if names],
        "audited": [
            f"{store} in {sum(each)} of {len(each)} runs" for store, each in sorted(audited.items()) if any(each)
        ],
    }


def unlearnt(records: Sequence[Record]) -> str:
    """A sentence where no run has learnt anything, so that no row may be compared; else an empty one."""
    best: dict[str, float] = {}
    for name, (task, metric) in results.CLASS_FIGURES.items():
        for record in records:
            by_name = record.figures.get(task, {}).get("per_class", {}).get(metric, {})
            objects = [value for key, value in by_name.items() if key != "background" and value is not None]
            if objects:
                best[name] = max(best.get(name, 0.0), statistics.mean(objects))
    if not best or max(best.values()) >= CHANCE:
        return ""
    told = " and ".join(f"{name} {value:.3f}" for name, value in best.items())
    return (
        f"no student learnt anything: over the objects' classes, the best run has {told}; train longer, or look at the "
        "data, before rows are compared"
    )


def figures_of(rows: Sequence[RowOutcome]) -> list[str]:
    """The `columns` of a table of these rows."""
    return columns([record for row in rows for record in row.records])


def columns(records: Sequence[Record]) -> list[str]:
    """What a table of these runs shows: "mAP", "mIoU", of other tasks the headline figure as `TASK/METRIC`, and the
    first two on further splits."""
    measured = dict.fromkeys(name for record in records for name in record.measures)
    further = [f"{name} on {split}" for split in results.splits_of(records) for name in results.FIGURES]
    return [*results.FIGURES, *(name for name in measured if name not in results.MEASURES.values()), *further]


def commits(outcome: StudyOutcome) -> list[str]:
    """Of the code that made a study's runs."""
    return sorted({record.commit for row in outcome.rows for record in row.records})


def ours(row: RowOutcome, name: str) -> str:
    """Mean and sample standard deviation over the finished seeds, as far as there are any."""
    mean, spread = row.mean(name), row.spread(name)
    if mean is None and row.records:
        return "not trained" if any(record.figures for record in row.records) else "not validated"
    return number(mean) + (f" ± {spread:.3f}" if spread is not None else "")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def answers(setting: Setting, outcomes: Sequence[StudyOutcome]) -> list[dict[str, Any]]:
    """The setting's questions, each with verdict and interval by figure; without intervals before both rows ran."""
    known = {
        (outcome.study.name, each.recipe, each.better, each.than): each
        for outcome in outcomes
        for each in outcome.comparisons
    }
    found = []
    for asked in setting.answers:
        each = known.get((asked.study, asked.recipe, asked.row, asked.against))
        told = each.intervals.items() if each else ()
        figures = {name: f"{each.verdict(name, setting.margin)}, {interval}" for name, interval in told if each}
        found.append({"asked": asked, "figures": figures, "seeds": len(each.seeds) if each else 0})
    return found


def sentences(comparison: Comparison, margin: float) -> list[dict[str, Any]]:
    """What a comparison says, figure by figure, see `Comparison.verdict`."""
    better, than, seeds = f"“{comparison.better}”", f"“{comparison.than}”", len(comparison.seeds)
    found = []
    for name, interval in comparison.intervals.items():
        verdict = comparison.verdict(name, margin)
        joined = {"level": f"is level with {than}, within {margin:g},", "seems level": f"seems level with {than}"}
        seems = f"{verdict} than" if verdict.startswith("seems") else f"is {verdict} than"
        text = f"{better} {joined.get(verdict, f'{seems} {than}')} in {name}:"
        found.append(
            {
                "verdict": verdict,
                "sure": verdict in ("better", "worse"),
                "text": f"not resolved: {better} against {than} in {name}," if verdict == "not resolved" else text,
                "numbers": str(interval),
                "note": f"{seeds} seeds" if seeds > 1 else "one seed: the interval holds only the images' noise",
            }
        )
    return found


def by_class(rows: Sequence[RowOutcome], name: str, reported: Sequence[str] | None) -> dict[str, dict[str, str]]:
    """Of each row, "AP" or "IoU" by class, mean over seeds; what has no figure is left out."""
    task, metric = results.CLASS_FIGURES[name]
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        all_of = [record.figures.get(task, {}).get("per_class", {}) for record in row.records]
        each = [figures[metric] for figures in all_of if metric in figures]
        classes = [key for key in (each[0] if each else ()) if reported is None or key in ("background", *reported)]
        values = {key: [one[key] for one in each if one.get(key) is not None] for key in classes}
        found[row.row.label] = {key: number(statistics.mean(own)) for key, own in values.items() if own}
    return {label: own for label, own in found.items() if own}


def pictures(row: RowOutcome) -> list[tuple[str, str]]:
    """The answers of the row's first run that keeps any: what is seen, and the file inside a page."""
    kept = next((record.pictures for record in row.records if record.pictures), ())
    return [(each["told"], f"data:image/webp;base64,{base64.b64encode(each['file']).decode()}") for each in kept]


def draw_curve(panel: Any, outcome: StudyOutcome, name: str) -> None:
    """One of the study's figures over its axis, on matplotlib's axes.

    A line joins the means of a recipe's series, its band reaches from the lowest to the highest seed; a row with one
    seed has no band, and a hollow point. Rows without a place on the axis are dotted levels with such a band. The
    thesis' printed values are grey and dashed.
    """
    panel.set(xlabel=outcome.study.axis, ylabel=name)
    panel.grid(alpha=0.25, linewidth=0.6)
    colours = cycle(COLOURS)
    for recipe in RECIPES:
        rows = outcome.of(recipe)
        names = dict.fromkeys(row.row.series for row in rows if row.row.x is not None)
        hues = {series: next(colours) for series in names}
        for series, colour in hues.items():
            own = [row for row in rows if row.row.series == series and row.row.x is not None and row.values(name)]
            if own:
                _line(panel, own, name, color=colour, marker=MARKERS[recipe], label=f"{recipe}: {series}")
        levels = [row for row in rows if row.row.x is None and row.values(name)]
        for row, style in zip(levels, cycle(LEVELS), strict=False):
            colour, values = next(iter(hues.values()), COLOURS[-1]), row.values(name)
            panel.axhspan(min(values), max(values), color=colour, alpha=0.18, linewidth=0)
            panel.axhline(row.mean(name), color=colour, linestyle=style, label=f"{recipe}: {row.row.label}")
    if outcome.study.even:
        least = min(row.x for row in outcome.study.rows if row.x is not None)
        panel.axline((least, least), slope=1, color=PRINTED, linestyle="--", linewidth=1, label=outcome.study.even)
    _draw_printed(panel, [row for row in outcome.study.rows if name in row.printed], name)


def _draw_printed(panel: Any, rows: Sequence[Row], name: str) -> None:
    style = {"color": PRINTED, "linestyle": "--", "linewidth": 1}
    for series in dict.fromkeys(row.series for row in rows if row.x is not None):
        points = sorted((row.x, row.printed[name]) for row in rows if row.series == series and row.x is not None)
        panel.plot(*zip(*points, strict=True), marker="s", markersize=3.5, label=THESIS, **style)
    for row in rows:
        if row.x is None:
            panel.axhline(row.printed[name], label=f"{THESIS}: {row.label}", **style)


def _line(panel: Any, rows: Sequence[RowOutcome], name: str, **style: Any) -> None:
    """A single seed has no spread: its point is hollow, and no band leads to it."""
    ordered = sorted((row.row.x, row.values(name), row.mean(name)) for row in rows if row.row.x is not None)
    places, values, means = zip(*ordered, strict=True)
    lowest, highest, several = [*map(min, values)], [*map(max, values)], [len(seeds) > 1 for seeds in values]
    panel.plot(places, means, markersize=4, **style)
    single = [(place, mean) for place, mean, spread in zip(places, means, several, strict=True) if not spread]
    if single:
        hollow = {**style, "label": None, "linestyle": "", "markerfacecolor": PAPER}
        panel.plot(*zip(*single, strict=True), markersize=4, **hollow)
    panel.vlines(places, lowest, highest, color=style["color"], linewidth=1.2)
    panel.fill_between(places, lowest, highest, several, color=style["color"], alpha=0.28, linewidth=0)
