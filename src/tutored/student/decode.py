"""From raw outputs to final boxes and map (specification 5.1), or to soft labels where the student is a tutor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config import Decode
from tutored.maps import likeliest
from tutored.structures import Outputs, Prediction, SoftLabels


class _Kept(NamedTuple):
    """One image's final boxes by falling score: [K] rows, `probs` with background."""

    boxes_xyxy: Tensor
    classes: Tensor
    scores: Tensor
    probs: Tensor


def decode(outputs: Outputs, sizes: Sequence[tuple[int, int]], config: Decode, network_size: int) -> list[Prediction]:
    """Final boxes and map of every image, in its own pixels.

    Per class: scores above the floor, the best `top_k`, NMS, at most `per_class`; then the best `total` of all.
    Boxes are cut at the image's borders; what has no area left is dropped. The map's logits are enlarged
    bilinearly to the image's own size before the best class is taken.

    Args:
        sizes: (height, width) of each image in pixels.
        network_size: side of the square that the images were resized to.

    Returns:
        Tensors on the CPU, whatever the device of `outputs`.

    Raises:
        FloatingPointError: the outputs are NaN, as those of a student whose training diverged.
    """
    predictions = []
    for logits, size, kept in zip(outputs.map_logits, sizes, _kept(outputs, sizes, config, network_size), strict=True):
        predictions.append(
            Prediction(
                size=size,
                boxes_xyxy=kept.boxes_xyxy.cpu(),
                classes=kept.classes.cpu(),
                scores=kept.scores.cpu(),
                mask=likeliest(logits.float(), size).cpu(),
            )
        )
    return predictions


def soft_decode(
    outputs: Outputs, sizes: Sequence[tuple[int, int]], config: Decode, network_size: int
) -> list[SoftLabels]:
    """As `decode`, but each box keeps its whole class distribution and the map its probabilities and its own grid.

    Where an image has fewer pixels than the grid has cells, the map is averaged to one cell a pixel. Raises as
    `decode`.
    """
    return [
        SoftLabels(
            size=size,
            boxes_xyxy=kept.boxes_xyxy.cpu(),
            classes=kept.classes.cpu(),
            probs=kept.probs.cpu(),
            map=_at_most(logits.float().softmax(dim=0).cpu(), size),
        )
        for logits, size, kept in zip(
            outputs.map_logits, sizes, _kept(outputs, sizes, config, network_size), strict=True
        )
    ]


def _at_most(probs: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = (min(cells, side) for cells, side in zip(probs.shape[1:], size, strict=True))
    return F.adaptive_avg_pool2d(probs, (height, width))


def _kept(outputs: Outputs, sizes: Sequence[tuple[int, int]], config: Decode, network_size: int) -> Iterator[_Kept]:
    probs = outputs.logits.float().softmax(dim=-1)
    if any(bool(each.isnan().any()) for each in (probs, outputs.deltas, outputs.map_logits)):
        raise FloatingPointError(
            "the student's answers are no numbers, so its training diverged; lower train.lr, or set train.clip"
        )
    found = boxes.decode(outputs.deltas.float(), outputs.anchors_xyxy)
    best = probs[..., 1:].transpose(1, 2).topk(min(config.top_k, probs.shape[1]), dim=-1)
    for index, (height, width) in enumerate(sizes):
        classes, rank = (best.values[index] > config.score_floor).nonzero(as_tuple=True)
        anchor, scores = best.indices[index, classes, rank], best.values[index, classes, rank]
        scale = found.new_tensor([width, height, width, height]) / network_size
        boxes_xyxy = boxes.clip(found[index, anchor] * scale, (height, width))
        solid = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(dim=1).nonzero()[:, 0]
        kept = solid[boxes.nms(boxes_xyxy[solid], scores[solid], classes[solid], config.nms_iou)]
        kept = kept[_place(classes[kept]) < config.per_class][: config.total]
        yield _Kept(boxes_xyxy[kept], classes[kept] + 1, scores[kept], probs[index, anchor[kept]])


def _place(classes: Tensor) -> Tensor:
    """How many of the same class stand before each entry, [K]."""
    if not len(classes):
        return classes
    return F.one_hot(classes).cumsum(dim=0).gather(1, classes[:, None])[:, 0] - 1
