"""More photographs without any label against fewer with all of them, at as many steps: `python unlabelled.py`."""

from __future__ import annotations

import json
from pathlib import Path

from tutored.evaluate.resample import Resampled, compare

TUTORS, GROUND_TRUTH = "b88b756cb5a8", "366fd1a37621"


def main() -> None:
    runs = Path(__file__).parent / "unlabelled"
    resampled: list[list[Resampled]] = []
    for name in (GROUND_TRUTH, TUTORS):
        result = json.loads((runs / name / "result.json").read_text())
        data, train = result["config"]["data"], result["config"]["train"]
        figures = {figure: round(result["figures"][figure], 3) for figure in ("mAP_voc_area@.5", "mIoU")}
        print(f"{name}: {data['split']}, {train['epochs']} epochs: {figures}")
        resampled.append([Resampled.load(runs / name / "resamples.npz")])
    for figure, found in compare(*resampled).items():
        print(
            f"{TUTORS} against {GROUND_TRUTH}: {figure} {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        )


if __name__ == "__main__":
    main()
