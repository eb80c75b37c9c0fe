"""Several answers about one image made one: by weighted box fusion and means; of views of one tutor, or of stores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from tutored.boxes import iou
from tutored.errors import InputError
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import Tutor
from tutored.types import SoftLabels

OVERLAP = 0.55
"""IoU from which two boxes of one class are the same object, as Solovyev et al. have it."""
LIMIT = 100
"""Boxes of one image that are kept, the best ones, unless the tutor has a limit of its own."""


def fuse(answers: Sequence[SoftLabels], weights: Sequence[float], *, limit: int, floor: float) -> SoftLabels:
    """One answer from several in one label space; each kind is the mean over the answers that have it.

    Boxes: weighted box fusion (Solovyev et al. 2021), in which an answer has one box an object: two boxes that an
    answer keeps apart stay apart. A class distribution is the mean of its boxes' distributions; an answer that did not
    find the object counts as background. Maps: the mean of probabilities on the finest of the grids; the others are
    read bilinearly. Instances: as boxes, each mask the mean of those that were found.

    Args:
        weights: one for each, positive.
        limit: boxes and instances to keep, the best.
        floor: weaker ones are dropped.
    """
    fused: list[Any] = []
    for kind in dict.fromkeys(kind for answer in answers for kind in answer.tasks):
        given, shares = zip(
            *((each.tasks[kind], share) for each, share in zip(answers, weights, strict=True) if kind in each.tasks),
            strict=True,
        )
        if isinstance(given[0], SoftMap):
            fused.append(replace(given[0], map=mean_map([each.map for each in given], shares)))
        else:
            join = _fuse_boxes if isinstance(given[0], SoftBoxes) else _fuse_instances
            fused.append(join(given, shares, limit, floor))
    return SoftLabels.of(answers[0].size, *fused)


def cluster(boxes_xyxy: Tensor, scores: Tensor, classes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Which boxes are one object, and where it is.

    By falling score, a box joins the object of its class, without a box of the same answer, that it overlaps most, from
    `OVERLAP` on, or begins one; an object's box is the mean of its boxes, weighted by their scores. Returns int64 [K],
    the object of each box, and float32 [N, 4].

    Args:
        boxes_xyxy: float32 [K, 4].
        scores: float32 [K], each times its answer's weight.
        classes: int64 [K].
        owners: int64 [K], the answer of each box.
    """
    boxes_xyxy, scores = boxes_xyxy.double(), scores.double()  # so that a box alone stays what it is
    order = scores.argsort(descending=True, stable=True).tolist()
    member = torch.zeros(len(scores), dtype=torch.int64)
    sums, mass, kinds = boxes_xyxy.new_zeros(len(scores), 4), scores.new_zeros(len(scores), 1), classes.clone()
    holds = torch.zeros(len(scores), int(owners.max()) + 1 if len(owners) else 0, dtype=torch.bool)
    count = 0
    for row in order:
        overlaps = iou(boxes_xyxy[row : row + 1], sums[:count] / mass[:count])[0]
        overlaps = overlaps.masked_fill((kinds[:count] != classes[row]) | holds[:count, owners[row]], 0)
        best = int(overlaps.argmax()) if count and float(overlaps.max()) > OVERLAP else count
        if best == count:
            kinds[count] = classes[row]
            count += 1
        member[row] = best
        holds[best, owners[row]] = True
        sums[best] += scores[row] * boxes_xyxy[row]
        mass[best] += scores[row]
    return member, (sums[:count] / mass[:count]).float()


