"""Write `table.md` and `comparison.json` beside this file from finished runs: `python table.py RUNS`.

RUNS holds the run folders `gt-0`, `gt20-0`, ... with their checkpoints. Figures come from each run's `result.json`.
The comparison is a bootstrap over the validation images, paired, of runs with the same seed.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tutored.checkpoint import load_checkpoint
from tutored.data import open_dataset
from tutored.evaluate import Resampled, compare, record, resample
from tutored.files import write_text
from tutored.predict import Predictor, predict_dataset

HERE = Path(__file__).parent
STUDENTS = {
    "gt": "all ground truth",
    "tutors": "no ground truth, both tutors",
    "gt20": "20 % of each task's ground truth",
    "gt20-tutors": "20 %, tutors fill the rest",
}
AGAINST = [("tutors", "gt"), ("gt20-tutors", "gt20"), ("gt20-tutors", "gt"), ("gt20", "gt")]
FIGURES = ("mAP_voc_area@.5", "mIoU")


def main(runs: Path) -> None:
    results = {name: finished(runs, name) for name in STUDENTS}
    columns = ("taught by", "mAP", "mIoU", "mAP by seed", "mIoU by seed", "minutes, fastest run")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, meaning in STUDENTS.items():
        figures = [[result["figures"][key] for result in results[name].values()] for key in FIGURES]
        means = [f"{statistics.mean(values):.3f}" for values in figures]
        each = [", ".join(f"{value:.3f}" for value in values) for values in figures]
        minutes = min(result["seconds"] for result in results[name].values()) / 60
        lines.append(f"| {meaning} | {' | '.join(means)} | {' | '.join(each)} | {minutes:.0f} |")
    comparison = compared(runs, results)
    lines += ["", "| seed | comparison | Δ mAP [95 %] | Δ mIoU [95 %] |", "|---|---|---|---|"]
    for entry in comparison:
        text = ["{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**entry["differences"][key]) for key in FIGURES]
        names = f"{STUDENTS[entry['student']]} against {STUDENTS[entry['against']]}"
        lines.append(f"| {entry['seed']} | {names} | {' | '.join(text)} |")
    write_text(HERE / "table.md", "\n".join(lines) + "\n")
    write_text(HERE / "comparison.json", json.dumps(comparison, indent=1) + "\n")
    print("\n".join(lines))


def finished(runs: Path, name: str) -> dict[int, dict[str, Any]]:
    """The results of one student's runs, by seed."""
    paths = sorted(runs.glob(f"{name}-[0-9]*/result.json"))
    return {int(path.parent.name.rpartition("-")[2]): json.loads(path.read_text()) for path in paths}


def compared(runs: Path, results: dict[str, dict[int, Any]]) -> list[dict[str, Any]]:
    """Paired differences of each pair in `AGAINST`, for the seeds that both have."""
    resampled: dict[tuple[str, int], Resampled] = {}
    for name, by_seed in results.items():
        for seed in by_seed:
            student, config, labels = load_checkpoint(runs / f"{name}-{seed}" / "checkpoint")
            dataset = open_dataset(config.data.train, "val")
            predictions = predict_dataset(Predictor(student, config.decode), dataset)
            records = [
                record(image_id, dataset.ground_truth(image_id), found, labels) for image_id, found in predictions
            ]
            resampled[name, seed] = resample(records, labels, config.data.reported)
    return [
        {
            "student": one,
            "against": other,
            "seed": seed,
            "differences": {
                key: interval._asdict()
                for key, interval in compare([resampled[other, seed]], [resampled[one, seed]]).items()
            },
        }
        for one, other in AGAINST
        for seed in sorted(results[one].keys() & results[other].keys())
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
