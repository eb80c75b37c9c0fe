"""Where networks run."""

from __future__ import annotations

import torch

from tutored.errors import InputError


def choose_device(wanted: torch.device | str | None = None) -> torch.device:
    """The device that is asked for, or the best one here: CUDA, Apple's GPU (mps), CPU.

    Raises:
        InputError: it is not here, or no device at all; those that are here are named.
    """
    here = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    here += ["cpu"]
    if wanted is None:
        return torch.device(here[0].partition(":")[0])
    if str(wanted) not in (*here, *(name.partition(":")[0] for name in here)):
        raise InputError(f"device {wanted}: not here; possible: {', '.join(here)}")
    return torch.device(wanted)
