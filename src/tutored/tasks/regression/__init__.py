"""Dense regression: a number for each pixel, such as depth, height or saliency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
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
from tutored.tasks.regression import measure
from tutored.tasks.regression.types import SoftValues, ValueMap, Values, ValueTargets, enlarged
from tutored.tasks.task import DenseTask, Figures, Size, refuse_nan

__all__ = ["Regression", "RegressionSection", "SoftValues", "ValueMap", "ValueTargets", "Values"]

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
    headline: ClassVar[tuple[str, str]] = (measure.RMSE, "RMSE")
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
        found = []
        for each, size in zip(self._meant(raw).cpu(), sizes, strict=True):
            height, width = (min(cells, side) for cells, side in zip(each.shape[1:], size, strict=True))
            found.append(SoftValues(values=F.adaptive_avg_pool2d(each, (height, width))[0]))
        return found

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

    def record(self, truth: Values, prediction: ValueMap) -> measure.ErrorSums:
        return measure.record(self._known(truth.values), prediction.values.cpu())

    def figures(self, records: Sequence[measure.ErrorSums]) -> Figures:
        return measure.figures(records)

    def resampler(self, records: Sequence[measure.ErrorSums | None]) -> Callable[[NDArray[Any]], float]:
        return measure.resampler(records)

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
