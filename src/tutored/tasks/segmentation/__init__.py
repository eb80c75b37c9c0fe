"""Semantic segmentation: the class of each pixel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tutored.config.tasks import SegmentationSection
from tutored.errors import InputError
from tutored.files import write_encoded
from tutored.geometry import Geometry, likeliest
from tutored.labels import ClassMap as LabelMap
from tutored.labels import LabelSpace, same_class
from tutored.losses import Term
from tutored.pictures import borders, read_mask, voc_palette
from tutored.tasks.audit import Auditor
from tutored.tasks.instances.types import Instances
from tutored.tasks.segmentation import measure, types
from tutored.tasks.segmentation.types import CellTargets, ClassMap, ClassMask, MapRow, MapTargets, SoftMap
from tutored.tasks.task import DenseTask, Detail, Figures, at_most, marked, refuse_nan, stack_unknown, unannotated
from tutored.types import BACKGROUND, IGNORE, Size, SoftLabels

__all__ = ["ClassMap", "ClassMask", "MapTargets", "Segmentation", "SegmentationSection", "SoftMap"]

FILL, VOID_FILL = 0.55, 0.7
"""How much of its colour lies over a class' pixels, and over void."""


def mask_image(mask: Tensor) -> Image.Image:
    """A class map, uint8 [H, W], as a picture whose pixels are the class numbers, with VOC's palette."""
    picture = Image.fromarray(mask.cpu().numpy())
    picture.putpalette(voc_palette().tobytes())
    return picture


def save_mask(mask: Tensor, path: Path) -> None:
    """Write a class map, uint8 [H, W], as a palette PNG, whole or not at all."""
    write_encoded(path, partial(mask_image(mask).save, format="PNG"))


STRIDE = 8
"""Pixels a cell of a map that is rasterized from instances."""


