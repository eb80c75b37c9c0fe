"""Several processes at one piece of work, as torchrun starts them, and where networks run."""

import os
import resource
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from tutored.errors import InputError

T = TypeVar("T")
FILES, MOST_FILES = 256, 65_536
"""That a process which others read for may open: what it needs, and more than it needs."""


def place() -> tuple[int, int]:
    """This process' rank and the number of processes; alone: 0 of 1. The first call of several waits for all."""
    if not distributed.is_available() or (not distributed.is_initialized() and _alone()):
        return 0, 1
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def readers(device: torch.device) -> int:
    """How many processes should read images for a training on this device, where nobody says."""
    if device.type == "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 1)


def allow_files() -> None:
    """Let this process open as many files as the system allows, since every tensor from a reading process takes one.
    Raises InputError: that is fewer than `FILES`.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most > MOST_FILES:
        most = MOST_FILES
    if most < FILES:
        raise InputError(
            f"the system lets this process open {most} files, and {FILES} are needed; raise the limit (`ulimit -Hn`, "
            "a container's nofile), or set train.workers to 0"
        )
    if allowed != resource.RLIM_INFINITY and allowed < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _alone() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def gather(mine: list[T]) -> list[T]:
    """The lists of all processes, one after the other, in the main one; nothing in the others."""
    rank, count = place()
    if count == 1:
        return mine
    parts: list[Any] | None = [None] * count if rank == 0 else None
    distributed.gather_object(mine, parts)
    return [item for part in parts or () for item in part]


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes, in all of them."""
    rank, count = place()
    if count == 1:
        return make()
    made: list[Any] = [make() if rank == 0 else None]
    distributed.broadcast_object_list(made)
    result: T = made[0]
    return result


def choose_device(wanted: torch.device | str | None = None) -> torch.device:
    """The device that is asked for, or the best one here: CUDA, Apple's GPU (mps), CPU. Raises InputError: it is not
    here, or no device at all; those that are here are named.
    """
    here = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    here += ["cpu"]
    if wanted is None:
        return torch.device(here[0].partition(":")[0])
    if str(wanted) not in (*here, *(name.partition(":")[0] for name in here)):
        raise InputError(f"device {wanted}: not here; possible: {', '.join(here)}")
    return torch.device(wanted)


def quick_in_bf16(device: torch.device) -> bool:
    """Whether networks are quicker on a device in bfloat16 than in float32: where it has units for that."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that is taken
    return device.type == "cpu" and bool(can.get("amx_bf16"))
