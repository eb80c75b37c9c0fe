"""Compact: an anchor-free student on any timm trunk, for boxes and any number of maps.

A feature pyramid with one way down and one way up (PAN, Liu et al. 2018), of depthwise-separable convolutions; a box
head that all levels share except for its batch norms (with common norms, each level is normalised by its own statistics
in training and by a mixture in evaluation); maps from all levels together. Letters in shapes as in `types`; P points.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored import boxes
from tutored.config.students import CompactSection
from tutored.students.backbone import Backbone, SharedConvolution
from tutored.students.heads import PlacedHead, Student, matched
from tutored.tasks import Task
from tutored.tasks.detection import BoxTargets, Detection

ANCHOR = 8
"""Side of the square, in strides, that stands for a point when boxes are assigned (ATSS, section 3.2)."""


class Compact(Student):
    """Images to raw outputs by task: `PointOutputs` for detection, maps [B, channels, h, w] for dense tasks. Raises
    InputError: a task of a kind that it has no head for; see also `Backbone`.
    """

    Section: ClassVar[type[CompactSection]] = CompactSection
    config: CompactSection

    def __init__(self, config: CompactSection, tasks: Mapping[str, Task]) -> None:
        super().__init__(config, tasks)
        self.backbone = Backbone(config, config.map_stride)
        fine = self.backbone.channels[:-3]
        self.pyramid = Pyramid(self.backbone.channels[-3:], config.width, config.kernel)
        sides = self.backbone.sides[-3:]
        self.sides = (*sides, -(-sides[-1] // 2))
        levels = len(self.sides)
        self.add_heads(
            lambda task: PointHead(task, self.sides, config),
            lambda columns: LevelBranch(config, levels, columns),
            lambda channels: MapBranch(fine, config, levels, channels),
            config.prototypes,
            self.backbone.sides[0],
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Any]:
        maps = self.backbone(self.checked(images))
        levels = self.pyramid(maps[-3:])
        features = Features(levels, maps[:-3])
        return {name: head(features) for name, head in self.heads.items()}


class Features(NamedTuple):
    """What heads see: maps [B, width, side, side] of the pyramid, finest first, and the trunk's finer ones."""

    levels: list[Tensor]
    fine: list[Tensor]


def separable(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A depthwise and a pointwise convolution, then norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(inplace=True),
    )


class Pyramid(nn.Module):
    """Maps of three strides to four levels of one width, each informed by all others."""

    def __init__(self, channels: Sequence[int], width: int, kernel: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU(inplace=True))
            for each in channels
        )
        self.coarsest = separable(width, width, kernel, stride=2)
        self.down = nn.ModuleList(separable(2 * width, width, kernel) for _ in range(len(channels)))
        self.halve = nn.ModuleList(separable(width, width, kernel, stride=2) for _ in range(len(channels)))
        self.up = nn.ModuleList(separable(2 * width, width, kernel) for _ in range(len(channels)))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [reduce(each) for reduce, each in zip(self.reduce, maps, strict=True)]
        levels.append(self.coarsest(levels[-1]))
        for index in reversed(range(len(self.down))):
            coarse = F.interpolate(levels[index + 1], size=levels[index].shape[-2:], mode="nearest")
            levels[index] = self.down[index](torch.cat([levels[index], coarse], dim=1))
        for index in range(len(self.up)):
            fine = self.halve[index](levels[index])
            levels[index + 1] = self.up[index](torch.cat([fine, levels[index + 1]], dim=1))
        return levels


class LevelNorms(SharedConvolution):
    """A convolution that all levels share, and a norm and SiLU of each level's own."""

    def __init__(self, width: int, kernel: int, levels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(levels))

    def forward(self, level: Tensor, index: int) -> Tensor:
        return F.silu(self.norms[index](self.mix(self.spatial(level))))


