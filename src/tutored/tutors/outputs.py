"""From a network's raw outputs to soft answers: names of outputs, probabilities, boxes, maps and masks."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tutored.boxes import clip, nms
from tutored.data.text import is_background, read_lines
from tutored.errors import InputError, told_of
from tutored.files import sha256
from tutored.labels import COCO_BY_NUMBER, KNOWN, MOST, NO_CLASS, LabelSpace
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tutors import AnswerOptions, MaskOptions
from tutored.types import Size, SoftLabels

ROUNDING = 1e-3
"""By how much float16 may take a probability out of 0..1."""
MASK_SIDE = 28
"""Cells along one side of a mask that is read from a map, as Mask R-CNN has them."""


def files_sha256(paths: Sequence[Path], what: str) -> str:
    """Hex digest of a file; of several, of their names and digests. Raises InputError where one can't be read."""
    lines = []
    for path in paths:
        try:
            lines.append(f"{path.name} {sha256(path)}\n")
        except OSError as error:
            raise InputError(f"{path}: {what} can't be read ({error.strerror})") from error
    return lines[0].split()[-1] if len(lines) == 1 else hashlib.sha256("".join(lines).encode()).hexdigest()


KNOWN_OUTPUTS = (*KNOWN, "coco-91")
"""Names of lists of outputs: `coco-91` is COCO's classes by their category numbers, 0 to 90."""


def read_labels(labels: Path | str) -> LabelSpace:
    """A label space as users give it: a name of `labels.KNOWN`, or a text file with one object class a line, in order.
    Raises InputError: no such file, or no list of distinct names.
    """
    if str(labels) in KNOWN:
        return KNOWN[str(labels)]
    names = read_outputs(labels)
    with told_of(f"labels {labels}"):
        return LabelSpace.of(names)


def read_outputs(labels: Path | str, count: int | None = None) -> list[str]:
    """Names of a network's outputs in order: a name of `KNOWN_OUTPUTS`, or a text file with an output a line.

    Lines may repeat a name, also that of the background or "N/A". Raises InputError: no such file. Where there are not
    `count` names, or it is None, those of the background are left out.
    """
    if str(labels) == "coco-91":
        return [*COCO_BY_NUMBER]
    names = list(KNOWN[str(labels)].names) if str(labels) in KNOWN else read_names(Path(labels))
    return names if len(names) == count else [name for name in names if not is_background(name)]


def read_names(path: Path) -> list[str]:
    """The lines of a text file that are not empty, as they stand. Raises InputError: no such file."""
    try:
        return [line.strip() for line in read_lines(path) if line.strip()]
    except InputError as error:
        known = ", ".join(KNOWN_OUTPUTS)
        raise InputError(f"labels {error}; give {known}, or a text file with one name a line") from error


class ClassOutputs:
    """The classes of a network that has one output for each name.

    Attributes:
        labels: the names that are classes, each once, in the network's order, background in front.
        to: int64 [N], the class of each output; 0 for background and `NO_CLASS`.
        used: int64 [C], the output of each class; the first one of a name that occurs twice.
    """

    def __init__(self, names: Sequence[str], origin: str) -> None:
        """Read the names. Raises InputError: no name is a class, or they are placeholders that libraries write
        (`LABEL_0`).
        """
        names = [name.strip() for name in names]
        if all(re.fullmatch(r"LABEL_\d+|\d+|", name) for name in names):
            raise InputError(
                f"{origin}: its {len(names)} classes have no names; give labels=FILE with one class a line"
            )
        classes = [name for name in dict.fromkeys(names) if name != NO_CLASS and not is_background(name)]
        if not classes:
            raise InputError(f"{origin}: its outputs are {', '.join(names)}; none is a class")
        self.labels = LabelSpace.of(classes)
        place = {name: number for number, name in enumerate(classes, start=1)}
        self.to = torch.tensor([place.get(name, 0) for name in names])
        self.used = torch.tensor([names.index(name) for name in classes])

    def __len__(self) -> int:
        return len(self.to)

    def remap(self, probs: Tensor) -> Tensor:
        """Probabilities of the outputs [N, ...] as those of the label space [C+1, ...]; equal names are added."""
        return probs.new_zeros(len(self.labels), *probs.shape[1:]).index_add_(0, self.to.to(probs.device), probs)


