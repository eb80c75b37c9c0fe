"""torchvision's detectors, instance and semantic segmentation models as tutors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.transforms.functional import pil_to_tensor
from torchvision.transforms.v2 import functional as transforms

from tutored.device import choose_device
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors import file_sha256, read_outputs
from tutored.tutors.detections import answer, select, with_masks
from tutored.tutors.outputs import ClassOutputs, finite, one_by_one
from tutored.tutors.torchvision_heads import dense, soft_masks
from tutored.tutors.torchvision_weights import build, categories, find

UNUSED = "N/A"
SHORT_SIDE = 520
"""Pixels to which torchvision's semantic segmentation models scale the shorter side."""
FEWEST = 32
"""Pixels of a side below which these networks, whose deepest cells are that wide, see nothing."""
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def open_torchvision(
    weights: Path | str | None = None,
    *,
    model: str | None = None,
    labels: LabelSpace | Path | str | None = None,
    download: bool = False,
    device: str | None = None,
    score_floor: float = 0.01,
    nms_iou: float | None = None,
    max_boxes: int = 100,
    mask_floor: float = 0.05,
    stride: int = 8,
) -> Detector | Segmenter:
    """A tutor from torchvision.

    Args:
        weights, model, download: as in `torchvision_weights.find`.
        labels: the outputs of weights of one's own, background in front or left out; else as torchvision states them.
        device: see `choose_device`.
        nms_iou: suppression within a class; None: the model's own.
        max_boxes: of one image, the best.
        mask_floor: detections from this score on keep their mask (Mask R-CNN).
        stride: pixels of the image a cell of the map (segmentation models).

    Raises:
        InputError: the weights are not here (it says which file belongs where), or not this model's.
    """
    source = find(model, weights, download=download)
    names = categories(source.model, source.published) if labels is None else ["background", *read_outputs(labels)]
    network = build(source, names).to(choose_device(device))
    identity = {
        "kind": "torchvision",
        "tutor": source.model,
        "weights": source.path.name,
        "weights_sha256": file_sha256(source.path, "the weights"),
    }
    if hasattr(network, "classifier"):
        return Segmenter(network, names, identity, stride)
    return Detector(network, names, identity, score_floor, nms_iou, max_boxes, mask_floor)


class Detector:
    """Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS, SSD, SSDlite.

    Suppression is torchvision's, but each kept box has its whole class distribution: the softmax row of
    its proposal (R-CNNs, SSD), or the sigmoids of its anchor (see `detections.distribution`). Outputs
    named "N/A" are dropped; their probability counts as background.
    """

    def __init__(
        self,
        model: Any,
        names: Sequence[str],
        identity: Mapping[str, Any],
        score_floor: float,
        nms_iou: float | None,
        max_boxes: int,
        mask_floor: float,
    ) -> None:
        self.model = model
        used = [index for index, name in enumerate(names) if index and name != UNUSED]
        self.labels = LabelSpace.of([names[index] for index in used])
        self._used = torch.tensor(used, device=next(model.parameters()).device)
        heads = getattr(model, "roi_heads", None)
        self._has_masks = heads is not None and heads.has_mask()
        self._floor, self._max_boxes, self._mask_floor = score_floor, max_boxes, mask_floor
        self._nms_iou = nms_iou if nms_iou is not None else float((heads or model).nms_thresh)
        resize = model.transform
        self.identity: Mapping[str, Any] = {
            **identity,
            "preprocessing": f"RGB 0..1, sides {resize.fixed_size or (*resize.min_size, resize.max_size)}, "
            f"mean {resize.image_mean}, deviation {resize.image_std}",
            "score_floor": score_floor,
            "nms_iou": self._nms_iou,
            "max_boxes": max_boxes,
            "mask_floor": mask_floor if self._has_masks else None,
            "map_stride": None,
        }

    def at_scale(self, scale: float) -> Self:
        """See `Scalable`; SSD's input has one size."""
        resize = copy(self.model.transform)
        if resize.fixed_size is not None:
            raise InputError(f"scales: {self.identity['tutor']} takes pictures of one size only; leave scales out")
        resize.min_size = tuple(_side(pixels, scale) for pixels in resize.min_size)
        resize.max_size = _side(resize.max_size, scale)
        scaled = copy(self)
        scaled.model = copy(self.model)
        # Parts of a module are attributes in a dictionary that its copy shares.
        scaled.model._modules = {**self.model._modules, "transform": resize}
        return scaled

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        # One by one: in a batch torchvision pads images to a common size, which changes their answers.
        return one_by_one(self._answer, images, image_ids)

    @torch.no_grad()
    def _answer(self, image: Image.Image) -> SoftLabels:
        size = (image.height, image.width)
        found = dense(self.model, _picture(image, self._used.device))
        scores = found.scores[:, self._used]
        per_class = found.boxes_xyxy.dim() == 3
        boxes = found.boxes_xyxy[:, self._used] if per_class else found.boxes_xyxy
        groups = found.groups
        if groups is not None and groups.shape[1] > 1:
            groups = groups[:, self._used]
        usable = found.usable.expand_as(found.scores)[:, self._used]
        rows, columns = select(
            boxes,
            scores * usable,
            score_floor=self._floor,
            nms_iou=self._nms_iou,
            max_boxes=self._max_boxes,
            groups=groups,
            group_limit=found.group_limit,
        )
        boxes = boxes[rows, columns] if per_class else boxes[rows]
        scale = boxes.new_tensor([size[1] / found.size[1], size[0] / found.size[0]]).repeat(2)
        result = answer((boxes * scale).cpu(), scores[rows].cpu(), columns.cpu(), size)
        if not self._has_masks:
            return result
        masked = scores[rows, columns] >= self._mask_floor
        masks = soft_masks(self.model, found, boxes[masked], self._used[columns[masked]])
        return with_masks(result, masks.cpu())


