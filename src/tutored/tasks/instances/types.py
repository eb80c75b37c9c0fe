"""What instance segmentation is made of: annotated objects, soft and final masks, targets and what teaches them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from tutored.geometry import Geometry
from tutored.tasks.columns import FLOATS, NUMBERS, Rows, answered, require, scored_boxes, starts
from tutored.tasks.detection.types import Boxes, BoxRow, BoxTargets, Detections, SoftBoxes
from tutored.tasks.task import Remap
from tutored.types import IGNORE, PerObject, Size, expect, expect_boxes

LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects(Boxes):
    """The objects that a person outlined on one image; no rows mean "nothing there".

    Attributes:
        masks: uint8 [K, H, W], 1 where the object is, 0 where it is not, 255 where nobody knows.
        boxes_xyxy, classes, difficult, annotated: as in `Boxes`.
    """

    kind: ClassVar[str] = "instances"
    masks: Tensor

    def __post_init__(self) -> None:
        Boxes.__post_init__(self)
        expect(self.masks, "Objects.masks", (len(self.boxes_xyxy), None, None), torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances(PerObject):
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

    def soft_boxes(self, space: int) -> SoftBoxes:
        """Their boxes; what a score leaves to 1 is background's. `space` is the size of the label space, background
        included.
        """
        probs = torch.zeros(len(self.scores), space).scatter(1, self.classes[:, None], self.scores[:, None])
        probs[:, 0] = 1 - self.scores
        return SoftBoxes(boxes_xyxy=self.boxes_xyxy, classes=self.classes, probs=probs, unknown=self.unknown)

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
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Self | None]:
        """The answers of a table's rows, always in the tutor's own label space: tasks remap them (`from_store`)."""
        counts, *scored = scored_boxes(table, "instance_", space)
        first, there = starts(counts), answered(table, cls.fields)
        sides, masks = table.column("instance_side"), table.column("instance_masks")
        stored: list[Any] = [None] * len(there)
        for row in np.flatnonzero(there):
            values, shape = np.frombuffer(masks[row].as_buffer(), np.uint8), (counts[row], *[sides[row].as_py()] * 2)
            require(len(values) == math.prod(shape), f"masks of another number than its {counts[row]} boxes")
            stored[row] = values.reshape(shape)

        def make(row: int) -> Any:
            corners, classes, scores = (torch.from_numpy(each[first[row] : first[row + 1]].copy()) for each in scored)
            pixels = torch.from_numpy(stored[row] / np.float32(LEVELS))
            return cls(boxes_xyxy=corners, classes=classes, scores=scores, masks=pixels)

        return Rows(there, make)

    def tempered(self, temperature: float) -> Self:
        """Every score s and its rest 1 - s become powers 1 / T, renormalised; masks stay."""
        space = max([0, *self.classes.tolist()]) + 1
        return replace(self, scores=self.soft_boxes(space).tempered(temperature).scores)

    def final(self, size: Size) -> "InstanceMasks":
        """The pixels of an image of `size` at whose centres a mask, read bilinearly, is above .5."""
        masks = torch.zeros(len(self.scores), *size, dtype=torch.bool)
        for mask, soft, box in zip(masks, self.masks, self.boxes_xyxy.tolist(), strict=True):
            # Only the pixels around a box are read: most are outside.
            left, top, right, bottom = int(box[0]), int(box[1]), int(-(-box[2] // 1)), int(-(-box[3] // 1))
            part = mask[max(top, 0) : bottom, max(left, 0) : right]
            x = torch.arange(max(left, 0), max(left, 0) + part.shape[1]) + 0.5
            y = torch.arange(max(top, 0), max(top, 0) + part.shape[0]) + 0.5
            across, down = 2 * (x - box[0]) / (box[2] - box[0]) - 1, 2 * (y - box[1]) / (box[3] - box[1]) - 1
            places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
            inside = (places.abs() < 1).all(dim=-1)
            read = grid_sample(soft[None, None], places[None], padding_mode="border", align_corners=False)[0, 0]
            part[:] = (read > 0.5) & inside
        return InstanceMasks(boxes_xyxy=self.boxes_xyxy, classes=self.classes, scores=self.scores, masks=masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMasks(Detections):
    """Final objects of one image.

    Attributes:
        masks: bool [K, H, W], the pixels of each.
        boxes_xyxy, classes, scores: as in `Detections`.
    """

    kind: ClassVar[str] = "instances"
    masks: Tensor

    def __post_init__(self) -> None:
        Detections.__post_init__(self)
        expect(self.masks, "InstanceMasks.masks", (len(self.boxes_xyxy), None, None), torch.bool)


class InstanceTargets(NamedTuple):
    """What one source teaches about the objects of a batch; ground truth and tutor have the same form.

    Attributes:
        masks: float32 [B, K, g, g], at the centres of the cells of a map over the network's input: the share of the
            object, NaN where it is not known.
        boxes_xyxy, classes, probs, difficult, unknown, weight: as in `BoxTargets`.
    """

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    unknown: Tensor
    weight: Tensor
    masks: Tensor

    @property
    def boxes(self) -> BoxTargets:
        """The same without masks."""
        return BoxTargets(*self[:6])


def known(masks: Tensor) -> Tensor:
    """float32 of annotated masks (uint8, 255 is not known): 0, 1, or NaN."""
    return torch.where(masks == IGNORE, torch.nan, masks.float())


def mask_overlaps(masks: Tensor, truth: Tensor, difficult: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union, and the same with the share of a mask inside an object where that is difficult.

    Pixels of an object that nobody knows (255) are left out of both, so that an object's mask is neither right nor
    wrong there. What has no pixel overlaps nothing. Returns float64 [K, G] each.

    Args:
        masks: bool [K, H, W].
        truth: uint8 [G, H, W], as in `Objects`.
        difficult: bool [G].
    """
    found = masks.flatten(1).numpy()
    plain = np.zeros((len(found), len(truth)))
    inside = plain.copy()
    for column, each in enumerate(truth.flatten(1).numpy()):
        seen = found[:, each != IGNORE]
        drawn = each[each != IGNORE] == 1
        shared, area = (seen & drawn).sum(axis=1), seen.sum(axis=1)
        plain[:, column] = shared / np.maximum(area + drawn.sum() - shared, 1)
        inside[:, column] = shared / np.maximum(area, 1) if difficult[column] else plain[:, column]
    return plain, inside


class InstanceRow(NamedTuple):
    """One image's `InstanceTargets` without weight, not padded.

    Attributes:
        boxes: without masks.
        masks: float32 [K, g, g].
    """

    boxes: BoxRow
    masks: Tensor


def in_box(mask: Tensor, box: Sequence[float], geometry: Geometry, grid: int) -> Tensor:
    """A mask over a box, [m, m], at each cell's centre: the box is an image of its own in the same window."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = geometry.window_xyxy
    moved = replace(geometry, window_xyxy=(left - x1, top - y1, right - x1, bottom - y1))
    return moved.soft_map(mask[None], (y2 - y1, x2 - x1), grid)[0]


def stacked(masks: Sequence[Tensor], grid: int) -> Tensor:
    """float32 [K, grid, grid] of K maps, of which there may be none."""
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
