"""What dense regression is made of: annotated numbers, a tutor's numbers with a confidence, predictions, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.tasks.columns import Array, Rows, answered
from tutored.tasks.columns import expect as expect_stored
from tutored.tasks.task import Remap, Size
from tutored.types import expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A number for each pixel of one image.

    Attributes:
        values: float32 [H, W]; NaN where nothing was measured.
    """

    kind: ClassVar[str] = "regression"
    values: Tensor

    def __post_init__(self) -> None:
        expect(self.values, "Values.values", (None, None), torch.float32)

    def counts(self, space: int) -> dict[str, list[int]]:
        """Pixels with a number, and without."""
        known = int(self.values.isfinite().sum())
        return {"pixels": [known, *([0] * (space - 1)), self.values.numel() - known]}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftValues:
    """A tutor's numbers for one image.

    Attributes:
        values: float32 [h, w], on a grid that spans the whole image, of one cell a pixel at most; NaN says nothing.
        confidence: float32 [h, w], 0..1, how much each cell weighs; None: 1 everywhere.
    """

    kind: ClassVar[str] = "regression"
    fields: ClassVar[Sequence[pa.Field]] = (
        pa.field("values_height", pa.int32()),
        pa.field("values_width", pa.int32()),
        pa.field("values", pa.binary()),
        pa.field("values_confidence", pa.binary()),
    )
    unknown: ClassVar[tuple[int, ...]] = ()
    values: Tensor
    confidence: Tensor | None = None

    def __post_init__(self) -> None:
        expect(self.values, "SoftValues.values", (None, None), torch.float32)
        if self.confidence is not None:
            expect(self.confidence, "SoftValues.confidence", tuple(self.values.shape), torch.float32)

    @property
    def weights(self) -> Tensor:
        """float32 [h, w], 0..1: the confidence, 0 where the tutor says nothing."""
        known = self.values.isfinite().float()
        return known if self.confidence is None else known * self.confidence

    def encode(self) -> dict[str, Any]:
        """A store's row: values as float32, confidences in 255 steps, in C order."""
        weights = self.weights
        if bool(self.values.isinf().any()) or not bool(((weights >= 0) & (weights <= 1)).all()):
            raise ValueError("numbers must not be infinite, and a confidence must be in 0..1")
        return {
            "values_height": self.values.shape[0],
            "values_width": self.values.shape[1],
            "values": self.values.contiguous().numpy().tobytes(),
            "values_confidence": (weights * 255).round().to(torch.uint8).numpy().tobytes(),
        }

    @classmethod
    def decode(
        cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None
    ) -> Sequence[SoftValues | None]:
        """The answers of a table's rows; there are no classes to remap."""
        there, columns = answered(table, cls.fields), [table.column(field.name) for field in cls.fields]
        stored: list[tuple[Array, Array] | None] = []
        for row, (is_there, size) in enumerate(zip(there, sizes, strict=True)):
            if not is_there:
                stored.append(None)
                continue
            grid = (columns[0][row].as_py(), columns[1][row].as_py())
            fits = 0 < grid[0] <= size[0] and 0 < grid[1] <= size[1]
            expect_stored(fits, f"{grid[0]} x {grid[1]} numbers for {size[0]} x {size[1]} pixels")
            values = np.frombuffer(columns[2][row].as_buffer(), np.float32).reshape(grid)
            expect_stored(not np.isinf(values).any(), "a number that is infinite")
            stored.append((values, np.frombuffer(columns[3][row].as_buffer(), np.uint8).reshape(grid)))

        def make(row: int) -> SoftValues:
            pair = stored[row]
            assert pair is not None
            confidence = torch.from_numpy(pair[1] / np.float32(255))
            return cls(values=torch.from_numpy(pair[0].copy()), confidence=confidence)

        return Rows(there, make)

    def tempered(self, temperature: float) -> SoftValues:
        """The same: there are no probabilities."""
        return self

    def final(self, size: Size) -> ValueMap:
        """The numbers enlarged to an image of `size`."""
        return ValueMap(values=enlarged(self.values, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMap:
    """The predicted number of each pixel of one image: float32 [H, W]."""

    kind: ClassVar[str] = "regression"
    values: Tensor

    def __post_init__(self) -> None:
        expect(self.values, "ValueMap.values", (None, None), torch.float32)


class ValueTargets(NamedTuple):
    """What one source teaches about the numbers of a batch.

    Attributes:
        values: float32 [B, h, w], as the student learns them; 0 where `certainty` is.
        certainty: float32 [B, h, w], 0..1; 0 where the source says nothing.
        weight: float32 [B].
    """

    values: Tensor
    certainty: Tensor
    weight: Tensor


def enlarged(values: Tensor, size: Size) -> Tensor:
    """Numbers [h, w] at the pixels of an image, bilinearly with half-pixel centres."""
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
