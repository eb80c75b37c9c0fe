"""What a training batch teaches, the same for ground truth and tutors. Letters in shapes as in `structures`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Targets(NamedTuple):
    """What one kind of source, ground truth or tutor, teaches about a batch; the same for both kinds.

    An image of weight 0 is not taught by this source. Rows of padding have no area and no probability.

    Attributes:
        boxes_xyxy: float32 [B, K, 4], pixels of the network's input.
        classes: int64 [B, K], 1..C, 0 in rows of padding.
        probs: float32 [B, K, C+1], class distributions; ground truth's are one-hot.
        difficult: bool [B, K], ground truth's flag.
        map: float32 [B, C+1, h, w], class probabilities; all zero where the source says nothing.
        inside: bool [B, h, w], which cells lie in the image and not in padding.
        detection_unknown: bool [B, C+1], classes the source draws no boxes of: its background may be any of them;
            [B, 0] where no image of the batch has such a class.
        segmentation_unknown: bool [B, C+1], the same for its map.
        detection_weight: float32 [B].
        segmentation_weight: float32 [B].
    """

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    map: Tensor
    inside: Tensor
    detection_unknown: Tensor
    segmentation_unknown: Tensor
    detection_weight: Tensor
    segmentation_weight: Tensor

    @property
    def scores(self) -> Tensor:
        """float32 [B, K]: the probability of each box's class."""
        return self.probs.gather(2, self.classes[..., None])[..., 0]


class Batch(NamedTuple):
    """A training batch: uint8 images [B, 3, S, S] and what ground truth and tutors teach about them.

    A source that teaches nothing in the whole batch is None.
    """

    image_ids: tuple[str, ...]
    images: Tensor
    ground_truth: Targets | None
    tutor: Targets | None
