"""Rows of an Arrow table as soft labels again: every value is looked at once, those of all rows together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tutored.softlabels.block import Array, Block, Boxes, Cells, Stamps
from tutored.softlabels.codec import ANSWERS, BOX_LEVELS, MAP_LEVELS, MASK_LEVELS

MOST = 1.01
"""What stored probabilities sum to at most, for rounding."""


def from_table(table: pa.Table, space: int, *, probabilities: bool = True) -> Block:
    """The soft labels in a table that `to_table` made, for a label space of so many classes.

    Args:
        table: with the columns of all answers, or without those of some, which are not read then.
        probabilities: the values of a map sum to one at most.

    Raises:
        ValueError: a value that no tutor's answer has; damaged lists may raise other errors as well.
    """
    sizes = list(zip(*(_flat(table.column(name)).tolist() for name in ("height", "width")), strict=True))
    for height, width in sizes:
        _expect(min(height, width) > 0, f"an image of {height} x {width} pixels")
    nothing = [None] * len(sizes)
    return Block(
        sizes,
        _read_boxes(table, space) if "boxes_xyxy" in table.column_names else None,
        _read_maps(table, sizes, space, probabilities) if "map_values" in table.column_names else nothing,
        _read_instances(table, space) if "instance_masks" in table.column_names else nothing,
    )


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _flat(values: Any) -> Array:
    _expect(values.null_count == 0, "a value that is missing")
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    # Where pandas is installed, `to_numpy` and whatever makes a scalar import it: a second and some 40 MB a process.
    flat: Array = np.from_dlpack(array)
    return flat


def _valid(column: Any) -> Array:
    """For each row whether it is not null."""
    if column.null_count in (0, len(column)):
        return np.full(len(column), not column.null_count)
    return _flat(column.is_valid().cast(pa.uint8())).astype(bool)


def _lists(column: Any) -> tuple[Array, Any]:
    """How many entries each row has, none where it is null, and the entries of all."""
    starts = _flat(column.offsets).astype(np.int64)
    if not column.null_count:
        return np.diff(starts), column.values[starts[0] : starts[-1]]
    return np.where(_valid(column), np.diff(starts), 0), column.flatten()


def _answered(table: pa.Table, answer: str) -> list[bool]:
    """For each row whether the columns of an answer are there: all of them, or none."""
    there = [_valid(table.column(name)) for name in ANSWERS[answer]]
    _expect(all((each == there[0]).all() for each in there), f"{answer} of which a part is missing")
    rows: list[bool] = there[0].tolist()
    return rows


def _read_scored(table: pa.Table, prefix: str, space: int) -> tuple[Array, Array, Array, Array]:
    """How many boxes each row has; corners, classes and scores of all."""
    (fours, sides), (counts, numbers), (same, values) = (
        _lists(table.column(prefix + name).combine_chunks()) for name in ("boxes_xyxy", "classes", "scores")
    )
    _expect(bool((fours == 4 * counts).all() and (same == counts).all()), "boxes, classes and scores of other lengths")
    corners, classes, scores = _flat(sides).reshape(-1, 4), _flat(numbers).astype(np.int64), _flat(values)
    _expect(bool(np.isfinite(corners).all()), "a box that is not finite")
    _expect(bool(((classes >= 1) & (classes < space)).all()), f"a class outside 1..{space - 1}")
    _expect(bool(((scores >= 0) & (scores <= 1)).all()), "a score outside 0..1")
    return counts, corners, classes, scores


def _read_boxes(table: pa.Table, space: int) -> Boxes:
    counts, corners, classes, scores = _read_scored(table, "", space)
    (lines, numbers), (same, values) = (
        _lists(table.column(name).combine_chunks()) for name in ("probs_class", "probs_value")
    )
    _expect(bool((lines == counts).all() and (same == counts).all()), "boxes and distributions of other lengths")
    (lengths, numbers), (same, values) = _lists(numbers), _lists(values)
    _expect(bool((lengths == same).all()), "classes and probabilities of other lengths")
    boxes, entries = np.arange(len(classes)), _flat(numbers)
    _expect(entries.max(initial=0) < space, f"a class outside 0..{space - 1}")
    places = np.concatenate([np.repeat(boxes, lengths) * space + entries, boxes * space + classes])
    # Scores rank boxes over a whole data set, so the kept class' own probability is exact: the last of its place.
    probs = np.concatenate([_flat(values) / np.float32(BOX_LEVELS), scores])
    order = places.argsort(kind="stable")
    order = order[np.diff(places[order], append=-1) != 0]
    places, probs = places[order], probs[order]
    sums = np.bincount(places // space, probs)
    _expect(sums.max(initial=0) <= MOST, "probabilities of a box that sum to more than one")
    return Boxes(_answered(table, "boxes"), _starts(counts), corners, classes, space, places, probs)


def _read_maps(
    table: pa.Table, sizes: Sequence[tuple[int, int]], space: int, probabilities: bool
) -> list[Cells | None]:
    counts, numbers = _lists(table.column("map_classes").combine_chunks())
    classes, starts = _flat(numbers).astype(np.int64), _starts(counts)
    _expect(classes.max(initial=0) < space, f"a class outside 0..{space - 1}")
    columns = zip(*(table.column(name) for name in ("map_height", "map_width", "map_values")), strict=True)
    maps: list[Cells | None] = []
    for row, (there, scalars) in enumerate(zip(_answered(table, "map"), columns, strict=True)):
        if not there:
            maps.append(None)
            continue
        height, width, size = scalars[0].as_py(), scalars[1].as_py(), sizes[row]
        fits = 0 < height <= size[0] and 0 < width <= size[1]
        _expect(fits, f"a map of {height} x {width} cells for {size[0]} x {size[1]} pixels")
        values = np.frombuffer(scalars[2].as_buffer(), np.uint8).reshape(counts[row], height, width)
        most = values.sum(axis=0, dtype=np.uint32).max() if probabilities else 0
        _expect(most <= MOST * MAP_LEVELS, "probabilities of a cell that sum to more than one")
        maps.append(Cells(classes[starts[row] : starts[row + 1]], space, values, MAP_LEVELS))
    return maps


def _read_instances(table: pa.Table, space: int) -> list[Stamps | None]:
    counts, *scored = _read_scored(table, "instance_", space)
    starts, columns = _starts(counts), (table.column(name) for name in ("instance_side", "instance_masks"))
    instances: list[Stamps | None] = []
    for row, (there, side, masks) in enumerate(zip(_answered(table, "instances"), *columns, strict=True)):
        if not there:
            instances.append(None)
            continue
        values = np.frombuffer(masks.as_buffer(), np.uint8).reshape(counts[row], side.as_py(), side.as_py())
        corners, classes, scores = (each[starts[row] : starts[row + 1]] for each in scored)
        instances.append(Stamps(corners, classes, scores, values, MASK_LEVELS))
    return instances


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], counts.cumsum()])