class Segmenter:
    """FCN, DeepLabV3, LR-ASPP: softmax of the class scores, averaged over the cells of a grid on the image."""

    def __init__(self, model: Any, names: Sequence[str], identity: Mapping[str, Any], stride: int) -> None:
        self.model = model
        self._outputs = ClassOutputs(names, identity["tutor"])
        self.labels = self._outputs.labels
        self._stride, self._short_side = stride, SHORT_SIDE
        self.identity: Mapping[str, Any] = {
            **identity,
            "preprocessing": f"RGB 0..1, short side {SHORT_SIDE}, mean {MEAN}, deviation {DEVIATION}",
            "score_floor": None,
            "nms_iou": None,
            "map_stride": stride,
        }

    def at_scale(self, scale: float) -> Self:
        """See `Scalable`."""
        scaled = copy(self)
        scaled._short_side = _side(SHORT_SIDE, scale)
        return scaled

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return one_by_one(self._answer, images, image_ids)

    @torch.no_grad()
    def _answer(self, image: Image.Image) -> SoftLabels:
        # Pillow's filter, before anything is a tensor, as in torchvision's own presets.
        resized = transforms.resize(image.convert("RGB"), [self._short_side])
        picture = _picture(resized, next(self.model.parameters()).device)
        logits = self.model(transforms.normalize(picture, MEAN, DEVIATION)[None])["out"][0]
        grid = (-(-image.height // self._stride), -(-image.width // self._stride))
        # On the CPU: Apple's GPUs can't average over cells of unequal size.
        cells = finite(adaptive_avg_pool2d(logits.softmax(0).cpu(), grid), "map values")
        return SoftLabels(size=(image.height, image.width), map=self._outputs.fold(cells))


def _side(pixels: int, scale: float) -> int:
    """A side of the network's input at a scale. Raises InputError: fewer than `FEWEST` pixels."""
    scaled = round(pixels * scale)
    if scaled < FEWEST:
        raise InputError(
            f"scales: {scale:g} makes {scaled} of the {pixels} pixels of the network's input; give "
            f"{math.ceil(FEWEST / pixels * 1000) / 1000:g} or more"
        )
    return scaled


def _picture(image: Image.Image, device: torch.device) -> Tensor:
    picture: Tensor = pil_to_tensor(image.convert("RGB"))
    return picture.to(device).float() / 255
