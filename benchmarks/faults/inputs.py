"""Every reader of files against random damage, and against files made to do harm; in this very process."""

from __future__ import annotations

import contextlib
import io
import logging
import resource
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

from benchmarks.faults.hostile import TRIED, Hostile
from benchmarks.faults.kept import KEPT
from benchmarks.faults.readers import READERS, Reader, RefusedUploadError
from benchmarks.faults.row import Row
from benchmarks.faults.work import Work
from tutored.errors import InputError

TIMES = 2000
"""A file is damaged so often, times its reader's weight."""
SECONDS = 20
"""No reading may take longer."""
MEMORY = 2 << 30
"""Bytes of address space that reading may take beyond what there was before."""
SHOWN = 5
"""Faults of one row that are told."""

Outcome = Literal["survived", "refused", "lost"]


class NeverEndsError(BaseException):
    """It is no `Exception`, which a reader might take for one of its own."""


def measure(work: Work, seed: int, scale: float) -> list[Row]:
    """A row for each reader with its file damaged again and again, and one for each hostile file."""
    folder = work.folder / "inputs"
    with guarded():
        rows = [
            damaged(reader, folder, seed, max(round(TIMES * reader.weight * scale), 1)) for reader in (*READERS, *KEPT)
        ]
        return rows + [attacked(each, folder) for each in TRIED]


def damaged(reader: Reader, folder: Path, seed: int, times: int) -> Row:
    """Damage a valid file again and again, always anew, and read it."""
    folder = _fresh(folder)
    reader.make(folder)
    file = folder / reader.file
    whole, wanted, rng = file.read_bytes(), reader.read(folder), Random(f"{seed}/{reader.name}")
    counts: Counter[Outcome] = Counter()
    faults: dict[str, None] = {}
    for _ in range(times):
        file.write_bytes(reader.damage(whole, rng))
        outcome, fault = judged(lambda: reader.read(folder), str(folder))
        if outcome == "survived" and reader.sealed and fault != wanted:
            outcome, fault = "lost", "read as other content than was written"
        counts[outcome] += 1
        if outcome == "lost":
            faults[str(fault)] = None
    note = "what was written, and nothing else" if reader.sealed else "read as a valid value"
    return _row("Damaged files", reader.name, counts, note, tuple(faults))


def attacked(hostile: Hostile, folder: Path) -> Row:
    """Try it once."""
    folder = _fresh(folder)
    outcome, fault = judged(lambda: hostile.try_it(folder), "")
    if outcome != ("survived" if hostile.harmless else "refused"):
        outcome, fault = "lost", fault if outcome == "lost" else outcome
    return _row("Hostile files", hostile.name, Counter([outcome]), "nothing happened" * hostile.harmless, (str(fault),))


def judged(read: Callable[[], Any], named: str) -> tuple[Outcome, Any]:
    """Read it; what was read, or what is wrong.

    Args:
        named: what a message must name, unless it begins with another path.
    """
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        found = read()
    except RefusedUploadError as refused:
        return "refused", str(refused)
    except InputError as error:
        good = named in str(error) or str(error).startswith(("/", "-:"))
        return ("refused", str(error)) if good else ("lost", f"no file is named: {error}")
    except (Exception, NeverEndsError) as error:
        return "lost", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ("survived", found) if time.monotonic() - began < SECONDS else ("lost", "too slow")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """No reading without end, no memory without bound, no chatter of libraries."""

    def stop(_number: int, _frame: Any) -> None:
        raise NeverEndsError(f"not read within {SECONDS} seconds")

    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, limits[1]))
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    return folder / "files"


def _row(group: str, what: str, counts: Counter[Outcome], note: str, faults: tuple[str, ...]) -> Row:
    return Row(
        group=group, what=what, tried=counts.total(), survived=counts["survived"], refused=counts["refused"],
        lost=counts["lost"], note=note, faults=faults[:SHOWN] if counts["lost"] else (),
    )  # fmt: skip
