"""Soft labels as rows of an Arrow table: sparse, quantised, sums exact, None apart from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tutored.structures import Instances, SoftLabels

TAIL_FLOOR = 1e-3
"""A box's class probabilities below this count as background; the class that it was kept for is always stored."""
BLOCK_ROWS = 8
"""Images that are compressed together: the cost of one random read against the store's size."""
BOX_LEVELS = 65535
MAP_LEVELS = MASK_LEVELS = 255

_FLOATS = pa.list_(pa.float32())
_NUMBERS = pa.list_(pa.uint16())
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        ("boxes_xyxy", _FLOATS),
        ("classes", _NUMBERS),
        ("scores", _FLOATS),
        ("probs_class", pa.list_(_NUMBERS)),
        ("probs_value", pa.list_(_NUMBERS)),
        ("map_height", pa.int32()),
        ("map_width", pa.int32()),
        ("map_classes", _NUMBERS),
        ("map_values", pa.binary()),
        ("instance_boxes_xyxy", _FLOATS),
        ("instance_classes", _NUMBERS),
        ("instance_scores", _FLOATS),
        ("instance_side", pa.int32()),
        ("instance_masks", pa.binary()),
    ]
)
"""One row an image; lists of K boxes (flat 4K), map values [n, h, w] and masks [N, m, m] as uint8 in C order.

Columns of a task that the tutor does not answer are null; a list without entries means "nothing there".
`probs_value` / 65535 and `map_values` / 255 are probabilities of the classes in `probs_class` and `map_classes`;
they sum to exactly 65535 for each box and 255 for each cell, where the tutor's probabilities sum to one.
Where the store's identity says `map_values: confidences`, those of a map are detection confidences of the classes,
each for itself; background is not stored.
"""
ANSWERS = {
    "boxes": ("classes", "boxes_xyxy", "scores", "probs_class", "probs_value"),
    "map": ("map_height", "map_width", "map_classes", "map_values"),
    "instances": ("instance_side", "instance_boxes_xyxy", "instance_classes", "instance_scores", "instance_masks"),
}
"""What a tutor may answer, and its columns: all null where it does not. The first one is small."""


def quantise(probs: npt.NDArray[Any], levels: int) -> npt.NDArray[np.int64]:
    """Probabilities as whole numbers of `1 / levels`, by the largest remainder.

    Args:
        probs: [..., C], not negative, summing to at most one along the last axis. Sums within
            .001 of one are taken for one.

    Returns:
        int64 [..., C] with exact sums (`levels` where the probabilities sum to one, else the nearest
        whole number). Every entry is off by less than one level, and of two entries that differ by
        more than one level the larger stays the larger.
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


def to_table(image_ids: Sequence[str], answers: Sequence[SoftLabels], *, confidences: bool = False) -> pa.Table:
    """One row for each image, in this order.

    Args:
        confidences: the values of maps are confidences, which sum to anything.
    """
    rows = [
        {"image_id": image_id, "height": answer.size[0], "width": answer.size[1]}
        | _box_columns(answer)
        | _map_columns(answer, confidences)
        | _instance_columns(answer.instances)
        for image_id, answer in zip(image_ids, answers, strict=True)
    ]
    return pa.table([_column([row.get(field.name) for row in rows], field.type) for field in SCHEMA], schema=SCHEMA)


def answers_in(table: pa.Table) -> list[str]:
    """Of `ANSWERS` those that any row of a table has; the table may be of their first columns alone."""
    return [name for name, columns in ANSWERS.items() if table.column(columns[0]).null_count < len(table)]


def columns_of(answers: Iterable[str]) -> list[str]:
    """All that `from_table` needs for these of `ANSWERS`."""
    return ["height", "width", *(column for name in answers for column in ANSWERS[name])]


class _Lists(NamedTuple):
    """A list of lists: how long each is, and what is in them."""

    lengths: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]


def _column(rows: Sequence[Any], of: pa.DataType) -> pa.Array:
    """A column of numbers, bytes, arrays or `_Lists`, or None; arrays as a whole, for numbers one by one are slow."""
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


def _box_columns(answer: SoftLabels) -> dict[str, Any]:
    if answer.boxes_xyxy is None:
        return {}
    assert answer.classes is not None and answer.probs is not None
    kept, probs = answer.classes.numpy(), answer.probs.double().numpy().copy()
    rows = np.arange(len(kept))
    tail = probs < TAIL_FLOOR
    tail[rows, kept] = False
    tail[:, 0] = False
    probs[:, 0] += np.where(tail, probs, 0).sum(-1)
    probs[tail] = 0
    counts = quantise(probs, BOX_LEVELS)
    stored = counts > 0
    return {
        "boxes_xyxy": answer.boxes_xyxy.flatten().numpy(),
        "classes": kept,
        "scores": answer.scores.numpy(),
        "probs_class": _Lists(stored.sum(-1), np.nonzero(stored)[1]),
        "probs_value": _Lists(stored.sum(-1), counts[stored]),
    }


def _map_columns(answer: SoftLabels, confidences: bool) -> dict[str, Any]:
    if answer.map is None:
        return {}
    values = answer.map.permute(1, 2, 0).numpy()
    if confidences:
        counts = np.rint(values.astype(np.float64) * MAP_LEVELS).astype(np.int64)
        counts[..., 0] = 0
    else:
        counts = quantise(values, MAP_LEVELS)
    occurs = np.flatnonzero(counts.any(axis=(0, 1)))
    return {
        "map_height": answer.map.shape[1],
        "map_width": answer.map.shape[2],
        "map_classes": occurs,
        "map_values": counts[..., occurs].transpose(2, 0, 1).astype(np.uint8).tobytes(),
    }


def _instance_columns(instances: Instances | None) -> dict[str, Any]:
    if instances is None:
        return {}
    return {
        "instance_boxes_xyxy": instances.boxes_xyxy.flatten().numpy(),
        "instance_classes": instances.classes.numpy(),
        "instance_scores": instances.scores.numpy(),
        "instance_side": instances.masks.shape[-1],
        "instance_masks": (instances.masks * MASK_LEVELS).round().to(torch.uint8).numpy().tobytes(),
    }
