"""The few types that cross the borders between modules; shapes are checked once, when they are made.

Letters in shapes: B images, A anchors, K boxes of one image, N instances, C object classes
(background not counted), H x W pixels of an image, h x w cells of a map.

Boxes are always `(x1, y1, x2, y2)`, float32, 0-based continuous pixel edges, so that a box over
the whole image is `(0, 0, W, H)`. Class 0 is background, 255 in a mask is "ignore".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from tutored.labels import LabelSpace

IGNORE = 255
BACKGROUND = 0


def _expect(tensor: Tensor, name: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> None:
    found = tensor.shape
    if len(found) != len(shape) or [1 for want, got in zip(shape, found, strict=True) if want not in (None, got)]:
        raise ValueError(f"{name} must have shape {shape} (None: any), got {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")


def _expect_boxes(boxes_xyxy: Tensor, name: str) -> None:
    _expect(boxes_xyxy, name, (None, 4), torch.float32)
    near, far = boxes_xyxy.chunk(2, dim=1)
    if not bool((near < far).all()):
        raise ValueError(f"{name} holds a box of no area: x1 < x2 and y1 < y2 must hold in every row")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """What a person drew on one image; None where that task was not annotated.

    Attributes:
        size: (height, width) of the image in pixels.
        boxes_xyxy: float32 [K, 4], or None (not annotated; zero rows mean "nothing there").
        classes: int64 [K], 1..C, present exactly when `boxes_xyxy` is.
        difficult: bool [K], VOC's flag, present exactly when `boxes_xyxy` is.
        mask: uint8 [H, W], 0..C and 255 = ignore, or None (not annotated).
        annotated: the classes that the data set annotates at all; None means every class. What is
            not listed may be anywhere, also where the mask says background or no box is drawn.
    """

    size: tuple[int, int]
    boxes_xyxy: Tensor | None = None
    classes: Tensor | None = None
    difficult: Tensor | None = None
    mask: Tensor | None = None
    annotated: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.boxes_xyxy is not None:
            if self.classes is None or self.difficult is None:
                raise ValueError("boxes need classes and difficult flags")
            _expect_boxes(self.boxes_xyxy, "GroundTruth.boxes_xyxy")
            _expect(self.classes, "GroundTruth.classes", (len(self.boxes_xyxy),), torch.int64)
            _expect(self.difficult, "GroundTruth.difficult", (len(self.boxes_xyxy),), torch.bool)
        if self.mask is not None:
            _expect(self.mask, "GroundTruth.mask", self.size, torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """A tutor's instance masks for one image, each in the frame of its own box.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the image.
        classes: int64 [N], 1..C.
        scores: float32 [N], 0..1.
        masks: float32 [N, m, m], 0..1, a soft mask stretched over its box (Mask R-CNN: m = 28).
    """

    boxes_xyxy: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        _expect_boxes(self.boxes_xyxy, "Instances.boxes_xyxy")
        count = len(self.boxes_xyxy)
        _expect(self.classes, "Instances.classes", (count,), torch.int64)
        _expect(self.scores, "Instances.scores", (count,), torch.float32)
        _expect(self.masks, "Instances.masks", (count, None, None), torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """One tutor's answer for one image, in the un-augmented image's own pixels.

    Probabilities may sum to less than one: the sum is how much the tutor says at all about that
    box or cell, and it weighs the loss there. Zero everywhere is "says nothing".

    Attributes:
        size: (height, width) of the image in pixels.
        boxes_xyxy: float32 [K, 4], or None (this tutor answers no detection).
        classes: int64 [K], 1..C, the class each box was kept for (a proposal may stand twice).
        probs: float32 [K, C+1], the full class distribution, column 0 background.
        map: float32 [C+1, h, w], class probabilities on a grid that spans the whole image, of one cell a pixel at most,
            or None.
        instances: instance masks from which a map can be drawn, or None.
        unknown: classes of the label space that this tutor knows nothing about, so that its background may be any.
    """

    size: tuple[int, int]
    boxes_xyxy: Tensor | None = None
    classes: Tensor | None = None
    probs: Tensor | None = None
    map: Tensor | None = None
    instances: Instances | None = None
    unknown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.boxes_xyxy is not None:
            if self.classes is None or self.probs is None:
                raise ValueError("tutor boxes need classes and class distributions")
            _expect_boxes(self.boxes_xyxy, "SoftLabels.boxes_xyxy")
            _expect(self.classes, "SoftLabels.classes", (len(self.boxes_xyxy),), torch.int64)
            _expect(self.probs, "SoftLabels.probs", (len(self.boxes_xyxy), None), torch.float32)
        if self.map is not None:
            _expect(self.map, "SoftLabels.map", (None, None, None), torch.float32)
            cells = tuple(self.map.shape[1:])
            if cells[0] > self.size[0] or cells[1] > self.size[1]:
                raise ValueError(f"SoftLabels.map: {cells} cells for {self.size} pixels; average it to one a pixel")

    @property
    def scores(self) -> Tensor:
        """float32 [K]: the probability of the class that each box was kept for."""
        assert self.probs is not None and self.classes is not None
        return self.probs.gather(1, self.classes[:, None])[:, 0]

    def rescored(self, scores: Tensor) -> Tensor:
        """`probs` with these scores (float32 [K], 0..1), the other classes scaled by how much is left for them."""
        assert self.probs is not None and self.classes is not None
        others = self.probs.scatter(1, self.classes[:, None], 0.0)
        # Where the score is 1, what others have is rounding, and may exceed what it leaves.
        before = torch.maximum(1 - self.scores, others.sum(dim=1)).clamp(min=torch.finfo(scores.dtype).tiny)
        return (others * ((1 - scores) / before)[:, None]).scatter(1, self.classes[:, None], scores[:, None])

    def quietened(self, which: Tensor, most: float) -> Tensor:
        """`probs`, those of the boxes `which` (bool [K]) scaled so that their scores are `most` at most."""
        assert self.probs is not None
        scale = most / self.scores.clamp(min=max(most, torch.finfo(self.probs.dtype).tiny))
        return self.probs * torch.where(which, scale, 1.0)[:, None]


class Outputs(NamedTuple):
    """The student's raw answer for a batch.

    Attributes:
        anchors_xyxy: float32 [A, 4], pixels of the network's input, not clipped.
        deltas: float32 [B, A, 4], encoded offsets (`boxes.encode`).
        logits: float32 [B, A, C+1], column 0 background.
        map_logits: float32 [B, C+1, h, w].
    """

    anchors_xyxy: Tensor
    deltas: Tensor
    logits: Tensor
    map_logits: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Final boxes and map of one image in its own pixels, whoever made them: student, tutor, store or file.

    Attributes:
        size: (height, width) of the image in pixels.
        boxes_xyxy: float32 [K, 4], or None where the predictor does no detection.
        classes: int64 [K], 1..C.
        scores: float32 [K], 0..1.
        mask: uint8 [H, W], 0..C, or None where the predictor does no segmentation.
    """

    size: tuple[int, int]
    boxes_xyxy: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.boxes_xyxy is not None:
            if self.classes is None or self.scores is None:
                raise ValueError("predicted boxes need classes and scores")
            _expect(self.boxes_xyxy, "Prediction.boxes_xyxy", (None, 4), torch.float32)
            _expect(self.classes, "Prediction.classes", (len(self.boxes_xyxy),), torch.int64)
            _expect(self.scores, "Prediction.scores", (len(self.boxes_xyxy),), torch.float32)
        if self.mask is not None:
            _expect(self.mask, "Prediction.mask", self.size, torch.uint8)

    def above(self, score: float) -> Prediction:
        """The same with only the boxes of at least this score."""
        if self.boxes_xyxy is None or self.classes is None or self.scores is None:
            return self
        chosen = self.scores >= score
        return replace(
            self, boxes_xyxy=self.boxes_xyxy[chosen], classes=self.classes[chosen], scores=self.scores[chosen]
        )


class Dataset(Protocol):
    """Images of one split with their ground truth, read one at a time by id."""

    @property
    def name(self) -> str:
        """What the user asked for, such as `voc:FOLDER/val`; used in messages."""

    @property
    def source(self) -> str:
        """Format and the folder's own name, such as `voc:VOC2012`: nothing of where it lies on this machine."""

    @property
    def split(self) -> str:
        """As the user wrote it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or bent when it was opened, a line each that names the file."""

    @property
    def labels(self) -> LabelSpace: ...

    @property
    def ids(self) -> tuple[str, ...]: ...

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture. Raises InputError, naming the file, where it can't be read."""

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Boxes and mask in the image's own pixels. Raises InputError, naming the file."""

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Of "detection" and "segmentation" those with ground truth, found without reading it."""

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Every fault of boxes and mask, a message each; none where `ground_truth`, which raises one, can read them."""
