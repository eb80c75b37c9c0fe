"""A study folder: its setting, the runs in it, the tutors' own figures; and the work on it."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock

from tutored.audit.sidecar import fingerprint
from tutored.config import flat, read_yaml
from tutored.data.text import read_json
from tutored.errors import InputError, defect
from tutored.files import write_json, write_text
from tutored.judge import judge
from tutored.softlabels import Store
from tutored.studies import choose
from tutored.studies.declare import Recipe
from tutored.studies.outcome import StudyOutcome, gather
from tutored.studies.plan import Run, plan
from tutored.studies.run import Standing, count_done, is_done, run_all, run_folder
from tutored.studies.setting import Setting

MOST_SEEDS = 1000
ADDED_LATER = {"name", "scales", "candidates", "tutor_candidates", "chosen"}


@dataclass(frozen=True, slots=True)
class Folder:
    """What `study.yaml` says.

    Attributes:
        names: of the studies that were asked for, all calls together.
        seeds: of every row, from 0 on.
    """

    path: Path
    setting: Setting
    names: tuple[str, ...]
    seeds: tuple[int, ...]

    def command(self, name: str) -> str:
        """What trains the missing runs of a study."""
        setting, out = (shlex.quote(str(path)) for path in (self.path / "setting.yaml", self.path))
        return f"tutored study run {name} --setting {setting} --seeds {len(self.seeds)} --out {out}"

    def runs(self, names: Sequence[str], recipe: Recipe | None = None, seeds: int | None = None) -> list[Run]:
        """Every distinct run of some studies, of one recipe or both. Raises InputError for an unknown name."""
        try:
            return plan(choose(names, self.setting, recipe), self.setting, self.seeds[:seeds])
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def outcomes(self, names: Sequence[str]) -> list[StudyOutcome]:
        """What is known of some studies. Raises InputError for an unknown name or a damaged result."""
        return [gather(study, self.setting, self.seeds, self.path) for study in choose(names, self.setting)]

    def tutors(self) -> dict[str, dict[str, Any]]:
        """Figures of those tutors' stores that answer for the evaluation split, by tutor."""
        paths = sorted((self.path / "tutors").glob("*.json"))
        return {path.stem: read_json(path) for path in paths if path.stem in self.setting.tutors}


def open_folder(path: Path, setting: Setting, names: Sequence[str], seeds: int) -> Folder:
    """Make a study folder, or take one up: studies and seeds are added to those that it has.

    Several processes may do so at once. A `setting.yaml` that says the same in other words stays as it is.

    Raises:
        InputError: an unknown study, too many seeds, `path` holds something else, runs of another setting, or a study
            that the setting no longer makes.
    """
    choose(names, setting)
    if seeds > MOST_SEEDS:
        raise InputError(f"{seeds} seeds are not possible; give 1 to {MOST_SEEDS}")
    locks = path / "locks"
    if path.exists() and any(path.iterdir()) and not (locks.exists() or (path / "study.yaml").exists()):
        raise InputError(f"{path} is not empty and holds no study; choose another --out")
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "study"):
        before = load_folder(path) if (path / "study.yaml").exists() else None
        if before and (path / "runs").exists():
            _refuse_another(before, setting)
        known = before.names if before else ()
        try:
            choose(known, setting)
        except InputError as error:
            raise InputError(f"{path} was asked for a study that this setting does not make ({error})") from error
        count = max(seeds, len(before.seeds) if before else 0)
        folder = Folder(path, setting, tuple(dict.fromkeys([*known, *names])), tuple(range(count)))
        if before is None or before.setting != setting:
            write_text(path / "setting.yaml", yaml.safe_dump(setting.model_dump(mode="json"), sort_keys=False))
        write_text(path / "study.yaml", yaml.safe_dump({"studies": list(folder.names), "seeds": count}))
    return folder


def _refuse_another(before: Folder, setting: Setting) -> None:
    differing = _differing(before.setting, setting)
    if differing:
        raise InputError(
            f"{before.path} holds runs of another setting ({differing}); give another --out, or "
            f"--setting {shlex.quote(str(before.path / 'setting.yaml'))} without --scale"
        )


def _differing(before: Setting, after: Setting) -> str:
    """Further tutors, and what `tune` tries and chooses, may come later; the rest would make every run another one."""
    there, here = (flat(each.model_dump(mode="json", exclude=ADDED_LATER)) for each in (before, after))
    new = {f"tutors.{name}" for name in after.tutors.keys() - before.tutors.keys()}
    differing = [
        f"{key} is {there.get(key)!r} there, {here.get(key)!r} is asked for"
        for key in sorted((there.keys() | here.keys()) - new)
        if there.get(key) != here.get(key)
    ]
    return "; ".join(differing[:5])


