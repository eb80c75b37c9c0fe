"""What a run's page says, as plain values: where the run stands, its curves, and its figures, task by task."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tutored.pages import COLOURS, Chart, svg
from tutored.watch import TEACHES

if TYPE_CHECKING:
    from tutored.pages.run import Run

POINTS = 160
"""A longer log is drawn as this many means."""
MARKED = 12
"""Up to this many validations are marked one by one."""
MOST_CLASSES = 24
"""A matrix of more classes has the most frequent ones, and the others as one."""
NOT_MEANS = ("images", "classes", "per_class", "notes", "score")
"""Of the figures of a task; counts by class are mappings."""
Points = Sequence[tuple[float, float]]


def of(run: Run) -> dict[str, Any]:
    """All of the page that comes from the log, the facts and the details of the last validation."""
    return {
        "head": _head(run),
        "charts": list(_charts(run)),
        "tasks": [_task(run, name) for name in _last(run)],
        "coverage": _coverage(run),
        "stores": _stores(run),
    }


def _last(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """The figures of the last validation, by task."""
    found: Mapping[str, Mapping[str, Any]] = [*run.validations.values()][-1]["tasks"] if run.validations else {}
    return found


def _means(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: value for name, value in figures.items() if name not in NOT_MEANS and not isinstance(value, Mapping)}


def _head(run: Run) -> dict[str, Any]:
    """Where the run stands and what it reached."""
    speed = run.steps[-1]["images_per_second"] if run.steps else None
    left = None
    if not run.finished and speed and run.epoch_steps:
        left = (run.epoch_steps * run.config.train.epochs - run.done) * run.step_images / speed
    headlines = [(name, *run.headlines[name]) for name in _last(run)]
    return {
        "name": run.path.resolve().name,
        "finished": run.finished,
        "epochs": run.config.train.epochs,
        "done": math.floor(run.done / run.epoch_steps) if run.epoch_steps else None,
        "validated": max(run.validations, default=None),
        "left": None if left is None else _time(left),
        "figures": [{"name": f"{short} ({name})", "value": _last(run)[name][key]} for name, key, short in headlines],
        "speed": speed,
        "seconds": _time(run.facts["seconds"]) if run.finished else None,
    }


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _charts(run: Run) -> Iterator[Chart]:
    """Loss, its terms, the figures of each task, learning rate and speed, as far as the log has them."""
    names = dict.fromkeys(name for entry in run.steps for name in entry["loss"])
    total = [(_place(run, entry), math.fsum(entry["loss"].values())) for entry in run.steps]
    lines: dict[str, dict[str, Points]] = {"loss, all terms": {"": thinned(total)}}
    for name in names:
        task, term, source = name.split("/")
        points = _points(run, "loss", name)
        if any(value for _, value in points):
            lines.setdefault(f"{task}: loss, {term}", {})[source.replace("_", " ")] = points
    for title, each in lines.items():
        yield from _chart(run, title, each, falling=True)
    for task, figures in _last(run).items():
        curves = {name: _figures(run, task, name) for name in _means(figures)}
        small = {name: points for name, points in curves.items() if all(value <= 1 for _, value in points)}
        large = {name: points for name, points in curves.items() if name not in small}
        for title, each in ((f"{task}: figures", small), (f"{task}: figures above 1", large)):
            yield from _chart(
                run, title, {name.replace("_", " "): points for name, points in each.items()}, marked=True
            )
    yield from _chart(run, "learning rate", {"": _points(run, "lr")})
    yield from _chart(run, "images/s", {"": _points(run, "images_per_second")})


def _chart(
    run: Run, title: str, lines: Mapping[str, Points], *, falling: bool = False, marked: bool = False
) -> Iterator[Chart]:
    """A chart unless all lines are empty.

    Args:
        falling: on a logarithmic scale where it falls far.
        marked: mark each point, if there are few.
    """
    shown = {name: (points, colour) for (name, points), colour in zip(lines.items(), COLOURS, strict=False) if points}
    if not shown:
        return
    values = [value for points, _ in shown.values() for _, value in points]

    def draw(panel: Any) -> None:
        for name, (points, colour) in shown.items():
            few = len(points) <= MARKED if marked else len(points) == 1
            mark = {"marker": "o", "markersize": 3.5, "clip_on": False} if few else {}
            panel.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=name or None, **mark)
        # The last epoch, whether it is trained or not.
        end = run.config.train.epochs if run.epoch_steps else run.done
        panel.set(xlabel="epoch" if run.epoch_steps else "step", xlim=(0, max(end, 1e-9)))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25, linewidth=0.6)
        if falling and min(values) > 0 and max(values) > 10 * min(values):
            panel.set_yscale("log", subs=())
            panel.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            panel.set_ylim(0, max(values) * 1.1 or 1)

    yield Chart(title, svg(title, draw))


def _place(run: Run, entry: Mapping[str, Any]) -> float:
    return float(entry["step"] / (run.epoch_steps or 1))


def _points(run: Run, key: str, name: str | None = None) -> Points:
    found = [(_place(run, entry), entry[key].get(name) if name else entry[key]) for entry in run.steps]
    return thinned([(place, value) for place, value in found if value is not None])


def _figures(run: Run, task: str, name: str) -> Points:
    per_epoch = 1 if run.epoch_steps else run.done / max(run.validations, default=1)
    found = [(epoch * per_epoch, each["tasks"].get(task, {}).get(name)) for epoch, each in run.validations.items()]
    return [(place, value) for place, value in found if value is not None]


def thinned(points: Points) -> Points:
    """Places and values of a long line as the means of `POINTS` equal parts."""
    if len(points) <= POINTS:
        return points
    edges = [round(len(points) * part / POINTS) for part in range(POINTS + 1)]
    parts = [points[first:last] for first, last in pairwise(edges)]
    return [(fmean(place for place, _ in part), fmean(value for _, value in part)) for part in parts]


def _task(run: Run, name: str) -> dict[str, Any]:
    """One task at the last validation: figures by class, each with its course over the epochs, curves and matrices."""
    figures = _last(run)[name]
    per_class: Mapping[str, Mapping[str, float | None]] = figures["per_class"]
    counts = {key: each for key, each in figures.items() if isinstance(each, Mapping) and key != "per_class"}
    names = list(dict.fromkeys(each for by_class in per_class.values() for each in by_class))
    known = [each for each in names if any(by_class.get(each) is not None for by_class in per_class.values())]
    main = next(iter(per_class), None)
    history = [each["tasks"].get(name, {}).get("per_class", {}).get(main, {}) for each in run.validations.values()]
    highest = max((value for each in history for value in each.values() if value is not None), default=1)
    rows = [
        {
            "name": each,
            "counts": [by_class.get(each, "") for by_class in counts.values()],
            "averaged": each in figures["classes"] or each == "background",
            "figures": [by_class.get(each) for by_class in per_class.values()],
            "trend": _trend([epoch.get(each) for epoch in history], max(highest, 1)),
        }
        for each in known
    ]
    means = _means(figures)
    details = run.details.get(name, ())
    return {
        "name": name,
        "images": figures["images"],
        "others": {key: value for key, value in means.items() if key.removeprefix("m") not in per_class},
        "counts": list(counts),
        "metrics": list(per_class),
        "means": [means.get(f"m{metric}") for metric in per_class],
        "rows": rows,
        "trend": main if len(history) > 1 else None,
        "silent": [each for each in names if each not in known],
        "notes": figures["notes"],
        "curves": [_curves(each, per_class.get(str(main), {})) for each in details if each["kind"] == "curves"],
        "matrices": [_matrix(each) for each in details if each["kind"] == "matrix"],
    }


def _trend(values: Sequence[float | None], highest: float) -> str:
    """Points of a line, 100 wide and 30 high."""
    step = 100 / max(len(values) - 1, 1)
    return " ".join(
        f"{place * step:.0f},{30 - 30 * value / highest:.1f}" for place, value in enumerate(values) if value is not None
    )


def _curves(detail: Mapping[str, Any], figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Each curve as points in a square of 100, down to the bottom where it ends, under the class' main figure."""
    drawn = []
    for name, values in zip(detail["names"], detail["values"], strict=True):
        step = 100 / max(len(values) - 1, 1)
        reached = [f"{place * step:g},{100 - 100 * value:.1f}" for place, value in enumerate(values) if value > 0]
        points = " ".join([*reached, f"{(len(reached) - 1) * step:g},100"]) if reached else ""
        drawn.append({"name": name, "points": points, "figure": figures.get(name)})
    return {"title": detail["title"], "curves": drawn}


