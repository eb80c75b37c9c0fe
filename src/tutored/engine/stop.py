"""Why training ends early: a signal to stop as a question between two steps, and a loss that is not finite."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what schedulers send, and a terminal that is closed; what is ignored, as under nohup, stays so."""


@contextmanager
def stopping(*, patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Inside, `STOPS` only note that we are asked to stop; a second one interrupts at once.

    Args:
        patient: not even the second one: launchers of several processes pass on what the terminal sent them already.

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


def stop_unless_finite(terms: Mapping[str, Tensor], image_ids: Sequence[str], step: int) -> None:
    """Raise FloatingPointError, naming terms and images, where a term of the loss is infinite or no number."""
    broken = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
    if broken:
        raise FloatingPointError(
            f"the loss is not finite at step {step}: {', '.join(broken)}; among images {', '.join(image_ids)}. "
            "Lower train.lr, set train.clip, or use train.precision: fp32"
        )
