"""`python -m benchmarks [NAME ...] [--scale 1] [--out results/benchmarks] [--threads N] [--cpu]`."""

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.harness import AbsentError, Clock, cpu_seconds, described, page, write
from tutored.cli import keep_memory

NAMES = "training loader prediction labelling store evaluation peers growth start gpu".split()


def main() -> None:
    """Run some benchmarks, print their tables, and write `NAME.json`, a chart and the page of all results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="less is quicker and rougher (default 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    work = Path(tempfile.gettempdir(), "tutored-benchmarks")
    parser.add_argument("--work", type=Path, default=work, help="made-up data, kept")
    parser.add_argument("--threads", type=int, help="of torch (default: its choice)")
    parser.add_argument("--cpu", action="store_true", help="count CPU time, on a machine that others use too")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; possible: {', '.join(NAMES)}")
    if given.threads:
        torch.set_num_threads(given.threads)
    keep_memory()  # as every command does
    if given.cpu:
        Clock.now = staticmethod(cpu_seconds)
    for name in given.names or NAMES:
        tables = []
        try:
            for table in import_module(f"benchmarks.{name}").measure(given.work, given.scale):
                tables.append(table)
                print(described(table), flush=True)
        except AbsentError as error:
            print(f"\n{name}: skipped, because {error}", flush=True)
        if tables:
            write(given.out, name, given.scale, tables)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "README.md").write_text(page(given.out, NAMES))


if __name__ == "__main__":
    main()
