"""Timing in turns, tables of ratios, and what is written about them: JSON and a page."""

import gc
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import torch

Table = dict[str, Any]
"""JSON-ready: `title`, `note`, and `rows`, each with a `name` and columns; `reference` where columns are ratios."""
PACKAGES = "tutored torch torchvision timm numpy pillow pyarrow onnx onnxruntime pycocotools".split()
PAGE = """# Benchmarks

Things were timed in turns in one process; seconds mean little on a shared machine. `ratio` is how many times as fast as
the row with 1: the median of the rounds, the lowest and the highest. With `--cpu`, seconds are those that processors
worked for it, not those that passed.

    python -m benchmarks            # all of it, or some by name"""
SMALLEST = 0.05
"""A scale at which a benchmark only shows that it runs: a test's student, one round."""


def cpu_seconds() -> float:
    """What processors have worked for this process and for those of its children that have ended."""
    spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


class Clock:
    """What seconds are: `now` is `cpu_seconds` with `--cpu`."""

    now: Callable[[], float] = staticmethod(time.perf_counter)


class AbsentError(RuntimeError):
    """Photographs, weights, a package or a device that a benchmark needs are not here."""


def real(*parts: str) -> Path:
    """A file in the folder of photographs and weights that `TUTORED_REAL` names. Raises AbsentError."""
    path = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[2] / "shared")).joinpath(*parts)
    if not path.exists():
        raise AbsentError(f"{'/'.join(parts)} is not here; let TUTORED_REAL name the folder that holds it")
    return path


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one thing, a number a round, and how many images (or others) it does in that time."""

    seconds: tuple[float, ...]
    count: float = 1.0

    @property
    def rate(self) -> float:
        """The median of things done a second."""
        return self.count / statistics.median(self.seconds)

    def ratio(self, other: Self) -> dict[str, float]:
        """How many times faster this is than the other: median, lowest and highest of the rounds."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        ratios = [theirs / mine * self.count / other.count for mine, theirs in pairs]
        found = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        return {name: round(value, 4) for name, value in found.items()}


def side_by_side(
    things: Mapping[str, Callable[[], object]],
    count: float = 1.0,
    rounds: int = 5,
    *,
    scale: float = 1.0,
    before: Callable[[str], object] | None = None,
) -> dict[str, Timed]:
    """Time each thing once a round, in turns, after one round that does not count.

    Args:
        scale: below `SMALLEST` there is one round alone.
        before: is called with the name of each thing before its turn; its time does not count.
    """
    small = scale < SMALLEST
    first, rounds = (-1, 0) if small else (0, rounds)
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, do in things.items():
            if not small:
                gc.collect()
            if before:
                before(name)
            started = Clock.now()
            do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn > first:
                seconds[name].append(Clock.now() - started)
    return {name: Timed(tuple(times), count) for name, times in seconds.items()}


@contextmanager
def counted_memory() -> Iterator[Callable[[], int]]:
    """A function that gives the megabytes that this process took at most beyond what it had before (Linux)."""

    def megabytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))

    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
    before = megabytes("VmRSS")
    yield lambda: megabytes("VmHWM") - before


def repeated(do: Callable[[], object], times: int) -> Callable[[], object]:
    """Do it so often."""
    return lambda: [do() for _ in range(times)]


def table(title: str, timed: Mapping[str, Timed], reference: str, note: str = "", unit: str = "images/s") -> Table:
    """The median rate of each thing, and its ratio to the reference with the lowest and the highest round."""
    rows = [
        {"name": name, unit: round(each.rate, 3), "ratio": each.ratio(timed[reference]), "rounds": len(each.seconds)}
        for name, each in timed.items()
    ]
    return {"title": title, "reference": reference, "note": note, "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures were measured on, and the last commit before it."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    info, installed = Path("/proc/cpuinfo"), {each.name: each.version for each in metadata.distributions()}
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    names = re.findall(r"model name\s*: (.*)", text) or [platform.machine()]
    return {
        "processor": f"{names[0]}, {len(names)} threads",
        "threads": torch.get_num_threads(),
        "clock": "CPU" if Clock.now is cpu_seconds else "wall",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "packages": {name: installed[name] for name in PACKAGES if name in installed},
        "commit": git.stdout.strip() or None,
    }


def write(out: Path, name: str, scale: float, tables: Sequence[Table]) -> None:
    """`NAME.json`, which `page` reads."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "scale": scale, "tables": tables}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for every key."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    body = [[_text(row.get(head, "")) for head in heads] for row in rows]
    titles = ["" if head == "name" else head for head in heads]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(heads), *body))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a ratio
        return f"{value['median']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def described(each: Table) -> str:
    """Title, rows and note of a table in Markdown."""
    rows = [{key: value for key, value in row.items() if key != "rounds"} for row in each["rows"]]
    note = f"\n\n{each['note'][:1].upper()}{each['note'][1:]}." if each.get("note") else ""
    return f"\n### {each['title'][:1].upper()}{each['title'][1:]}\n\n{markdown(rows)}{note}"


def page(out: Path, names: Sequence[str]) -> str:
    """All results in a folder, with the machine of each."""
    parts = [PAGE]
    for name in names:
        parts.append(f"\n## {name}\n")
        if not (out / f"{name}.json").exists():
            parts.append(f"Not measured yet: `python -m benchmarks {name}`.")
            continue
        content = json.loads((out / f"{name}.json").read_text())
        on = content["machine"]
        packages = ", ".join(f"{package} {number}" for package, number in on["packages"].items())
        clock, device = on.get("clock", "wall"), on["device"]
        parts.append(f"{on['processor']}; {on['threads']} threads of torch; {clock} time; device {device}; {packages};")
        parts.append(f"Python {on['python']}; commit {on['commit']}; scale {content['scale']:g}.")
        parts += map(described, content["tables"])
    return "\n".join(parts) + "\n"


def put_between(file: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` in a page."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = file.read_text(encoding="utf-8").split(begin)
    file.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
