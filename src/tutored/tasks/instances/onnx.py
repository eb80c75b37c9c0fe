"""The instances of an exported student: boxes as a detection task's, and a mask for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tutored.tasks.detection.onnx import BoxExport, rows_of


class InstanceExport(BoxExport):
    """As `BoxExport`, of a head that gives coefficients and prototypes too."""

    def __init__(self, head: Any, side: int) -> None:
        super().__init__(head, side)
        self.meanings |= {
            "coefficients": "of each candidate: its mask is the sigmoid of the prototypes' sum that they weigh",
            "prototypes": "on a grid over the whole input",
            "masks": "0..1, of each box on a grid over the whole input, 0 outside the box",
        }

    def raw(self, raw: Any) -> dict[str, Tensor]:
        boxes = super().raw(raw)
        return {**boxes, "coefficients": raw.coefficients.float(), "prototypes": raw.prototypes.float()}

    def final(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `BoxExport`, and masks float32 [B, N, g, g]."""
        final, rows = self.chosen(raw)
        prototypes, grid = raw["prototypes"], int(raw["prototypes"].shape[-1])
        logits = rows_of(raw["coefficients"], rows) @ prototypes.flatten(2)
        masks = logits.sigmoid().reshape(-1, int(rows.shape[1]), grid, grid)
        centres = (torch.arange(grid) + 0.5) * (self.side / grid)
        left, top, right, bottom = (side[..., None] for side in final["boxes"].unbind(-1))
        across, down = (centres > left) & (centres < right), (centres > top) & (centres < bottom)
        return {**final, "masks": masks * (down[..., :, None] & across[..., None, :])}
