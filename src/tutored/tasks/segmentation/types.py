"""What semantic segmentation is made of: annotated masks, a tutor's soft maps, class maps, and targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tutored.maps import likeliest
from tutored.tasks.columns import MOST, NUMBERS, Array, Rows, answered, flat, lists, quantise, require, starts
from tutored.tasks.task import Remap, Size
from tutored.types import IGNORE, expect

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
    require(classes.max(initial=0) < space, f"a class outside 0..{space - 1}")
    names = ("map_height", "map_width", "map_values", "map_confidences")
    maps: list[Cells | None] = []
    columns = zip(*(table.column(name) for name in names), strict=True)
    for row, (there, scalars) in enumerate(zip(answered(table, FIELDS), columns, strict=True)):
        if not there:
            maps.append(None)
            continue
        height, width, confidences, size = scalars[0].as_py(), scalars[1].as_py(), scalars[3].as_py(), sizes[row]
        fits = 0 < height <= size[0] and 0 < width <= size[1]
        require(fits, f"a map of {height} x {width} cells for {size[0]} x {size[1]} pixels")
        values = np.frombuffer(scalars[2].as_buffer(), np.uint8).reshape(counts[row], height, width)
        most = 0 if confidences else values.sum(axis=0, dtype=np.uint32).max()
        require(most <= MOST * LEVELS, "probabilities of a cell that sum to more than one")
        maps.append(Cells(classes[first[row] : first[row + 1]], space, values, confidences))
    return maps


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMask:
    """The class of each pixel of one image, as a person drew it.

    Attributes:
        mask: uint8 [H, W], 0..C and 255 = ignore.
        annotated: the classes that the data set annotates; None means every class. The others may be anywhere that the
            mask says background.
    """

    kind: ClassVar[str] = "segmentation"
    mask: Tensor
    annotated: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        expect(self.mask, "ClassMask.mask", (None, None), torch.uint8)

    def relabelled(self, to: Sequence[int], annotated: tuple[int, ...] | None) -> ClassMask:
        """The same in another label space: `to[c]` is the class there of class c, 0 background; 255 stays.

        Pixels of classes whose number there is larger than a mask can hold are ignored.
        """
        numbers = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
        numbers[: len(to[:IGNORE])] = torch.tensor(to[:IGNORE]).clamp(max=IGNORE)
        return ClassMask(mask=numbers[self.mask.long()], annotated=annotated)

    def counts(self, space: int) -> dict[str, list[int]]:
        """By column, how much there is of each class of a label space with `space` names, then of ignored pixels."""
        pixels = torch.bincount(self.mask.flatten(), minlength=IGNORE + 1).tolist()
        return {"pixels": [*(pixels[:IGNORE] + [0] * space)[:space], pixels[IGNORE]]}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftMap:
    """A tutor's class probabilities for one image.

    Attributes:
        map: float32 [C+1, h, w], on a grid that spans the whole image, of one cell a pixel at most; a cell may sum to
            less than 1.
        unknown: classes of the label space that this tutor knows nothing about, so that its background may be any.
        confidences: the values are detection confidences of the classes, each by itself; channel 0 says nothing.
    """

    kind: ClassVar[str] = "segmentation"
    fields: ClassVar[Sequence[pa.Field]] = FIELDS
    map: Tensor
    unknown: tuple[int, ...] = ()
    confidences: bool = False

    def __post_init__(self) -> None:
        expect(self.map, "SoftMap.map", (None, None, None), torch.float32)

    def tempered(self, temperature: float) -> SoftMap:
        """Probabilities become p^(1/T), each cell with the sum it had."""
        powers = self.map ** (1 / temperature)
        scale = self.map.sum(0) / powers.sum(0).clamp(min=torch.finfo(powers.dtype).tiny)
        return replace(self, map=powers * scale)

    def muted(self, classes: Sequence[int]) -> SoftMap:
        """The same with nothing said about some classes; background may be any of them."""
        unknown = tuple(sorted({*self.unknown, *classes}))
        return replace(self, map=self.map.index_fill(0, torch.tensor(classes), 0.0), unknown=unknown)

    def encode(self) -> dict[str, Any]:
        """A store's row, see `FIELDS`."""
        return encode(self.map.permute(1, 2, 0).numpy(), self.confidences)

    @classmethod
    def decode(
        cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None
    ) -> Sequence[SoftMap | None]:
        """The answers of a table's rows, in another label space with a remap; see `SoftAnswer`.

        Confidences stay in the tutor's own label space: see `Segmentation.from_store`.
        """
        maps = decode(table, sizes, space)
        unknown = remap.unknown if remap else ()
        if remap is not None and not remap.identical:
            maps = [cells and cells.remapped(remap) for cells in maps]

        def make(row: int) -> SoftMap:
            cells = maps[row]
            assert cells is not None
            return cls(map=cells.dense(), unknown=unknown, confidences=cells.confidences)

        return Rows([cells is not None for cells in maps], make)

    def final(self, size: tuple[int, int]) -> ClassMap | None:
        """The likeliest class of each pixel of an image of `size`; None of more classes than a mask can tell apart."""
        return None if len(self.map) > IGNORE else ClassMap(mask=likeliest(self.map, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMap:
    """The predicted class of each pixel of one image.

    Attributes:
        mask: uint8 [H, W], 0..C.
    """

    kind: ClassVar[str] = "segmentation"
    mask: Tensor

    def __post_init__(self) -> None:
        expect(self.mask, "ClassMap.mask", (None, None), torch.uint8)


class MapTargets(NamedTuple):
    """What one source teaches about the maps of a batch; ground truth and tutor have the same form.

    Attributes:
        map: float32 [B, C+1, h, w], class probabilities; all zero where the source says nothing.
        inside: bool [B, h, w], which cells lie in the image and not in padding.
        unknown: bool [B, C+1], classes the source does not mark: its background may be any of them; [B, 0] where no
            image of the batch has such a class.
        weight: float32 [B].
    """

    map: Tensor
    inside: Tensor
    unknown: Tensor
    weight: Tensor
