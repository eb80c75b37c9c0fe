"""Why training ends early: a signal to stop, heard by it alone between two steps, and a loss that is not finite."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor

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
