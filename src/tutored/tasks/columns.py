"""Columns of Arrow tables: numbers quantised with exact sums, arrays written and read as a whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
T = TypeVar("T")

FLOATS = pa.list_(pa.float32())
NUMBERS = pa.list_(pa.uint16())
MOST = 1.01
"""What stored probabilities sum to at most, for rounding."""


class Lists(NamedTuple):
    """A list of lists: how long each is, and all their entries."""

    lengths: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]


class Rows(Sequence[T | None], Generic[T]):
    """Answers that are made when they are asked for."""

    def __init__(self, answered: Sequence[bool], make: Callable[[int], T]) -> None:
        self.answered, self.make = answered, make

    def __len__(self) -> int:
        return len(self.answered)

    @overload
    def __getitem__(self, row: int) -> T | None: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[T | None]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        return self.make(row) if self.answered[row] else None

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))


def quantise(probs: Array, levels: int) -> npt.NDArray[np.int64]:
    """Probabilities as whole numbers of `1 / levels`, by the largest remainder. Returns int64 [..., C] with exact sums
    (`levels` where the probabilities sum to one, else the nearest whole number). Every entry is off by less than one
    level, and of two entries that differ by more than one level the larger stays the larger.

    Args:
        probs: [..., C], not negative, summing to at most one along the last axis. Sums within
            .001 of one are taken for one.
    """
    probs = probs.astype(np.float64)
    sums = probs.sum(-1, keepdims=True)
    if not (probs.min(initial=0) >= 0 and sums.max(initial=0) <= 1.001):  # also true for NaN
        raise ValueError("probabilities must not be negative, NaN, or sum to more than one")
    scaled = probs / np.where(sums > 0.999, sums, 1) * levels
    whole = np.floor(scaled)
    missing = np.rint(scaled.sum(-1, keepdims=True)) - whole.sum(-1, keepdims=True)
    by_remainder = np.argsort(whole - scaled, axis=-1, kind="stable")
    more = np.zeros_like(whole)
    np.put_along_axis(more, by_remainder, np.arange(probs.shape[-1]) < missing, axis=-1)
    counts: npt.NDArray[np.int64] = (whole + more).astype(np.int64)
    return counts


def column(rows: Sequence[Any], of: pa.DataType) -> pa.Array:
    """A column of numbers, bytes, arrays or `Lists`, or None; arrays as a whole, since numbers one by one are slow."""
    if not pa.types.is_list(of):
        return pa.array(rows, of)
    there = [row for row in rows if row is not None]
    if pa.types.is_list(of.value_type):
        lengths = [len(row.lengths) for row in there]
        inner = np.concatenate([row.lengths for row in there] or [[]])
        values = np.concatenate([row.values for row in there] or [[]])
        entries = pa.ListArray.from_arrays(_offsets(inner), pa.array(values, of.value_type.value_type))
    else:
        lengths = [len(row) for row in there]
        entries = pa.array(np.concatenate(there or [[]]), of.value_type)
    empty = np.array([row is None for row in rows], bool)
    counts = np.zeros(len(rows), np.int64)
    counts[~empty] = lengths
    return pa.ListArray.from_arrays(_offsets(counts), entries, type=of, mask=pa.array(empty))


def _offsets(lengths: Any) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def require(condition: bool, what: str) -> None:
    """Raise ValueError, saying what is there, unless a stored value is possible."""
    if not condition:
        raise ValueError(what)


def flat(values: Any) -> Array:
    """A column of numbers without nulls as an array."""
    require(values.null_count == 0, "a value that is missing")
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    # Where pandas is installed, `to_numpy` and whatever makes a scalar import it: a second and some 40 MB a process.
    found: Array = np.from_dlpack(array)
    return found


def valid(column: Any) -> Array:
    """bool [rows]: whether each row is not null."""
    if column.null_count in (0, len(column)):
        return np.full(len(column), not column.null_count)
    return flat(column.is_valid().cast(pa.uint8())).astype(bool)


def lists(column: Any) -> tuple[Array, Any]:
    """How many entries each row has, 0 where it is null, and the entries of all rows."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    starts = flat(column.offsets).astype(np.int64)
    if not column.null_count:
        return np.diff(starts), column.values[starts[0] : starts[-1]]
    return np.where(valid(column), np.diff(starts), 0), column.flatten()


def answered(table: pa.Table, fields: Sequence[pa.Field]) -> list[bool]:
    """For each row whether the columns of an answer are there: all of them, or none."""
    there = [valid(table.column(field.name)) for field in fields]
    require(all((each == there[0]).all() for each in there), f"{fields[0].name} and others of which a part is missing")
    rows: list[bool] = there[0].tolist()
    return rows


def starts(counts: Array) -> Array:
    """int64 [rows + 1]: where the entries of each row begin."""
    return np.concatenate([[0], counts.cumsum()])


def scored_boxes(table: pa.Table, prefix: str, space: int) -> tuple[Array, Array, Array, Array]:
    """How many boxes each row has; float32 corners [N, 4], int64 classes and float32 scores of all."""
    (fours, sides), (counts, numbers), (same, values) = (
        lists(table.column(prefix + name)) for name in ("boxes_xyxy", "classes", "scores")
    )
    require(bool((fours == 4 * counts).all() and (same == counts).all()), "boxes, classes and scores of other lengths")
    corners, classes, scores = flat(sides).reshape(-1, 4), flat(numbers).astype(np.int64), flat(values)
    require(bool(np.isfinite(corners).all()), "a box that is not finite")
    require(bool(((classes >= 1) & (classes < space)).all()), f"a class outside 1..{space - 1}")
    require(bool(((scores >= 0) & (scores <= 1)).all()), "a score outside 0..1")
    return counts, corners, classes, scores
