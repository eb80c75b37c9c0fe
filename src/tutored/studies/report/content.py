"""What a report says, as plain values: the page and the Markdown file are two forms of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tutored.studies.declare import Recipe
from tutored.studies.outcome import FIGURES, Comparison, RowOutcome, RunOutcome, StudyOutcome
from tutored.studies.setting import Setting

THESIS_TUTORS = {"detection": ("Faster R-CNN", "mAP", 0.798), "segmentation": ("Mask R-CNN", "mIoU", 0.756)}
"""The thesis' own tutors (section 3.3)."""


def head(outcomes: Sequence[StudyOutcome], setting: Setting, seeds: Sequence[int]) -> dict[str, Any]:
    """Where the figures come from, how much of it is there, and what it cost."""
    runs = list({run.folder.name: run for study in outcomes for row in study.rows for run in row.runs}.values())
    done = [run.result for run in runs if run.result is not None]
    return {
        "setting": setting,
        "seeds": len(seeds),
        "runs": len(runs),
        "finished": len(done),
        "failed": sum(run.failure is not None for run in runs),
        "hours": sum(result["seconds"] for result in done) / 3600,
        "speed": _speed(done),
        "devices": sorted({f"{result['device']}, {result['threads']} threads" for result in done}),
        "versions": sorted({_versions(result["versions"]) for result in done}),
    }


def _speed(results: Sequence[Mapping[str, Any]]) -> str:
    each = [
        result["images"] * result["config"]["train"]["epochs"] / result["seconds"]
        for result in results
        if result["seconds"]
    ]
    return f"{statistics.median(each):.0f} images/s a process (median)" if each else "not known yet"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def tutors(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tutors' own quality, beside the thesis'."""
    rows = []
    for name, found in figures.items():
        row = {"name": name, **{short: number(found.get(key)) for short, key in FIGURES.items()}}
        theirs = THESIS_TUTORS.get(name)
        row["thesis"] = f"{theirs[0]}: {theirs[1]} {theirs[2]:.3f}" if theirs else ""
        rows.append(row)
    return rows


def study(outcome: StudyOutcome, command: str) -> dict[str, Any]:
    """One study: tables, sentences, and what is missing."""
    declared = outcome.study
    failed = [(run.run.label, run.failure) for row in outcome.rows for run in row.runs if run.failure is not None]
    return {
        "name": declared.name,
        "anchor": declared.name.replace("/", "-"),
        "title": declared.title,
        "question": declared.question,
        "tables": [table(recipe, rows) for recipe in declared.rows if (rows := outcome.of(recipe)) and _shown(rows)],
        "sentences": [sentence for each in outcome.comparisons for sentence in sentences(each)],
        "missing": [run.label for run in outcome.missing],
        "failed": failed,
        "command": command.replace("NAME", declared.name),
    }


def _shown(rows: Sequence[RowOutcome]) -> bool:
    """Whether there is anything to show beside the labels."""
    return any(row.row.printed or any(run.result is not None for run in row.runs) for row in rows)


def table(recipe: Recipe, rows: Sequence[RowOutcome]) -> dict[str, Any]:
    """The rows of one recipe: the thesis' printed figures, and ours as mean and spread over seeds."""
    printed = any(row.row.printed for row in rows)
    return {
        "recipe": recipe,
        "printed": printed,
        "rows": [
            {
                "label": row.row.label,
                "seeds": sum(run.result is not None for run in row.runs),
                **{
                    name: {
                        "printed": number(row.row.printed.get(name)),
                        "ours": mean_and_spread(row.values(name)),
                        "each": ", ".join(number(value) for value in row.values(name)),
                    }
                    for name in FIGURES
                },
            }
            for row in rows
        ],
    }


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    if len(values) < 2:
        return number(values[0]) if values else ""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def sentences(comparison: Comparison) -> list[dict[str, Any]]:
    """What a comparison says, figure by figure: "better" or "worse" only where the interval excludes zero."""
    found = []
    for name, interval in comparison.intervals.items():
        verdict = ("better" if interval.difference > 0 else "worse") if interval.sure else "not resolved"
        numbers = f"{interval.difference:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
        better, than = f"“{comparison.better}”", f"“{comparison.than}”"
        text = f"{better} is {verdict} than {than}" if interval.sure else f"{better} against {than}: not resolved"
        seeds = len(comparison.seeds)
        note = f"{seeds} seeds" if seeds > 1 else "one seed, so the interval holds the images' noise only"
        found.append(
            {
                "recipe": comparison.recipe,
                "figure": name,
                "verdict": verdict,
                "text": text,
                "numbers": numbers,
                "note": note,
            }
        )
    return found


def by_class(rows: Sequence[RowOutcome], metric: str, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each row with a result, a metric's mean over seeds by class; classes without a figure are left out."""
    found = {}
    for row in rows:
        results = [_figures(run)[metric] for run in row.runs if metric in _figures(run)]
        means = {
            name: statistics.mean(values)
            for name in classes
            if (values := [each[name] for each in results if each.get(name) is not None])
        }
        if means:
            found[row.row.label] = means
    return found


def _figures(run: RunOutcome) -> Mapping[str, Any]:
    return (run.result or {}).get("figures") or {}
