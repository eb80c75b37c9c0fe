"""What maps teach: ground truth and tutor in one form, completed by and vetted against each other, and the map term."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import grid_sample

from tutored.boxes import clip
from tutored.config.tasks import SegmentationSection
from tutored.geometry import Geometry
from tutored.losses import merge_unknown
from tutored.tasks.instances.types import Instances
from tutored.tasks.segmentation.types import ClassMask, MapTargets, SoftMap
from tutored.tasks.task import Size, marked, unannotated
from tutored.types import IGNORE

Rule = Literal["noisy_or", "one", "complement", "zero"]


def rasterize(instances: Instances, size: Size, classes: int, grid: tuple[int, int], rule: Rule) -> Tensor:
    """A map of instances; their confidence is the score, times the soft mask ("noisy_or") or where it is above .5.

    Args:
        size: (height, width) of the image in pixels.
        classes: C + 1, the names of the label space.
        grid: (h, w); masks are read at the centres of cells, bilinearly, zero outside their boxes.
        rule: see `combine`.

    Returns:
        float32 [classes, h, w], see `combine`.
    """
    masks = _paste(instances, size, grid)
    shape = masks if rule == "noisy_or" else (masks > 0.5).float()
    return combine(instances.scores[:, None, None] * shape, instances.classes, classes, rule)


def combine(confidences: Tensor, index: Tensor, classes: int, rule: Rule) -> Tensor:
    """Several confidences for each class and cell into one, and a background, by a rule of `section.background`.

    Args:
        confidences: float32 [N, h, w], 0..1: v_i.
        index: int64 [N], 1..C, the class of each.
        classes: C + 1, the names of the label space.
        rule: "noisy_or": p_c = 1 - prod(1 - v_i) over the i of class c and p_0 = prod(1 - v_i) over all, divided by
            their sum. The others are the thesis' (specification 3.5, 8.2): v_c = the greatest v_i of class c, and
            v_0 = 1 where all are zero ("one"), 1 - max v_c ("complement") or 0 ("zero").

    Returns:
        float32 [classes, h, w]. Probabilities for "noisy_or"; detection confidences, which sum to
        anything, for the others.
    """
    places, grid = index[:, None, None].expand_as(confidences), confidences.shape[1:]
    if rule == "noisy_or":
        absent = torch.ones(classes, *grid).scatter_reduce(0, places, 1 - confidences, "prod")
        probs = torch.cat([absent.prod(0, keepdim=True), 1 - absent[1:]])
        return probs / probs.sum(0)
    drawn = torch.zeros(classes, *grid).scatter_reduce(0, places, confidences, "amax")
    if rule == "one":
        drawn[0] = drawn.amax(0) == 0
    elif rule == "complement":
        drawn[0] = 1 - drawn.amax(0)
    return drawn


def _paste(instances: Instances, size: Size, grid: tuple[int, int]) -> Tensor:
    """Every mask read at the grid's cell centres, [N, h, w]."""
    if len(instances.scores) == 0:
        return torch.zeros(0, *grid)
    y, x = ((torch.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(grid, size, strict=True))
    x1, y1, x2, y2 = instances.boxes_xyxy[:, :, None].unbind(1)
    across, down = 2 * (x - x1) / (x2 - x1) - 1, 2 * (y - y1) / (y2 - y1) - 1
    shape = (len(across), *grid)
    places = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return grid_sample(instances.masks[:, None], places, align_corners=False)[:, 0]


class MapRow(NamedTuple):
    """One image's `MapTargets` without weight; `unknown` is bool [C+1]."""

    map: Tensor
    inside: Tensor
    unknown: Tensor


def teach(truth: ClassMask | None, size: tuple[int, int], geometry: Geometry, space: int, grid: int) -> MapRow:
    """Ground truth as certain soft labels: a one-hot map, void and padding silent.

    Args:
        space: size of the label space, background included.
    """
    one_hot = torch.zeros(space, grid, grid)
    if truth is not None:
        mask = geometry.nearest(truth.mask, grid, outside=IGNORE).long()
        drawn = mask != IGNORE
        one_hot.scatter_(0, torch.where(drawn, mask, 0)[None], drawn.float()[None])
    unknown = unannotated(truth.annotated if truth else None, space)
    return MapRow(one_hot, geometry.inside(size, grid), unknown)


def teach_soft(answer: SoftMap | None, size: tuple[int, int], geometry: Geometry, space: int, grid: int) -> MapRow:
    """A tutor's map under the same geometry."""
    seen = torch.zeros(space, grid, grid) if answer is None else geometry.soft_map(answer.map, size, grid)
    return MapRow(seen, geometry.inside(size, grid), marked(answer.unknown if answer else (), space))


def complete(truth: MapRow, tutor: MapRow) -> MapRow:
    """Ground truth, and where it says background the tutor's background and classes that were not annotated.

    What the tutor gives to annotated classes there is contradicted and weighs nothing.
    """
    allowed = truth.unknown.clone()
    allowed[0] = True
    background = truth.map[:1]
    filled = truth.map * (1 - background) + tutor.map * allowed[:, None, None] * background
    return MapRow(filled, tutor.inside, truth.unknown & tutor.unknown)


def vet_by_boxes(
    answer: SoftMap, size: tuple[int, int], boxes_xyxy: Tensor, classes: Tensor, anywhere: Tensor
) -> SoftMap:
    """The tutor's map without what drawn boxes contradict.

    Where no box of a class touches a cell, the class's probability teaches nothing. A cell that no box touches at all
    is background, with all of its weight. Difficult boxes and crowds count. That pixels outside all boxes are
    background is from Box-for-Mask (Lê et al. 2024, arXiv:2411.17536).

    Args:
        size: (height, width) of the image in pixels.
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], in this map's label space; 0 where it has none, which marks its cells as not empty.
        anywhere: bool [C+1], classes that may be anywhere, since nobody draws boxes of them.
    """
    height, width = answer.map.shape[1:]
    possible = anywhere[:, None, None].repeat(1, height, width)
    touched = torch.zeros(height, width, dtype=torch.bool)
    near, far = clip(boxes_xyxy * torch.tensor([width / size[1], height / size[0]]).repeat(2), (height, width)).chunk(
        2, dim=1
    )
    edges = torch.cat([near.floor(), far.ceil()], dim=1).long()
    for number, (left, top, right, bottom) in zip(classes.tolist(), edges.tolist(), strict=True):
        touched[top:bottom, left:right] = True
        if number:
            possible[number, top:bottom, left:right] = True
    empty = ~(touched | possible.any(dim=0))
    possible[0] = True
    kept = answer.map * possible
    kept[0] = torch.where(empty, answer.map.sum(dim=0), kept[0])
    return SoftMap(map=kept, unknown=answer.unknown)


class CellTargets(NamedTuple):
    """What the cells of a batch learn from one source.

    Attributes:
        probs: float32 [B, C+1, h, w], weighted: a cell's sum is its weight, 0 where nothing is learnt.
        normaliser: float32 scalar, the summed weights.
    """

    probs: Tensor
    normaliser: Tensor

    @property
    def presence(self) -> Tensor:
        """float32 [B, C+1], how sure it is that a class is in the image: the most that any cell gives it."""
        return self.probs.amax(dim=(2, 3))


def assign(targets: MapTargets, section: SegmentationSection, *, tutor: bool) -> CellTargets:
    """Sharpen or soften the source's probabilities and weigh each cell.

    `power`: q = p^(1/T) over the classes, renormalised to the cell's own sum, so that what a tutor does not say has
    no weight (Hinton et al. 2015, for probabilities instead of logits). `softmax`: softmax(p / T) over detection
    confidences, a tutor's cells only (thesis, formula 5; specification 3.5). `margin`: a tutor's cell weighs its mass
    times the difference of its two largest probabilities, as shares of that mass.
    """
    probs = targets.map
    if tutor and section.cell_weight == "margin":
        first, second = probs.topk(2, dim=1).values.unbind(dim=1)
        probs = probs * ((first - second) / probs.sum(dim=1).clamp(min=torch.finfo(probs.dtype).tiny))[:, None]
    if tutor and section.target == "softmax":
        probs = (probs / section.temperature).softmax(dim=1)
        if section.padding == "ignore":
            probs = probs * targets.inside[:, None]
    elif tutor and section.temperature != 1:
        weight = probs.sum(dim=1, keepdim=True)
        tiny = torch.finfo(probs.dtype).tiny
        # Relative to the likeliest class: a power of small probabilities underflows in float32.
        sharpened = (probs / probs.amax(dim=1, keepdim=True).clamp(min=tiny)) ** (1 / section.temperature)
        probs = sharpened * weight / sharpened.sum(dim=1, keepdim=True).clamp(min=tiny)
    if not tutor and section.padding == "background":
        probs = probs.clone()
        probs[:, 0] = torch.where(targets.inside, probs[:, 0], 1.0)
    probs = probs * targets.weight[:, None, None, None]
    return CellTargets(probs, probs.sum())


def map_sum(map_logits: Tensor, targets: MapTargets, cells: CellTargets) -> Tensor:
    """Summed cross-entropy of the student's map (logits [B, C+1, h, w]) against the cells' targets."""
    log_probs = F.log_softmax(map_logits.float(), dim=1)
    log_probs = merge_unknown(log_probs, targets.unknown[:, :, None, None], dim=1)
    return -(cells.probs * log_probs).sum()


def overlap_sum(map_logits: Tensor, targets: MapTargets, cells: CellTargets) -> Tensor:
    """Summed loss of overlap, 1 - IoU of each class in each image, weighted by the class's presence.

    For probabilities p and targets q, intersection and union are the cells' min(p, q) and max(p, q), summed: the
    Jaccard metric loss (Wang, Ning, Blaschko 2023, arXiv:2302.05666), which is 0 where p = q also if q is soft.
    """
    probs = merge_unknown(map_logits.float().log_softmax(dim=1), targets.unknown[:, :, None, None], dim=1).exp()
    wanted = cells.probs
    probs = probs * wanted.sum(dim=1, keepdim=True)
    shared = torch.minimum(probs, wanted).sum(dim=(2, 3))
    union = torch.maximum(probs, wanted).sum(dim=(2, 3)).clamp(min=torch.finfo(probs.dtype).tiny)
    return ((1 - shared / union) * cells.presence).sum()
