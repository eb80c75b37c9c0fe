"""A study folder, and the training of its runs: each once, by any number of processes, and resumable."""

import io
import multiprocessing
import os
import shlex
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from filelock import FileLock, Timeout

from tutored.checkpoint import load_checkpoint
from tutored.config import flat, read_yaml
from tutored.data import open_dataset
from tutored.engine import train
from tutored.errors import InputError, told_of
from tutored.files import STUDY, require, write_text
from tutored.judge import judge
from tutored.pages.run import RunPage
from tutored.predict import Predictor
from tutored.processes import choose_device
from tutored.softlabels import Store
from tutored.softlabels.advice import fingerprint
from tutored.studies import results
from tutored.studies.results import TUTORS, Record, StudyOutcome
from tutored.studies.setting import Recipe, Run, Setting, choose, only, plan, studies_of
from tutored.tasks import task_class
from tutored.visualise import draw
from tutored.watch import Report, Watcher, Watchers

MOST_SEEDS = 1000
MAY_CHANGE = {"scales", "candidates", "tutor_candidates", "chosen", "studies", "answers", "photos"}
"""Of a setting, what does not change the runs that were trained."""
SHOWN, SIDE, QUALITY = 4, 300, 60
"""Pictures of a run: how many, their longer side in pixels, and WebP's quality."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What `study.yaml` says. `names` are the studies that were asked for, by all commands together."""

    path: Path
    setting: Setting
    names: tuple[str, ...]
    seeds: tuple[int, ...]

    def command(self, name: str) -> str:
        """What trains the missing runs of a study."""
        setting, out = (shlex.quote(str(path)) for path in (self.path / "setting.yaml", self.path))
        return f"tutored study run {name} --setting {setting} --seeds {len(self.seeds)} --out {out}"

    def runs(
        self,
        names: Sequence[str],
        recipe: Recipe | None = None,
        seeds: int | None = None,
        labels: Sequence[str] = (),
    ) -> list[Run]:
        """Every distinct run of some studies, of one recipe or both, with `labels` those of the rows that are called so
        alone. Raises InputError for an unknown name or label.
        """
        with told_of(self.path):
            studies = choose(names, self.setting, recipe)
            return plan(only(labels, studies) if labels else studies, self.setting, self.seeds[:seeds])

    def outcomes(self, names: Sequence[str]) -> list[StudyOutcome]:
        """What is known of some studies. Raises InputError for an unknown name or damaged results."""
        records = results.read_records(self.path)
        return [
            results.gather(study, self.setting, self.seeds, self.path, records) for study in choose(names, self.setting)
        ]


def open_folder(path: Path, setting: Setting, names: Sequence[str], seeds: int) -> Folder:
    """Make a study folder, or take one up: studies and seeds are added to those that it has.

    Several processes may do so at once. A `setting.yaml` that says the same in another form stays as it is. Raises
    InputError: an unknown study, too many seeds, `path` holds something else, runs of another setting, or a study that
    the setting no longer makes.
    """
    choose(names, setting)
    if seeds > MOST_SEEDS:
        raise InputError(f"{seeds} seeds are not possible; give 1 to {MOST_SEEDS}")
    locks = path / "locks"
    if path.exists() and any(path.iterdir()) and not (locks.exists() or (path / STUDY.file).exists()):
        raise InputError(f"{path} is not empty and holds no study; choose another --out")
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "study"):
        before = load_folder(path) if (path / STUDY.file).exists() else None
        if before and ((path / "runs").exists() or results.by_row(results.read_records(path), before.setting)):
            differing = _differing(before.setting, setting)
            if differing:
                raise InputError(
                    f"{path} holds runs of another setting ({differing}); give another --out, or "
                    f"--setting {shlex.quote(str(path / 'setting.yaml'))} without --scale"
                )
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


def _differing(before: Setting, after: Setting) -> str:
    """The keys that would make every run another one; further tutors would not."""
    there, here = (flat(each.model_dump(mode="json", exclude=MAY_CHANGE)) for each in (before, after))
    new = {f"tutors.{name}" for name in after.tutors.keys() - before.tutors.keys()}
    differing = [
        f"{key} is {there.get(key)!r} there, {here.get(key)!r} is asked for"
        for key in sorted((there.keys() | here.keys()) - new)
        if there.get(key) != here.get(key)
    ]
    return "; ".join(differing[:5])


def load_folder(path: Path) -> Folder:
    """Read a study folder. Raises InputError where there is none."""
    require(path, STUDY)
    try:
        given = read_yaml(path / STUDY.file)
        setting = Setting.model_validate(read_yaml(path / "setting.yaml"))
        if not 0 < given["seeds"] <= MOST_SEEDS:
            raise ValueError(f"'seeds' is {given['seeds']}, possible: 1 to {MOST_SEEDS}")
        return Folder(path, setting, tuple(given["studies"]), tuple(range(given["seeds"])))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no study folder ({error}); `tutored study run --out` makes one") from error


