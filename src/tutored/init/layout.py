"""What a config says about its data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A data set that `open_dataset` opens.

    Attributes:
        what: the format in words.
        data: such as `voc:FOLDER`.
        train, val: its splits; without `val`, a share of `train` is held out.
        notes: what the user should know, a sentence each.
    """

    what: str
    data: str
    train: str
    val: str | None
    notes: tuple[str, ...] = ()
