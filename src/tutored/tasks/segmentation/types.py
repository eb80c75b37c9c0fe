"""What semantic segmentation is made of: annotated masks, a tutor's soft maps, class maps, and targets of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import grid_sample

from tutored.boxes import outwards
from tutored.config.tasks import SegmentationSection
from tutored.geometry import likeliest
from tutored.losses import merge_unknown
from tutored.tasks.columns import MOST, NUMBERS, Array, Rows, answered, flat, lists, quantise, require, starts
from tutored.tasks.instances.types import Instances
from tutored.tasks.task import Remap
from tutored.types import IGNORE, Size, expect

LEVELS = 255
FIELDS = (
    pa.field("map_height", pa.int32()),
    pa.field("map_width", pa.int32()),
    pa.field("map_classes", NUMBERS),
    pa.field("map_values", pa.binary()),
    pa.field("map_confidences", pa.bool_()),
)
"""Values [n, h, w] as uint8 in C order, of the n classes in `map_classes`. `map_values` / 255 are probabilities, which
sum to exactly 255 for each cell where the tutor's sum to one; or with `map_confidences` detection confidences of the
classes, each by itself, without background."""


def encode(cells: Array, confidences: bool) -> dict[str, Any]:
    """One image's values of `FIELDS`, from float32 [h, w, C+1]."""
    if confidences:
        counts = np.rint(cells.astype(np.float64) * LEVELS).astype(np.int64)
        counts[..., 0] = 0
    else:
        counts = quantise(cells, LEVELS)
    occurs = np.flatnonzero(counts.any(axis=(0, 1)))
    return {
        "map_height": cells.shape[0],
        "map_width": cells.shape[1],
        "map_classes": occurs,
        "map_values": counts[..., occurs].transpose(2, 0, 1).astype(np.uint8).tobytes(),
        "map_confidences": confidences,
    }


class Cells(NamedTuple):
    """A map of one image; of the classes those that occur.

    Attributes:
        classes: int64 [n].
        values: uint8 [n, h, w], times `LEVELS`.
    """

    classes: Array
    space: int
    values: Array
    confidences: bool

    def dense(self) -> Tensor:
        """float32 [space, h, w]; probabilities of a class that stands there twice are added."""
        dense = np.zeros((self.space, *self.values.shape[1:]), np.float32)
        probs = self.values / np.float32(LEVELS)
        if len(set(self.classes.tolist())) == len(self.classes):
            dense[self.classes] = probs
        else:
            np.add.at(dense, self.classes, probs)
        return torch.from_numpy(dense)

    def remapped(self, remap: Remap) -> "Cells":
        """The same in another label space; confidences stay, since a rule must combine them."""
        if self.confidences:
            return self
        classes = remap.probabilities(self.classes)
        heard = classes < remap.space
        return Cells(classes[heard], remap.space, self.values[heard], False)