class Segmentation(DenseTask):
    """Class maps."""

    kind: ClassVar[str] = "segmentation"
    Section: ClassVar[type[SegmentationSection]] = SegmentationSection
    answers: ClassVar[tuple[type, ...]] = (SoftMap, Instances)
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    headline: ClassVar[tuple[str, str]] = ("mIoU", "mIoU")
    section: SegmentationSection

    def __init__(self, name: str, labels: LabelSpace, section: SegmentationSection | None = None) -> None:
        super().__init__(name, labels, section)
        if self.section.policy != "none" and len(labels) > IGNORE:
            raise InputError(
                f"tasks.{name}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): name "
                f"fewer as tasks.{name}.classes, or train the other tasks alone (tasks.{name}.policy: none)"
            )

    @classmethod
    def read(cls, path: Path, size: Size, labels: LabelSpace) -> ClassMask:
        return ClassMask(mask=read_mask(path, size, labels))

    def teach(self, truth: ClassMask | None, size: Size, geometry: Geometry, grid: int) -> MapRow:
        """Ground truth as certain soft labels: a one-hot map, void and padding silent."""
        one_hot = torch.zeros(len(self.labels), grid, grid)
        if truth is not None:
            mask = geometry.nearest(truth.mask, grid, outside=IGNORE).long()
            drawn = mask != IGNORE
            one_hot.scatter_(0, torch.where(drawn, mask, 0)[None], drawn.float()[None])
        unknown = unannotated(truth.annotated if truth else None, len(self.labels))
        return MapRow(one_hot, geometry.inside(size, grid), unknown)

    def teach_soft(self, answer: SoftMap | None, size: Size, geometry: Geometry, grid: int) -> MapRow:
        nothing = torch.zeros(len(self.labels), grid, grid)
        seen = nothing if answer is None else geometry.soft_map(answer.map, size, grid)
        return MapRow(seen, geometry.inside(size, grid), marked(answer.unknown if answer else (), len(self.labels)))

    def complete(self, truth: MapRow, tutor: MapRow) -> MapRow:
        """Ground truth, and where it says background the tutor's background and classes that were not annotated.

        What the tutor gives to annotated classes there is contradicted and weighs nothing.
        """
        allowed = truth.unknown.clone()
        allowed[0] = True
        background = truth.map[:1]
        filled = truth.map * (1 - background) + tutor.map * allowed[:, None, None] * background
        return MapRow(filled, tutor.inside, truth.unknown & tutor.unknown)

    def stack(self, rows: Sequence[MapRow], weight: Tensor) -> MapTargets:
        maps, inside, marks = zip(*rows, strict=True)
        return MapTargets(torch.stack(maps), torch.stack(inside), stack_unknown(marks), weight)

    def vet(self, answer: SoftMap, size: Size, other: Any, other_labels: LabelSpace) -> SoftMap:
        to = torch.tensor([same_class(name, self.labels) or 0 for name in other_labels.names])
        annotated = range(1, len(other_labels)) if other.annotated is None else other.annotated
        anywhere = torch.ones(len(self.labels), dtype=torch.bool)
        anywhere[[0, *to[list(annotated)].tolist()]] = False
        return types.vet_by_boxes(answer, size, other.boxes_xyxy, to[other.classes], anywhere)

    @classmethod
    def from_store(cls, stored: SoftLabels, class_map: LabelMap, section: Any) -> SoftMap | None:
        """The map, or one that is rasterized from instances or combined from confidences by the rule `background`.

        Classes without a counterpart are left out, or take their probability away where it is to be ignored.
        """
        found: SoftMap | None = stored.tasks.get(SoftMap.kind)
        instances: Instances | None = stored.tasks.get(Instances.kind)
        if found is not None and not found.confidences:
            return found
        # One number beyond the target space collects what is to be ignored.
        space, rule = len(class_map.target), section.background
        numbers = torch.tensor(
            [space if index in class_map.ignored else -1 if to is None else to for index, to in enumerate(class_map.to)]
        )
        if found is not None:
            index = numbers[1:]
            combined = types.combine(found.map[1:][index >= 0], index[index >= 0], space + 1, rule)
        elif instances is not None:
            index = numbers[instances.classes]
            kept = replace(instances.chosen(index >= 0), classes=index[index >= 0])
            height, width = stored.size
            combined = types.rasterize(kept, stored.size, space + 1, (-(-height // STRIDE), -(-width // STRIDE)), rule)
        else:
            return None
        unknown = tuple(class_map.target.index(name) for name in class_map.unreached)
        return SoftMap(map=combined[:space], unknown=unknown)

    def mute(self, answer: SoftMap, classes: Sequence[int]) -> SoftMap:
        return answer.muted(classes)

    @classmethod
    def final(cls, answer: SoftMap, size: Size) -> ClassMap | None:
        return answer.final(size)

    @property
    def channels(self) -> int:
        return len(self.labels)

    def assign(self, targets: MapTargets, *, tutor: bool) -> CellTargets:
        return types.assign(targets, self.section, tutor=tutor)

    @property
    def terms(self) -> Mapping[str, Term]:
        terms = {"map": Term(lambda _, cells: cells.normaliser, types.map_sum)}
        overlap = self.section.overlap
        if overlap:
            terms["overlap"] = Term(
                lambda _, cells: cells.presence.sum(), lambda *given: overlap * types.overlap_sum(*given)
            )
        return terms

    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[ClassMap]:
        refuse_nan(raw)
        return [ClassMap(mask=likeliest(logits.float(), size).cpu()) for logits, size in zip(raw, sizes, strict=True)]

    def soften(self, raw: Tensor, sizes: Sequence[Size]) -> list[SoftMap]:
        """The map on its own grid; of an image with fewer pixels than cells it is averaged to one cell a pixel."""
        refuse_nan(raw)
        return [
            SoftMap(map=at_most(logits.float().softmax(dim=0).cpu(), size))
            for logits, size in zip(raw, sizes, strict=True)
        ]

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[ClassMap]:
        if "mask" not in outputs:
            return super().from_file(outputs, sizes, side)
        masks = outputs["mask"][:, None]
        return [
            ClassMap(mask=F.interpolate(mask[None], size=size, mode="nearest-exact")[0, 0])
            for mask, size in zip(masks, sizes, strict=True)
        ]

    def onnx(self, raw: Tensor, side: int) -> tuple[str, Tensor, str]:
        enlarged = F.interpolate(raw.float(), size=(side, side), mode="bilinear", align_corners=False)
        meaning = f"uint8 [B, {side}, {side}]: each pixel's place in the class names, 0 background"
        return "mask", enlarged.argmax(dim=1).to(torch.uint8), meaning

    def record(self, truth: ClassMask, prediction: ClassMap) -> Any:
        return measure.record(truth, prediction, self.labels)

    def figures(self, records: Sequence[Any]) -> Figures:
        return measure.figures(records, self.labels, self.section.reported)

    def resampler(self, records: Sequence[Any | None]) -> Callable[[NDArray[Any]], float]:
        return measure.resampler(records, self.labels, self.section.reported)

    def details(self, records: Sequence[Any]) -> list[Detail]:
        return measure.details(records, self.labels)

    def auditor(self) -> Auditor:
        from tutored.tasks.segmentation.audit import MapAuditor

        return MapAuditor(self)

    def draw(self, picture: Image.Image, shown: ClassMask | ClassMap, zoom: float) -> Image.Image:
        """Each class' colour over its pixels, with a light outline; background stays as it is, void is pale."""
        classes = np.asarray(mask_image(shown.mask).resize(picture.size, Image.Resampling.NEAREST))
        opacity = np.full(256, FILL, np.float32)
        opacity[BACKGROUND], opacity[IGNORE] = 0, VOID_FILL
        share, colours = opacity[classes][..., None], voc_palette()[classes]
        mixed = np.asarray(picture) * (1 - share) + colours * share
        # Half white, so that the dark colours' borders show on dark objects too.
        outline = borders(classes) & (classes != BACKGROUND) & (classes != IGNORE)
        mixed[outline] = colours[outline] / 2 + 127
        return Image.fromarray(mixed.round().astype(np.uint8))

    def describe(self, prediction: ClassMap) -> list[dict[str, Any]]:
        """An entry for each class there: `category_id` (1..C), `category`, `share` of the pixels, largest first."""
        mask = prediction.mask
        counts = torch.bincount(mask.flatten(), minlength=len(self.labels)).tolist()
        found = [
            {"category_id": number, "category": self.labels.names[number], "share": round(count / mask.numel(), 5)}
            for number, count in enumerate(counts)
            if number and count
        ]
        return sorted(found, key=lambda entry: -entry["share"])

    def save(self, prediction: ClassMap, path: Path) -> Path:
        """Write a palette PNG of class numbers, `path` with `.png` added."""
        file = path.with_name(f"{path.name}.png")
        save_mask(prediction.mask, file)
        return file
