"""Object detection: boxes with classes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tutored.config.tasks import DetectionSection
from tutored.geometry import Geometry
from tutored.labels import LabelSpace, same_class
from tutored.pictures import PAPER, Colour, colour_of, draw_tag, font_for, shown_name, tag_size
from tutored.tasks.audit import Auditor
from tutored.tasks.detection import decode, measure, types
from tutored.tasks.detection.types import Boxes, BoxRow, BoxTargets, Detections, SoftBoxes
from tutored.tasks.task import Detail, Figures, Task, marked, stack_unknown
from tutored.tasks.task import unannotated as left_out
from tutored.types import Size

__all__ = ["BoxTargets", "Boxes", "Detection", "DetectionSection", "Detections", "SoftBoxes"]

Box = tuple[float, float, float, float]


def _draw_frame(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, size: tuple[int, int]) -> None:
    """A frame in the class' colour between two thin pale ones, so that it shows on dark and light ground alike."""
    width = max(2, round(max(size) / 180))
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    x2, y2 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    if x2 - x1 < 2 * width or y2 - y1 < 2 * width:
        width = 1
    pen.rectangle((x1 - 1, y1 - 1, max(x1, x2) + 1, max(y1, y2) + 1), outline=PAPER, width=width + 2)
    pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)


def _free_place(box: Box, tag: tuple[float, float], size: tuple[int, int], taken: list[Box]) -> Box:
    """Where a box's tag goes: over, in or under the box, at the first place without another tag; else over it."""
    width, height = tag
    places = []
    for y in (box[1] - height, box[1], box[3] - height, box[3]):
        for x in (box[0], box[2] - width):
            left = min(max(x, 0), max(size[0] - width, 0))
            upper = min(max(y, 0), max(size[1] - height, 0))
            places.append((left, upper, left + width, upper + height))

    def is_free(a: Box) -> bool:
        return not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)

    return next(filter(is_free, places), places[0])


class Detection(Task):
    """Boxes; the head that learns them is each student's own."""

    kind: ClassVar[str] = "detection"
    Section: ClassVar[type[DetectionSection]] = DetectionSection
    answers: ClassVar[tuple[type, ...]] = (SoftBoxes,)
    headline: ClassVar[tuple[str, str]] = ("mAP_voc_area@.5", "mAP")
    section: DetectionSection

    def teach(self, truth: Boxes | None, size: Size, geometry: Geometry, grid: int) -> BoxRow:
        """Ground truth as certain soft labels: one-hot class distributions."""
        space = len(self.labels)
        if truth is None:
            return types.nothing(space)
        moved, kept = geometry.boxes(truth.boxes_xyxy)
        one_hot = F.one_hot(truth.classes[kept], space).float()
        unknown = left_out(truth.annotated, space)
        return BoxRow(moved[kept], truth.classes[kept], one_hot, truth.difficult[kept], unknown)

    def teach_soft(self, answer: SoftBoxes | None, size: Size, geometry: Geometry, grid: int) -> BoxRow:
        """Of boxes that contradict each other the best-scored."""
        if answer is None:
            return types.nothing(len(self.labels))
        found = answer.chosen(types.teachable(answer, self.section))
        moved, kept = geometry.boxes(found.boxes_xyxy)
        found, unknown = found.chosen(kept), marked(answer.unknown, len(self.labels))
        return BoxRow(moved[kept], found.classes, found.probs, torch.zeros_like(found.classes).bool(), unknown)

    def complete(self, truth: BoxRow, tutor: BoxRow) -> BoxRow:
        """The drawn boxes and, of classes that were not annotated, the tutor's, unless they lie on a drawn one."""
        chosen = types.apart(truth, tutor, self.section.conflict_iou)
        both = zip(truth[:4], tutor[:4], strict=True)
        boxes_xyxy, classes, probs, difficult = (torch.cat([mine, theirs[chosen]]) for mine, theirs in both)
        return BoxRow(boxes_xyxy, classes, probs, difficult, truth.unknown & tutor.unknown)

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
        return types.vet_by_mask(answer, other.mask, to, other.annotated, self.section.silent_score)

    def mute(self, answer: SoftBoxes, classes: Sequence[int]) -> SoftBoxes:
        return answer.muted(classes, self.section.silent_score)

    @classmethod
    def final(cls, answer: SoftBoxes, size: Size) -> Detections:
        return answer.final()

    def from_file(self, outputs: Mapping[str, Tensor], sizes: Sequence[Size], side: int) -> list[Any]:
        return list(decode.read(outputs, sizes, self.section.decode, side))

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
        """Boxes with name tags in their classes' colours, drawn onto the picture; the best one lies on top."""
        numbers = shown.classes.tolist()
        texts = [shown_name(self.labels.names[number], number) for number in numbers]
        best_first = list(range(len(numbers)))
        if isinstance(shown, Detections):
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, shown.scores.tolist(), strict=True)]
            best_first = shown.scores.argsort(descending=True, stable=True).tolist()
        else:
            texts = [text + " (difficult)" * hard for text, hard in zip(texts, shown.difficult.tolist(), strict=True)]
        boxes = (shown.boxes_xyxy * zoom).tolist()
        pen, font = ImageDraw.Draw(picture), font_for(max(picture.size))
        for index in reversed(best_first):
            _draw_frame(pen, boxes[index], colour_of(numbers[index]), picture.size)
        taken: list[Box] = []
        for index in best_first:
            taken.append(_free_place(boxes[index], tag_size(texts[index], font), picture.size, taken))
        for index, place in reversed(list(zip(best_first, taken, strict=True))):
            draw_tag(pen, place[:2], texts[index], colour_of(numbers[index]), font)
        return picture

    def describe(self, prediction: Detections) -> list[dict[str, Any]]:
        """An entry for each box, as they are sorted: `category_id` (1..C), `category`, `bbox`, `score`.

        `bbox` is (x, y, width, height) in the image's pixels, as in COCO results.
        """
        parts = (each.tolist() for each in (prediction.boxes_xyxy, prediction.classes, prediction.scores))
        return [
            {
                "category_id": number,
                "category": self.labels.names[number],
                "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 5),
            }
            for (x1, y1, x2, y2), number, score in zip(*parts, strict=True)
        ]