def decode(table: pa.Table, sizes: Sequence[Size], space: int) -> list[Cells | None]:
    """The maps in a table's rows. Raises ValueError for values that no tutor's answer has."""
    counts, numbers = lists(table.column("map_classes"))
    classes, first = flat(numbers).astype(np.int64), starts(counts)
    require(classes.max(initial=0) < space, f"a class outside 0..{space - 1}")
    names = ("map_height", "map_width", "map_values", "map_confidences")
    maps: list[Cells | None] = []
    columns = zip(*(table.column(name) for name in names), strict=True)
    for row, (there, scalars) in enumerate(zip(answered(table, FIELDS), columns, strict=True)):
        if not there:
            maps.append(None)
            continue
        height, width, confidences, size = scalars[0].as_py(), scalars[1].as_py(), scalars[3].as_py(), sizes[row]
        fits = 0 < height <= size[0] and 0 < width <= size[1]
        require(fits, f"a map of {height} x {width} cells for {size[0]} x {size[1]} pixels")
        values = np.frombuffer(scalars[2].as_buffer(), np.uint8).reshape(counts[row], height, width)
        most = 0 if confidences else values.sum(axis=0, dtype=np.uint32).max()
        require(most <= MOST * LEVELS, "probabilities of a cell that sum to more than one")
        maps.append(Cells(classes[first[row] : first[row + 1]], space, values, confidences))
    return maps


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMask:
    """The class of each pixel of one image, as a person drew it.

    Attributes:
        mask: uint8 [H, W], 0..C and 255 = ignore.
        annotated: the classes that the data set annotates; None means every class. The others may be anywhere that the
            mask says background.
    """

    kind: ClassVar[str] = "segmentation"
    mask: Tensor
    annotated: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        expect(self.mask, "ClassMask.mask", (None, None), torch.uint8)

    def relabelled(self, to: Sequence[int], annotated: tuple[int, ...] | None) -> Self:
        """The same in another label space: `to[c]` is the class there of class c, 0 background; 255 stays.

        Pixels of classes whose number there is larger than a mask can hold are ignored.
        """
        numbers = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
        numbers[: len(to[:IGNORE])] = torch.tensor(to[:IGNORE]).clamp(max=IGNORE)
        return replace(self, mask=numbers[self.mask.long()], annotated=annotated)

    def counts(self, space: int) -> dict[str, list[int]]:
        """By column, how much there is of each class of a label space with `space` names, then of ignored pixels."""
        pixels = torch.bincount(self.mask.flatten(), minlength=IGNORE + 1).tolist()
        return {"pixels": [*(pixels[:IGNORE] + [0] * space)[:space], pixels[IGNORE]]}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftMap:
    """A tutor's class probabilities for one image.

    Attributes:
        map: float32 [C+1, h, w], on a grid that spans the whole image, of one cell a pixel at most; a cell may sum to
            less than 1.
        unknown: classes of the label space that this tutor knows nothing about, so that its background may be any.
        confidences: the values are detection confidences of the classes, each by itself; channel 0 says nothing.
    """

    kind: ClassVar[str] = "segmentation"
    fields: ClassVar[Sequence[pa.Field]] = FIELDS
    map: Tensor
    unknown: tuple[int, ...] = ()
    confidences: bool = False

    def __post_init__(self) -> None:
        expect(self.map, "SoftMap.map", (None, None, None), torch.float32)

    def tempered(self, temperature: float) -> Self:
        """Probabilities become p^(1/T), each cell with the sum it had."""
        powers = self.map ** (1 / temperature)
        scale = self.map.sum(0) / powers.sum(0).clamp(min=torch.finfo(powers.dtype).tiny)
        return replace(self, map=powers * scale)

    def muted(self, classes: Sequence[int]) -> Self:
        """The same with nothing said about some classes; background may be any of them."""
        unknown = tuple(sorted({*self.unknown, *classes}))
        return replace(self, map=self.map.index_fill(0, torch.tensor(classes), 0.0), unknown=unknown)

    def encode(self) -> dict[str, Any]:
        """A store's row, see `FIELDS`."""
        return encode(self.map.permute(1, 2, 0).numpy(), self.confidences)

    @classmethod
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Self | None]:
        """The answers of a table's rows, in another label space with a remap; see `SoftAnswer`.

        Confidences stay in the tutor's own label space: see `Segmentation.from_store`.
        """
        maps = decode(table, sizes, space)
        unknown = remap.unknown if remap else ()
        if remap is not None and not remap.identical:
            maps = [cells and cells.remapped(remap) for cells in maps]

        def make(row: int) -> Any:
            cells = maps[row]
            assert cells is not None
            return cls(map=cells.dense(), unknown=unknown, confidences=cells.confidences)

        return Rows([cells is not None for cells in maps], make)

    def final(self, size: Size) -> "ClassMap | None":
        """The likeliest class of each pixel of an image of `size`; None of more classes than a mask can tell apart."""
        return None if len(self.map) > IGNORE else ClassMap(mask=likeliest(self.map, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMap:
    """The predicted class of each pixel of one image. `mask` is uint8 [H, W], 0..C."""

    kind: ClassVar[str] = "segmentation"
    mask: Tensor

    def __post_init__(self) -> None:
        expect(self.mask, "ClassMap.mask", (None, None), torch.uint8)


class MapTargets(NamedTuple):
    """What one source teaches about the maps of a batch; ground truth and tutor have the same form.

    Attributes:
        map: float32 [B, C+1, h, w], class probabilities; all zero where the source says nothing.
        inside: bool [B, h, w], which cells lie in the image and not in padding.
        unknown: bool [B, C+1], classes the source does not mark: its background may be any of them; [B, 0] where no
            image of the batch has such a class.
        weight: float32 [B].
    """

    map: Tensor
    inside: Tensor
    unknown: Tensor
    weight: Tensor


Rule = Literal["noisy_or", "one", "complement", "zero"]


def rasterize(instances: Instances, size: Size, classes: int, grid: tuple[int, int], rule: Rule) -> Tensor:
    """A map of instances; their confidence is the score, times the soft mask ("noisy_or") or where it is above .5.
    Returns float32 [classes, h, w], see `combine`.

    Args:
        classes: C + 1, the names of the label space.
        grid: (h, w); masks are read at the centres of cells, bilinearly, zero outside their boxes.
        rule: see `combine`.
    """
    masks = _paste(instances, size, grid)
    shape = masks if rule == "noisy_or" else (masks > 0.5).float()
    return combine(instances.scores[:, None, None] * shape, instances.classes, classes, rule)


def combine(confidences: Tensor, index: Tensor, classes: int, rule: Rule) -> Tensor:
    """Several confidences for each class and cell into one, and a background, by a rule of `section.background`.
    Returns float32 [classes, h, w]. Probabilities for "noisy_or"; detection confidences, which sum to anything, for the
    others.

    Args:
        confidences: float32 [N, h, w], 0..1: v_i.
        index: int64 [N], 1..C, the class of each.
        classes: C + 1, the names of the label space.
        rule: "noisy_or": p_c = 1 - prod(1 - v_i) over the i of class c and p_0 = prod(1 - v_i) over all, divided by
            their sum. The others are the thesis' (specification 3.5, 8.2): v_c = the greatest v_i of class c, and
            v_0 = 1 where all are zero ("one"), 1 - max v_c ("complement") or 0 ("zero").
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


def vet_by_boxes(answer: SoftMap, size: Size, boxes_xyxy: Tensor, classes: Tensor, anywhere: Tensor) -> SoftMap:
    """The tutor's map without what drawn boxes contradict.

    Where no box of a class touches a cell, the class's probability teaches nothing. A cell that no box touches at all
    is background, with all of its weight. Difficult boxes and crowds count. That pixels outside all boxes are
    background is from Box-for-Mask (Lê et al. 2024, arXiv:2411.17536).

    Args:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], in this map's label space; 0 where it has none, which marks its cells as not empty.
        anywhere: bool [C+1], classes that may be anywhere, since nobody draws boxes of them.
    """
    height, width = answer.map.shape[1:]
    possible = anywhere[:, None, None].repeat(1, height, width)
    touched = torch.zeros(height, width, dtype=torch.bool)
    edges = outwards(boxes_xyxy * torch.tensor([width / size[1], height / size[0]]).repeat(2), (height, width))
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