def load_folder(path: Path) -> Folder:
    """Read a study folder. Raises InputError where it is none."""
    try:
        given = read_yaml(path / "study.yaml")
        setting = Setting.model_validate(read_yaml(path / "setting.yaml"))
        if not 0 < given["seeds"] <= MOST_SEEDS:
            raise ValueError(f"'seeds' is {given['seeds']}, possible: 1 to {MOST_SEEDS}")
        return Folder(path, setting, tuple(given["studies"]), tuple(range(given["seeds"])))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no study folder ({error}); `tutored study run --out` makes one") from error


def work(
    folder: Folder,
    names: Sequence[str],
    *,
    recipe: Recipe | None = None,
    seeds: int | None = None,
    hours: float | None = None,
    jobs: int = 1,
    watch: Callable[[Standing], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[int, int, int]:
    """Judge the tutors and train what is not finished of some studies; see `run_all`.

    Args:
        recipe: train the rows of this one alone.
        seeds: train the first so many seeds of the folder's; None: all.
        jobs: processes that train here at once; they share the cores.
        tell: called with what is worth a note: tutors without answers for the evaluation split.

    Returns:
        Runs that are done, those of them that failed, and runs in all.

    Raises:
        InputError: as `run_all`, or stores that the runs ask are not there.
        ChildProcessError: one of the other processes failed; it said why.
    """
    runs = folder.runs(names, recipe, seeds)
    _refuse_missing([run for run in runs if not is_done(run_folder(folder.path, run))])
    for name, why in judge_tutors(folder).items():
        if tell:
            tell(f"the report will lack figures of the tutor {name} itself: {why}")
    meanwhile = _differing(folder.setting, load_folder(folder.path).setting)
    if meanwhile:
        raise InputError(f"{folder.path} was given another setting meanwhile ({meanwhile}); give another --out")
    if jobs > 1:
        torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_other, args=(runs, folder.path, hours, torch.get_num_threads()))
        for _ in range(jobs - 1)
    ]
    for process in others:
        process.start()
    try:
        run_all(runs, folder.path, hours=hours, jobs=jobs, watch=watch)
    except BaseException:
        for process in others:
            process.terminate()
        raise
    finally:
        for process in others:
            process.join()
    if any(process.exitcode for process in others):
        raise ChildProcessError("a process of --jobs ended early, as told above; the same command goes on")
    failed = sum((run_folder(folder.path, run) / "failed.txt").exists() for run in runs)
    return count_done(runs, folder.path), failed, len(runs)


def _refuse_missing(runs: Sequence[Run]) -> None:
    """Before the first of many hours, not at the first run that asks it."""
    asked = {path for run in runs for task in run.config.supervision.tasks.values() for path in task.stores}
    missing = sorted(str(path) for path in asked if not (path / "manifest.json").exists())
    if missing:
        raise InputError(
            f"these runs ask stores that are not there: {', '.join(missing)}; "
            "`tutored label ... --out STORE` makes one, or choose studies that do without"
        )


def judge_tutors(folder: Folder) -> dict[str, str]:
    """Write `tutors/NAME.json` for each tutor that has answers for the evaluation split and is not judged as it is.

    Returns:
        The tutors that can't be judged, and why.
    """
    setting = folder.setting
    lacking = {}
    for name in setting.tutors:
        store = Path(setting.store(name, "evaluation"))
        written = folder.path / "tutors" / f"{name}.json"
        if not (store / "manifest.json").exists():
            lacking[name] = f"there is no store {store}"
            continue
        try:
            judged = {"store": fingerprint(Store.open(store)), "reported": setting.reported and [*setting.reported]}
            if not written.exists() or not judged.items() <= read_json(written).items():
                result = judge(store, setting.data, setting.evaluation, setting.reported)
                write_json(written, result.to_dict() | judged)
        except InputError as error:
            lacking[name] = str(error)
            written.unlink(missing_ok=True)  # those figures were of other answers
    return lacking


def _other(runs: Sequence[Run], path: Path, hours: float | None, threads: int) -> None:
    """A further process; what stops it stops the first one too, which says so. It does not outlive the first one."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_all(runs, path, hours=hours)
    except KeyboardInterrupt:
        sys.exit(1)
    except (InputError, OSError) as error:
        sys.exit(f"tutored: {error}")
    except Exception as error:
        if os.environ.get("TUTORED_DEBUG"):
            raise
        sys.exit(f"tutored: {defect(error)}")


def _end_with_parent() -> None:
    """A killed parent can't end its children; what a killed child has trained is on disk."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
