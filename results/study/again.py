"""How far the runs that were trained again on another machine are from the first ones: `python again.py`."""

from __future__ import annotations

import json
from pathlib import Path

from tutored.evaluate.resample import Resampled, compare

HERE = Path(__file__).parent


def main() -> None:
    arms: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("again/*/result.json")):
        result = json.loads(path.read_text())
        arms.setdefault(result["config"]["supervision"]["detection"]["policy"], []).append(result["run_id"])
    for policy, names in arms.items():
        first, second = (
            [Resampled.load(HERE / folder / name / "resamples.npz") for name in names] for folder in ("runs", "again")
        )
        for figure, found in compare(first, second).items():
            print(f"{policy}, {figure}: {found}, {len(names)} seeds")


if __name__ == "__main__":
    main()
