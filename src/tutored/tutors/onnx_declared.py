"""ONNX networks whose input and outputs a small YAML file beside them declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors.detections import answer, select
from tutored.tutors.onnx_declaration import BoxesAndScores, Declaration, Picture, Yolox, name_outputs
from tutored.tutors.onnx_file import OnnxFile
from tutored.tutors.onnx_yolox import cells_of, decode
from tutored.tutors.outputs import ClassOutputs, on_cells, one_by_one, probabilities, with_background

SLACK = 0.01
"""By how much the sum of a cell's probabilities may exceed one."""


class DeclaredTutor:
    """Boxes, a map, or both, as `onnx_declaration.Declaration` says what the outputs mean."""

    def __init__(
        self,
        model: OnnxFile,
        declared: Declaration,
        *,
        labels: LabelSpace | Path | str | None = None,
        score_floor: float = 0.01,
        max_boxes: int = 100,
        stride: int = 8,
    ) -> None:
        """Hold the model against its declaration, and try both on a black picture.

        Args:
            labels: a name for each output, instead of the declaration's or the model's own.
            stride: pixels of the image a cell of the map, where the model's own grid is not coarser.

        Raises:
            InputError: the model is not what is declared, or its outputs have no names.
        """
        weights = model.path
        self._model, self._declared = model, declared
        self._input = _input(weights, model.session, declared.input)
        self._floor, self._max_boxes, self._stride = score_floor, max_boxes, stride
        self._cells = cells_of(self._input.side)
        self._outputs = self._check(labels)
        self.labels = self._outputs.labels
        self.identity: Mapping[str, Any] = {
            "kind": "onnx",
            "tutor": weights.stem,
            "weights": weights.name,
            "weights_sha256": model.sha256,
            "preprocessing": f"{self._input.side[0]} x {self._input.side[1]}, {declared.input.model_dump_json()}",
            "outputs": declared.model_dump(mode="json", include={"detection", "segmentation"}),
            "score_floor": score_floor if declared.detection else None,
            "nms_iou": declared.detection.nms_iou if declared.detection else None,
            "max_boxes": max_boxes if declared.detection else None,
            "map_stride": stride if declared.segmentation else None,
        }

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return one_by_one(self._answer, images, image_ids)

    def _answer(self, image: Image.Image) -> SoftLabels:
        size = (image.height, image.width)
        pixels, placed = place(image, self._input.side, self._declared.input)
        found = self._model.run(self._input.name, pixels)
        result = SoftLabels(size=size)
        if self._declared.detection:
            result = self._detect(found, placed, size)
        drawn = self._draw(found, placed, size) if self._declared.segmentation else None
        return replace(result, map=drawn)

    def _raw_boxes(self, found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes xyxy [A, 4] in pixels of the network's input, and scores [A, N] of its outputs."""
        head = self._declared.detection
        assert head is not None
        if isinstance(head, Yolox):
            return decode(found[head.output][0], self._cells, self._model.path)
        boxes, scores = found[head.boxes][0], found[head.scores][0]
        if head.transposed:
            boxes, scores = boxes.T, scores.T
        if head.boxes == head.scores:
            boxes, scores = boxes[:, :4], boxes[:, 4:]
        return _xyxy(boxes, head, self._input.side), _probabilities(scores, head.activation, 1, self._model.path)

    def _detect(self, found: Mapping[str, Tensor], placed: Placed, size: tuple[int, int]) -> SoftLabels:
        head = self._declared.detection
        assert head is not None
        boxes, scores = self._raw_boxes(found)
        scores = scores[:, self._outputs.used]
        nms_iou = 1.0 if head.nms_iou is None else head.nms_iou
        rows, columns = select(boxes, scores, score_floor=self._floor, nms_iou=nms_iou, max_boxes=self._max_boxes)
        corner, scale = (boxes.new_tensor(pair).repeat(2) for pair in (placed.corner, placed.scale))
        return answer((boxes[rows] - corner) / scale, scores[rows], columns, size)

    def _raw_map(self, found: Mapping[str, Tensor]) -> Tensor:
        """Probabilities of the outputs, [N, h, w]; those of sigmoids may exceed one in sum."""
        head = self._declared.segmentation
        assert head is not None
        probs = _probabilities(found[head.logits][0], head.activation, 0, self._model.path)
        most = float(probs.sum(0).max())
        if head.activation == "none" and most > 1 + SLACK:
            raise InputError(
                f"{self._model.path}: {head.logits} sums to {most:.3g} in a cell, not to one; export "
                "what its activation takes, and declare that (`softmax`, `sigmoid`)"
            )
        return probs

    def _draw(self, found: Mapping[str, Tensor], placed: Placed, size: tuple[int, int]) -> Tensor:
        head = self._declared.segmentation
        assert head is not None
        probs = self._outputs.fold(self._raw_map(found))
        if head.activation != "softmax":
            probs = with_background(probs)
        if placed.inner != self._input.side or head.align_corners:
            probs = interpolate(probs[None], self._input.side, mode="bilinear", align_corners=head.align_corners)[0]
            x, y = placed.corner
            probs = probs[:, y : y + placed.inner[0], x : x + placed.inner[1]]
        return on_cells(probs, size, self._stride)

    def _check(self, labels: LabelSpace | Path | str | None) -> ClassOutputs:
        """The classes of the outputs, after a look at the outputs for a black picture."""
        weights = self._model.path
        pixels, _ = place(Image.new("RGB", (64, 64)), self._input.side, self._declared.input)
        found = self._model.run(self._input.name, pixels)
        wanted = self._declared.names_of_outputs()
        lacking = sorted(wanted - found.keys())
        if lacking:
            raise InputError(f"{weights}: no output {lacking[0]!r}; possible: {', '.join(found)}")
        counts = {}
        if self._declared.detection:
            try:
                boxes, scores = self._raw_boxes(found)
            except (RuntimeError, IndexError) as error:
                shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
                raise InputError(f"{weights}: not the declared boxes and scores ({shapes})") from error
            if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.dim() != 2 or len(scores) != len(boxes):
                raise InputError(
                    f"{weights}: boxes {list(boxes.shape)} and scores {list(scores.shape)}, expected [1, A, 4] and "
                    "[1, A, classes]; `transposed: true` swaps the last two sides"
                )
            counts["scores"] = scores.shape[1]
        if self._declared.segmentation:
            logits = found[self._declared.segmentation.logits]
            if logits.dim() != 4:
                raise InputError(f"{weights}: logits {list(logits.shape)}, expected [1, classes, height, width]")
            counts["logits"] = len(self._raw_map(found))
        if len(set(counts.values())) > 1:
            raise InputError(f"{weights}: {counts['scores']} scores and {counts['logits']} logits; one list names both")
        return name_outputs(self._model, self._declared, labels, min(counts.values()))


@dataclass(frozen=True, slots=True)
class Input:
    """The network's input: its name and (height, width)."""

    name: str
    side: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a picture lies on the network's input: its (x, y) corner and (height, width) there, and (x, y) scale."""

    corner: tuple[int, int]
    inner: tuple[int, int]
    scale: tuple[float, float]


def place(image: Image.Image, side: tuple[int, int], how: Picture) -> tuple[Tensor, Placed]:
    """A picture as the network wants it, float32 [1, 3, *side] or [1, *side, 3], and where it lies."""
    inner, corner = side, (0, 0)
    if how.fit == "letterbox":
        scale = min(side[0] / image.height, side[1] / image.width)
        inner = (max(1, round(image.height * scale)), max(1, round(image.width * scale)))
        if how.corner == "centre":
            corner = ((side[1] - inner[1]) // 2, (side[0] - inner[0]) // 2)
    colour = image.convert("RGB")
    if how.antialias:
        resized = torch.from_numpy(np.array(colour.resize(inner[::-1], Image.Resampling.BILINEAR)))
        picture = resized.permute(2, 0, 1).float()
    else:
        picture = interpolate(
            torch.from_numpy(np.array(colour)).permute(2, 0, 1)[None].float(), inner, mode="bilinear"
        )[0]
    x, y = corner
    canvas = torch.full((3, *side), how.fill)
    canvas[:, y : y + inner[0], x : x + inner[1]] = picture
    if how.colours == "bgr":
        canvas = canvas.flip(0)
    canvas = canvas / 255 * how.white
    canvas = (canvas - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.deviation)[:, None, None]
    if how.layout == "nhwc":
        canvas = canvas.permute(1, 2, 0).contiguous()
    return canvas[None], Placed(corner, inner, (inner[1] / image.width, inner[0] / image.height))


def _xyxy(boxes: Tensor, head: BoxesAndScores, side: tuple[int, int]) -> Tensor:
    if head.unit == "normalised":
        boxes = boxes * boxes.new_tensor([side[1], side[0]] * 2)
    if head.format == "cxcywh":
        return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1) if head.format == "xywh" else boxes


def _probabilities(values: Tensor, activation: str, dim: int, weights: Path) -> Tensor:
    if activation == "softmax" and values.shape[dim] == 1:
        raise InputError(
            f"{weights}: a softmax over one output is 1 everywhere; declare `activation: sigmoid`, or `none`"
        )
    values = values.softmax(dim) if activation == "softmax" else values.sigmoid() if activation == "sigmoid" else values
    return probabilities(values, weights, "declare `activation`")


def _input(weights: Path, session: Any, declared: Picture) -> Input:
    given = {entry.name: entry.shape for entry in session.get_inputs()}
    name = declared.name or next(iter(given), "")
    if name not in given or len(given[name]) != 4:
        raise InputError(f"{weights}: inputs {given}; declare the name of the picture's, with four sides")
    own = given[name][2:] if declared.layout == "nchw" else given[name][1:3]
    fixed = tuple(own) if all(isinstance(pixels, int) for pixels in own) else None
    if declared.size is None and fixed is None:
        raise InputError(f"{weights}: its input {name} has no fixed size; declare `input.size: [height, width]`")
    if declared.size is not None and fixed is not None and declared.size != fixed:
        raise InputError(f"{weights}: its input {name} is {fixed[0]} x {fixed[1]}, declared {declared.size}")
    side = declared.size or fixed
    assert side is not None
    return Input(name, side)
