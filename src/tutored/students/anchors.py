"""A detection head on default boxes: the anchors, which anchor learns which box, the loss, and final boxes.

Specification 1.5 (anchors), 2.1 (matching), 3.2 to 3.4 (losses) and 5.1 (decoding).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored import boxes
from tutored.config.students import AnchorSection
from tutored.losses import merge_unknown
from tutored.students.heads import PlacedHead, matched
from tutored.tasks.detection import BoxTargets, Detection


def level_scales(levels: int, scales: tuple[float, float, float]) -> list[tuple[float, float]]:
    """Each level's scale and that of its larger square, as shares of the image side, finest of 3 or more levels first.

    The finest level has its own scale; from there `low` grows in even steps and reaches `high` at the last level.
    """
    smallest, low, high = scales
    step = (high - low) / (levels - 2)
    sizes = [smallest, *(low + step * index for index in range(levels))]
    return [(size, math.sqrt(size * following)) for size, following in pairwise(sizes)]


def anchors(
    sides: Sequence[int], size: int, scales: tuple[float, float, float], ratios: Sequence[float] = (2.0, 3.0)
) -> Tensor:
    """All default boxes of a network whose maps are `sides[i] x sides[i]` cells, finest first. Returns float32 [A, 4],
    xyxy in pixels of the network's `size x size` input, not clipped. Order: level, row, column, then in the cell:
    square, wide and tall box of each ratio (width : height), larger square.
    """
    levels = []
    for side, (scale, larger) in zip(sides, level_scales(len(sides), scales), strict=True):
        shapes = [(scale, scale)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        shapes.append((larger, larger))
        half = torch.tensor(shapes, dtype=torch.float64) / 2
        centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        levels.append(torch.cat([cells - half, cells + half], dim=-1).reshape(-1, 4))
    return (torch.cat(levels) * size).float()


class Matches(NamedTuple):
    """For each anchor of each image what it must learn.

    Attributes:
        box: int64 [B, A], index of its box, or -1.
        ignored: bool [B, A], neither positive nor negative.
    """

    box: Tensor
    ignored: Tensor


def match(
    anchors_xyxy: Tensor, boxes_xyxy: Tensor, teaches: Tensor, *, floor: float = 0.5, forced_floor: float = 0.0
) -> Matches:
    """Give every anchor its box (SSD, section 2.2; specification 2.1).

    An anchor takes the teaching box that it overlaps most, if the IoU reaches `floor`; the lowest index wins a tie.
    Then every teaching box claims its best anchor whatever that anchor took before, so that no box is lost; an anchor
    claimed by several goes to the lowest index. Boxes that exist but do not teach (a tutor's uncertain ones,
    ground truth marked difficult) win no anchor; anchors that reach `floor` with one and took no box are ignored.

    Args:
        anchors_xyxy: float32 [A, 4], pixels of the network's input.
        boxes_xyxy: float32 [B, K, 4], the same frame; rows of no area are padding. K may be 0.
        teaches: bool [B, K].
        forced_floor: a claim needs an IoU above 0 and at least this.
    """
    batch, count = boxes_xyxy.shape[:2]
    if count == 0:
        nothing = torch.full((batch, len(anchors_xyxy)), -1, device=anchors_xyxy.device)
        return Matches(nothing, nothing >= 0)
    # Anchors come last, because there are many: all arithmetic runs along them.
    overlap = boxes.iou(boxes_xyxy, anchors_xyxy.T.contiguous().T)
    taught = overlap * teaches[:, :, None]
    best, box = taught.max(dim=1)
    box.masked_fill_(best < floor, -1)
    claim, anchor = taught.max(dim=2)
    rows = torch.arange(count, device=overlap.device).expand(batch, count)
    rows = rows.masked_fill(claim < forced_floor if forced_floor > 0 else claim <= 0, count)
    claimed = torch.full_like(box, count).scatter_reduce_(1, anchor, rows, "amin")
    box = torch.where(claimed < count, claimed, box)
    # An anchor without a box reaches the floor with no box that teaches.
    return Matches(box, (box < 0) & (overlap.amax(dim=1) >= floor))


class BoxOutputs(NamedTuple):
    """An anchor head's raw answer for a batch.

    Attributes:
        deltas: float32 [B, A, 4], encoded offsets (`boxes.encode`).
        logits: float32 [B, A, C+1], column 0 background.
    """

    deltas: Tensor
    logits: Tensor


class AnchorTargets(NamedTuple):
    """What the anchors of a batch learn from one source.

    Attributes:
        box: int64 [B, A], the row of `Targets` that each positive anchor learns; 0 elsewhere.
        positive: bool [B, A].
        negative: bool [B, A]; what is neither is ignored.
        weight: float32 [B, A], of a positive anchor's class and box loss, image weight included; 0 elsewhere.
        normaliser: float32 scalar, what both sums are to be divided by.
    """

    box: Tensor
    positive: Tensor
    negative: Tensor
    weight: Tensor
    normaliser: Tensor


class AnchorRows(nn.ModuleList):
    """From levels to [B, A, columns], a row for each anchor. `networks` lead from a level's features to [B, anchors of
    a cell x columns, h, w]: one a level, or one for all.
    """

    def __init__(self, networks: Iterable[nn.Module], columns: int) -> None:
        super().__init__(networks)
        self.columns = columns

    def forward(self, levels: list[Tensor]) -> Tensor:
        every = list(self) * (len(levels) // len(self))
        maps = [network(level).permute(0, 2, 3, 1) for network, level in zip(every, levels, strict=True)]
        return torch.cat([cells.reshape(cells.shape[0], -1, self.columns) for cells in maps], dim=1)


class AnchorHead(PlacedHead):
    """Boxes and classes on anchors.

    Args:
        deltas, logits: networks to [B, A, 4 or C+1].
        anchors_xyxy: float32 [A, 4], pixels of the network's input, in the order of levels, rows, columns, anchors.
    """

    by_class = ("logits.",)
    anchors_xyxy: Tensor

    def __init__(
        self, task: Detection, deltas: AnchorRows, logits: AnchorRows, anchors_xyxy: Tensor, keys: AnchorSection
    ) -> None:
        super().__init__(task, keys.size, self.class_sum, self.box_sum)
        self.deltas, self.logits, self.keys = deltas, logits, keys
        self.register_buffer("anchors_xyxy", anchors_xyxy, persistent=False)

    def forward(self, levels: Any) -> BoxOutputs:
        return BoxOutputs(self.deltas(levels), self.logits(levels))

    def assign(self, targets: BoxTargets, *, tutor: bool) -> AnchorTargets:
        section, keys, scores = self.task.section, self.keys, targets.scores
        teaches = scores >= section.box_floor
        if section.difficult == "ignore":
            teaches &= ~targets.difficult
        matches = match(
            self.anchors_xyxy, targets.boxes_xyxy, teaches, floor=keys.match_floor, forced_floor=keys.forced_floor
        )
        taught = (targets.weight > 0)[:, None]
        positive = (matches.box >= 0) & taught
        negative = ~(positive | matches.ignored) & taught
        box = matches.box.clamp(min=0)
        image_weight = targets.weight[:, None] * positive
        confidence = scores.gather(1, box) if section.confidence and scores.shape[1] else torch.ones_like(image_weight)
        weight = image_weight * confidence
        normaliser = weight.sum() if keys.normaliser == "weights" else image_weight.sum()
        return AnchorTargets(box, positive, negative, weight, normaliser)

    def class_sum(self, raw: BoxOutputs, targets: BoxTargets, anchors: AnchorTargets) -> Tensor:
        """Summed cross-entropy of positives and of mined negatives.

        Negatives have the image's weight. Of an image (or, with `mining: batch`, of the batch) the ones of largest
        loss count, `negatives` for each unit of positive weight (each positive, where confidences do not enter
        the normaliser). Specification 3.2 and 3.4.
        """
        log_probs = F.log_softmax(raw.logits.float(), dim=-1)
        log_probs = merge_unknown(log_probs, targets.unknown[:, None, :], dim=-1)
        return -(self._positive_sum(log_probs, targets, anchors) + self._negative_sum(log_probs, targets, anchors))

    def _positive_sum(self, log_probs: Tensor, targets: BoxTargets, anchors: AnchorTargets) -> Tensor:
        if targets.classes.shape[1] == 0:
            return log_probs.sum() * 0
        if self.task.section.class_target == "hard":
            classes = targets.classes.gather(1, anchors.box)
            likelihood = log_probs.gather(2, classes[..., None])[..., 0]
        else:
            wanted = targets.probs.gather(1, anchors.box[..., None].expand(-1, -1, log_probs.shape[-1]))
            likelihood = (wanted * log_probs).sum(dim=-1)
        return (anchors.weight * likelihood).sum()

    def _negative_sum(self, log_probs: Tensor, targets: BoxTargets, anchors: AnchorTargets) -> Tensor:
        keys, likelihood = self.keys, torch.where(anchors.negative, log_probs[..., 0], 0.0)
        if keys.mining == "image":
            image_weight = targets.weight.clamp(min=torch.finfo(likelihood.dtype).tiny)
            counted = anchors.weight.sum(1) / image_weight if keys.normaliser == "weights" else anchors.positive.sum(1)
            wanted = torch.where(
                anchors.positive.any(dim=1), (keys.negatives * counted).round().clamp(min=1), float(keys.min_negatives)
            )
            hardest = likelihood.sort(dim=1).values
            chosen = torch.arange(likelihood.shape[1], device=likelihood.device) < wanted[:, None]
            return (hardest * (chosen * targets.weight[:, None])).sum()
        positives = anchors.positive.sum()
        most = torch.minimum(keys.negatives * positives, likelihood.shape[1] - positives).clamp(min=0)
        hardest = (likelihood * targets.weight[:, None]).flatten().sort().values
        return (hardest * (torch.arange(len(hardest), device=likelihood.device) < most)).sum()

    def box_sum(self, raw: BoxOutputs, targets: BoxTargets, anchors: AnchorTargets) -> Tensor:
        """Summed smooth-L1 (knee at 1) of the positives' four encoded offsets, weighted. Specification 3.2."""
        deltas = raw.deltas.float()
        if targets.classes.shape[1] == 0:
            return deltas.sum() * 0
        wanted = boxes.encode(matched(targets, anchors, self.anchors_xyxy), self.anchors_xyxy)
        error = F.smooth_l1_loss(deltas, wanted, reduction="none")
        return (anchors.weight[..., None] * error).sum()

    def boxes_and_probs(self, raw: BoxOutputs) -> tuple[Tensor, Tensor]:
        return boxes.decode(raw.deltas.float(), self.anchors_xyxy), raw.logits.float().softmax(dim=-1)
