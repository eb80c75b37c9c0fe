"""The larger set's students of `corrected` against each ground truth they may be held to: `python baselines.py`."""

from __future__ import annotations

from pathlib import Path

from tutored.evaluate.resample import Resampled, compare
from tutored.studies.folder import load_folder

STUDIES = ("beyond/half-labelled", "beyond/ablation", "thesis/table-17")
BASELINES = {
    "ground truth": ("corrected", "masks of a fifth"),
    "ground truth, untaught: skipped": ("corrected", "masks of a fifth, untaught: skipped"),
    "ground truth in the recipe thesis": ("thesis", "masks of a fifth"),
}
ARMS = (
    "masks of a fifth, tutor fills the rest",
    "masks of a fifth, tutor vetted by the boxes",
    "tutors alone",
    "ground truth and tutors",
)


def main() -> None:
    folder = load_folder(Path(__file__).parent)
    found: dict[tuple[str, str], list[Resampled]] = {}
    for study in folder.outcomes(STUDIES):
        for each in study.rows:
            files = [run.folder / "resamples.npz" for run in each.runs if run.result is not None]
            found.setdefault((each.recipe, each.row.label), [Resampled.load(file) for file in files])
    for name, baseline in BASELINES.items():
        for arm in ARMS:
            for figure, interval in compare(found[baseline], found["corrected", arm]).items():
                print(f"{arm}, against {name}: {figure} {interval}")


if __name__ == "__main__":
    main()
