"""Instances as Mask R-CNN gives them, from two stores: boxes of a detector, soft masks out of another tutor's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align

from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.softlabels import Folded
from tutored.structures import Instances, SoftLabels
from tutored.tutors.stores import find_answer, identity_of, open_pair

SIDE = 28
"""Cells along one side of a mask, as Mask R-CNN has them."""


class InstancesTutor:
    """A detector's boxes, each with the probability of its class that a map has inside it.

    So a dense map can teach in Mask R-CNN's form: outside of boxes there is nothing, and one class and one score hold
    for a whole box. The map does not tell objects of one class apart: a neighbour that reaches into a box is in its
    mask. An image for which one of the two stores has no answer gets none.

    Attributes:
        labels: the classes of the maps that the detector knows too, in the maps' order; both stores are folded into it
            by name, and boxes of other classes are dropped.
    """

    def __init__(self, boxes: Path | str, maps: Path | str, *, score_floor: float = 0.5) -> None:
        """Open both stores.

        Args:
            boxes: store with the detector's boxes.
            maps: store with class maps; confidences and instances are made maps as `Folded` does.
            score_floor: boxes from this score on become instances. The default is that of `loss.box_floor`; Mask
                R-CNN's own, .7, suits its softmax scores and leaves small one-stage detectors few boxes.

        Raises:
            InputError: no such store, it does not answer the task, or the two have no class in common.
        """
        detector, mapper = open_pair(boxes, maps)
        self.labels = LabelSpace.of(
            tuple(name for name in mapper.labels.classes if same_class(name, detector.labels) is not None)
        )
        self._floor = score_floor
        self._detector, self._mapper = (
            (store.path, Folded(store, ClassMap.by_name(store.labels, self.labels))) for store in (detector, mapper)
        )
        self.identity: Mapping[str, Any] = identity_of(
            {"boxes": detector, "maps": mapper},
            kind="instances",
            tutor=f"boxes of {detector.identity.get('tutor')}, masks of {mapper.identity.get('tutor')}",
            score_floor=score_floor,
            mask_side=SIDE,
        )

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        pairs = zip(images, image_ids, strict=True)
        return [self._answer(image_id, (image.height, image.width)) for image, image_id in pairs]

    def _answer(self, image_id: str, size: tuple[int, int]) -> SoftLabels:
        detected, drawn = find_answer(*self._detector, image_id, size), find_answer(*self._mapper, image_id, size)
        if detected.boxes_xyxy is None or drawn.map is None:
            return SoftLabels(size=size)
        assert detected.classes is not None
        kept = detected.scores >= self._floor
        boxes, classes = detected.boxes_xyxy[kept], detected.classes[kept]
        masks = soft_masks(drawn.map, boxes, classes, size)
        return SoftLabels(
            size=size,
            instances=Instances(boxes_xyxy=boxes, classes=classes, scores=detected.scores[kept], masks=masks),
        )


def soft_masks(drawn: Tensor, boxes_xyxy: Tensor, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """What a map says about each box's class, read bilinearly at the centres of a grid over the box.

    Args:
        drawn: float32 [C+1, h, w], on a grid that spans the whole image.
        boxes_xyxy: float32 [N, 4], pixels of the image, inside it.
        classes: int64 [N], 1..C.
        size: (height, width) of the image in pixels.

    Returns:
        float32 [N, 28, 28]. Beyond the centres of the outermost cells the map goes on as it is there.
    """
    cells = boxes_xyxy * boxes_xyxy.new_tensor([drawn.shape[2] / size[1], drawn.shape[1] / size[0]]).repeat(2)
    numbered = torch.cat([torch.arange(len(classes))[:, None], cells], dim=1)
    masks: Tensor = roi_align(drawn[classes][:, None], numbered, SIDE, sampling_ratio=1, aligned=True)
    return masks[:, 0].clamp(max=1)  # bilinear weights sum to one but for rounding
