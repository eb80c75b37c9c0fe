"""What boxes teach: ground truth and tutor in one form, completed by and vetted against each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config.tasks import DetectionSection
from tutored.geometry import Geometry
from tutored.tasks.detection.types import Boxes, SoftBoxes
from tutored.tasks.task import marked, unannotated
from tutored.types import IGNORE


class BoxRow(NamedTuple):
    """One image's `BoxTargets` without weight, not padded; `unknown` is bool [C+1]."""

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    unknown: Tensor


def teach(truth: Boxes | None, geometry: Geometry, space: int) -> BoxRow:
    """Ground truth as certain soft labels: one-hot class distributions.

    Args:
        space: size of the label space, background included.
    """
    if truth is None:
        return _nothing(space, marked((), space))
    moved, kept = geometry.boxes(truth.boxes_xyxy)
    numbers = truth.classes[kept]
    one_hot = F.one_hot(numbers, space).float()
    return BoxRow(moved[kept], numbers, one_hot, truth.difficult[kept], unannotated(truth.annotated, space))


def teach_soft(answer: SoftBoxes | None, geometry: Geometry, space: int, section: DetectionSection) -> BoxRow:
    """A tutor's boxes under the same geometry; of those that contradict each other the best-scored."""
    if answer is None:
        return _nothing(space, marked((), space))
    chosen = teachable(answer, section)
    moved, kept = geometry.boxes(answer.boxes_xyxy[chosen])
    chosen = chosen[kept]
    difficult = torch.zeros(len(chosen), dtype=torch.bool)
    return BoxRow(moved[kept], answer.classes[chosen], answer.probs[chosen], difficult, marked(answer.unknown, space))


def _nothing(space: int, unknown: Tensor) -> BoxRow:
    none = torch.zeros(0, dtype=torch.int64)
    return BoxRow(torch.zeros(0, 4), none, torch.zeros(0, space), none.bool(), unknown)


def teachable(answer: SoftBoxes, section: DetectionSection) -> Tensor:
    """int64 indices of the tutor's boxes that have a say.

    Boxes under the ignore floor have none. With `conflicts: score`, of boxes on one object, whatever their classes,
    only the best-scored has one, and the result is by falling score: a tutor that keeps a horse also as a cow would
    otherwise teach both (specification 7.1, 6).
    """
    scores = answer.scores
    chosen = (scores >= min(section.ignore_floor, section.box_floor)).nonzero()[:, 0]
    if section.conflicts == "keep":
        return chosen
    chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
    return chosen[boxes.nms(answer.boxes_xyxy[chosen], scores[chosen], None, section.conflict_iou)]


def complete(truth: BoxRow, tutor: BoxRow, conflict_iou: float) -> BoxRow:
    """The drawn boxes and, of classes that were not annotated, the tutor's, unless they lie on a drawn one."""
    chosen = apart(truth, tutor, conflict_iou)
    both = zip(truth[:4], tutor[:4], strict=True)
    boxes_xyxy, classes, probs, difficult = (torch.cat([mine, theirs[chosen]]) for mine, theirs in both)
    return BoxRow(boxes_xyxy, classes, probs, difficult, truth.unknown & tutor.unknown)


def apart(truth: BoxRow, tutor: BoxRow, conflict_iou: float) -> Tensor:
    """bool [K]: the tutor's boxes that lie on no drawn one."""
    return boxes.iou(tutor.boxes_xyxy, F.pad(truth.boxes_xyxy, (0, 0, 0, 1))).amax(dim=1) <= conflict_iou


def vet_by_mask(
    answer: SoftBoxes, mask: Tensor, to: Tensor, annotated: tuple[int, ...] | None, most: float
) -> SoftBoxes:
    """The tutor's boxes, with low scores where a drawn mask contradicts them.

    A box without a pixel of its class keeps a score of `most` at most, unless the mask says nothing (255) about most of
    the box, or does not annotate the class. It is not left out, for VOC's masks lack difficult objects: what lies on it
    should be ignored instead of learning that nothing is there.

    Args:
        mask: uint8 [H, W], in the label space of a segmentation task.
        to: int64 [C+1], the class there of each class here; 0 where it has none, which can't be contradicted.
        annotated: the classes of the mask's label space that it annotates; None means every class.
    """
    size = (mask.shape[0], mask.shape[1])
    edges = outwards(answer.boxes_xyxy, size)
    sides = edges[:, 2:] - edges[:, :2]
    there = to[answer.classes]
    known = there > 0
    if annotated is not None:
        known &= torch.isin(there, torch.tensor(annotated, dtype=torch.int64))
    kept = ~known | (2 * _count(mask == IGNORE, edges) > sides.prod(dim=1))
    for number in sorted(set(there[~kept].tolist())):
        of_class = there == number
        kept[of_class] |= _count(mask == number, edges[of_class]) > 0
    return answer.limited(~kept, most)


def outwards(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 [K, 4]: the rows and columns of a grid that boxes touch, as half-open ranges within it."""
    near, far = boxes.clip(boxes_xyxy, size).chunk(2, dim=1)
    return torch.cat([near.floor(), far.ceil()], dim=1).long()


def _count(pixels: Tensor, edges: Tensor) -> Tensor:
    """int64 [K]: true pixels within each range, by summed areas."""
    sums = F.pad(pixels.long().cumsum(dim=0).cumsum(dim=1), (1, 0, 1, 0))
    left, top, right, bottom = edges.unbind(dim=1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
