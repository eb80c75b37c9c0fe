"""The one loop of training, and what it keeps between steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from tutored import losses
from tutored.checkpoint import save_checkpoint
from tutored.config import Config, Loss
from tutored.data.training import TrainingSet, collate, epoch_batches
from tutored.engine.batches import split, to_device
from tutored.engine.optimise import make_optimizer, rate_factor, set_rate, update_average
from tutored.engine.result import make_result, write_json
from tutored.engine.state import load_state, save_state
from tutored.engine.supervision import Supervision
from tutored.errors import InputError
from tutored.evaluate import Result
from tutored.files import write_text
from tutored.judge import evaluate_student
from tutored.structures import Batch
from tutored.student import BlitzNet

LOG_EVERY = 20
"""Steps between entries of the log, and between looks at the loss where looking stops the device."""


class Progress(NamedTuple):
    """What a watcher is told after some steps.

    Attributes:
        loss: every term's mean since the last report, already divided and weighted.
        images_per_second: of this process, over the same steps.
        seconds_left: expected, validation not counted.
    """

    step: int
    steps: int
    epoch: int
    loss: dict[str, float]
    images_per_second: float
    seconds_left: float


Watcher = Callable[[Progress], None]


class Trainer:
    """The state of one run; `run` is the loop, `step` one update."""

    def __init__(self, config: Config, supervision: Supervision, out: Path) -> None:
        self.config, self.supervision, self.out = config, supervision, out
        self.accelerator = Accelerator(
            mixed_precision=config.train.precision,
            cpu=config.train.device == "cpu",
            step_scheduler_with_optimizer=False,
        )
        torch.manual_seed(config.train.seed)
        self.student = BlitzNet(config.student, supervision.train.labels)
        self.optimizer = make_optimizer(self.student, config.train)
        self.average = {name: value.clone() for name, value in self.student.state_dict().items()}
        self.model, self.optimizer = self.accelerator.prepare(self.student, self.optimizer)
        self.device = self.accelerator.device
        self.average = {name: value.to(self.device) for name, value in self.average.items()}
        self.set = TrainingSet(
            supervision.train, config, self.student.sides[0], supervision.soft_labels, supervision.unknown
        )
        self.positions = self.set.taught()
        if not self.positions:
            raise InputError(
                f"{supervision.train.name}: nobody teaches any image; see supervision.*.policy and .hidden"
            )
        self.epoch_steps = sum(1 for _ in self._epoch(0))
        self.steps = self.epoch_steps * config.train.epochs
        self.done = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []

    def _epoch(self, epoch: int) -> Iterator[list[tuple[int, int]]]:
        train, accelerator = self.config.train, self.accelerator
        yield from epoch_batches(
            self.positions,
            len(self.set),
            train.batch,
            train.seed,
            epoch,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
        )

    def _remaining(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.done // self.epoch_steps, self.config.train.epochs):
            skip = self.done - epoch * self.epoch_steps if epoch == self.done // self.epoch_steps else 0
            yield from list(self._epoch(epoch))[skip:]

    def run(self, watch: Watcher | None) -> None:
        train = self.config.train
        workers = train.workers
        loader = DataLoader(
            self.set,
            batch_sampler=list(self._remaining()),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=False,
        )
        looks_free = self.device.type == "cpu"
        terms: dict[str, Tensor] = {}
        seen, since = 0, time.monotonic()
        for batch in loader:
            for name, value in self.step(batch).items():
                terms[name] = terms.get(name, torch.zeros((), device=self.device)) + value
            seen += len(batch.image_ids)
            last_of_epoch = self.done % self.epoch_steps == 0
            if looks_free or self.done % LOG_EVERY == 0 or last_of_epoch:
                _stop_unless_finite(terms, batch, self.done)
            if self.done % LOG_EVERY == 0 or last_of_epoch:
                elapsed = time.monotonic() - since
                counted = (self.done - 1) % LOG_EVERY + 1 if last_of_epoch else LOG_EVERY
                self._report(watch, {name: float(value) / counted for name, value in terms.items()}, seen, elapsed)
                seen, since, terms = 0, time.monotonic(), {}
            if last_of_epoch:
                self._end_of_epoch(self.done // self.epoch_steps)
                since = time.monotonic()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the weights. Returns every term of the loss, divided and weighted."""
        config = self.config
        self.model.train()
        set_rate(self.optimizer, rate_factor(self.done, self.steps, config.train))
        parts = [to_device(part, self.device) for part in split(batch, config.train.micro_batch)]
        assigned = [losses.assign(self.student.anchors_xyxy, part, config.loss) for part in parts]
        factors = self._factors([each.weights for each in assigned], config.loss)
        values: dict[str, Tensor] = {}
        for part, targets in zip(parts, assigned, strict=True):
            outputs = self.model(part.images.float() / 255)
            sums = losses.sums(outputs, part, targets, config.loss)
            self.accelerator.backward(losses.mix(sums, factors))
            for name, value in sums.items():
                values[name] = values.get(name, 0) + value.detach() * factors[name]
        if config.train.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if config.train.ema:
            update_average(self.average, self.student, config.train.ema, self.done)
        self.done += 1
        return values

    def _factors(self, weights: list[dict[str, Tensor]], config: Loss) -> dict[str, Tensor]:
        """Divide by weights of the whole batch: all micro-batches, all processes (whose gradients are averaged)."""
        names = list(weights[0])
        total = torch.stack([torch.stack([each[name] for name in names]) for each in weights]).sum(0)
        total = self.accelerator.reduce(total, "sum")
        factors = losses.divide(dict(zip(names, total, strict=True)), config)
        return {name: factor * self.accelerator.num_processes for name, factor in factors.items()}

    def _report(self, watch: Watcher | None, terms: dict[str, float], images: int, elapsed: float) -> None:
        self.seconds += elapsed
        rate = images / elapsed
        per_step = self.config.train.batch / self.accelerator.num_processes
        progress = Progress(
            self.done,
            self.steps,
            (self.done - 1) // self.epoch_steps + 1,
            terms,
            rate,
            (self.steps - self.done) * per_step / rate,
        )
        self.history.append({"step": self.done, "loss": terms, "images_per_second": round(rate, 2)})
        if watch and self.accelerator.is_main_process:
            watch(progress)

    def _end_of_epoch(self, epoch: int) -> None:
        train = self.config.train
        last = epoch == train.epochs
        if self.supervision.val is not None and (last or epoch % train.val_every == 0):
            figures = self.validate().to_dict()
            self.history.append({"step": self.done, "epoch": epoch, "val": figures})
        if self.accelerator.is_main_process and (last or epoch % train.save_every == 0):
            self.save()
        self.accelerator.wait_for_everyone()

    def averaged(self) -> BlitzNet:
        """A student with the weights to be used: the average, or the last ones where there is none."""
        student = BlitzNet(self.config.student.model_copy(update={"weights": None}), self.student.labels)
        weights = self.average if self.config.train.ema else self.student.state_dict()
        student.load_state_dict(weights)
        return student.to(self.device).eval()

    def validate(self) -> Result:
        assert self.supervision.val is not None
        return evaluate_student(self.averaged(), self.supervision.val, self.config, self.config.data.reported)

    def save(self) -> None:
        scaler = self.accelerator.scaler
        facts = {
            "run_id": self.config.run_id,
            "done": self.done,
            "seconds": self.seconds,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        write_text(self.out / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.history))
        save_checkpoint(self.out / "checkpoint", self.averaged(), self.config)
        save_state(self.out, self.student.state_dict(), self.average, self.optimizer.state_dict(), facts)

    def load(self) -> None:
        saved = load_state(self.out)
        if saved is None:
            return
        model, average, optimizer, facts = saved
        self.student.load_state_dict(model)
        self.average = {name: value.to(self.device) for name, value in average.items()}
        self.optimizer.load_state_dict(optimizer)
        if facts["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.done, self.seconds = facts["done"], facts["seconds"]
        lines = (self.out / "log.jsonl").read_text().splitlines()
        self.history = [entry for entry in map(json.loads, lines) if entry["step"] <= self.done]

    def finish(self) -> dict[str, Any]:
        last = next((entry["val"] for entry in reversed(self.history) if "val" in entry), None)
        result = make_result(self.config, self.supervision, self.device, self.seconds, last)
        if self.accelerator.is_main_process:
            write_json(self.out / "result.json", result)
        return result


def _stop_unless_finite(terms: dict[str, Tensor], batch: Batch, step: int) -> None:
    broken = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
    if broken:
        raise FloatingPointError(
            f"the loss is not finite at step {step}: {', '.join(broken)}; images {', '.join(batch.image_ids)}. "
            "Lower train.lr, set train.clip, or use train.precision: no"
        )
