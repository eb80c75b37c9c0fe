"""What outlined objects teach: the rows of detection's targets, and a mask for each on the cells of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tutored.config.tasks import DetectionSection
from tutored.geometry import Geometry
from tutored.tasks.detection import targets
from tutored.tasks.detection.targets import BoxRow
from tutored.tasks.instances.types import Instances, Objects, known


class InstanceRow(NamedTuple):
    """One image's `InstanceTargets` without weight, not padded.

    Attributes:
        boxes: without masks.
        masks: float32 [K, g, g].
    """

    boxes: BoxRow
    masks: Tensor


def teach(truth: Objects | None, geometry: Geometry, space: int, grid: int) -> InstanceRow:
    """Ground truth, its masks read at the nearest pixel of each cell's centre; there are no objects in padding."""
    row = targets.teach(truth, geometry, space)
    if truth is None:
        return InstanceRow(row, torch.zeros(0, grid, grid))
    _, kept = geometry.boxes(truth.boxes_xyxy)
    return InstanceRow(row, _stacked([geometry.nearest(known(each), grid, 0.0) for each in truth.masks[kept]], grid))


def teach_soft(
    answer: Instances | None, geometry: Geometry, space: int, grid: int, section: DetectionSection
) -> InstanceRow:
    """A tutor's instances under the same geometry; of those that contradict each other the best-scored."""
    boxes = None if answer is None else answer.soft_boxes(space)
    row = targets.teach_soft(boxes, geometry, space, section)
    if answer is None or boxes is None:
        return InstanceRow(row, torch.zeros(0, grid, grid))
    chosen = targets.teachable(boxes, section)
    _, kept = geometry.boxes(answer.boxes_xyxy[chosen])
    found = answer.chosen(chosen[kept])
    masks = [_in_box(*each, geometry, grid) for each in zip(found.masks, found.boxes_xyxy.tolist(), strict=True)]
    return InstanceRow(row, _stacked(masks, grid))


def _in_box(mask: Tensor, box: Sequence[float], geometry: Geometry, grid: int) -> Tensor:
    """A mask over a box, [m, m], at each cell's centre: the box is an image of its own in the same window."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = geometry.window_xyxy
    moved = replace(geometry, window_xyxy=(left - x1, top - y1, right - x1, bottom - y1))
    return moved.soft_map(mask[None], (y2 - y1, x2 - x1), grid)[0]


def _stacked(masks: Sequence[Tensor], grid: int) -> Tensor:
    return torch.stack([*masks]) if masks else torch.zeros(0, grid, grid)


def cells_inside(boxes_xyxy: Tensor, centres: Tensor) -> Tensor:
    """bool [..., g, g]: the cells of a map whose centres lie in each box.

    Args:
        boxes_xyxy: float32 [..., 4], pixels of the network's input.
        centres: float32 [g], of the cells along either side, in the same pixels.
    """
    left, top, right, bottom = (side[..., None] for side in boxes_xyxy.unbind(-1))
    across, down = (centres > left) & (centres < right), (centres > top) & (centres < bottom)
    return down[..., :, None] & across[..., None, :]


def complete(truth: InstanceRow, tutor: InstanceRow, conflict_iou: float) -> InstanceRow:
    """The outlined objects and, of classes that were not annotated, the tutor's, unless they lie on one of those."""
    chosen = targets.apart(truth.boxes, tutor.boxes, conflict_iou)
    boxes = targets.complete(truth.boxes, tutor.boxes, conflict_iou)
    return InstanceRow(boxes, torch.cat([truth.masks, tutor.masks[chosen]]))