class Standing(NamedTuple):
    """Where a study stands: runs that are done or have failed, runs in all, the run that is being trained here, the
    report of its training, and the seconds left for everything; None before any run is finished."""

    done: int
    total: int
    run: Run
    report: Report
    seconds_left: float | None


Watch = Callable[[Standing], None] | None


def work(
    folder: Folder,
    names: Sequence[str],
    *,
    recipe: Recipe | None = None,
    labels: Sequence[str] = (),
    seeds: int | None = None,
    hours: float | None = None,
    jobs: int = 1,
    keep: bool = False,
    watch: Watch = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[int, int, int]:
    """Judge the tutors and train what is not finished of some studies; see `run_all`. Returns runs that are done, how
    many of them failed, and runs in all. Raises InputError: as `run_all`, or a run needs a store that does not exist.
    Raises ChildProcessError: one of the other processes failed; it printed why.

    Args:
        recipe: train only the rows of this one.
        labels: train only the rows that are called so; none: all.
        seeds: train the first so many seeds of the folder's; None: all.
        jobs: processes that train here at once; they share the cores.
        tell: called with what is worth a note: tutors without answers for the evaluation split.
    """
    runs = folder.runs(names, recipe, seeds, labels)
    waiting = unfinished(runs, folder.path)
    needed = {
        run.setting.store(name, run.row.split) for run in runs if run.run_id in waiting for name in run.row.tutors
    }
    missing = sorted(store for store in needed if not (Path(store) / "manifest.json").exists())
    if missing:
        raise InputError(
            f"these runs need stores that do not exist: {', '.join(missing)}; `tutored label ... --out STORE` makes "
            "one, or choose studies that do without"
        )
    for name, why in judge_tutors(folder).items():
        if tell:
            tell(f"the report will lack figures of the tutor {name} itself: {why}")
    if jobs > 1:
        torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))
    context = multiprocessing.get_context("spawn")
    given = (runs, folder.path, hours, keep, torch.get_num_threads())
    others = [context.Process(target=_other, args=given) for _ in range(jobs - 1)]
    for process in others:
        process.start()
    try:
        run_all(runs, folder.path, hours=hours, jobs=jobs, keep=keep, watch=watch)
    except BaseException:
        for process in others:
            process.terminate()
        raise
    finally:
        for process in others:
            process.join()
    if any(process.exitcode for process in others):
        raise ChildProcessError("a process of --jobs ended early, as told above; the same command goes on")
    done = len(runs) - len(unfinished(runs, folder.path))
    return done, sum(_failed(folder.path, run).exists() for run in runs), len(runs)


def _other(runs: Sequence[Run], path: Path, hours: float | None, keep: bool, threads: int) -> None:
    """A further process. Its failure ends the first one too, which reports it; it does not outlive the first one."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_all(runs, path, hours=hours, keep=keep)
    except (InputError, OSError, KeyboardInterrupt) as error:
        sys.exit(f"tutored: {error}")


def _end_with_parent() -> None:
    """A killed parent can't end its children; what a killed child has trained is on disk."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_all(
    runs: Sequence[Run],
    folder: Path,
    *,
    hours: float | None = None,
    jobs: int = 1,
    keep: bool = False,
    watch: Watch = None,
) -> int:
    """Train what is not finished, in order. Killed and started again, it goes on where it was.

    A run is trained in `folder/runs/ID` and, once finished, moves into the folder's Parquet file. A run that another
    process is training is left to it; processes share only the folder, whose file system must support locks. A run
    whose loss is not finite leaves `folder/runs/ID/failed.txt` and is not tried again. Returns how many of the runs are
    done. The others are being trained elsewhere or did not fit. Raises InputError: as `engine.train`.

    Args:
        hours: begin no run that would end later than this from now, by the time that finished ones took; of a folder
            without any, the first one begins.
        jobs: processes that work on the runs here, for the time left.
        keep: leave the finished runs' folders, with checkpoint and page.
    """
    began, left = time.monotonic(), unfinished(runs, folder)
    for run in runs:
        if run.run_id not in left or (hours is not None and time.monotonic() - began + left[run.run_id] > hours * 3600):
            continue
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(folder / "locks" / run.run_id, timeout=0):
            left = unfinished(runs, folder)  # another process may have trained it meanwhile
            if run.run_id in left:
                _train(run, folder, keep, _told(watch, run, len(runs), left, jobs))
                left = unfinished(runs, folder)
    return len(runs) - len(unfinished(runs, folder))


def unfinished(runs: Sequence[Run], folder: Path) -> dict[str, float]:
    """The runs that are neither finished nor failed, by id, with the seconds that finished ones on their split took."""
    done = results.by_row(results.read_records(folder), runs[0].setting) if runs else {}
    taken: dict[str, list[float]] = {}
    for record in done.values():
        taken.setdefault(record.split, []).append(record.seconds or 0.0)
    usual = statistics.mean(statistics.mean(each) for each in taken.values()) if taken else 0.0
    return {
        run.run_id: statistics.mean(taken.get(run.split, [usual]))
        for run in runs
        if not any((name, run.seed) in done for name in (*run.rows, run.run_id)) and not _failed(folder, run).exists()
    }