class LevelBranch(nn.Module):
    """`config.depth` convolutions that all levels share, and a last one: levels to [B, P, columns]."""

    def __init__(self, config: CompactSection, levels: int, columns: int) -> None:
        super().__init__()
        self.spatial = nn.ModuleList(LevelNorms(config.width, config.kernel, levels) for _ in range(config.depth))
        self.last = nn.Conv2d(config.width, columns, 1)

    def forward(self, features: Features) -> Tensor:
        found = []
        for index, level in enumerate(features.levels):
            for convolution in self.spatial:
                level = convolution(level, index)
            found.append(self.last(level).permute(0, 2, 3, 1).flatten(1, 2))
        return torch.cat(found, dim=1)


class PointOutputs(NamedTuple):
    """A point head's raw answer for a batch.

    Attributes:
        distances: float32 [B, P, 4], to the left, upper, right and lower side, in pixels of the input.
        logits: float32 [B, P, C], of each object class by itself (sigmoid).
    """

    distances: Tensor
    logits: Tensor


class PointTargets(NamedTuple):
    """What the points of a batch learn from one source.

    Attributes:
        box: int64 [B, P], the row of `BoxTargets` that each positive point learns; 0 elsewhere.
        positive: bool [B, P].
        weight: float32 [B, P], of a positive point's terms, image weight and tutor's score included; 0 elsewhere.
        counts: float32 [B, P, 1 or C], of the class term: 0 where points are ignored or a class is unknown.
        normaliser: float32 scalar, the summed weights of the positives.
    """

    box: Tensor
    positive: Tensor
    weight: Tensor
    counts: Tensor
    normaliser: Tensor


class PointHead(PlacedHead):
    """Boxes and classes at the centre of every cell of every level; scores say also how well the box fits.

    The class target of a positive point is the source's, times the overlap of the point's own box with the one it
    learns (quality focal loss' target; Li et al. 2020). Which points are positive, and what sums are divided by,
    depends on targets alone.

    Attributes:
        points_xyxy: float32 [P, 4], a square of `ANCHOR` strides around each point, pixels of the input.
        strides: float32 [P].
    """

    by_class = ("logits.last.",)
    points_xyxy: Tensor
    strides: Tensor

    def __init__(self, task: Detection, sides: Sequence[int], config: CompactSection) -> None:
        super().__init__(task, config.size, self.class_sum, self.box_sum)
        self.config = config
        classes, levels = len(task.labels.classes), len(sides)
        self.logits, self.distances = (LevelBranch(config, levels, columns) for columns in (classes, 4))
        nn.init.normal_(self.logits.last.weight, std=0.01)
        assert self.logits.last.bias is not None
        nn.init.constant_(self.logits.last.bias, -4.6)  # a probability of .01
        self.cells = tuple(side * side for side in sides)
        squares, strides = points(sides, config.size)
        self.register_buffer("points_xyxy", squares, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, features: Features) -> PointOutputs:
        distances = F.softplus(self.distances(features).float()) * self.strides[:, None]
        return PointOutputs(distances, self.logits(features))

    def boxes(self, raw: PointOutputs) -> Tensor:
        """float32 [B, P, 4], pixels of the network's input, not clipped."""
        centre = (self.points_xyxy[:, :2] + self.points_xyxy[:, 2:]) / 2
        return torch.cat([centre - raw.distances[..., :2], centre + raw.distances[..., 2:]], dim=-1)

    def assign(self, targets: BoxTargets, *, tutor: bool) -> PointTargets:
        section, scores = self.task.section, targets.scores
        solid = boxes.area(targets.boxes_xyxy) > 0
        teaches = solid & (scores >= section.box_floor)
        if section.difficult == "ignore":
            teaches &= ~targets.difficult
        box = assign_points(self.points_xyxy, self.cells, targets.boxes_xyxy, teaches, self.config.points)
        taught = (targets.weight > 0)[:, None]
        positive = (box >= 0) & taught
        box = box.clamp(min=0)
        weight = targets.weight[:, None] * positive
        if section.confidence and scores.shape[1]:
            weight = weight * scores.gather(1, box)
        silent = _inside(self.points_xyxy, targets.boxes_xyxy, solid & ~teaches) & ~positive
        counts = (targets.weight[:, None] * ~silent)[..., None]
        counts = torch.where(positive[..., None], weight[..., None], counts)
        if targets.unknown.shape[1]:
            counts = counts * ~targets.unknown[:, None, 1:]
        return PointTargets(box, positive, weight, counts, weight.sum())

    def class_sum(self, raw: PointOutputs, targets: BoxTargets, learned: PointTargets) -> Tensor:
        """Summed binary cross-entropy of all points and classes, weighted."""
        logits = raw.logits.float()
        wanted = torch.zeros_like(logits)
        if targets.classes.shape[1]:
            quality = _overlap(self.boxes(raw).detach(), matched(targets, learned, self.points_xyxy)) * learned.positive
            if self.task.section.class_target == "hard":
                classes = (targets.classes.gather(1, learned.box) - 1).clamp(min=0)
                wanted = wanted.scatter(2, classes[..., None], quality[..., None])
            else:
                probs = targets.probs[..., 1:].gather(1, learned.box[..., None].expand_as(logits))
                wanted = probs * quality[..., None]
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (losses * learned.counts).sum()

    def box_sum(self, raw: PointOutputs, targets: BoxTargets, learned: PointTargets) -> Tensor:
        """Summed complete-IoU loss of the positives (Zheng et al. 2020), weighted."""
        if not targets.classes.shape[1]:
            return raw.distances.sum() * 0
        losses = _complete_iou_loss(self.boxes(raw), matched(targets, learned, self.points_xyxy))
        return self.config.box_weight * (losses * learned.weight).sum()

    def boxes_and_probs(self, raw: PointOutputs) -> tuple[Tensor, Tensor]:
        scores = raw.logits.float().sigmoid()
        nothing = (1 - scores.sum(dim=-1, keepdim=True)).clamp(min=0)
        return self.boxes(raw), torch.cat([nothing, scores], dim=-1)


