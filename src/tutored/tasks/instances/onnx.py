"""The instances of an exported student: boxes as a detection task's, and a mask for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.config.tasks import Decode
from tutored.tasks.detection import decode
from tutored.tasks.detection.decode import BoxExport, keep, rows_of
from tutored.tasks.instances.types import InstanceMasks, cells_inside
from tutored.tasks.task import Size


def read(outputs: Mapping[str, Tensor], sizes: Sequence[Size], limits: Decode, side: int) -> list[InstanceMasks]:
    """Final objects in each image's own pixels from what a file gives; see `detection.onnx.read`.

    Masks are read bilinearly from their grid over the whole image.
    """
    found = []
    kept = keep(outputs["candidates"], outputs["probs"], sizes, limits, side) if "candidates" in outputs else []
    boxes = [each.boxes.final() for each in kept] or decode.read(outputs, sizes, limits, side)
    for row, (each, (height, width)) in enumerate(zip(boxes, sizes, strict=True)):
        if kept:
            prototypes = outputs["prototypes"][row]
            logits = outputs["coefficients"][row, kept[row].rows] @ prototypes.flatten(1)
            soft = logits.sigmoid().reshape(-1, *prototypes.shape[1:])
        else:
            soft = outputs["masks"][row, : len(each.scores)]
        masks = torch.zeros(len(soft), height, width, dtype=torch.bool)
        x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
        for mask, grid, (left, top, right, bottom) in zip(masks, soft, each.boxes_xyxy.tolist(), strict=True):
            # A file's final mask is 0 outside its box; what lies there takes no part.
            both = torch.stack([grid, (grid > 0).float()])[None]
            value, known = F.interpolate(both, size=(height, width), mode="bilinear", align_corners=False)[0]
            mask[:] = (value > 0.5 * known) & (x > left) & (x < right) & (y > top) & (y < bottom)
        found.append(InstanceMasks(boxes_xyxy=each.boxes_xyxy, classes=each.classes, scores=each.scores, masks=masks))
    return found


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
        return {**final, "masks": masks * cells_inside(final["boxes"], centres)}
