"""Commands of `tutored` in processes of their own, two at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

from tutored.errors import InputError

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""One thread a process; and memory that glibc keeps for the next step is not asked of the system again."""

WRONG_USE = 2
"""The exit code of a command that refused its input."""


def run_together(commands: Sequence[Sequence[str]]) -> None:
    """Run commands of `tutored` two at a time, one CPU thread each: twice as fast as one of two threads.

    Where one fails, or this process is stopped, the other is stopped too, and saves its state.

    Raises:
        InputError, OSError: a command refused its input, or failed; the message is the command's own.
    """
    running: list[subprocess.Popen[str]] = []
    stopping = Event()

    def watch(process: subprocess.Popen[str]) -> None:
        running.append(process)
        if stopping.is_set():
            process.terminate()

    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            list(pool.map(partial(run, watch=watch), commands))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stopping.set()
            for process in running:
                process.terminate()
            raise


def run(command: Sequence[str], watch: Callable[[subprocess.Popen[str]], None]) -> None:
    """One command of `tutored`, with its progress on standard error, a line now and then; a finished one is kept."""
    out = Path(command[command.index("--out") + 1])
    if (out / "result.json").exists():
        print(f"{out}: finished before", flush=True)
        return
    if out.exists():
        command = [*command, "--resume"]
    print("tutored " + " ".join(command), flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tutored", *command],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch(process)
    complaint: list[str] = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if complaint or line.startswith("tutored: "):
                complaint.append(line)
            else:
                print(f"{out.name}: {line}", end="", file=sys.stderr, flush=True)
    message = "".join(complaint).removeprefix("tutored: ").strip() or f"ended with exit code {process.returncode}"
    if process.returncode == WRONG_USE:
        raise InputError(f"{out.name}: {message}")
    if process.returncode:
        raise OSError(f"{out.name}: {message}")
