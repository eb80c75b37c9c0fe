"""The same training twice: `python twins.py`.

A tutor in the place of all masks, and one that fills where all masks are hidden, are one training; the studies
declared it under both names once. What lies in `twins/` is held to its twin in `runs/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tutored.config import make_config
from tutored.evaluate.resample import Resampled, compare

HERE = Path(__file__).parent


def training(given: dict[str, Any]) -> str:
    """A config in one form, whichever of the two names it has; keys that came later have their defaults."""
    config = make_config(given, origin="result.json").to_dict()
    for task in config["supervision"].values():
        if isinstance(task, dict) and task["policy"] == "replace" and not task["resampled"]:
            task |= {"policy": "fill", "hidden": task["share"], "share": 1.0}
    return json.dumps(config, sort_keys=True)


def main() -> None:
    results = [json.loads(path.read_text()) for path in sorted(HERE.glob("runs/*/result.json"))]
    kept = {training(result["config"]): result for result in results}
    for path in sorted(HERE.glob("twins/*/result.json")):
        second = json.loads(path.read_text())
        seed = second["config"]["train"]["seed"]
        first = kept[training(second["config"])]
        pair = [[Resampled.load(HERE / "runs" / first["run_id"] / "resamples.npz")]]
        pair.append([Resampled.load(path.with_name("resamples.npz"))])
        print(f"seed {seed}, {first['run_id']} on {first['device']}, {second['run_id']} on {second['device']}:")
        for figure, found in compare(*pair).items():
            print(f"  {figure} {found.a:.3f}, {found.b:.3f}: {found}")


if __name__ == "__main__":
    main()
