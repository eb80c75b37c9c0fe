"""What a report says, as plain values: the page and the Markdown file are two forms of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutored.evaluate import ENOUGH_SEEDS
from tutored.softlabels.manifest import changed
from tutored.studies.declare import Recipe
from tutored.studies.outcome import FIGURES, Comparison, RowOutcome, StudyOutcome
from tutored.studies.setting import Setting

TASKS = {"mAP": "detection", "mIoU": "segmentation"}
THESIS_TUTORS = {"detection": ("Faster R-CNN", "mAP", 0.798), "segmentation": ("Mask R-CNN", "mIoU", 0.756)}
"""The thesis' own tutors (section 3.3)."""


def head(outcomes: Sequence[StudyOutcome], setting: Setting, seeds: Sequence[int]) -> dict[str, Any]:
    """Where the figures come from, how much of it is there, and what it cost."""
    runs = list({run.folder.name: run for study in outcomes for row in study.rows for run in row.runs}.values())
    done = [run.result for run in runs if run.result is not None]
    failed = sum(run.failure is not None for run in runs)
    return {
        "setting": setting,
        "data": _source(setting.data),
        "seeds": ", ".join(map(str, seeds)),
        "runs": len(runs),
        "finished": len(done),
        "failed": failed,
        "missing": len(runs) - len(done) - failed,
        "hours": sum(result["seconds"] for result in done) / 3600,
        "speed": _speed(done),
        "devices": sorted({_device(result) for result in done}),
        "versions": sorted({_versions(result["versions"]) for result in done}),
        "changed": _changed_stores(done),
        "audited": _audited_stores(done),
    }


def _source(data: str) -> str:
    """The format and the folder's own name: nothing of where it lies on this machine."""
    kind, _, folder = data.partition(":")
    return f"{kind}:{Path(folder).absolute().name}"


def _speed(results: Sequence[Mapping[str, Any]]) -> str:
    each = [
        result["images"] // size * size * result["config"]["train"]["epochs"] / result["seconds"]
        for result in results
        if result["seconds"] and (size := min(result["config"]["train"]["batch"], result["images"]))
    ]
    return f"{statistics.median(each):.0f} images/s a process (median)" if each else "not known yet"


def _device(result: Mapping[str, Any]) -> str:
    threads = result["threads"]
    return f"{result['device']}, {threads} thread{'' if threads == 1 else 's'}"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _changed_stores(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The stores that were not the same for all runs, with the fields in which they differ."""
    first: dict[str, dict[str, Any]] = {}
    differing: dict[str, set[str]] = {}
    for path, identity in _stores(results):
        answers = {name: value for name, value in identity.items() if name != "audit"}
        differing.setdefault(path, set()).update(changed(first.setdefault(path, answers), answers))
    return [f"{path} ({', '.join(sorted(fields))})" for path, fields in sorted(differing.items()) if fields]


def _audited_stores(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The stores whose audit taught in any run: the recipe `thesis` takes none, nor a run that hides what it saw."""
    taken: dict[str, list[bool]] = {}
    for path, identity in _stores(results):
        taken.setdefault(path, []).append("audit" in identity)
    return [f"{path} in {sum(each)} of {len(each)} runs" for path, each in sorted(taken.items()) if any(each)]


def _stores(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for result in results:
        for task, identities in result.get("stores", {}).items():
            for identity in identities:
                yield str(result["config"]["supervision"][task]["store"]), identity


def tutors(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tutors' own quality, beside the thesis'."""
    rows = []
    for name, found in sorted(figures.items()):
        row = {"name": name, **{short: number(found.get(key)) for short, key in FIGURES.items()}}
        theirs = THESIS_TUTORS.get(name)
        row["thesis"] = f"{theirs[0]}: {theirs[1]} {theirs[2]:.3f}" if theirs else ""
        rows.append(row)
    return rows


def study(outcome: StudyOutcome, command: Callable[[str], str]) -> dict[str, Any]:
    """One study: tables, sentences by recipe ("" between the recipes), and what is missing."""
    declared = outcome.study
    said: dict[str, list[dict[str, Any]]] = {}
    for each in outcome.comparisons:
        said.setdefault(each.recipe or "", []).extend(sentences(each))
    return {
        "name": declared.name,
        "anchor": declared.name.replace("/", "-"),
        "title": declared.title,
        "question": declared.question,
        "tables": [table(recipe, rows) for recipe in declared.rows if (rows := outcome.of(recipe)) and _shown(rows)],
        "sentences": {recipe: found for recipe, found in said.items() if found},
        "lacks": ", ".join(declared.lacks),
        "missing": [run.label for run in outcome.missing],
        "failed": [(run.run.label, run.failure) for row in outcome.rows for run in row.runs if run.failure is not None],
        "command": command(declared.name),
    }


def _shown(rows: Sequence[RowOutcome]) -> bool:
    """Whether there is anything to show beside the labels."""
    return any(row.row.printed or any(run.result is not None for run in row.runs) for row in rows)


def table(recipe: Recipe, rows: Sequence[RowOutcome]) -> dict[str, Any]:
    """The rows of one recipe: the thesis' printed figures, and ours as mean and spread over seeds."""
    return {
        "recipe": recipe,
        "printed": any(row.row.printed for row in rows),
        "rows": [
            {
                "label": row.row.label,
                "seeds": sum(run.result is not None for run in row.runs),
                **{
                    name: {
                        "printed": number(row.row.printed.get(name)),
                        "ours": ours(row, name),
                        "each": ", ".join(number(value) for value in row.values(name)),
                    }
                    for name in FIGURES
                },
            }
            for row in rows
        ],
    }


def ours(row: RowOutcome, name: str) -> str:
    """Mean and sample standard deviation over the finished seeds, as far as there are any."""
    if not any(TASKS[name] in run.run.config.taught for run in row.runs):
        return "not trained"
    mean, spread = row.mean(name), row.spread(name)
    if mean is None and any(run.result is not None for run in row.runs):
        return "not validated"
    return number(mean) + (f" ± {spread:.3f}" if spread is not None else "")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def sentences(comparison: Comparison) -> list[dict[str, Any]]:
    """What a comparison says, figure by figure: "better" or "worse" only where the interval excludes zero.

    One seed only "seems" so: its interval lacks what another seed, or the same one on another device, would change. Two
    say too little of their spread.
    """
    better, than, seeds = f"“{comparison.better}”", f"“{comparison.than}”", len(comparison.seeds)
    found = []
    for name, interval in comparison.intervals.items():
        verdict = interval.verdict
        claim = f"is {verdict}" if seeds >= ENOUGH_SEEDS else f"seems {verdict}"
        found.append(
            {
                "verdict": verdict,
                "sure": verdict is not None and seeds >= ENOUGH_SEEDS,
                "text": f"{better} {claim} than {than} in {name}:"
                if verdict
                else f"not resolved: {better} against {than} in {name},",
                "numbers": str(interval),
                "note": f"{seeds} seeds" if seeds > 1 else "one seed: only the images' noise is in the interval",
            }
        )
    return found


def by_class(rows: Sequence[RowOutcome], metric: str, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each row, a metric's mean over seeds by class; a class without a figure is left out."""
    found = {}
    for row in rows:
        results = [figures[metric] for run in row.runs if metric in (figures := run.figures or {})]
        found[row.row.label] = {
            name: statistics.mean(values)
            for name in classes
            if (values := [each[name] for each in results if each.get(name) is not None])
        }
    return found