def points(sides: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """A square of `ANCHOR` strides around the centre of every cell, float32 [P, 4], and each point's stride [P], of
    levels with so many cells along one side, finest first, over an input of `size` pixels.
    """
    squares, strides = [], []
    for side in sides:
        stride = size / side
        centre = (torch.arange(side, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        centres = torch.stack([x, y], dim=-1).reshape(-1, 2)
        squares.append(torch.cat([centres - ANCHOR * stride / 2, centres + ANCHOR * stride / 2], dim=1))
        strides.append(torch.full((side * side,), stride))
    return torch.cat(squares), torch.cat(strides)


def assign_points(points_xyxy: Tensor, cells: Sequence[int], boxes_xyxy: Tensor, teaches: Tensor, count: int) -> Tensor:
    """Give every point its box, or -1 (adaptive training sample selection; Zhang et al. 2020, algorithm 1).

    A box considers the `count` points of each level whose centres are nearest to its own, and takes those whose squares
    overlap it by the mean plus one standard deviation of these overlaps at least, if they lie inside it; of two boxes a
    point goes to the one it overlaps more. A box that would take no point takes the one it overlaps most. Returns int64
    [B, P].

    Args:
        points_xyxy: float32 [P, 4], the squares of points, level by level.
        cells: points of each level.
        boxes_xyxy: float32 [B, K, 4], pixels of the input. K may be 0.
        teaches: bool [B, K].
    """
    batch, rows = boxes_xyxy.shape[:2]
    if rows == 0:
        return torch.full((batch, len(points_xyxy)), -1, device=points_xyxy.device)
    centre = (points_xyxy[:, :2] + points_xyxy[:, 2:]) / 2
    middle = (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2
    distance = torch.cdist(middle, centre.expand(batch, -1, -1))
    overlap = boxes.iou(boxes_xyxy, points_xyxy.expand(batch, -1, -1))
    considered, first = torch.zeros_like(overlap, dtype=torch.bool), 0
    for number in cells:
        nearest = distance[..., first : first + number].topk(min(count, number), largest=False).indices + first
        considered.scatter_(2, nearest, True)
        first += number
    among = torch.where(considered, overlap, 0.0)
    number_of = considered.sum(-1, keepdim=True)
    mean = among.sum(-1, keepdim=True) / number_of
    spread = ((overlap - mean).square() * considered).sum(-1, keepdim=True) / (number_of - 1).clamp(min=1)
    taken = considered & (overlap >= mean + spread.sqrt()) & _contains(centre, boxes_xyxy)
    best = torch.where(considered, overlap, -1.0).argmax(-1, keepdim=True)
    lost = ~taken.any(-1, keepdim=True)
    taken = taken.scatter(2, best, taken.gather(2, best) | lost) & teaches[..., None]
    # A box that has no other point comes before one that has.
    value, box = torch.where(taken, overlap + 2.0 * lost, -1.0).max(dim=1)
    return torch.where(value >= 0, box, -1)


def _contains(centre: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """bool [B, K, P]: whether boxes contain points [P, 2]."""
    x, y = centre.unbind(-1)
    left, top, right, bottom = (side[..., None] for side in boxes_xyxy.unbind(-1))
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def _inside(points_xyxy: Tensor, boxes_xyxy: Tensor, which: Tensor) -> Tensor:
    """bool [B, P]: points in any of the boxes `which` (bool [B, K])."""
    centre = (points_xyxy[:, :2] + points_xyxy[:, 2:]) / 2
    return (_contains(centre, boxes_xyxy) & which[..., None]).any(dim=1)


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes row by row, [..., 4] to [...]."""
    sides = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    shared = sides.prod(-1)
    return shared / (boxes.area(one) + boxes.area(other) - shared).clamp(min=1e-6)


def _complete_iou_loss(one: Tensor, other: Tensor) -> Tensor:
    """1 - IoU, plus the distance of the centres and the difference of aspects (CIoU), row by row, [..., 4] to [...]."""
    overlap = _overlap(one, other)
    hull = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    apart = ((one[..., :2] + one[..., 2:]) - (other[..., :2] + other[..., 2:])).square().sum(-1) / 4
    (w, h), (v, u) = ((each[..., 2:] - each[..., :2]).clamp(min=1e-3).unbind(-1) for each in (one, other))
    aspect = (4 / torch.pi**2) * (torch.atan(v / u) - torch.atan(w / h)).square()
    with torch.no_grad():
        balance = aspect / (1 - overlap + aspect).clamp(min=1e-6)
    return 1 - overlap + apart / hull.square().sum(-1).clamp(min=1e-6) + balance * aspect


class MapBranch(nn.Module):
    """A map from all levels, at the stride of the finest of them or of the trunk's finer maps.

    Levels are enlarged smoothly, and two convolutions 5 cells wide see beyond what one coarse cell became.
    """

    def __init__(self, fine: Sequence[int], config: CompactSection, levels: int, channels: int) -> None:
        super().__init__()
        width = config.map_width
        self.reduce = nn.ModuleList(nn.Conv2d(config.width, width, 1) for _ in range(levels))
        self.finer = nn.ModuleList(nn.Conv2d(each, width, 1) for each in fine)
        joined = width * (levels + len(fine))
        self.spatial = nn.Sequential(separable(joined, 2 * width, 5), separable(2 * width, 2 * width, 5))
        self.logits = nn.Conv2d(2 * width, channels, 1)

    def forward(self, features: Features) -> Tensor:
        maps = [reduce(level) for reduce, level in zip(self.reduce, features.levels, strict=True)]
        maps += [reduce(each) for reduce, each in zip(self.finer, features.fine, strict=True)]
        side = max(each.shape[-1] for each in maps)
        logits: Tensor = self.logits(self.spatial(torch.cat([_enlarged(each, side) for each in maps], dim=1)))
        return logits


def _enlarged(level: Tensor, side: int) -> Tensor:
    if level.shape[-1] == side:
        return level
    large = F.interpolate(level, (side, side), mode="bilinear")
    if large.requires_grad and large.is_cpu and not torch.compiler.is_compiling():
        # The gradient of a part of what is joined lies apart in memory, of which the kernel takes ten times as long.
        large.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
    return large
