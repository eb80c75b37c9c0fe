"""A tutor's maps as columns of a store: the classes that occur, quantised, the sums of cells exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tutored.tasks.columns import MOST, NUMBERS, Array, answered, expect, flat, lists, quantise, starts
from tutored.tasks.task import Remap

LEVELS = 255
FIELDS = (
    pa.field("map_height", pa.int32()),
    pa.field("map_width", pa.int32()),
    pa.field("map_classes", NUMBERS),
    pa.field("map_values", pa.binary()),
    pa.field("map_confidences", pa.bool_()),
)
"""Values [n, h, w] as uint8 in C order, of the n classes in `map_classes`. `map_values` / 255 are probabilities, which
sum to exactly 255 for each cell where the tutor's sum to one; or with `map_confidences` detection confidences of the
classes, each by itself, without background."""


def encode(cells: Array, confidences: bool) -> dict[str, Any]:
    """One image's values of `FIELDS`, from float32 [h, w, C+1]."""
    if confidences:
        counts = np.rint(cells.astype(np.float64) * LEVELS).astype(np.int64)
        counts[..., 0] = 0
    else:
        counts = quantise(cells, LEVELS)
    occurs = np.flatnonzero(counts.any(axis=(0, 1)))
    return {
        "map_height": cells.shape[0],
        "map_width": cells.shape[1],
        "map_classes": occurs,
        "map_values": counts[..., occurs].transpose(2, 0, 1).astype(np.uint8).tobytes(),
        "map_confidences": confidences,
    }


class Cells(NamedTuple):
    """A map of one image; of the classes those that occur.

    Attributes:
        classes: int64 [n].
        space: classes of the label space.
        values: uint8 [n, h, w], times `LEVELS`.
        confidences: see `SoftMap`.
    """

    classes: Array
    space: int
    values: Array
    confidences: bool

    def dense(self) -> Tensor:
        """float32 [space, h, w]; probabilities of a class that stands there twice are added."""
        dense = np.zeros((self.space, *self.values.shape[1:]), np.float32)
        probs = self.values / np.float32(LEVELS)
        if len(set(self.classes.tolist())) == len(self.classes):
            dense[self.classes] = probs
        else:
            np.add.at(dense, self.classes, probs)
        return torch.from_numpy(dense)

    def remapped(self, remap: Remap) -> Cells:
        """The same in another label space; confidences stay, since a rule must combine them."""
        if self.confidences:
            return self
        classes = remap.probabilities(self.classes)
        heard = classes < remap.space
        return Cells(classes[heard], remap.space, self.values[heard], False)


def decode(table: pa.Table, sizes: Sequence[tuple[int, int]], space: int) -> list[Cells | None]:
    """The maps in a table's rows. Raises ValueError for values that no tutor's answer has."""
    counts, numbers = lists(table.column("map_classes"))
    classes, first = flat(numbers).astype(np.int64), starts(counts)
    expect(classes.max(initial=0) < space, f"a class outside 0..{space - 1}")
    names = ("map_height", "map_width", "map_values", "map_confidences")
    maps: list[Cells | None] = []
    columns = zip(*(table.column(name) for name in names), strict=True)
    for row, (there, scalars) in enumerate(zip(answered(table, FIELDS), columns, strict=True)):
        if not there:
            maps.append(None)
            continue
        height, width, confidences, size = scalars[0].as_py(), scalars[1].as_py(), scalars[3].as_py(), sizes[row]
        fits = 0 < height <= size[0] and 0 < width <= size[1]
        expect(fits, f"a map of {height} x {width} cells for {size[0]} x {size[1]} pixels")
        values = np.frombuffer(scalars[2].as_buffer(), np.uint8).reshape(counts[row], height, width)
        most = 0 if confidences else values.sum(axis=0, dtype=np.uint32).max()
        expect(most <= MOST * LEVELS, "probabilities of a cell that sum to more than one")
        maps.append(Cells(classes[first[row] : first[row + 1]], space, values, confidences))
    return maps
