"""Dense regression: a number for each pixel, such as depth, height or saliency."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tutored.config.tasks import RegressionSection
from tutored.errors import InputError
from tutored.files import regular, write_encoded
from tutored.geometry import Geometry
from tutored.labels import LabelSpace
from tutored.losses import Term
from tutored.tasks.columns import Array, Rows, answered, require
from tutored.tasks.task import DenseTask, Figures, Remap, at_most, refuse_nan
from tutored.types import Size, expect

__all__ = ["Regression", "RegressionSection", "SoftValues", "ValueMap", "ValueTargets", "Values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A number for each pixel of one image. `values` is float32 [H, W], NaN where nothing was measured."""

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
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Self | None]:
        """The answers of a table's rows; there are no classes to remap."""
        there, columns = answered(table, cls.fields), [table.column(field.name) for field in cls.fields]
        stored: list[tuple[Array, Array] | None] = []
        for row, (is_there, size) in enumerate(zip(there, sizes, strict=True)):
            if not is_there:
                stored.append(None)
                continue
            grid = (columns[0][row].as_py(), columns[1][row].as_py())
            fits = 0 < grid[0] <= size[0] and 0 < grid[1] <= size[1]
            require(fits, f"{grid[0]} x {grid[1]} numbers for {size[0]} x {size[1]} pixels")
            values = np.frombuffer(columns[2][row].as_buffer(), np.float32).reshape(grid)
            require(not np.isinf(values).any(), "a number that is infinite")
            stored.append((values, np.frombuffer(columns[3][row].as_buffer(), np.uint8).reshape(grid)))

        def make(row: int) -> Any:
            pair = stored[row]
            assert pair is not None
            confidence = torch.from_numpy(pair[1] / np.float32(255))
            return cls(values=torch.from_numpy(pair[0].copy()), confidence=confidence)

        return Rows(there, make)

    def tempered(self, temperature: float) -> Self:
        """The same: there are no probabilities."""
        return self

    def final(self, size: Size) -> "ValueMap":
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


RMSE, MAE, DELTA = "RMSE", "MAE", "delta<1.25"


class ErrorSums(NamedTuple):
    """One image's pixels with a number.

    Attributes:
        squared, absolute: their summed errors.
        positive: pixels whose true number is above 0.
        close: of these, the pixels whose prediction is within a factor of 1.25 (Eigen et al. 2014).
    """

    pixels: int
    squared: float
    absolute: float
    positive: int
    close: int


OPACITY = 0.75
"""Of a heat map over its picture."""


class ValueRow(NamedTuple):
    """One image's `ValueTargets` without weight."""

    values: Tensor
    certainty: Tensor


