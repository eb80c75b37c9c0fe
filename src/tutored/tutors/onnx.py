"""Detectors with a YOLOX head in ONNX files, run by onnxruntime."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from tutored.errors import InputError
from tutored.labels import COCO, LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors import file_sha256, read_labels
from tutored.tutors.detections import answer, select

STRIDES = (8, 16, 32)
FILL = 114


class OnnxTutor:
    """A YOLOX detector (Ge et al. 2021).

    Its input is float32 [1, 3, S, S], BGR 0..255, the image scaled to fit and put top left on 114.
    Its output is [1, A, 5 + C] over the cells of strides 8, 16, 32: centre offset and log size in
    units of the stride, objectness and class probabilities behind their sigmoids. A class' score
    is objectness times class probability.
    """

    def __init__(
        self,
        weights: Path | str,
        *,
        labels: LabelSpace | Path | str | None = None,
        score_floor: float = 0.01,
        nms_iou: float = 0.5,
        max_boxes: int = 100,
        threads: int = 1,
        device: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            labels: the model's classes; else the names in its metadata, else COCO for 80 classes.
            max_boxes: of one image, the best; YOLOX-nano gives 19 on average at the default floor.
            threads: CPU threads within one operation.
            device: "cpu" or "cuda"; None: CUDA where onnxruntime has it.

        Raises:
            InputError: the file is no ONNX model with a YOLOX head, its classes have no names, or
                onnxruntime is not installed.
        """
        weights = Path(weights)
        digest = file_sha256(weights, "the model")
        self._session = _load(weights, threads, device)
        given = self._session.get_inputs()[0]
        if len(given.shape) != 4 or given.shape[1] != 3 or not all(isinstance(side, int) for side in given.shape[2:]):
            raise InputError(
                f"{weights}: input {given.shape}, expected a fixed [1, 3, height, width]; export it with a fixed size"
            )
        self._input, self._side = given.name, (given.shape[2], given.shape[3])
        self._cells, self._strides = _cells(self._side)
        self.labels = self._check_head(weights, labels)
        self._floor, self._nms_iou, self._max_boxes = score_floor, nms_iou, max_boxes
        self.identity: Mapping[str, Any] = {
            "kind": "onnx",
            "tutor": "YOLOX",
            "weights": weights.name,
            "weights_sha256": digest,
            "preprocessing": f"BGR 0..255, bilinear to fit {self._side[0]} x {self._side[1]}, top left on {FILL}",
            "score_floor": score_floor,
            "nms_iou": nms_iou,
            "max_boxes": max_boxes,
            "map_stride": None,
        }

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return [self._answer(image) for image in images]

    def _answer(self, image: Image.Image) -> SoftLabels:
        size = (image.height, image.width)
        picture, scale = letterbox(image, self._side)
        output = torch.from_numpy(self._session.run(None, {self._input: picture.numpy()})[0][0])
        boxes, scores = self._decode(output)
        rows, columns = select(boxes, scores, score_floor=self._floor, nms_iou=self._nms_iou, max_boxes=self._max_boxes)
        return answer(boxes[rows] / scale, scores[rows], columns, size)

    def _decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [A, 4] in pixels of the network's input, scores [A, C]."""
        centres = (output[:, :2] + self._cells) * self._strides
        halves = output[:, 2:4].exp() * self._strides / 2
        return torch.cat([centres - halves, centres + halves], dim=1), output[:, 4:5] * output[:, 5:]

    def _check_head(self, weights: Path, labels: LabelSpace | Path | str | None) -> LabelSpace:
        shape = self._session.run(None, {self._input: np.zeros((1, 3, *self._side), np.float32)})[0].shape
        if len(shape) != 3 or shape[1] != len(self._cells) or shape[2] < 6:
            raise InputError(
                f"{weights}: output {list(shape)}, a YOLOX head gives [1, {len(self._cells)}, 5 + classes] here; "
                "other heads: write their boxes as COCO results and use the tutor `files`"
            )
        count = shape[2] - 5
        space = read_labels(labels) if labels is not None else self._names() or (COCO if count == 80 else None)
        if space is None or len(space) - 1 != count:
            known = "no names are known" if space is None else f"{len(space) - 1} names are given"
            raise InputError(f"{weights}: {count} classes, but {known}; give labels=FILE with one class a line")
        return space

    def _names(self) -> LabelSpace | None:
        """The class names in the model's metadata, as exporters write them: a list, or index -> name."""
        try:
            names = ast.literal_eval(self._session.get_modelmeta().custom_metadata_map["names"])
            return LabelSpace.of([names[index] for index in range(len(names))])
        except (KeyError, ValueError, SyntaxError, TypeError):
            return None


def letterbox(image: Image.Image, side: tuple[int, int]) -> tuple[Tensor, float]:
    """The picture as YOLOX wants it, float32 [1, 3, *side], and the scale that image pixels got."""
    scale = min(side[0] / image.height, side[1] / image.width)
    inner = (max(1, int(image.height * scale)), max(1, int(image.width * scale)))
    picture = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].flip(1).float()
    scaled = interpolate(picture, inner, mode="bilinear")
    return pad(scaled, (0, side[1] - inner[1], 0, side[0] - inner[0]), value=FILL), scale


def _cells(side: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of every row of the output: its cell (x, y), [A, 2], and its stride, [A, 1]."""
    grids = [
        torch.cartesian_prod(torch.arange(side[0] // stride), torch.arange(side[1] // stride)).flip(1)
        for stride in STRIDES
    ]
    strides = torch.cat([torch.full((len(grid), 1), stride) for grid, stride in zip(grids, STRIDES, strict=True)])
    return torch.cat(grids).float(), strides.float()


def _load(weights: Path, threads: int, device: str | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("the tutor `onnx` needs onnxruntime: pip install 'tutored[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    known = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    here = {name: provider for name, provider in known.items() if provider in onnxruntime.get_available_providers()}
    if device not in (None, *here):
        raise InputError(f"device {device}: onnxruntime has {', '.join(here)} here; give one of them")
    providers = [here[device]] if device else list(here.values())
    try:
        return onnxruntime.InferenceSession(str(weights), options, providers=providers)
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise InputError(f"{weights}: not an ONNX model that onnxruntime can load ({error})") from error
