"""Detectors, semantic and universal segmentation models of transformers as tutors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from tutored.device import choose_device
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors import read_outputs
from tutored.tutors.detections import answer, select, with_masks
from tutored.tutors.hf_masks import boxes_around, mask_scores, picture_part, semantic_scores
from tutored.tutors.hf_model import HfModel
from tutored.tutors.instances import soft_masks
from tutored.tutors.outputs import ClassOutputs, finite, on_cells, one_by_one, with_background

EVERY_BOX = 1.0
"""An IoU that no two boxes exceed: nothing is suppressed."""


def open_hf(
    model: str | Path,
    *,
    labels: LabelSpace | Path | str | None = None,
    download: bool = False,
    device: str | None = None,
    score_floor: float = 0.01,
    nms_iou: float | None = None,
    max_boxes: int = 100,
    stride: int = 8,
    instances: bool = False,
) -> HfTutor:
    """A tutor from transformers; what it answers follows from its architecture.

    Args:
        model, download: as in `HfModel`.
        labels: the names of the model's outputs in order, where it does not name them; see `read_outputs`.
        device: see `choose_device`.
        score_floor: weaker boxes are not kept.
        nms_iou: suppression within a class; None: none, as these detectors need none.
        max_boxes: of one image, the best.
        stride: pixels of the image a cell of the map, where the model's own grid is not coarser.
        instances: of a universal model, its objects with their masks instead of its map.

    Raises:
        InputError: the model is not here or no tutor, or its classes have no names.
    """
    loaded = HfModel(
        model, download=download, device=choose_device(device), task="instance" if instances else "semantic"
    )
    names = loaded.names if labels is None else read_outputs(labels, len(loaded.names))
    outputs = ClassOutputs(names, str(model))
    boxes = {"score_floor": score_floor, "nms_iou": nms_iou, "max_boxes": max_boxes}
    universal = loaded.kind == "AutoModelForUniversalSegmentation"
    if instances and not universal:
        raise InputError(f"{model}: {loaded.identity['tutor']} gives no instances; leave `instances` out")
    if loaded.kind == "AutoModelForObjectDetection":
        tutor: HfTutor = Detector(loaded, outputs, boxes)
    elif instances:
        tutor = InstanceSegmenter(loaded, outputs, boxes)
    elif universal:
        tutor = UniversalSegmenter(loaded, outputs, stride)
    else:
        tutor = Segmenter(loaded, outputs, stride)
    tutor.check(str(model))
    return tutor


class HfTutor:
    """What the kinds share; each gives `_answer` and says what its raw outputs must be."""

    def __init__(self, model: HfModel, outputs: ClassOutputs, facts: Mapping[str, Any]) -> None:
        self._model, self._outputs = model, outputs
        self.labels = outputs.labels
        self.identity: Mapping[str, Any] = {
            **model.identity,
            "score_floor": None,
            "nms_iou": None,
            "map_stride": None,
            **facts,
        }
        self._nms_iou = EVERY_BOX if self.identity["nms_iou"] is None else float(self.identity["nms_iou"])

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        # One by one: in a batch pictures are padded to a common size, which changes their answers.
        return one_by_one(self._answer, images, image_ids)

    def at_scale(self, scale: float) -> Self:
        """See `Scalable`."""
        scaled = copy(self)
        scaled._model = self._model.at_scale(scale)
        return scaled

    def check(self, origin: str) -> None:
        """Ask it about a small grey picture that is no square.

        Raises:
            InputError: the network can't see it, or the number of its outputs is not that of its names.
        """
        try:
            found, _ = self._model(Image.new("RGB", (96, 64), (128, 128, 128)))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{origin}: the network does not take what its preprocessor makes of a picture of 96 x 64 ({error}); "
                "set `size` in preprocessor_config.json to the height and width that it takes"
            ) from error
        count = self._count(found)
        if count != len(self._outputs):
            raise InputError(
                f"{origin}: {count} classes, but {len(self._outputs)} names; give labels=FILE with one class a line"
            )

    def _count(self, found: Any) -> int:
        raise NotImplementedError

    def _answer(self, image: Image.Image) -> SoftLabels:
        raise NotImplementedError


class Detector(HfTutor):
    """DETR and its kin.

    With one output more than the model states classes, the last is "no object" and outputs are a softmax (DETR, YOLOS):
    each query is a box of its likeliest class, and its distribution is the softmax' own. Otherwise they are sigmoids
    (RT-DETR, D-FINE, Deformable and Conditional DETR): a query may stand under several classes, see
    `detections.distribution`.

    Boxes are shares of the whole input, padding included, as transformers normalises them for training.
    """

    def __init__(self, model: HfModel, outputs: ClassOutputs, facts: Mapping[str, Any]) -> None:
        super().__init__(model, outputs, facts)
        self._no_object = False

    def _count(self, found: Any) -> int:
        count = int(found.logits.shape[-1])
        self._no_object = count == len(self._model.names) + 1
        return count - self._no_object

    def _answer(self, image: Image.Image) -> SoftLabels:
        found, share = self._model(image)
        size = (image.height, image.width)
        logits, boxes = found.logits[0].cpu(), found.pred_boxes[0].cpu()
        scores = (logits.softmax(-1) if self._no_object else logits.sigmoid())[:, self._outputs.used]
        eligible = torch.where(scores < scores.amax(1, keepdim=True), 0, scores) if self._no_object else scores
        halves = boxes[:, 2:] / 2
        canvas = boxes.new_tensor([size[1] / share[1], size[0] / share[0]] * 2)
        boxes = torch.cat([boxes[:, :2] - halves, boxes[:, :2] + halves], dim=1) * canvas
        rows, columns = select(
            boxes,
            eligible,
            score_floor=self.identity["score_floor"],
            nms_iou=self._nms_iou,
            max_boxes=self.identity["max_boxes"],
        )
        return answer(boxes[rows], scores[rows], columns, size)


class Segmenter(HfTutor):
    """SegFormer, BEiT, UperNet, DPT, ...: softmax of the class scores at the network's own stride.

    Of a single output, which a softmax would make 1 everywhere, the sigmoid: SegFormer's loss for it is a binary one.
    """

    def __init__(self, model: HfModel, outputs: ClassOutputs, stride: int) -> None:
        super().__init__(model, outputs, {"map_stride": stride})
        self._stride = stride

    def _count(self, found: Any) -> int:
        return int(found.logits.shape[1])

    def _probs(self, found: Any) -> Tensor:
        """float32 [C+1, h, w] over the whole input of the network."""
        logits = found.logits[0]
        if len(logits) == 1:
            return with_background(self._outputs.fold(logits.sigmoid()))
        return self._outputs.fold(logits.softmax(0))

    def _answer(self, image: Image.Image) -> SoftLabels:
        found, share = self._model(image)
        size = (image.height, image.width)
        return SoftLabels(size=size, map=on_cells(picture_part(self._probs(found), share), size, self._stride))


class UniversalSegmenter(Segmenter):
    """MaskFormer, Mask2Former, OneFormer: what the queries say together about each cell.

    A class' score is the model's own, the sum over queries of class probability times mask (Cheng et al. 2021). Where
    scores exceed one in sum they are divided by it; what they leave is background.
    """

    def _count(self, found: Any) -> int:
        return int(found.class_queries_logits.shape[-1]) - 1

    def _probs(self, found: Any) -> Tensor:
        scores = semantic_scores(found.class_queries_logits[0], found.masks_queries_logits[0])
        return with_background(self._outputs.fold(scores))


class InstanceSegmenter(HfTutor):
    """The same models' objects: each query's box, mask and class distribution.

    A score is the class probability times the mean of the mask where that is above .5 (Mask2Former's instance
    inference); the box is the smallest around that region.
    """

    def _count(self, found: Any) -> int:
        return int(found.class_queries_logits.shape[-1]) - 1

    def _answer(self, image: Image.Image) -> SoftLabels:
        found, share = self._model(image)
        size = (image.height, image.width)
        masks = finite(picture_part(found.masks_queries_logits[0].cpu(), share).sigmoid(), "mask values")
        seen = (masks > 0.5).any(2).any(1)
        masks, logits = masks[seen], found.class_queries_logits[0].cpu()[seen]
        scores = logits.softmax(-1)[:, :-1][:, self._outputs.used] * mask_scores(masks)[:, None]
        boxes = boxes_around(masks > 0.5) * masks.new_tensor([size[1] / masks.shape[2], size[0] / masks.shape[1]] * 2)
        rows, columns = select(
            boxes,
            scores,
            score_floor=self.identity["score_floor"],
            nms_iou=self._nms_iou,
            max_boxes=self.identity["max_boxes"],
        )
        result = answer(boxes[rows], scores[rows], columns, size)
        assert result.boxes_xyxy is not None
        return with_masks(result, soft_masks(masks, result.boxes_xyxy, rows, size))
