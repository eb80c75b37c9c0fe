"""Instance masks of a tutor, and the map that is rasterized from them, or from confidences, by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tutored.tasks.columns import FLOATS, NUMBERS, Rows, answered, scored_boxes, starts
from tutored.tasks.task import Remap, Size
from tutored.types import expect, expect_boxes

Rule = Literal["noisy_or", "one", "complement", "zero"]
LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """A tutor's instance masks for one image, each in the frame of its own box.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the image.
        classes: int64 [N], 1..C.
        scores: float32 [N], 0..1.
        masks: float32 [N, m, m], 0..1, a soft mask stretched over its box (Mask R-CNN: m = 28).
        unknown: classes of the label space that this tutor knows nothing about.
    """

    kind: ClassVar[str] = "instances"
    fields: ClassVar[Sequence[pa.Field]] = (
        pa.field("instance_side", pa.int32()),
        pa.field("instance_boxes_xyxy", FLOATS),
        pa.field("instance_classes", NUMBERS),
        pa.field("instance_scores", FLOATS),
        pa.field("instance_masks", pa.binary()),
    )
    boxes_xyxy: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor
    unknown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expect_boxes(self.boxes_xyxy, "Instances.boxes_xyxy")
        count = len(self.boxes_xyxy)
        expect(self.classes, "Instances.classes", (count,), torch.int64)
        expect(self.scores, "Instances.scores", (count,), torch.float32)
        expect(self.masks, "Instances.masks", (count, None, None), torch.float32)

    def chosen(self, which: Tensor) -> Instances:
        """The instances at these indices (int64 [n], or bool [N])."""
        parts = (each[which] for each in (self.boxes_xyxy, self.classes, self.scores, self.masks))
        boxes_xyxy, classes, scores, masks = parts
        return Instances(boxes_xyxy=boxes_xyxy, classes=classes, scores=scores, masks=masks, unknown=self.unknown)

    def encode(self) -> dict[str, Any]:
        """A store's row: masks [N, m, m] as uint8 in C order, times 255."""
        return {
            "instance_boxes_xyxy": self.boxes_xyxy.flatten().numpy(),
            "instance_classes": self.classes.numpy(),
            "instance_scores": self.scores.numpy(),
            "instance_side": self.masks.shape[-1],
            "instance_masks": (self.masks * LEVELS).round().to(torch.uint8).numpy().tobytes(),
        }

    @classmethod
    def decode(
        cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None
    ) -> Sequence[Instances | None]:
        """The answers of a table's rows, always in the tutor's own label space: see `Segmentation.from_store`."""
        counts, *scored = scored_boxes(table, "instance_", space)
        first, there = starts(counts), answered(table, cls.fields)
        sides, masks = table.column("instance_side"), table.column("instance_masks")
        stored = [
            np.frombuffer(masks[row].as_buffer(), np.uint8).reshape(counts[row], sides[row].as_py(), sides[row].as_py())
            if answers
            else None
            for row, answers in enumerate(there)
        ]

        def make(row: int) -> Instances:
            values = stored[row]
            assert values is not None
            corners, classes, scores = (torch.from_numpy(each[first[row] : first[row + 1]].copy()) for each in scored)
            pixels = torch.from_numpy(values / np.float32(LEVELS))
            return cls(boxes_xyxy=corners, classes=classes, scores=scores, masks=pixels)

        return Rows(there, make)

    def tempered(self, temperature: float) -> Instances:
        """The same: probabilities are tempered on the map that is rasterized from instances."""
        return self


def rasterize(instances: Instances, size: Size, classes: int, grid: tuple[int, int], rule: Rule) -> Tensor:
    """A map of instances; their confidence is the score, times the soft mask ("noisy_or") or where it is above .5.

    Args:
        size: (height, width) of the image in pixels.
        classes: C + 1, the names of the label space.
        grid: (h, w); masks are read at the centres of cells, bilinearly, zero outside their boxes.
        rule: see `combine`.

    Returns:
        float32 [classes, h, w], see `combine`.
    """
    masks = _paste(instances, size, grid)
    shape = masks if rule == "noisy_or" else (masks > 0.5).float()
    return combine(instances.scores[:, None, None] * shape, instances.classes, classes, rule)


def combine(confidences: Tensor, index: Tensor, classes: int, rule: Rule) -> Tensor:
    """Several confidences for each class and cell into one, and a background, by a rule of `section.background`.

    Args:
        confidences: float32 [N, h, w], 0..1: v_i.
        index: int64 [N], 1..C, the class of each.
        classes: C + 1, the names of the label space.
        rule: "noisy_or": p_c = 1 - prod(1 - v_i) over the i of class c and p_0 = prod(1 - v_i) over all, divided by
            their sum. The others are the thesis' (specification 3.5, 8.2): v_c = the greatest v_i of class c, and
            v_0 = 1 where all are zero ("one"), 1 - max v_c ("complement") or 0 ("zero").

    Returns:
        float32 [classes, h, w]. Probabilities for "noisy_or"; detection confidences, which sum to
        anything, for the others.
    """
    places, grid = index[:, None, None].expand_as(confidences), confidences.shape[1:]
    if rule == "noisy_or":
        absent = torch.ones(classes, *grid).scatter_reduce(0, places, 1 - confidences, "prod")
        probs = torch.cat([absent.prod(0, keepdim=True), 1 - absent[1:]])
        return probs / probs.sum(0)
    drawn = torch.zeros(classes, *grid).scatter_reduce(0, places, confidences, "amax")
    if rule == "one":
        drawn[0] = drawn.amax(0) == 0
    elif rule == "complement":
        drawn[0] = 1 - drawn.amax(0)
    return drawn


def _paste(instances: Instances, size: Size, grid: tuple[int, int]) -> Tensor:
    """Every mask read at the grid's cell centres, [N, h, w]."""
    if len(instances.scores) == 0:
        return torch.zeros(0, *grid)
    y, x = ((torch.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(grid, size, strict=True))
    x1, y1, x2, y2 = instances.boxes_xyxy[:, :, None].unbind(1)
    across, down = 2 * (x - x1) / (x2 - x1) - 1, 2 * (y - y1) / (y2 - y1) - 1
    shape = (len(across), *grid)
    places = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return grid_sample(instances.masks[:, None], places, align_corners=False)[:, 0]
