"""One line of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEADINGS = ("tried", "survived", "refused", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was done how often, and what became of it.

    Attributes:
        tried: how often the fault happened.
        survived: of these, afterwards everything was as without the fault, or what was read is a valid value.
        refused: of these, one message that names the file or the value, and nothing else happened.
        lost: of these, neither.
        note: what `survived` means here.
        faults: the first lost ones, in words.
    """

    group: str
    what: str
    tried: int
    survived: int
    refused: int
    lost: int
    note: str = ""
    faults: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def markdown(rows: Sequence[Row]) -> str:
    """A table for each group, and the sums of all at the end."""
    lines: list[str] = []
    for group in dict.fromkeys(row.group for row in rows):
        lines += [f"### {group}", "", "| what | tried | survived | refused | lost | |", "|---|--:|--:|--:|--:|---|"]
        lines += [_line(row.what, [row], row.note) for row in rows if row.group == group]
        lines.append("")
    lines += ["### All", "", "| | tried | survived | refused | lost |", "|---|--:|--:|--:|--:|"]
    return "\n".join([*lines, _line("sum", rows), ""])


def _line(what: str, rows: Sequence[Row], note: str | None = None) -> str:
    sums = [f"{sum(getattr(row, name) for row in rows):,}" for name in HEADINGS]
    return f"| {' | '.join([what, *sums, *([] if note is None else [note])])} |"
