"""How much sooner a training is done than at a commit: milliseconds an image, from the root of a checkout.

    python results/benchmarks/since.py COMMIT CONFIG.yaml [--rounds 4] [--cores 1] [OPTIONS OF TODAY]

Both versions train what the config says, which both must understand, once for one epoch and once for six; the
difference, divided by the images of five epochs, is free of what begins and ends a training. They take turns. Other
options are given to today's version alone, such as `--train.precision bf16`. CPU time counts on a machine that others
use too, wall time on one of several cores that nobody else uses.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 1, 6


def main() -> None:
    """Print each round's milliseconds, then the ratios' median, lowest and highest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("config", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--cores", type=int, default=1)
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "worktree", "add", "--detach", folder / "then", given.commit], check=True)
        try:
            versions = {"then": (folder / "then" / "src", []), "now": (Path("src").resolve(), options)}
            found: dict[str, list[dict[str, float]]] = {version: [] for version in versions}
            for _ in range(given.rounds):
                for version, (source, options) in versions.items():
                    words = [
                        str(given.config),
                        "--out",
                        str(folder / "run"),
                        "--train.threads",
                        str(given.cores),
                        *options,
                    ]
                    found[version].append(_milliseconds(source, words, folder / "run"))
                print(json.dumps({version: rounds[-1] for version, rounds in found.items()}), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder / "then"], check=True)
    for what in ("CPU", "wall"):
        ratios = [then[what] / now[what] for then, now in zip(found["then"], found["now"], strict=True)]
        print(f"{what}: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] times as fast")


def _milliseconds(source: Path, words: list[str], run: Path) -> dict[str, float]:
    """An image's, of five epochs."""
    spent = []
    for epochs in EPOCHS:
        shutil.rmtree(run, ignore_errors=True)
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "tutored", "train", *words, "--train.epochs", str(epochs)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(source)}, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spent.append({"CPU": cpu, "wall": time.perf_counter() - began})
    images = (EPOCHS[1] - EPOCHS[0]) * json.loads((run / "result.json").read_text())["images"]
    return {what: 1000 * (spent[1][what] - spent[0][what]) / images for what in spent[0]}


if __name__ == "__main__":
    main()
