"""More photographs without any label against fewer with all of them, at as many steps: `python unlabelled.py`."""

from __future__ import annotations

import json
from pathlib import Path

from tutored.evaluate.resample import Resampled, compare

TUTORS, GROUND_TRUTH, SHORTER = "b88b756cb5a8", "366fd1a37621", "29559244f102"
"""Tutors alone on `train`, 30 epochs; all ground truth of `train_small`, 76 epochs, and 30 (in `runs/`). Seed 0."""


def main() -> None:
    runs = Path(__file__).parent / "unlabelled"
    resampled: list[list[Resampled]] = []
    for name in (GROUND_TRUTH, TUTORS):
        result = json.loads((runs / name / "result.json").read_text())
        data, train = result["config"]["data"], result["config"]["train"]
        figures = {figure: round(result["figures"][figure], 3) for figure in ("mAP_voc_area@.5", "mIoU")}
        print(f"{name}: {data['split']}, {train['epochs']} epochs: {figures}")
        resampled.append([Resampled.load(runs / name / "resamples.npz")])
    resampled.append([Resampled.load(runs.parent / "runs" / SHORTER / "resamples.npz")])
    pairs = {f"{TUTORS} against {GROUND_TRUTH}": (0, 1), f"{TUTORS} against {SHORTER}": (2, 1)}
    pairs[f"{GROUND_TRUTH} against {SHORTER}"] = (2, 0)
    for name, (than, better) in pairs.items():
        for figure, found in compare(resampled[than], resampled[better]).items():
            print(f"{name}: {figure} {found}")


if __name__ == "__main__":
    main()