class NetworkTutor:
    """A tutor that answers for each image by itself: in a batch, an answer would depend on its neighbours. It answers
    for `threads` images at once: while the network has one, the next is laid out and the last one's answer is made.
    """

    threads: ClassVar[int] = 2
    labels: LabelSpace
    identity: Mapping[str, Any]
    notes: Sequence[str] = ()

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self._answer, images, image_ids))

    def _answer(self, image: Image.Image, image_id: str) -> SoftLabels:
        with told_of(f"image {image_id}"):
            return SoftLabels.of((image.height, image.width), *self.answers(image))

    def answers(self, image: Image.Image) -> Sequence[Any]:
        """The soft answers for one image, None for no answer. Raises InputError where the network's are not finite."""
        raise NotImplementedError


# --- Probabilities


def finite(values: Tensor, what: str) -> Tensor:
    """The values, of any shape. Raises InputError where some are NaN or infinite, which comparisons do not show."""
    # A sum is quick, and finite only where all values are.
    if not values.sum().isfinite() and (bad := int((~values.isfinite()).sum())):
        raise InputError(
            f"{bad} of the network's {values.numel()} {what} are NaN or infinite; take other weights, "
            "or an export in float32"
        )
    return values


def probabilities(values: Tensor, origin: Path, remedy: str) -> Tensor:
    """The values, of any shape, clipped to 0..1. Raises InputError: they lie outside by more than float16 rounds, or
    see `finite`.
    """
    low, high = (float(edge) for edge in finite(values, "scores").aminmax()) if values.numel() else (0.0, 0.0)
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(f"{origin}: scores from {low:.3g} to {high:.3g} are no probabilities; {remedy}")
    return values.clamp(0, 1)


def one_hot(numbers: Tensor, origin: Path | str) -> Tensor:
    """Class numbers [...] as probabilities [highest number + 1, ...]. Raises InputError: they are no such numbers."""
    if not (numbers == numbers.round().clamp(0, MOST)).all():
        raise InputError(f"{origin}: class numbers that are not whole, from 0 on; declare another kind")
    classes = torch.arange(int(numbers.max()) + 1 if numbers.numel() else 0)
    return (numbers == classes.reshape(-1, *[1] * numbers.dim())).float()


def with_background(scores: Tensor) -> Tensor:
    """Scores [C+1, ...], 0 or more, as probabilities: a sum above one divides them, the rest of a sum is background."""
    probs = scores / scores.sum(0).clamp(min=1)
    probs[0] += (1 - probs.sum(0)).clamp(min=0)
    return probs


# --- Boxes


def select(
    boxes_xyxy: Tensor,
    scores: Tensor,
    options: AnswerOptions,
    *,
    nms_iou: float | None,
    groups: Tensor | None = None,
    group_limit: int = 0,
) -> tuple[Tensor, Tensor]:
    """The (box, class) pairs that a detector keeps: floor, suppression within each class, the best of all.

    A box may be kept for several classes. Raises InputError: scores, or boxes above the floor, are not finite. Returns
    int64 rows [K] and columns [K] into `scores`, by falling score.

    Args:
        boxes_xyxy: float32 [A, 4], or [A, C, 4] with a box for each class.
        scores: float32 [A, C].
        options: `score_floor` and `max_boxes` count.
        nms_iou: None: nothing is suppressed.
        groups: int64, broadcastable to [A, C]; only the `group_limit` best pairs of each group are candidates.
    """
    rows, columns = (finite(scores, "scores") > options.score_floor).nonzero(as_tuple=True)
    if groups is not None:
        kept = _best_of_each(scores[rows, columns], groups.expand_as(scores)[rows, columns], group_limit)
        rows, columns = rows[kept], columns[kept]
    boxes = boxes_xyxy[rows] if boxes_xyxy.dim() == 2 else boxes_xyxy[rows, columns]
    kept = nms(finite(boxes, "box sides"), scores[rows, columns], columns, 1.0 if nms_iou is None else nms_iou)[
        : options.max_boxes
    ]
    return rows[kept], columns[kept]


def _best_of_each(scores: Tensor, groups: Tensor, limit: int) -> Tensor:
    """Indices of the `limit` best scores of each group."""
    order = scores.argsort(descending=True)
    order = order[groups[order].argsort(stable=True)]
    counts = groups.bincount()
    first = (counts.cumsum(0) - counts)[groups[order]]
    return order[torch.arange(len(order), device=order.device) - first < limit]


