"""Curves of a run over its epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from tutored.page import COLOURS, Chart, svg
from tutored.runpage.read import Run

POINTS = 160
"""A longer log is drawn as so many means."""
MARKED = 12
"""So many validations are marked one by one."""
TERMS = ("class", "box", "map")
SOURCES = {"ground_truth": "ground truth", "tutor": "tutor"}
FIGURES = {
    "Boxes: mean average precision": {
        "mAP_voc_area@.5": "VOC area, IoU .5",
        "mAP_voc07_11point@.5": "VOC07 11-point, IoU .5",
        "mAP_coco@.5": "COCO, IoU .5",
        "mAP_coco@.5:.95": "COCO, IoU .5 to .95",
    },
    "Maps: agreement of pixels": {
        "mIoU": "mIoU",
        "mIoU_others_ignored": "mIoU without pixels of other classes",
        "pixel_accuracy": "pixel accuracy",
    },
}
Points = Sequence[tuple[float, float]]


def draw_charts(run: Run) -> list[Chart]:
    """Those of loss, its terms, the figures, learning rate and speed that the log has something for."""
    losses = {
        name: _points(run, "loss", name) for name in dict.fromkeys(n for entry in run.steps for n in entry["loss"])
    }
    total = [(_place(run, entry), math.fsum(entry["loss"].values())) for entry in run.steps]
    drawn = [_chart(run, "Loss, all terms", {"": thinned(total)}, falling=True)]
    for term in TERMS:
        found = {text: losses.get(f"{term}/{source}", ()) for source, text in SOURCES.items()}
        lines = {text: points if any(value for _, value in points) else () for text, points in found.items()}
        drawn.append(_chart(run, f"Loss: {term}", lines, falling=True))
    for title, names in FIGURES.items():
        lines = {text: _figures(run, name) for name, text in names.items()}
        drawn.append(_chart(run, title, lines, share=True))
    drawn.append(_chart(run, "Learning rate", {"": _points(run, "lr")}))
    drawn.append(_chart(run, "Images/s", {"": _points(run, "images_per_second")}))
    return [chart for chart in drawn if chart is not None]


def _chart(
    run: Run, title: str, lines: Mapping[str, Points], *, falling: bool = False, share: bool = False
) -> Chart | None:
    """Args: falling: on a logarithmic scale where it falls far. share: from 0 to 1, marked at each validation."""
    shown = {name: (points, colour) for (name, points), colour in zip(lines.items(), COLOURS, strict=False) if points}
    if not shown:
        return None
    values = [value for points, _ in shown.values() for _, value in points]

    def draw(panel: Any) -> None:
        for name, (points, colour) in shown.items():
            few = len(points) <= MARKED if share else len(points) == 1
            mark = {"marker": "o", "markersize": 3.5, "clip_on": False} if few else {}
            panel.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=name or None, **mark)
        panel.set(xlabel="epoch" if run.epoch_steps else "step", xlim=(0, max(_end(run), 1e-9)))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25, linewidth=0.6)
        if falling and min(values) > 0 and max(values) > 10 * min(values):
            panel.set_yscale("log", subs=())
            panel.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            highest = max(values) * 1.1 or 1
            panel.set_ylim(0, min(highest, 1) if share else highest)

    return Chart(title, svg(title, draw))


def _end(run: Run) -> float:
    """The right end of every chart: the last epoch, whether it is trained or not."""
    return run.config.train.epochs if run.epoch_steps else run.done


def _place(run: Run, entry: Mapping[str, Any]) -> float:
    return float(entry["step"] / (run.epoch_steps or 1))


def _points(run: Run, key: str, name: str | None = None) -> Points:
    found = []
    for entry in run.steps:
        value = entry.get(key) if name is None else entry[key].get(name)
        if value is not None:
            found.append((_place(run, entry), float(value)))
    return thinned(found)


def _figures(run: Run, name: str) -> Points:
    values = [(_place(run, entry), entry["val"].get(name)) for entry in run.validations.values()]
    return [(place, value) for place, value in values if value is not None]


def thinned(points: Points) -> Points:
    """Places and values of a long line as the means of `POINTS` even parts."""
    if len(points) <= POINTS:
        return points
    edges = [round(len(points) * part / POINTS) for part in range(POINTS + 1)]
    parts = [points[first:last] for first, last in pairwise(edges)]
    return [(fmean(place for place, _ in part), fmean(value for _, value in part)) for part in parts]