def mean_map(maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of maps, float32 [C+1, h, w], on the finest of their grids."""
    grid = max((tuple(each.shape[1:]) for each in maps), key=lambda shape: shape[0] * shape[1])
    total = sum(weights)
    mean = maps[0].new_zeros(len(maps[0]), *grid)
    for each, weight in zip(maps, weights, strict=True):
        same = each if each.shape[1:] == grid else interpolate(each[None], grid, mode="bilinear")[0]
        mean += same * (weight / total)
    return mean


def _fuse_boxes(answers: Sequence[SoftBoxes], weights: Sequence[float], limit: int, floor: float) -> SoftBoxes:
    probs = torch.cat([each.probs for each in answers])
    member, fused, kinds, own = _objects(answers, weights)
    share = own / sum(weights)
    mean = probs.new_zeros(len(fused), probs.shape[1]).index_add_(0, member, probs * share[:, None])
    mean[:, 0] += 1 - share.new_zeros(len(fused)).index_add_(0, member, share)
    best = _best(mean.gather(1, kinds[:, None])[:, 0], limit, floor)
    # Shares may sum to more than one by a rounding.
    return SoftBoxes(boxes_xyxy=fused[best], classes=kinds[best], probs=mean[best].clamp(0, 1))


def _fuse_instances(answers: Sequence[Instances], weights: Sequence[float], limit: int, floor: float) -> Instances:
    boxes, scores, masks = (
        torch.cat([getattr(each, name) for each in answers]) for name in ("boxes_xyxy", "scores", "masks")
    )
    member, fused, kinds, own = _objects(answers, weights)
    mean = scores.new_zeros(len(fused)).index_add_(0, member, scores * (own / sum(weights)))
    found = scores.new_zeros(len(fused)).index_add_(0, member, own)
    moved = _in_frame(masks, boxes, fused[member]) * (own / found[member])[:, None, None]
    merged = masks.new_zeros(len(fused), *masks.shape[1:]).index_add_(0, member, moved)
    best = _best(mean, limit, floor)
    scores, masks = mean[best].clamp(max=1), merged[best].clamp(max=1)
    return Instances(boxes_xyxy=fused[best], classes=kinds[best], scores=scores, masks=masks)


def _objects(answers: Sequence[Any], weights: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each box's object [K], the objects' boxes [N, 4] and classes [N], and the weight of each box's answer [K]."""
    boxes, classes, scores = (
        torch.cat([getattr(each, name) for each in answers]) for name in ("boxes_xyxy", "classes", "scores")
    )
    owners = torch.arange(len(answers)).repeat_interleave(torch.tensor([len(each.scores) for each in answers]))
    own = torch.tensor([float(weight) for weight in weights])[owners]
    member, fused = cluster(boxes, scores * own, classes, owners)
    return member, fused, classes.new_zeros(len(fused)).index_copy_(0, member, classes), own


def _best(scores: Tensor, limit: int, floor: float) -> Tensor:
    order = scores.argsort(descending=True, stable=True)[:limit]
    return order[scores[order] > floor]


def _in_frame(masks: Tensor, boxes_xyxy: Tensor, frames_xyxy: Tensor) -> Tensor:
    """Masks [K, m, m], each stretched over its box, read at the centres of a grid over its frame; zero outside."""
    side = masks.shape[-1]
    centres = (torch.arange(side) + 0.5) / side
    corner, size = frames_xyxy[:, :2], frames_xyxy[:, 2:] - frames_xyxy[:, :2]
    places = corner[:, None] + size[:, None] * centres[None, :, None]
    inside = 2 * (places - boxes_xyxy[:, None, :2]) / (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])[:, None] - 1
    across, down = inside[:, None, :, 0], inside[:, :, None, 1]
    shape = (len(masks), side, side)
    grid = torch.stack([across.expand(shape), down.expand(shape)], dim=-1)
    return grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


# --- Test-time augmentation


class Augmented:
    """A tutor whose answers are the mean over views of each image, see `fuse`.

    One whose network takes pictures of several sizes has `at_scale(scale)`: the same tutor, whose network sees every
    picture `scale` times as large as it would. It raises InputError where the network takes one size only.
    """

    def __init__(self, tutor: Tutor, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> None:
        """Make the views: every scale, and with `flip` each also mirrored left to right. Raises InputError: scales that
        are not positive, finite and different, or a network that takes one size only.
        """
        if not scales or not all(0 < scale < math.inf for scale in scales) or len(set(scales)) < len(scales):
            raise InputError(f"scales {list(scales)}: give different positive numbers, such as 0.75, 1, 1.25")
        self.labels, self.notes, at_scale = tutor.labels, tutor.notes, getattr(tutor, "at_scale", None)
        if at_scale is None and {*scales} != {1.0}:
            name = tutor.identity["tutor"]
            raise InputError(f"scales: the network of {name} takes pictures of one size only; leave scales out")
        self._tutors = [tutor if scale == 1 or at_scale is None else at_scale(scale) for scale in scales]
        self._flips = (False, True) if flip else (False,)
        # A student's limit is its `decode.total`.
        self._limit = int(tutor.identity.get("max_boxes") or tutor.identity.get("total") or LIMIT)
        self._floor = float(tutor.identity.get("score_floor") or 0)
        self.identity: Mapping[str, Any] = {**tutor.identity, "flip": flip, "scales": [*map(float, scales)]}

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        views: list[list[SoftLabels]] = []
        for flipped in self._flips:
            seen = [ImageOps.mirror(image) for image in images] if flipped else images
            for tutor in self._tutors:
                answers = tutor(seen, image_ids)
                views.append([mirrored(answer) for answer in answers] if flipped else answers)
        weights = [1.0] * len(views)
        return [fuse(answers, weights, limit=self._limit, floor=self._floor) for answers in zip(*views, strict=True)]


def mirrored(answer: SoftLabels) -> SoftLabels:
    """The answer for the image mirrored left to right, without boxes so thin that rounding leaves them no width."""
    return SoftLabels.of(answer.size, *(_mirror(each, answer.size[1]) for each in answer.tasks.values()))


def _mirror(answer: Any, width: int) -> Any:
    """A soft answer for an image `width` pixels wide, mirrored."""
    if isinstance(answer, SoftMap):
        return replace(answer, map=answer.map.flip(-1))
    x1, y1, x2, y2 = answer.boxes_xyxy.unbind(1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    kept = boxes[:, 0] < boxes[:, 2]
    same = answer.chosen(kept)
    masks = {} if isinstance(answer, SoftBoxes) else {"masks": same.masks.flip(-1)}
    return replace(same, boxes_xyxy=boxes[kept], **masks)
