"""`python -m benchmarks.faults [readers] [campaign] [--seed 0] [--scale 1] [--out results/faults/faults.json]`."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults import campaign, readers
from benchmarks.harness import machine, markdown, put_between

GROUPS = {"readers": readers.measure, "campaign": campaign.measure}


def main() -> None:
    """Run both groups or one, print each row, and keep them; a group that was not run stays as it was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: both)")
    parser.add_argument("--seed", type=int, default=0, help="of everything except when a random moment is reached")
    parser.add_argument("--scale", type=float, default=1.0, help="less is quicker and tries less often (default 1)")
    parser.add_argument("--out", type=Path, default=Path("results/faults/faults.json"), metavar="FILE.json")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help="a page with <!-- faults --> and <!-- /faults -->")
    given = parser.parse_args()
    if set(given.groups) - set(GROUPS):
        parser.error(f"possible groups: {', '.join(GROUPS)}")
    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.groups or GROUPS:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for row in GROUPS[name](Path(folder), given.seed, given.scale):
                print(json.dumps(row), flush=True)
                rows.append(row)
        kept[name] = {"machine": machine(), "seed": given.seed, "scale": given.scale, "rows": rows}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(kept, indent=1) + "\n")
    if given.into:
        tables = [[{**row, "losses": "; ".join(row["losses"])} for row in group["rows"]] for group in kept.values()]
        put_between(given.into, "faults", "\n\n".join(map(markdown, tables)))


if __name__ == "__main__":
    main()
