"""Object detection: boxes with classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tutored.config.tasks import DetectionSection
from tutored.geometry import Geometry
from tutored.labels import LabelSpace, same_class
from tutored.tasks.audit import Auditor
from tutored.tasks.classes import stack_unknown
from tutored.tasks.classes import unannotated as left_out
from tutored.tasks.detection import draw, measure, onnx, targets
from tutored.tasks.detection.targets import BoxRow
from tutored.tasks.detection.types import Boxes, BoxTargets, Detections, SoftBoxes
from tutored.tasks.task import Detail, Figures, Size, Task

__all__ = ["BoxTargets", "Boxes", "Detection", "DetectionSection", "Detections", "SoftBoxes"]


class Detection(Task):
    """Boxes; the head that learns them is each student's own."""

    kind: ClassVar[str] = "detection"
    Section: ClassVar[type[DetectionSection]] = DetectionSection
    answers: ClassVar[tuple[type, ...]] = (SoftBoxes,)
    headline: ClassVar[tuple[str, str]] = ("mAP_voc_area@.5", "mAP")
    section: DetectionSection

    def teach(self, truth: Boxes | None, size: Size, geometry: Geometry, grid: int) -> BoxRow:
        return targets.teach(truth, geometry, len(self.labels))

    def teach_soft(self, answer: SoftBoxes | None, size: Size, geometry: Geometry, grid: int) -> BoxRow:
        return targets.teach_soft(answer, geometry, len(self.labels), self.section)

    def complete(self, truth: BoxRow, tutor: BoxRow) -> BoxRow:
        return targets.complete(truth, tutor, self.section.conflict_iou)

    def stack(self, rows: Sequence[BoxRow], weight: Tensor) -> BoxTargets:
        """Boxes are padded to the most of any image."""
        *lists, marks = zip(*rows, strict=True)
        boxes_xyxy, classes, probs, difficult = (pad_sequence(list(each), batch_first=True) for each in lists)
        return BoxTargets(boxes_xyxy, classes, probs, difficult, stack_unknown(marks), weight)

    def guides(self, shown: Boxes | SoftBoxes) -> Tensor:
        return shown.boxes_xyxy

    def unannotated(self, answer: SoftBoxes, truth: Boxes) -> SoftBoxes:
        """Without boxes of annotated classes, before boxes on one object compete: they must silence no other class."""
        return answer.chosen(left_out(truth.annotated, len(self.labels))[answer.classes])

    def vet(self, answer: SoftBoxes, size: Size, other: Any, other_labels: LabelSpace) -> SoftBoxes:
        to = torch.tensor([same_class(name, other_labels) or 0 for name in self.labels.names])
        return targets.vet_by_mask(answer, other.mask, to, other.annotated, self.section.silent_score)

    def mute(self, answer: SoftBoxes, classes: Sequence[int]) -> SoftBoxes:
        return answer.muted(classes, self.section.silent_score)

    @classmethod
    def final(cls, answer: SoftBoxes, size: Size) -> Detections:
        return answer.final()

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[Any]:
        return list(onnx.read(outputs, sizes, self.section.decode, side))

    def record(self, truth: Boxes, prediction: Detections) -> Any:
        return measure.record(truth, prediction, self.labels)

    def figures(self, records: Sequence[Any]) -> Figures:
        return measure.figures(records, self.labels, self.section.reported)

    def resampler(self, records: Sequence[Any | None]) -> Callable[[NDArray[Any]], float]:
        return measure.resampler(records, self.labels, self.section.reported)

    def details(self, records: Sequence[Any]) -> list[Detail]:
        return measure.details(records, self.labels)

    def auditor(self) -> Auditor:
        from tutored.tasks.detection.audit import BoxAuditor

        return BoxAuditor(self)

    def draw(self, picture: Image.Image, shown: Boxes | Detections, zoom: float) -> Image.Image:
        return draw.draw(picture, shown, self.labels, zoom)

    def describe(self, prediction: Detections) -> list[dict[str, Any]]:
        return draw.describe(prediction, self.labels)
