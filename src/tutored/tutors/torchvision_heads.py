"""What torchvision's models know before their post-processing drops it: every box's whole class distribution."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

SMALLEST_SIDE = 0.01
"""Pixels; the R-CNNs drop smaller boxes before suppression."""


class Dense(NamedTuple):
    """Everything a detector says about one image, in pixels of its own resized input.

    Attributes:
        boxes_xyxy: float32 [A, 4], or [A, N, 4] with a box for each class; clipped.
        scores: float32 [A, N] for the model's N outputs, Softmax with background in column 0 (R-CNNs,
            SSD), or independent sigmoids with an unused column 0 (RetinaNet, FCOS).
        usable: bool [A, 1] or [A, N], which boxes are large enough to be detections; those that are NaN stay, to be
            refused.
        size: (height, width) of that input without padding.
        features: the backbone's maps, from which Mask R-CNN's masks are read.
        groups: as in `detections.select`; with `group_limit` the model's own bound on candidates.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    usable: Tensor
    size: tuple[int, int]
    features: dict[str, Tensor]
    groups: Tensor | None = None
    group_limit: int = 0


def dense(model: Any, image: Tensor) -> Dense:
    """Run a detector of torchvision on one image, float32 [3, H, W] in 0..1, up to its post-processing."""
    images, _ = model.transform([image])
    features = model.backbone(images.tensors)
    size = images.image_sizes[0]
    if isinstance(model, FasterRCNN):
        boxes, scores = _rcnn(model, images, features)
        boxes = clip_boxes_to_image(boxes, size)
        return Dense(boxes, scores, ~(_shorter_side(boxes) < SMALLEST_SIDE), size, features)
    maps = list(features.values())
    out = {name: values[0] for name, values in model.head(maps).items()}
    anchors = model.anchor_generator(images, maps)[0]
    if isinstance(model, SSD):
        boxes, scores = model.box_coder.decode_single(out["bbox_regression"], anchors), out["cls_logits"].softmax(-1)
        groups = torch.arange(scores.shape[1], device=scores.device)[None]
    elif isinstance(model, (RetinaNet, FCOS)):
        scores = out["cls_logits"].sigmoid()
        if isinstance(model, FCOS):
            boxes = model.box_coder.decode(out["bbox_regression"], anchors)
            scores = (scores * out["bbox_ctrness"].sigmoid()).sqrt()
        else:
            boxes = model.box_coder.decode_single(out["bbox_regression"], anchors)
        groups = _levels(maps, len(anchors))
    else:
        raise TypeError(f"no torchvision detector: {type(model).__name__}")
    boxes = clip_boxes_to_image(boxes, size)
    usable = ~(_shorter_side(boxes)[:, None] <= 0)
    return Dense(boxes, scores, usable, size, features, groups, model.topk_candidates)


def soft_masks(model: Any, found: Dense, boxes_xyxy: Tensor, classes: Tensor) -> Tensor:
    """Mask R-CNN's masks, float32 [N, 28, 28], of boxes [N, 4] in pixels of its input, by the model's class numbers."""
    heads = model.roi_heads
    pooled = heads.mask_roi_pool(found.features, [boxes_xyxy], [found.size])
    masks: Tensor = maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), [classes])[0]
    return masks[:, 0]


def _rcnn(model: Any, images: Any, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    proposals, _ = model.rpn(images, features)
    heads = model.roi_heads
    logits, offsets = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, images.image_sizes)))
    return heads.box_coder.decode(offsets, proposals), logits.softmax(-1)


def _shorter_side(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amin(-1)


def _levels(maps: list[Tensor], anchors: int) -> Tensor:
    """The level each anchor belongs to, [A, 1]."""
    cells = torch.tensor([level.shape[-2] * level.shape[-1] for level in maps], device=maps[0].device)
    return torch.arange(len(maps), device=cells.device).repeat_interleave(cells * (anchors // int(cells.sum())))[
        :, None
    ]
