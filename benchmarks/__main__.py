"""`python -m benchmarks [NAME ...] [--scale 1] [--out results/benchmarks] [--threads N]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import AbsentError
from benchmarks.report import described, drawn, page
from benchmarks.timing import machine
from tutored.files import write_text
from tutored.page import COLOURS, INK, standalone, svg

NAMES = (
    *("training", "operations", "optimisations", "memory", "two_networks", "tutors_live"),
    *("store", "labelling", "evaluation", "prediction", "scaling", "graphics_card"),
)


def main() -> None:
    """Run some benchmarks, print their tables, and write `NAME.json` and a chart for each table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="less is quicker and rougher (default 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/tutored-benchmarks"), help="data that is kept")
    parser.add_argument("--threads", type=int, help="of torch (default: its choice)")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; possible: {', '.join(NAMES)}")
    if given.threads:
        torch.set_num_threads(given.threads)
    for name in given.names or NAMES:
        measure: Callable[[Path, float], Iterable[dict[str, Any]]] = import_module(f"benchmarks.{name}").measure
        content = {"machine": machine(), "scale": given.scale, "tables": []}
        try:
            for index, table in enumerate(measure(given.work, given.scale)):
                content["tables"].append(table)
                write_text(given.out / f"{name}.json", json.dumps(content, indent=1) + "\n")
                print("\n".join(described(table)), flush=True)
                if drawn(table):
                    write_text(given.out / f"{name}-{index}.svg", standalone(_chart(table)))
        except AbsentError as error:
            print(f"\n{name}: skipped, for {error}", flush=True)
    write_text(given.out / "README.md", page(given.out, NAMES))


def _chart(table: dict[str, Any]) -> str:
    def draw(panel: Any) -> None:
        panel.set_title(table["title"], loc="left", fontsize=9)
        if "rows" not in table:
            sizes, seconds = zip(*((row["size"], row["seconds"]) for row in table["points"]), strict=True)
            panel.loglog(sizes, seconds, marker="o")
            panel.set(xlabel=table["axis"], ylabel="seconds")
            # Ticks where something was measured; matplotlib's own are powers in TeX, which an SVG's text is not.
            panel.minorticks_off()
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            ends = min(seconds), max(seconds)
            panel.set_yticks(ends, [f"{end:.2g}" for end in ends])
            return
        rows = table["rows"][::-1]
        values = [row["ratio"]["median"] for row in rows]
        errors = [[row["ratio"]["median"] - row["ratio"]["low"] for row in rows],
                  [row["ratio"]["high"] - row["ratio"]["median"] for row in rows]]  # fmt: skip
        panel.barh([row["name"] for row in rows], values, xerr=errors, color=COLOURS[0], ecolor=INK, height=0.6)
        panel.axvline(1, color=INK, linewidth=0.8)
        panel.set(xlabel=f"times as fast as: {table['reference']}")

    return svg(table["title"], draw, width=7.0)


if __name__ == "__main__":
    main()
