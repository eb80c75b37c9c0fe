"""Instance segmentation: boxes with classes, and the pixels of each object."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tutored.config.tasks import InstancesSection
from tutored.geometry import Geometry
from tutored.labels import ClassMap, LabelSpace
from tutored.pictures import borders, colour_of
from tutored.tasks.audit import Auditor
from tutored.tasks.detection import Detection, SoftBoxes, decode, measure
from tutored.tasks.detection.audit import BoxAuditor, Evidence
from tutored.tasks.detection.decode import BoxExport, keep, rows_of
from tutored.tasks.detection.types import apart, teachable
from tutored.tasks.instances import types
from tutored.tasks.instances.types import InstanceMasks, InstanceRow, Instances, InstanceTargets, Objects
from tutored.types import Size, SoftLabels

__all__ = ["InstanceMasks", "InstanceSegmentation", "InstanceTargets", "Instances", "InstancesSection", "Objects"]

FILL = 0.5
"""How much of its colour lies over an object's pixels."""


class InstanceAuditor(BoxAuditor):
    """Compares the boxes of instances with those of objects."""

    def __init__(self, task: Any) -> None:
        super().__init__(Detection(task.name, task.labels, task.section))

    def observe(self, truth: Any, answer: Any, *rest: Any) -> Evidence:
        return super().observe(truth, self._boxes(answer), *rest)

    def compare(self, one: Any, other: Any, size: Size) -> Any:
        return super().compare(self._boxes(one), self._boxes(other), size)

    def _boxes(self, answer: Instances) -> Any:
        return answer.soft_boxes(len(self.task.labels))


class InstanceSegmentation(Detection):
    """Objects; their boxes and classes are treated as detection's, and a mask belongs to each."""

    kind: ClassVar[str] = "instances"
    Section: ClassVar[type[InstancesSection]] = InstancesSection
    answers: ClassVar[tuple[type, ...]] = (Instances,)
    headline: ClassVar[tuple[str, str]] = ("mAP_voc_area@.5", "mask mAP")
    section: InstancesSection

    def teach(self, truth: Any, size: Size, geometry: Geometry, grid: int) -> Any:
        """Masks are read at the nearest pixel of each cell's centre; there are no objects in padding."""
        row, masks = super().teach(truth, size, geometry, grid), []
        if truth is not None:
            _, kept = geometry.boxes(truth.boxes_xyxy)
            masks = [geometry.nearest(types.known(each), grid, 0.0) for each in truth.masks[kept]]
        return InstanceRow(row, types.stacked(masks, grid))

    def teach_soft(self, answer: Any, size: Size, geometry: Geometry, grid: int) -> Any:
        boxes, masks = answer and self._boxes(answer), []
        if boxes is not None:
            found = answer.chosen(teachable(boxes, self.section))
            found = found.chosen(geometry.boxes(found.boxes_xyxy)[1])
            pairs = zip(found.masks, found.boxes_xyxy.tolist(), strict=True)
            masks = [types.in_box(*each, geometry, grid) for each in pairs]
        return InstanceRow(super().teach_soft(boxes, size, geometry, grid), types.stacked(masks, grid))

    def complete(self, truth: Any, tutor: Any) -> Any:
        chosen = apart(truth.boxes, tutor.boxes, self.section.conflict_iou)
        boxes = super().complete(truth.boxes, tutor.boxes)
        return InstanceRow(boxes, torch.cat([truth.masks, tutor.masks[chosen]]))

    def stack(self, rows: Sequence[Any], weight: Tensor) -> Any:
        """Boxes and masks are padded to the most of any image."""
        boxes = super().stack([row.boxes for row in rows], weight)
        return InstanceTargets(*boxes, pad_sequence([row.masks for row in rows], batch_first=True))

    def vet(self, answer: Any, size: Size, other: Any, other_labels: LabelSpace) -> Any:
        return replace(answer, scores=super().vet(self._boxes(answer), size, other, other_labels).scores)

    @classmethod
    def from_store(cls, stored: SoftLabels, class_map: ClassMap, section: Any) -> Instances | None:
        """The instances of classes that have a counterpart here."""
        found: Instances | None = stored.tasks.get(Instances.kind)
        if found is None:
            return None
        to = torch.tensor([-1 if number is None else number for number in class_map.to])[found.classes]
        unknown = tuple(class_map.target.index(name) for name in class_map.unreached)
        return replace(found, classes=to, unknown=unknown).chosen(to > 0)

    def mute(self, answer: Any, classes: Sequence[int]) -> Any:
        muted = super().mute(self._boxes(answer), classes)
        return replace(answer, scores=muted.scores, unknown=muted.unknown)

    @classmethod
    def final(cls, answer: Any, size: Size) -> Any:
        return answer.final(size)

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[Any]:
        """Masks are read bilinearly from their grid over the whole image."""
        limits, found = self.section.decode, list[InstanceMasks]()
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
            found.append(InstanceMasks(**each.parts, masks=masks))
        return found

    def record(self, truth: Any, prediction: Any) -> Any:
        shares = types.mask_overlaps(prediction.masks, truth.masks, truth.difficult)
        return measure.record(truth, prediction, self.labels, shares)

    def auditor(self) -> Auditor:
        return InstanceAuditor(self)

    def draw(self, picture: Image.Image, shown: Any, zoom: float) -> Image.Image:
        """Each object's pixels in its class' colour with a light outline, large ones below small ones; then its box."""
        mixed = np.asarray(picture).astype(np.float32)
        for row in (shown.masks == 1).sum(dim=(1, 2)).argsort(descending=True, stable=True).tolist():
            plane = Image.fromarray((shown.masks[row] == 1).numpy().astype(np.uint8))
            there = np.asarray(plane.resize(picture.size, Image.Resampling.NEAREST))
            colour = np.array(colour_of(int(shown.classes[row])), np.float32)
            mixed[there > 0] = mixed[there > 0] * (1 - FILL) + colour * FILL
            mixed[borders(there) & (there > 0)] = colour / 2 + 127
        return super().draw(Image.fromarray(mixed.round().astype(np.uint8)), shown, zoom)

    def describe(self, prediction: Any) -> list[dict[str, Any]]:
        """As boxes, with `segmentation`: the mask as COCO's compressed run lengths."""
        from faster_coco_eval.core import mask as rle  # slow to import

        entries = super().describe(prediction)
        for entry, mask in zip(entries, prediction.masks, strict=True):
            runs = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            entry["segmentation"] = {"size": [*mask.shape], "counts": runs["counts"].decode("ascii")}
        return entries

    def _boxes(self, answer: Instances) -> SoftBoxes:
        return answer.soft_boxes(len(self.labels))


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
        return {**final, "masks": masks * types.cells_inside(final["boxes"], centres)}
