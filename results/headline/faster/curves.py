"""Figures after every epoch: `python curves.py STUDY` takes them from the runs of a study that was trained with
`--keep`, writes them into curves.csv beside this file, and draws charts/*.svg.
"""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tutored.pages import COLOURS, standalone, svg
from tutored.studies.results import FIGURES, read_records

HERE = Path(__file__).parent
FIELDS = ("label", "seed", "epoch", *FIGURES)
Key = tuple[str, int, int]


def collect(study: Path) -> dict[Key, list[float]]:
    """By label, seed and epoch, the figures of the log's validations."""
    found = {}
    for record in read_records(study):
        log = study / "runs" / record.run / "log.jsonl"
        for line in log.read_text().splitlines() if log.exists() else ():
            entry = json.loads(line)
            if "val" in entry and record.seed is not None:
                tasks = entry["val"]["tasks"]
                figures = [tasks[task][metric] for task, metric in FIGURES.values()]
                found[record.label, record.seed, entry["epoch"]] = figures
    return found


def draw(panel: Any, found: dict[Key, list[float]], column: int, name: str) -> None:
    """A line through the means over seeds for each label, its band from the lowest to the highest seed."""
    panel.set(xlabel="epoch", ylabel=f"{name} on val")
    panel.grid(alpha=0.25, linewidth=0.6)
    for label, colour in zip(dict.fromkeys(key[0] for key in found), COLOURS, strict=False):
        epochs = sorted({key[2] for key in found if key[0] == label})
        seeds = [[each[column] for key, each in found.items() if key[::2] == (label, epoch)] for epoch in epochs]
        panel.plot(epochs, [*map(statistics.mean, seeds)], color=colour, marker="o", markersize=4, label=label)
        panel.fill_between(epochs, [*map(min, seeds)], [*map(max, seeds)], color=colour, alpha=0.28, linewidth=0)


if __name__ == "__main__":
    found = dict(sorted(collect(Path(sys.argv[1])).items()))
    with (HERE / "curves.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(FIELDS)
        rows.writerows((*key, *(f"{each:.4f}" for each in figures)) for key, figures in found.items())
    (HERE / "charts").mkdir(exist_ok=True)
    for column, name in enumerate(FIGURES):
        title = f"{name} after every epoch"
        drawn = svg(title, lambda panel, column=column, name=name: draw(panel, found, column, name))
        (HERE / "charts" / f"epochs-{name.lower()}.svg").write_text(standalone(drawn))
