"""A tutor's answer for one task, held against what a person drew for the other on the same image.

Boxes say where a class can't be, masks where an object can't be: knowledge that costs nothing where half of the labels
are there. That pixels outside all boxes are background is from Box-for-Mask (Lê et al. 2024, arXiv:2411.17536).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.structures import IGNORE, GroundTruth, SoftLabels


def map_by_boxes(soft: SoftLabels, truth: GroundTruth) -> SoftLabels:
    """The tutor's map without what drawn boxes contradict.

    Where no box of a class touches a cell, the class's probability teaches nothing. A cell that no box touches at all
    is background, with all of its weight. Difficult boxes and crowds count; classes that the data set does not annotate
    may be anywhere.
    """
    assert soft.map is not None
    assert truth.boxes_xyxy is not None
    assert truth.classes is not None
    classes, height, width = soft.map.shape
    possible = _unannotated(truth, classes)[:, None, None].repeat(1, height, width)
    cells = truth.boxes_xyxy * torch.tensor([width / truth.size[1], height / truth.size[0]]).repeat(2)
    for number, (left, top, right, bottom) in zip(
        truth.classes.tolist(), _outwards(cells, (height, width)).tolist(), strict=True
    ):
        possible[number, top:bottom, left:right] = True
    empty = ~possible.any(dim=0)
    possible[0] = True
    kept = soft.map * possible
    kept[0] = torch.where(empty, soft.map.sum(dim=0), kept[0])
    return replace(soft, map=kept)


def boxes_by_mask(soft: SoftLabels, truth: GroundTruth, most: float) -> SoftLabels:
    """The tutor's boxes, quiet where the drawn mask contradicts them.

    A box with no pixel of its class keeps a score of `most` at most, unless the mask says nothing (255) about most of
    the box, or the data set does not annotate the class. It is not left out, for VOC's masks lack difficult objects:
    anchors on it should be ignored instead of learning that nothing is there.
    """
    assert soft.boxes_xyxy is not None
    assert soft.classes is not None
    assert soft.probs is not None
    assert truth.mask is not None
    edges = _outwards(soft.boxes_xyxy, truth.size)
    sides = edges[:, 2:] - edges[:, :2]
    kept = _unannotated(truth, soft.probs.shape[1])[soft.classes]
    kept |= 2 * _count(truth.mask == IGNORE, edges) > sides.prod(dim=1)
    for number in sorted(set(soft.classes[~kept].tolist())):
        of_class = soft.classes == number
        kept[of_class] |= _count(truth.mask == number, edges[of_class]) > 0
    return replace(soft, probs=soft.quietened(~kept, most))


def unannotated_boxes(soft: SoftLabels, truth: GroundTruth) -> SoftLabels:
    """The tutor's boxes of classes that the data set does not annotate: of the others ground truth knows better.

    Left out before boxes on one object compete, they can't silence one of a class that only the tutor knows.
    """
    assert soft.boxes_xyxy is not None
    assert soft.classes is not None
    assert soft.probs is not None
    kept = _unannotated(truth, soft.probs.shape[1])[soft.classes]
    return replace(soft, boxes_xyxy=soft.boxes_xyxy[kept], classes=soft.classes[kept], probs=soft.probs[kept])


def _unannotated(truth: GroundTruth, classes: int) -> Tensor:
    """bool [classes]: object classes that may be anywhere, whatever was drawn."""
    marks = torch.zeros(classes, dtype=torch.bool)
    if truth.annotated is not None:
        marks[1:] = True
        marks[list(truth.annotated)] = False
    return marks


def _outwards(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 [K, 4]: the rows and columns of a grid that boxes touch, as half-open ranges within it."""
    near, far = boxes.clip(boxes_xyxy, size).chunk(2, dim=1)
    return torch.cat([near.floor(), far.ceil()], dim=1).long()


def _count(pixels: Tensor, edges: Tensor) -> Tensor:
    """int64 [K]: true pixels within each range, by summed areas."""
    sums = F.pad(pixels.long().cumsum(dim=0).cumsum(dim=1), (1, 0, 1, 0))
    left, top, right, bottom = edges.unbind(dim=1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
