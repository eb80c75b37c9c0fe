"""The one loop of training, and what it keeps between steps."""

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, broadcast
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from tutored import losses, processes
from tutored.checkpoint import save_checkpoint
from tutored.config import Config
from tutored.data.training import TrainingSet
from tutored.engine import optimise
from tutored.engine.data_sets import cached
from tutored.engine.journal import Journal, list_sources, make_facts
from tutored.engine.optimise import backward, make_plan, means, split
from tutored.engine.state import check_images, check_stores, load_state, save_state, start_student
from tutored.engine.supervision import OpenSupervision
from tutored.errors import InputError
from tutored.evaluate import Record, figures, resample
from tutored.files import write_json
from tutored.judge import record_student
from tutored.students import Head
from tutored.types import SOURCES, Batch
from tutored.watch import Report, Start, Validation, Watcher

T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what schedulers send, and a terminal that is closed; what is ignored, as under nohup, stays so."""


@contextmanager
def stopping(*, patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Inside, `STOPS` only note that we are asked to stop; a second one interrupts at once.

    Args:
        patient: not even the second one: who starts several processes passes on what the terminal sent them already.

    Gives a function that tells whether we were asked. Outside the main thread, signals are left alone.
    """
    asked = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked and not patient:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    former = {number: signal.signal(number, note) for number in STOPS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield lambda: asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def deafly(loader: Iterable[T]) -> Iterator[T]:
    """Iterate over a loader whose processes do not hear `STOPS`, which schedulers may send to every process of a job.

    Its `worker_init_fn` must be `hear_parent`.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # processes have it from their beginning
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def hear_parent(_worker: int) -> None:
    """In a loader's process: of `STOPS`, hear only a SIGTERM by which the process that trains ends this one."""

    def wait() -> None:
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
            pass
        os._exit(0)

    process = multiprocessing.parent_process()
    parent = process.pid if process else None
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    if sys.platform == "darwin":  # nobody there tells who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    else:
        threading.Thread(target=wait, daemon=True).start()


def stop_unless_finite(terms: Mapping[str, Tensor], image_ids: Sequence[str], step: int) -> None:
    """Raise FloatingPointError, naming terms and images, where a term of the loss is infinite or no number."""
    broken = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
    if broken:
        raise FloatingPointError(
            f"the loss is not finite at step {step}: {', '.join(broken)}; among images {', '.join(image_ids)}. "
            "Lower train.lr, set train.clip, or use train.precision: fp32"
        )


PATIENCE = timedelta(hours=1)
"""How long processes wait for one another: the main one alone works out figures and writes."""
LOG_EVERY = 20
"""Steps between entries of the log, and between looks at the loss where looking stops the device."""


class Trainer:
    """The state of one run; `run` is the loop, `step` one update."""

    def __init__(self, config: Config, supervision: OpenSupervision, out: Path) -> None:
        self.config, self.out = config, out
        # A second run in this process may want another precision or device; accelerate keeps the first one's otherwise.
        AcceleratorState._reset_state(reset_partial_state=not distributed.is_initialized())
        precision = config.train.precision
        self.accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision,
            cpu=config.train.device == "cpu",
            log_with=list(config.train.trackers) or None,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
            project_config=ProjectConfiguration(str(out), logging_dir=str(out / "tensorboard")),
        )
        self.device = self.accelerator.device
        torch.manual_seed(config.train.seed)
        self.student, notes = start_student(config, supervision.tasks)
        if precision == "fp16" and self.device.type == "cpu":
            notes = (*notes, "train.precision fp16: a CPU computes in fp32 instead")
        self.supervision = supervision = supervision._replace(notes=(*supervision.notes, *notes))
        self.training = TrainingSet(
            cached(supervision.train, config, self.accelerator.num_processes),
            supervision.tasks,
            self.student.grids,
            supervision.soft_labels,
            size=config.student.size,
            augment=config.augment,
            seed=config.train.seed,
            data_seed=config.data.seed,
            joint=config.loss.joint,
        )
        self.images = self.training.fingerprint()
        self.plan = make_plan(config, self.training, supervision.train.name, self.accelerator)
        # Its own forward pass is never of lower precision: as `tutored evaluate` has it.
        self.averaged = copy.deepcopy(self.student).eval().to(self.device)
        shards = config.train.shard and self.accelerator.num_processes > 1
        if shards:
            optimise.shard(self.student, self.device)
        self.losses: dict[str, Callable[..., Any]] = {"assign": losses.assign, "sums": losses.sums}
        if config.train.compile:
            self.student.compile()
            self.losses = {name: torch.compile(function) for name, function in self.losses.items()}
        self.model = self.accelerator.prepare_model(self.student, evaluation_mode=shards)  # leaves gradients to FSDP
        optimizer = optimise.make_optimizer(self.student, config.train)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.gathered = optimise.Gathered(self.student, config.loss, self.accelerator)
        self.average = optimise.Average(self.averaged, self.student)
        self.done, self.seconds = 0, 0.0
        self.journal = Journal(config, self.accelerator, out)
        self.watch = Watcher()
        self.facts = make_facts(config, supervision, self.device)

    def run(self, watch: Watcher) -> None:
        """Train from the step that is done to the last.

        Ctrl-C and SIGTERM end it after the step at hand, with its state saved; several processes, which may be asked at
        different steps, at the next entry of the log. Raises KeyboardInterrupt: it was asked to stop. Raises
        InputError: a tracker can't begin.
        """
        self.journal.begin(self.done)
        self.watch = watch if self.accelerator.is_main_process else Watcher()
        of, sources = self.supervision, list_sources(self.training)
        data = of.tasks, of.train, of.val, of.soft_labels, sources
        self.watch.begin(Start(self.out, self.config, *data, self.plan.epoch_steps, self.facts))
        together = self.accelerator.num_processes > 1 or multiprocessing.parent_process() is not None
        with stopping(patient=together) as asked:
            self._loop(asked)

    def _loop(self, asked: Callable[[], bool]) -> None:
        workers = self.config.train.workers
        loader = DataLoader(
            self.training,
            batch_sampler=replace(self.plan, done=self.done),
            collate_fn=self.training.collate,
            num_workers=processes.readers(self.device) if workers is None else workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=hear_parent,
        )
        terms_of = {name: head.terms for name, head in self.student.heads.items() if isinstance(head, Head)}
        names = [f"{task}/{term}/{source}" for source in SOURCES for task, each in terms_of.items() for term in each]
        terms: dict[str, Tensor] = {}
        image_ids: list[str] = []
        counted, since = 0, time.monotonic()
        for batch in deafly(loader):
            if isinstance(batch, InputError):
                raise batch
            for name, value in self.step(batch).items():
                terms[name] = terms.get(name, 0) + value
            counted += 1
            image_ids += batch.image_ids
            last_of_epoch = self.done % self.plan.epoch_steps == 0
            report = last_of_epoch or self.done % LOG_EVERY == 0
            if report or self.device.type == "cpu":
                stop_unless_finite(terms, image_ids[-len(batch.image_ids) :] if not report else image_ids, self.done)
            if report:
                self._report(means(terms, names, counted, self.accelerator), counted, time.monotonic() - since)
            if last_of_epoch:
                self._end_of_epoch(self.done // self.plan.epoch_steps)
            if report:
                terms, image_ids, counted, since = {}, [], 0, time.monotonic()
            stops = asked()
            if self.accelerator.num_processes > 1:
                stops = report and bool(self.accelerator.reduce(torch.tensor(float(stops), device=self.device)))
            if stops:
                if not self.config.train.ema:
                    self.average.update(0.0, self.done)
                self.average.fill()
                self.seconds += time.monotonic() - since
                self.save()
                self.accelerator.wait_for_everyone()
                raise KeyboardInterrupt

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the weights. Returns every term of the loss, divided and weighted."""
        config = self.config
        if not self.model.training:  # setting every module's mode takes milliseconds
            self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * optimise.rate_factor(self.done, self.plan.steps, config.train)
        values = self.backward(batch)
        with self.gathered.due(batch):
            if config.train.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), config.train.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        if config.train.ema:
            self.average.update(config.train.ema, self.done)
        self.done += 1
        return values

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the whole batch, micro-batch by micro-batch; returns every term, divided and weighted.

        A subclass may compute the gradients in another way.
        """
        parts = [
            part.map(lambda tensor: tensor.to(self.device, non_blocking=True))
            for part in split(batch, self.config.train.micro_batch)
        ]
        tasks = self.config.tasks
        mixture = {name: task.weights for name, task in tasks.items() if task.policy == "both"}
        return backward(
            self.model, self.student, parts, self.config.loss, self.accelerator, mixture=mixture, **self.losses
        )

    def _report(self, loss: dict[str, float], steps: int, elapsed: float) -> None:
        self.seconds += elapsed
        rate = round(steps * self.plan.seen / elapsed, 2)
        lr = self.config.train.lr * optimise.rate_factor(self.done - 1, self.plan.steps, self.config.train)
        self.journal.add({"step": self.done, "loss": loss, "lr": lr, "images_per_second": rate})
        left = (self.plan.steps - self.done) * elapsed / steps
        epoch = (self.done - 1) // self.plan.epoch_steps + 1
        self.watch(Report(self.done, self.plan.steps, epoch, loss, rate, left))

    def _end_of_epoch(self, epoch: int) -> None:
        train = self.config.train
        last = epoch == train.epochs
        if not train.ema:
            self.average.update(0.0, self.done)
        self.average.fill()
        if self.supervision.val is not None and (last or epoch % train.val_every == 0):
            self._validate(epoch, last)
        if last or epoch % train.save_every == 0:
            self.save()
        self.accelerator.wait_for_everyone()

    def _validate(self, epoch: int, last: bool) -> None:
        """Compare the averaged student's answers with the validation images' ground truth."""
        assert self.supervision.val is not None
        tasks = {name: self.supervision.tasks[name] for name in self.config.taught}
        broadcast(dict(self.averaged.named_buffers()))  # each process has seen batch statistics of its own
        records: list[Record] = record_student(self.averaged, self.supervision.val, tasks)
        main = self.accelerator.is_main_process
        if last and main:
            resample(records, tasks).save(self.out / "resamples.npz")
        result = processes.from_main(lambda: figures(records, tasks))
        self.journal.add({"step": self.done, "epoch": epoch, "val": result.to_dict()})
        self._take_scores()
        if main:  # before it is saved: what is saved is not done again
            self.watch.validated(Validation(epoch, records, self.averaged, result))

    def _take_scores(self) -> None:
        """From which score on answers are shown, as the last validation says."""
        last = self.journal.figures or {}
        self.averaged.scores |= {name: each["score"] for name, each in last.items() if "score" in each}

    def save(self) -> None:
        """Write log, checkpoint and state; each whole or not at all. Every process calls it, the main one writes."""
        model, optimizer = optimise.whole_states(self.student, self.optimizer.optimizer)
        if not self.accelerator.is_main_process:
            return
        if not (self.out / "config.yaml").exists():
            raise FileNotFoundError(f"{self.out}: the run's folder has vanished, and what it held; training stops")
        scaler = self.accelerator.scaler
        facts = {
            "stores": self.supervision.stores,
            "images": self.images,
            "versions": self.facts["versions"],
            "done": self.done,
            "seconds": self.seconds,
            "gathered": self.gathered.since,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        self.journal.save()
        save_checkpoint(self.out / "checkpoint", self.averaged, self.config)
        save_state(self.out, model, self.averaged.state_dict(), optimizer, facts)

    def load(self) -> None:
        """Take up the saved state, if there is one. Raises InputError: it is damaged, or a store or the images are
        others than the run began with.
        """
        saved = load_state(self.out)
        if saved is None:
            return
        model, average, optimizer, facts = saved
        check_stores(self.out, facts["stores"], self.supervision.stores)
        check_images(self.out, facts["images"], self.images)
        optimise.load_weights(self.student, model)
        self.averaged.load_state_dict(average)
        self.average = optimise.Average(self.averaged, self.student)
        optimise.load_optimizer(self.optimizer.optimizer, optimizer)
        self.gathered.since = facts["gathered"]
        if facts["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.done, self.seconds = facts["done"], facts["seconds"]
        began, now = facts["versions"], self.facts["versions"]
        others = ", ".join(
            f"{name} {now[name]} instead of {began.get(name)}" for name in now if now[name] != began.get(name)
        )
        if others:
            note = f"the run goes on with {others}, so that its weights may be others than without the interruption"
            self.supervision = self.supervision._replace(notes=(*self.supervision.notes, note))
            self.facts["notes"].append(note)
        self.journal.load(self.done)
        self._take_scores()

    def finish(self) -> dict[str, Any]:
        """Write `result.json` and return what it holds: figures by task, the complete config, cost and versions."""
        cost = {"images": self.facts["images"], "seconds": round(self.seconds, 1)}  # validation not counted
        first = {"run_id": self.facts["run_id"], "figures": self.journal.figures, **cost}
        result = {**first, **{k: v for k, v in self.facts.items() if k not in first}, "config": self.config.to_dict()}
        if self.accelerator.is_main_process:
            write_json(self.out / "result.json", result)
        return result

    def close(self) -> None:
        """However training ended: the trackers' end, and the watcher's."""
        self.journal.close()
        self.watch.end()
