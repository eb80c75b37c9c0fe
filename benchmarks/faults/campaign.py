"""`label`, `train` and `study run`, killed, stopped or short of disk, and run again: the same bytes, or a loss."""

import json
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import yaml

from benchmarks.faults.work import CONFIG, Ended, Fault, make_small, run
from tutored.files import LEFTOVERS

CLOCK = {"seconds", "images_per_second", "sha256"}
"""Keys in which two runs of the same may differ; a state's own hash covers its seconds."""
SHOWN = (".html", ".lock", ".csv", ".jpg")
"""Files for people, which hold seconds too, and locks."""


class Job(NamedTuple):
    """A command that goes on where it was; what it makes undisturbed, how that went, and the largest file's bytes."""

    name: str
    words: list[str]
    whole: Path
    undisturbed: Ended
    largest: int


def make_jobs(folder: Path, names: Collection[str] = ("label", "train", "study")) -> dict[str, Job]:
    """The commands on small data, and what they make undisturbed."""
    data, answers = make_small(folder, train=8, val=4, large=66)  # a store of the large one has two parts
    label = ["label", "files", "--from", str(answers), "--data", data, "--batch", "2"]
    setting = {"name": "small", "data": data, "small": "train", "large": "train", "evaluation": "val", "run": CONFIG}
    setting |= {"tutors": dict.fromkeys(("detection", "segmentation"), str(folder / "stores-{split}"))}
    (folder / "setting.yaml").write_text(yaml.safe_dump(setting))
    for split in ("train", "val") if "study" in names else ():
        out = folder / f"stores-{split}"
        assert run([*label, "--split", split, "--out", str(out)], out).code == 0
    given = ["--setting", str(folder / "setting.yaml"), "--recipe", "corrected", "--seeds", "1"]
    commands = {
        "label": [*label, "--split", "large", "--resume"],
        "train": ["train", str(folder / "config.yaml"), "--resume"],
        "study": ["study", "run", "thesis/table-12", *given],
    }
    jobs = {}
    for name in names:
        words, whole = commands[name], folder / name
        ended = run([*words, "--out", str(whole)], whole)
        assert ended.code == 0, ended.text
        jobs[name] = Job(name, words, whole, ended, max(path.stat().st_size for path in whole.rglob("*")))
    return jobs


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KINDS: dict[str, Callable[[Random, Job], Fault]] = {
    "killed before a change of a file": lambda rng, job: Fault(change=rng.randint(1, job.undisturbed.changes)),
    "killed at a random moment": lambda rng, job: Fault(seconds=rng.uniform(0.05, job.undisturbed.seconds)),
    "asked to stop": lambda rng, job: Fault(rng.choice(STOPS), change=rng.randint(1, job.undisturbed.changes)),
    "full disk": lambda rng, job: Fault(limit=rng.randrange(4096, job.largest)),
}


def disturbed(job: Job, kind: str, times: int, seed: int) -> dict[str, Any]:
    """Disturb the command so often, each time from an empty folder, and let it end: a row for the table.

    `tried` counts what was disturbed before its end; `lost` what was not as promised, with the first five in words.
    """
    rng, out = Random(f"{seed}/{job.name}/{kind}"), job.whole.with_name(f"{job.name}-disturbed")
    words, tried, lost = [*job.words, "--out", str(out)], 0, []
    for _ in range(times):
        shutil.rmtree(out, ignore_errors=True)
        fault = KINDS[kind](rng, job)
        ended = run(words, out, fault)
        tried += ended.code != 0
        wrong = [] if ended.code == 0 else _wrong(fault, ended, out)
        again = run(words, out)
        wrong += [f"does not go on: {again.code} {again.last_line}"] * (again.code != 0)
        wrong += [f"{name} differs" for name in differing(out, job.whole, {"loss"} if fault.signal in STOPS else ())]
        lost += [f"{fault}: {', '.join(wrong)}"] * bool(wrong)
    what = f"`tutored {job.name}`: {kind}"
    return {"what": what, "tried": tried, "refused": 0, "lost": len(lost), "losses": lost[:5]}


def _wrong(fault: Fault, ended: Ended, out: Path) -> list[str]:
    """What is wrong with how a command ended that was disturbed."""
    if fault.limit is None and fault.signal == signal.SIGKILL:
        good, left = ended.code == -signal.SIGKILL, []
    else:
        said = "stopped; what is finished is kept" if fault.limit is None else "can't be written"
        good = ended.code == 1 and said in ended.last_line and "Traceback" not in ended.text
        left = [] if fault.limit is None else [f"leaves {path.name}" for path in out.rglob(LEFTOVERS)]
    return left if good else [f"ends with {ended.code}: {ended.last_line}", *left]


def differing(one: Path, other: Path, but: Collection[str] = ()) -> list[str]:
    """The files in which two results differ, without what a kill may leave, the clock's, and entries named `but`."""
    paths = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    kept = [path for path in sorted(paths) if path.suffix not in SHOWN and not path.match(LEFTOVERS)]
    kept = [path for path in kept if not {"page", "locks"} & {*path.parts}]
    return [str(path) for path in kept if _content(one / path, but) != _content(other / path, but)]


def _content(path: Path, but: Collection[str]) -> Any:
    if path.name == "runs.parquet" and path.exists():
        return str(pq.read_table(path).drop_columns("seconds").to_pylist())  # text, in which NaN is NaN
    if not path.exists() or path.suffix not in (".json", ".jsonl"):
        return path.read_bytes() if path.exists() else None
    text = path.read_text(encoding="utf-8")
    gone = CLOCK | {*but}
    return [
        json.loads(line, object_hook=lambda found: {key: value for key, value in found.items() if key not in gone})
        for line in (text.splitlines() if path.suffix == ".jsonl" else [text])
    ]


def measure(folder: Path, seed: int, scale: float) -> Iterator[dict[str, Any]]:
    """Every command with every kind of fault."""
    for job in make_jobs(folder).values():
        for kind in KINDS:
            yield disturbed(job, kind, max(round(20 * scale), 1), seed)
