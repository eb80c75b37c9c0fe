"""Write `table.md` and `comparison.json` beside this file from finished runs: `python table.py RUNS`.

RUNS holds the run folders `gt-0`, `gt20-0`, ... with their checkpoints. Figures come from each run's `result.json`.
The comparison is a bootstrap over the validation images, paired, of each pair of runs with the same seed.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from tutored.checkpoint import load_checkpoint
from tutored.data import open_dataset
from tutored.evaluate import bootstrap, record
from tutored.files import write_text
from tutored.predict import Predictor, predict_dataset

HERE = Path(__file__).parent
STUDENTS = {
    "gt": "all ground truth",
    "tutors": "no ground truth, both tutors",
    "gt20": "20 % of each task's ground truth",
    "gt20-tutors": "20 %, tutors fill the rest",
}
AGAINST = [("tutors", "gt"), ("gt20-tutors", "gt20"), ("gt20-tutors", "gt")]
FIGURES = ("mAP_voc_area@.5", "mIoU")


def main(runs: Path) -> None:
    seeds = sorted(
        int(path.name.rpartition("-")[2]) for path in runs.glob("gt-[0-9]*") if (path / "result.json").exists()
    )
    results = {
        (name, seed): json.loads((runs / f"{name}-{seed}" / "result.json").read_text())
        for name in STUDENTS
        for seed in seeds
    }
    lines = ["| taught by | mAP | mIoU | mAP by seed | mIoU by seed | minutes a run |", "|---|---|---|---|---|---|"]
    for name, meaning in STUDENTS.items():
        figures = {key: [results[name, seed]["figures"][key] for seed in seeds] for key in FIGURES}
        means = [f"{statistics.mean(values):.3f}" for values in figures.values()]
        each = [" ".join(f"{value:.3f}" for value in values) for values in figures.values()]
        minutes = statistics.mean(results[name, seed]["seconds"] for seed in seeds) / 60
        lines.append(f"| {meaning} | {' | '.join(means)} | {' | '.join(each)} | {minutes:.0f} |")
    comparison = compare(runs, seeds)
    lines += ["", "| against | seed | Δ mAP [95 %] | Δ mIoU [95 %] |", "|---|---|---|---|"]
    for entry in comparison:
        text = ["{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**entry["differences"][key]) for key in FIGURES]
        lines.append(f"| {entry['student']} against {entry['against']} | {entry['seed']} | {' | '.join(text)} |")
    write_text(HERE / "table.md", "\n".join(lines) + "\n")
    write_text(HERE / "comparison.json", json.dumps(comparison, indent=1) + "\n")
    print("\n".join(lines))


def compare(runs: Path, seeds: list[int]) -> list[dict[str, object]]:
    records = {}
    for seed in seeds:
        for name in STUDENTS:
            student, config, labels = load_checkpoint(runs / f"{name}-{seed}" / "checkpoint")
            dataset = open_dataset(config.data.train, "val")
            predictor = Predictor(student, config.decode)
            records[name, seed] = [
                record(image_id, dataset.ground_truth(image_id), prediction, labels)
                for image_id, prediction in predict_dataset(predictor, dataset)
            ]
    return [
        {
            "student": one,
            "against": other,
            "seed": seed,
            "differences": bootstrap(records[one, seed], records[other, seed], labels, config.data.reported),
        }
        for one, other in AGAINST
        for seed in seeds
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