def _failed(folder: Path, run: Run) -> Path:
    return folder / "runs" / run.run_id / "failed.txt"


def _train(run: Run, folder: Path, keep: bool, watch: Callable[[Report], None] | None) -> None:
    where = folder / "runs" / run.run_id
    try:
        page = (RunPage(),) if keep else ()
        result = train(run.config, where, resume=True, watch=Watchers(Watcher(watch), *page))
    except FloatingPointError as error:
        write_text(_failed(folder, run), f"{error}\n")
        return
    rows = dict.fromkeys(run.rows)
    for study in studies_of(run.setting):
        with suppress(InputError):  # another study, which this setting can't run
            same = (each for each in plan([study], run.setting, [run.seed]) if each.run_id == run.run_id)
            rows |= dict.fromkeys(key for each in same for key in each.rows)
    pictures = _pictures(run, where) if run.seed == 0 else []
    for split in () if run.config.data.held_out else run.setting.also:
        told = judge(where / "checkpoint", run.setting.data, split).tasks
        result["figures"] |= {f"{task} on {split}": each.to_dict() for task, each in told.items()}
    results.add_record(folder, results.record_of(run, where, result, tuple(rows), pictures))
    shutil.rmtree(where / "state" if keep else where, ignore_errors=True)


def _pictures(run: Run, where: Path) -> list[dict[str, Any]]:
    """A finished student's answers to a few images of the evaluation split, the same ones for every student."""
    if run.config.data.held_out:
        return []
    student, config = load_checkpoint(where / "checkpoint")
    dataset = open_dataset(run.setting.data, run.setting.evaluation)
    device = choose_device(config.train.device if config.train.device != "auto" else None)
    step = max(len(dataset.ids) // SHOWN, 1)
    ids = dataset.ids[step // 2 :: step][:SHOWN]
    images = [dataset.image(image_id) for image_id in ids]
    predictor = Predictor(student, device, tasks=config.taught)
    pictures = []
    for image_id, image, answer in zip(ids, images, predictor(images), strict=True):
        file = io.BytesIO()
        ground = image if run.setting.photos else None
        drawn = draw(ground, answer.above(answer.scores), predictor.tasks, at_most=SIDE)
        drawn.save(file, "WEBP", quality=QUALITY)
        pictures.append({"told": image_id, "file": file.getvalue()})
    return pictures


def _told(watch: Watch, run: Run, total: int, left: Mapping[str, float], jobs: int) -> Callable[[Report], None] | None:
    if watch is None:
        return None
    began, expected = time.monotonic(), sum(left.values()) / jobs

    def tell(report: Report) -> None:
        remaining = max(expected - (time.monotonic() - began), report.seconds_left) if expected else None
        watch(Standing(total - len(left), total, run, report, remaining))

    return tell


def judge_tutors(folder: Folder) -> dict[str, str]:
    """Keep the figures of each tutor that answers for the evaluation split, unless these answers are judged already.
    A tutor of none of the format's tasks is judged by those of the rows that have annotations in folders of their own.
    Returns the tutors that can't be judged, and why.
    """
    setting = folder.setting
    tasks = {name: each for run in folder.runs(folder.names, seeds=1) for name, each in run.config.tasks.items()}
    own = {name: each for name, each in tasks.items() if each.folder is not None}
    known = {record.label: record.stores for record in results.read_records(folder.path) if record.group == TUTORS}
    lacking = {}
    for name in setting.tutors:
        store = Path(setting.store(name, "evaluation"))
        stores: dict[str, Any] = {}
        figures: dict[str, Any] = {}
        measures: list[str] = []
        try:
            identity = {"answers": fingerprint(Store.open(store)), "reported": setting.reported and [*setting.reported]}
            stores = {str(store): [identity]}
            if known.get(name) == stores:
                continue
            try:
                result = judge(store, setting.data, setting.evaluation, setting.reported)
            except InputError:
                mine = {name: each for name, each in own.items() if Store.open(store).teaches(task_class(each.kind))}
                if not mine:
                    raise
                result = judge(store, setting.data, setting.evaluation, sections=mine)
            figures = {task: each.to_dict() for task, each in result.tasks.items()}
            kinds = {task: own[task].kind if task in own else task for task in figures}
            measures = [f"{task}/{task_class(kind).headline[0]}" for task, kind in kinds.items()]
        except InputError as error:
            lacking[name] = str(error)
        record = Record(
            group=TUTORS,
            setting=setting.name,
            rows=(f"{TUTORS} | | {name}",),
            label=name,
            run=name,
            split=setting.evaluation,
            figures=figures,
            measures=measures,
            stores=stores,
            commit=results.commit(),
        )
        results.add_record(folder.path, record)
    return lacking
