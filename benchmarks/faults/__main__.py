"""`python -m benchmarks.faults [NAME ...] [--seed 0] [--scale 1] [--out results/faults] [--into docs/faults.md]`."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: children that wait for one another's threads take longer

from benchmarks.faults.row import Row, markdown
from benchmarks.faults.work import Work
from benchmarks.timing import machine
from tutored.files import write_text

NAMES = ("kills", "signals", "disk", "nonfinite", "corruptions", "inputs")
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"


def main() -> None:
    """Run some groups; each is kept in `faults.json`, and in the table, as soon as it has ended."""
    given = options()
    kept = given.out / "faults.json"
    content: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"groups": {}}
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Work(Path(folder))
        for name in given.names or NAMES:
            measure: Callable[[Work, int, float], list[Row]] = import_module(f"benchmarks.faults.{name}").measure
            began = time.monotonic()
            rows = measure(work, given.seed, given.scale)
            content["groups"][name] = {
                "machine": machine(),
                "seed": given.seed,
                "scale": given.scale,
                "seconds": round(time.monotonic() - began),
                "rows": [row.to_dict() for row in rows],
            }
            write_text(kept, json.dumps(content, indent=1) + "\n")
            print(markdown(rows), flush=True)
            for row in rows:
                for fault in row.faults:
                    print(f"LOST: {row.what}: {fault}", flush=True)
    if given.into:
        put_table(given.into, content["groups"])


def options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of all but the moments of random kills and signals")
    parser.add_argument("--scale", type=float, default=1.0, help="less is quicker and tries less often (default 1)")
    parser.add_argument("--out", type=Path, default=Path("results/faults"), metavar="FOLDER")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help=f"between {BEGIN.strip()} and {END.strip()}")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where files may be harmed")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; possible: {', '.join(NAMES)}")
    return given


def put_table(page: Path, groups: dict[str, Any]) -> None:
    """Write the table of every kept group into a page."""
    rows = [
        Row(**{**row, "faults": tuple(row["faults"])})
        for name in NAMES
        for row in groups.get(name, {"rows": ()})["rows"]
    ]
    before, rest = page.read_text().split(BEGIN)
    write_text(page, f"{before}{BEGIN}\n{markdown(rows)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