class Regression(DenseTask):
    """Numbers; the student learns (number - shift) / scale by a smooth absolute error."""

    kind: ClassVar[str] = "regression"
    Section: ClassVar[type[RegressionSection]] = RegressionSection
    answers: ClassVar[tuple[type, ...]] = (SoftValues,)
    suffixes: ClassVar[tuple[str, ...]] = (".npy", ".png")
    headline: ClassVar[tuple[str, str]] = (RMSE, "RMSE")
    lower_is_better: ClassVar[bool] = True
    section: RegressionSection

    @classmethod
    def read(cls, path: Path, size: Size, labels: LabelSpace) -> Values:
        """Numbers from a grey PNG of 8 or 16 bits, or an array [H, W] of numbers in an .npy file."""
        try:
            if path.suffix.lower() == ".npy":
                array: Any = np.load(regular(path), allow_pickle=False)
            else:
                with Image.open(regular(path), formats=["PNG"]) as picture:
                    array = np.asarray(picture)
                    if picture.mode not in ("L", "I", "I;16", "I;16B"):
                        raise ValueError(f"a PNG of mode {picture.mode}; numbers stand in a grey one of 8 or 16 bits")
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise InputError(f"{path}: no numbers can be read ({error}); give a grey PNG or an .npy array") from error
        if array.shape != size or array.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: holds {array.dtype} {list(array.shape)}, its image has {size[0]} x {size[1]} pixels (height "
                "x width); give one number a pixel"
            )
        values = torch.from_numpy(array.astype(np.float32))
        if bool(values.isinf().any()):
            raise InputError(f"{path}: holds infinite numbers; write NaN where nothing was measured")
        return Values(values=values)

    def teach(self, truth: Values | None, size: Size, geometry: Geometry, grid: int) -> ValueRow:
        if truth is None:
            return ValueRow(torch.zeros(grid, grid), torch.zeros(grid, grid))
        values = geometry.nearest(self._known(truth.values), grid, outside=float("nan"))
        certainty = values.isfinite().float()
        return ValueRow(self._learnt(values).nan_to_num(0.0), certainty)

    def teach_soft(self, answer: SoftValues | None, size: Size, geometry: Geometry, grid: int) -> ValueRow:
        """Numbers are averaged by their confidence."""
        if answer is None:
            return self.teach(None, size, geometry, grid)
        weights = answer.weights
        weighted = self._learnt(answer.values).nan_to_num(0.0) * weights
        summed, certainty = geometry.soft_map(torch.stack([weighted, weights]), size, grid)
        return ValueRow(summed / certainty.clamp(min=torch.finfo(torch.float32).tiny), certainty)

    def _known(self, values: Tensor) -> Tensor:
        missing = self.section.missing
        return values if missing is None else torch.where(values == missing, torch.nan, values)

    def _learnt(self, values: Tensor) -> Tensor:
        return (values - self.section.shift) / self.section.scale

    def stack(self, rows: Sequence[ValueRow], weight: Tensor) -> ValueTargets:
        values, certainty = (torch.stack(column) for column in zip(*rows, strict=True))
        return ValueTargets(values, certainty, weight)

    @classmethod
    def final(cls, answer: SoftValues, size: Size) -> ValueMap:
        return answer.final(size)

    @property
    def channels(self) -> int:
        return 1

    def assign(self, targets: ValueTargets, *, tutor: bool) -> Tensor:
        """float32 [B, h, w]: the weight of each cell."""
        return targets.certainty * targets.weight[:, None, None]

    @property
    def terms(self) -> Mapping[str, Term]:
        return {"value": Term(lambda _, cells: cells.sum(), _value_sum)}

    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[ValueMap]:
        refuse_nan(raw)
        meant = self._meant(raw[:, 0]).cpu()
        return [ValueMap(values=enlarged(each, size)) for each, size in zip(meant, sizes, strict=True)]

    def soften(self, raw: Tensor, sizes: Sequence[Size]) -> list[SoftValues]:
        refuse_nan(raw)
        meant = self._meant(raw).cpu()
        return [SoftValues(values=at_most(each, size)[0]) for each, size in zip(meant, sizes, strict=True)]

    def _meant(self, raw: Tensor) -> Tensor:
        return raw.float() * self.section.scale + self.section.shift

    @property
    def facts(self) -> dict[str, Any]:
        return {"scale": self.section.scale, "shift": self.section.shift}

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[ValueMap]:
        if "values" not in outputs:
            return super().from_file(outputs, sizes, side)
        return [ValueMap(values=enlarged(*each)) for each in zip(outputs["values"], sizes, strict=True)]

    def onnx(self, raw: Tensor, side: int) -> tuple[str, Tensor, str]:
        large = F.interpolate(raw.float(), size=(side, side), mode="bilinear", align_corners=False)[:, 0]
        meant = large * self.section.scale + self.section.shift
        return "values", meant, f"float32 [B, {side}, {side}]: a number for each pixel of the input"

    def record(self, truth: Values, prediction: ValueMap) -> ErrorSums:
        """Pixels that are NaN in the annotation are dropped. Raises InputError: the prediction is not finite."""
        values, answer = self._known(truth.values), prediction.values.cpu()
        known = values.isfinite()
        true, said = values[known].double(), answer[known].double()
        if not bool(said.isfinite().all()):
            raise InputError("the prediction has NaN or infinite numbers; did training diverge?")
        error, above = said - true, true > 0
        ratio = said[above] / true[above]
        squared, absolute, close = error.square().sum(), error.abs().sum(), ((ratio < 1.25) & (ratio > 0.8)).sum()
        return ErrorSums(len(error), float(squared), float(absolute), int(above.sum()), int(close))

    def figures(self, records: Sequence[ErrorSums]) -> Figures:
        """The errors over all pixels of all images."""
        pixels, squared, absolute, positive, close = (sum(column) for column in zip(*records, strict=True))
        means = {
            RMSE: math.sqrt(squared / pixels) if pixels else None,
            MAE: absolute / pixels if pixels else None,
            DELTA: close / positive if positive else None,
        }
        return Figures(len(records), (), means, {}, {})

    def resampler(self, records: Sequence[ErrorSums | None]) -> Callable[[NDArray[Any]], float]:
        """The root mean square error of images that count several times."""
        sums = np.array([(each.squared, each.pixels) if each else (0.0, 0) for each in records])

        def resampled(weights: NDArray[Any]) -> float:
            squared, pixels = weights @ sums
            return math.sqrt(squared / pixels) if pixels else math.nan

        return resampled

    def draw(self, picture: Image.Image, shown: Values | ValueMap, zoom: float) -> Image.Image:
        """A heat map over the picture, from the image's lowest number (dark) to its highest (bright)."""
        from matplotlib import colormaps

        values = self._known(shown.values).numpy()
        known = np.isfinite(values)
        low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
        shares = (np.where(known, values, low) - low) / max(high - low, 1e-12)
        heat = Image.fromarray((colormaps["inferno"](shares)[..., :3] * 255).astype(np.uint8)).resize(picture.size)
        mask = Image.fromarray((known * round(255 * OPACITY)).astype(np.uint8)).resize(picture.size)
        return Image.composite(heat, picture, mask)

    def save(self, prediction: ValueMap, path: Path) -> Path | None:
        """An array float32 [H, W]."""
        file = path.with_name(f"{path.name}.npy")
        write_encoded(file, partial(np.save, arr=prediction.values.numpy()))
        return file


def _value_sum(raw: Tensor, targets: ValueTargets, cells: Tensor) -> Tensor:
    """Summed smooth absolute error (knee at 1) of the student's numbers [B, 1, h, w], weighted."""
    return (F.smooth_l1_loss(raw[:, 0].float(), targets.values, reduction="none") * cells).sum()
