"""Networks in ONNX files, run by onnxruntime: what a file beside them declares, and YOLOX without one."""

from __future__ import annotations

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
from tutored.tutors import read_labels
from tutored.tutors.detections import answer, select
from tutored.tutors.onnx_declaration import declaration_of, declaration_path
from tutored.tutors.onnx_declared import DeclaredTutor
from tutored.tutors.onnx_file import OnnxFile
from tutored.tutors.onnx_yolox import cells_of, decode
from tutored.tutors.outputs import ClassOutputs, one_by_one

FILL = 114


def open_onnx(
    weights: Path | str, *, threads: int = 1, device: str | None = None, **options: Any
) -> OnnxTutor | DeclaredTutor:
    """A tutor from an ONNX file: what the file beside it declares, else our own export, else a YOLOX detector.

    Args:
        weights: the file; what declares it has its name with the ending `.yaml`, see `onnx_declaration.Declaration`.
        threads: CPU threads within one operation.
        device: "cpu" or "cuda"; None: CUDA where onnxruntime has it.
        options: those of `DeclaredTutor`, or of `OnnxTutor`.

    Raises:
        InputError: what these refuse, the file is no ONNX model, or onnxruntime is not installed.
    """
    model = OnnxFile.open(Path(weights), threads, device)
    declared = declaration_of(model)
    return OnnxTutor(model, **options) if declared is None else DeclaredTutor(model, declared, **options)


class OnnxTutor:
    """A YOLOX detector (Ge et al. 2021).

    Its input is float32 [1, 3, S, S], BGR 0..255, the image scaled to fit and put top left on 114.
    Its output is [1, A, 5 + C] over the cells of strides 8, 16, 32: centre offset and log size in
    units of the stride, objectness and class probabilities behind their sigmoids. A class' score
    is objectness times class probability.
    """

    def __init__(
        self,
        model: OnnxFile,
        *,
        labels: LabelSpace | Path | str | None = None,
        score_floor: float = 0.01,
        nms_iou: float = 0.5,
        max_boxes: int = 100,
    ) -> None:
        """Look at the model.

        Args:
            labels: the model's classes; else the names in its metadata, else COCO for 80 classes.
            max_boxes: of one image, the best; YOLOX-nano gives 19 on average at the default floor.

        Raises:
            InputError: the model has no YOLOX head, or its classes have no names.
        """
        self._model, weights = model, model.path
        given = model.session.get_inputs()[0]
        if len(given.shape) != 4 or given.shape[1] != 3 or not all(isinstance(side, int) for side in given.shape[2:]):
            raise InputError(
                f"{weights}: input {given.shape}, expected a fixed [1, 3, height, width]; export it with a fixed size"
            )
        self._input, self._side = given.name, (given.shape[2], given.shape[3])
        self._cells = cells_of(self._side)
        self.labels = self._check_head(labels)
        self._floor, self._nms_iou, self._max_boxes = score_floor, nms_iou, max_boxes
        self.identity: Mapping[str, Any] = {
            "kind": "onnx",
            "tutor": "YOLOX",
            "weights": weights.name,
            "weights_sha256": model.sha256,
            "preprocessing": f"BGR 0..255, bilinear to fit {self._side[0]} x {self._side[1]}, top left on {FILL}",
            "score_floor": score_floor,
            "nms_iou": nms_iou,
            "max_boxes": max_boxes,
            "map_stride": None,
        }

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return one_by_one(self._answer, images, image_ids)

    def _answer(self, image: Image.Image) -> SoftLabels:
        size = (image.height, image.width)
        picture, scale = letterbox(image, self._side)
        boxes, scores = decode(self._run(picture)[0], self._cells, self._model.path)
        rows, columns = select(boxes, scores, score_floor=self._floor, nms_iou=self._nms_iou, max_boxes=self._max_boxes)
        return answer(boxes[rows] / scale, scores[rows], columns, size)

    def _run(self, picture: Tensor) -> Tensor:
        return next(iter(self._model.run(self._input, picture).values()))

    def _check_head(self, labels: LabelSpace | Path | str | None) -> LabelSpace:
        model, weights = self._model, self._model.path
        output = self._run(torch.zeros(1, 3, *self._side))
        shape = output.shape
        if len(shape) != 3 or shape[1] != len(self._cells) or shape[2] < 6:
            raise InputError(
                f"{weights}: output {list(shape)}, a YOLOX head gives [1, {len(self._cells)}, 5 + classes] here; "
                f"say what other heads mean in {declaration_path(weights)}"
            )
        decode(output[0], self._cells, weights)
        count = shape[2] - 5
        stated = ClassOutputs(model.names, str(weights)).labels if model.names else None
        space = read_labels(labels) if labels is not None else stated or (COCO if count == 80 else None)
        if space is None or len(space) - 1 != count:
            known = "no names are known" if space is None else f"{len(space) - 1} names are given"
            raise InputError(f"{weights}: {count} classes, but {known}; give labels=FILE with one class a line")
        return space


def letterbox(image: Image.Image, side: tuple[int, int]) -> tuple[Tensor, float]:
    """The picture as YOLOX wants it, float32 [1, 3, *side], and the scale that image pixels got."""
    scale = min(side[0] / image.height, side[1] / image.width)
    inner = (max(1, int(image.height * scale)), max(1, int(image.width * scale)))
    picture = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].flip(1).float()
    scaled = interpolate(picture, inner, mode="bilinear")
    return pad(scaled, (0, side[1] - inner[1], 0, side[0] - inner[0]), value=FILL), scale
