"""Training: from a config to a run folder with checkpoint, log and result."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout

from tutored.config import Config, flat, load_config
from tutored.engine.journal import check_trackers
from tutored.engine.state import load_state
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.errors import InputError, instead
from tutored.files import LEFTOVERS, RUN, STORES, write_text
from tutored.processes import allow_files
from tutored.watch import Watcher

__all__ = ["check_folder", "config_and_folder", "train"]

LOCK, RECORD = ".lock", RUN.file
WAIT = 15.0
"""Seconds that a run folder may still be held by processes that read for a training that was killed."""


def train(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    watch: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
    trainer: type[Trainer] = Trainer,
) -> dict[str, Any]:
    """Train one student and validate it.

    The run folder `out` gets `config.yaml` (complete), `log.jsonl`, `checkpoint/` (what to evaluate, predict with and
    export: the averaged weights), `state/` (what `resume` needs), and at the end `result.json`. Returns what
    `result.json` holds. Raises InputError: data, stores and config do not fit, a tracker's package is missing, `out`
    holds another run, or another process trains there. Raises FloatingPointError: the loss is not finite; the message
    names term and images.

    Args:
        config: or the path of its YAML file, or what the file would hold.
        out: None: `runs/` and the file's name, `runs/tutored` without a file.
        resume: go on from `out/state` if there is one. The same seed gives the same weights whether or not a run
            was interrupted, on one machine and number of processes.
        watch: is told of the steps at hand, such as a run's page (`pages.RunPage`).
        tell: is given what the user should know before the first step, a sentence each: what was mapped, what is
            missing, what of an audit is used.
        trainer: a subclass may compute a batch's gradients in another way (`Trainer.backward`).
    """
    config, out = config_and_folder(config, out)
    frozen = "freeze_norm" if config.student.freeze_norm else "frozen" if config.student.frozen else None
    if frozen and config.student.weights == "random" and config.train.start is None:
        raise InputError(f"student.{frozen} keeps what student.weights or train.start would bring; give one of them")
    check_trackers(config.train.trackers)
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    if config.train.workers != 0:  # null: as many as suit the device
        allow_files()
    run = trainer(config, open_supervision(config.placed(out)), out)
    with ExitStack() as stack:
        if run.accelerator.is_main_process:
            check_folder(out, config, resume)
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / RECORD, yaml.safe_dump(config.to_dict(), sort_keys=False))
            stack.enter_context(_alone(out))
            stack.callback((out / LOCK).unlink, missing_ok=True)
        run.accelerator.wait_for_everyone()
        if resume:
            run.load()
        if tell:
            for note in run.supervision.notes:
                tell(note)
        stack.callback(run.close)
        run.run(watch or Watcher())
        return run.finish()


def config_and_folder(config: Config | Mapping[str, Any] | Path | str, out: Path | str | None) -> tuple[Config, Path]:
    """The config, and the run's folder, of what `train` is given."""
    usual = Path("runs", Path(config).stem if isinstance(config, str | Path) else "tutored")
    return config if isinstance(config, Config) else load_config(config), Path(out or usual)


def _alone(out: Path) -> AcquireReturnProxy[Any]:
    """Hold the run folder against other processes. Raises InputError where one trains there."""
    try:
        return FileLock(out / LOCK).acquire(timeout=WAIT)
    except Timeout:
        raise InputError(f"{out}: another process trains this run; wait for its end, or choose another --out") from None


def check_folder(out: Path, config: Config, resume: bool) -> None:
    """Raise InputError unless the run folder is new, or the same run's where we resume; stores may be in it."""
    record = out / RECORD
    if record.exists():
        there = load_config(record)
        if there != config:
            differing = instead(flat(there.to_dict()), flat(config.to_dict()))
            raise InputError(f"{out} holds another run, with {differing}; choose another --out")
        if not resume:
            raise InputError(f"{out} holds this run already; add --resume to go on with it, or choose another --out")
        if (out / "result.json").exists() and load_state(out) is None:
            raise InputError(f"{out} holds this run, finished, and nothing to go on from; choose another --out")
    elif out.exists() and not all(path.match(LEFTOVERS) or path.name == STORES for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose another --out")