def soft_boxes(boxes_xyxy: Tensor, scores: Tensor, columns: Tensor, size: Size) -> SoftBoxes:
    """Selected boxes with their class distributions, clipped; boxes outside the image are dropped.

    Background is the probability that the classes leave. Where scores of independent classes (sigmoids) sum to more
    than one, the others shrink beside the class that the box was kept for, whose score never changes.

    Args:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        scores: float32 [K, C], 0..1.
        columns: int64 [K], the column each box was kept for.
    """
    own = scores.gather(1, columns[:, None])
    others = scores.scatter(1, columns[:, None], 0.0)
    others = others * ((1 - own) / others.sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    foreground = others.scatter(1, columns[:, None], own)
    probs = torch.cat([(1 - foreground.sum(1, keepdim=True)).clamp(min=0), foreground], dim=1)
    boxes = clip(boxes_xyxy, size)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return SoftBoxes(boxes_xyxy=boxes[inside], classes=columns[inside] + 1, probs=probs[inside])


def detected(
    boxes_xyxy: Tensor,
    scores: Tensor,
    options: MaskOptions,
    nms_iou: float | None,
    size: Size,
    masks: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Sequence[SoftBoxes | Instances]:
    """The soft answers of a detector that gives a box and scores of all classes in each row.

    Args:
        boxes_xyxy: float32 [A, 4], pixels of the image.
        scores: float32 [A, C].
        options: `score_floor`, `max_boxes` and `mask_floor` count.
        nms_iou: as in `select`.
        masks: makes masks [K, m, m] of rows [K] and their boxes [K, 4], clipped at the image; None: there are none.
    """
    rows, columns = select(boxes_xyxy, scores, options, nms_iou=nms_iou)
    boxes = clip(boxes_xyxy[rows], size)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    rows, columns, boxes = rows[inside], columns[inside], boxes[inside]
    answer = soft_boxes(boxes, scores[rows], columns, size)
    if masks is None:
        return (answer,)
    sure = answer.scores >= options.mask_floor  # the first ones
    return answer, with_masks(answer, masks(rows[sure], boxes[sure]))


# --- Maps and masks


def on_cells(probs: Tensor, size: Size, stride: int) -> Tensor:
    """A map on a network's own grid, [C+1, h, w] over the whole image, averaged over cells of `stride` pixels. Raises
    InputError: see `finite`.

    Args:
        stride: pixels of the image a cell, where the own grid is not coarser.
    """
    height, width = (min(cells, -(-side // stride)) for cells, side in zip(probs.shape[1:], size, strict=True))
    # On the CPU: Apple's GPUs can't average over cells of unequal size.
    return adaptive_avg_pool2d(finite(probs, "map values").cpu(), (height, width))


def masks_in_boxes(maps: Tensor, boxes_xyxy: Tensor, rows: Tensor, size: Size, side: int = MASK_SIDE) -> Tensor:
    """What one map says inside each box, read bilinearly at the centres of a grid over the box. Returns float32 [N, m,
    m]. Beyond the centres of its outermost cells a map goes on as it is there.

    Args:
        maps: float32 [M, h, w], each on a grid that spans the whole image.
        boxes_xyxy: float32 [N, 4], pixels of the image, inside it.
        rows: int64 [N], the map of each box.
        side: m, cells along one side of a mask.
    """
    from torchvision.ops import roi_align  # slow to import, see `boxes.nms`

    cells = boxes_xyxy * boxes_xyxy.new_tensor([maps.shape[2] / size[1], maps.shape[1] / size[0]]).repeat(2)
    numbered = torch.cat([torch.arange(len(rows))[:, None], cells], dim=1)
    masks: Tensor = roi_align(maps[rows][:, None], numbered, side, sampling_ratio=1, aligned=True)
    return masks[:, 0].clamp(max=1)  # bilinear weights sum to one up to rounding


def with_masks(boxes: SoftBoxes, masks: Tensor) -> Instances:
    """Instances of the first N boxes with masks [N, m, m]. Raises InputError: masks that are not finite."""
    first = slice(len(masks))
    return Instances(
        boxes_xyxy=boxes.boxes_xyxy[first],
        classes=boxes.classes[first],
        scores=boxes.scores[first],
        masks=finite(masks, "mask values"),
    )
