"""How long commands take to begin, each in a new process: CPU seconds and memory."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.harness import SMALLEST, Table
from benchmarks.package import SMALL, compact, make_data, save_untrained

AIMS = {"--help": 0.1, "a wrong path": 0.3, "first prediction": 3.0, "first training step": 3.5}


def measure(work: Path, scale: float) -> Iterator[Table]:
    """Words alone, a path that is not there, one picture, and a training of one step, with the default student."""
    data, _ = make_data(work, 8, scale if scale < SMALLEST else 0.0, size=SMALL)
    picture = str(next(Path(data.removeprefix("voc:"), "JPEGImages").iterdir()))
    with tempfile.TemporaryDirectory() as name:
        folder, shape = Path(name), compact(160)
        checkpoint = str(save_untrained(folder / "checkpoint", shape))
        given = {"data": {"train": data, "val_split": None}, "student": shape}
        given["train"] = {"epochs": 1, "batch": 8, "workers": 0, "device": "cpu", "threads": 1, "shown": 0}
        (folder / "one.yaml").write_text(yaml.safe_dump(given | {"tasks": {"detection": {}, "segmentation": {}}}))
        commands = dict(zip(AIMS, (["--help"], ["train", "absent.yaml"]), strict=False))
        commands["first prediction"] = ["predict", checkpoint, picture, "--out", str(folder / "seen")]
        commands["first training step"] = ["train", str(folder / "one.yaml")]
        rows = []
        for what, words in {"importing torch alone": [], **commands}.items():
            costs = [
                _costs([*words, *(["--out", str(folder / f"run-{turn}")] if "step" in what else [])])
                for turn in range(1 if scale < SMALLEST else max(3, round(5 * scale)))
            ]
            seconds, memory = ([each[place] for each in costs] for place in range(2))
            ratio = {"median": round(median(seconds), 3), "low": round(min(seconds), 3), "high": round(max(seconds), 3)}
            rows.append({"name": what, "CPU seconds": ratio, "aim": AIMS.get(what, ""), "MB": max(memory)})
    note = "the whole command, imports and files included; a training of one step of up to 32 small pictures"
    yield {"title": "beginning", "note": note, "rows": rows}


def _costs(words: list[str]) -> tuple[float, int]:
    """CPU seconds of a command, and the megabytes that it had at most (Linux)."""
    begun = "from tutored.cli import main; main(sys.argv[1:])" if words else "import torch"
    code = (
        f"import resource, sys; {begun}; "
        "r = resource.getrusage(resource.RUSAGE_SELF); peak = open('/proc/self/status').read().split('VmHWM:')[1]; "
        "print('cost', r.ru_utime + r.ru_stime, int(peak.split()[0]) // 1024)"
    )
    ended: Any = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    _, seconds, megabytes = next(line for line in ended.stdout.splitlines() if line.startswith("cost ")).split()
    return float(seconds), int(megabytes)