def _matrix(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Of each true class, the shares that were called each class."""
    names, matrix = detail["names"], detail["values"]
    true, called = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
    occurring = [index for index in range(len(matrix)) if true[index] or called[index]]
    # Background, class 0, is always among them.
    most = sorted(occurring, key=lambda index: (index == 0, true[index] + called[index]), reverse=True)
    shown = sorted(most[:MOST_CLASSES])
    rest = [index for index in occurring if index not in shown]
    beyond = [index for index in range(len(matrix), len(names)) if called[index]]
    columns = [[index] for index in shown] + ([rest] if rest else []) + [[index] for index in beyond]
    rows = [
        {
            "name": names[index],
            "shares": [sum(matrix[index][each] for each in group) / true[index] for group in columns],
        }
        for index in shown
        if true[index]
    ]
    heads = ["other classes" if group == rest else names[group[0]] for group in columns]
    return {"title": detail["title"], "columns": heads, "rows": rows, "others": len(rest)}


def _coverage(run: Run) -> dict[str, Any] | None:
    """Images by source, for each data set and task."""
    found = run.facts.get("coverage")
    if not found:
        return None
    rows = [
        {
            "data": data,
            "task": task,
            "images": sum(counts.values()),
            "counts": [counts.get(source, 0) for source in TEACHES],
        }
        for data, tasks in found.items()
        for task, counts in tasks.items()
    ]
    return {"sources": [source.replace("_", " ") for source in TEACHES], "rows": rows, "several": len(found) > 1}


def _stores(run: Run) -> list[dict[str, str]]:
    """The tutors' stores: who answered, for what."""
    return [
        {
            "task": task,
            "tutor": str(identity.get("tutor") or identity.get("kind", "")),
            "weights": str(identity.get("weights_sha256") or ""),
            "data": f"{identity.get('data', '')} {identity.get('split', '')}".strip(),
            "images": str(identity.get("images", "")),
        }
        for task, identities in run.facts.get("stores", {}).items()
        for identity in identities
    ]


def pictures(
    shown: Sequence[Mapping[str, str]], columns: Mapping[str, str], place: Callable[[int, str], Path]
) -> list[dict[str, Any]]:
    """Tables of pictures: images as rows; ground truth, tutor and the student at several epochs as columns.

    Args:
        shown: `image` and `split` of each.
        columns: headings, by the names of what is drawn.
        place: the file of an image's number and a name of `columns`.
    """
    tables = []
    for split in dict.fromkeys(each["split"] for each in shown):
        rows = [
            (each["image"], {what: _uri(place(index, what)) for what in columns})
            for index, each in enumerate(shown)
            if each["split"] == split
        ]
        there = [what for what in columns if any(found[what] for _, found in rows)]
        if there:
            cells = [{"image": image, "cells": [found[what] for what in there]} for image, found in rows]
            tables.append({"split": split, "columns": [columns[what] for what in there], "rows": cells})
    return tables


def _uri(path: Path) -> str | None:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode() if path.exists() else None
