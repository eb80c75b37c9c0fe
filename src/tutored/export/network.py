"""The network that is exported: a student whose outputs need no anchors, with final boxes and mask where asked for."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored import boxes
from tutored.config import Decode
from tutored.student import BlitzNet

RAW = ("boxes", "logits", "map_logits")


class Options(NamedTuple):
    """What an exported network does beyond giving raw outputs.

    Attributes:
        nms: final boxes, as `tutored.student.decode` makes them, in the place of all anchors' boxes and logits.
        mask: the class of each pixel of the S x S input, in the place of the map's logits.
        half: computes in float16; inputs and outputs stay float32.
    """

    nms: bool = False
    mask: bool = False
    half: bool = False

    @property
    def raw(self) -> bool:
        """Whether it gives raw outputs alone."""
        return not (self.nms or self.mask)


class Network(nn.Module):
    """A student's copy that answers as its exported file does: float32 [B, 3, S, S] to the outputs `names`.

    Attributes:
        meanings: name -> type, shape and meaning of each output of the file, in their order.
        names: of all that it answers: the file's outputs, then, where these are more than raw, the raw ones (`raw`),
            which the check needs and the file does without.
    """

    def __init__(self, student: BlitzNet, options: Options, config: Decode) -> None:
        super().__init__()
        self.student = deepcopy(student).to(memory_format=torch.contiguous_format).eval()
        if options.half:
            # In float16 coordinates from 256 on have steps of a quarter of a pixel: the anchors stay what they are.
            anchors_xyxy = self.student.anchors_xyxy
            self.student.half().anchors_xyxy = anchors_xyxy
        self.options, self.config, self.size = options, config, student.config.size
        anchors, classes = len(student.anchors_xyxy), len(student.labels)
        self.total = min(config.total, (classes - 1) * min(config.top_k, anchors))
        self.meanings = _meanings(options, self.size, anchors, classes, self.total)
        self.raw = RAW if options.raw else tuple(f"raw_{name}" for name in RAW)
        self.names = RAW if options.raw else (*self.meanings, *self.raw)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.student(images.half() if self.options.half else images)
        raw_boxes = boxes.decode(outputs.deltas.float(), outputs.anchors_xyxy)
        logits, map_logits = outputs.logits.float(), outputs.map_logits.float()
        if self.options.raw:
            return raw_boxes, logits, map_logits
        found = self._final(raw_boxes, logits) if self.options.nms else (raw_boxes, logits)
        seen = self._mask(map_logits) if self.options.mask else map_logits
        return *found, seen, raw_boxes, logits, map_logits

    def _final(self, raw_boxes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `tutored.student.decode`, but `total` rows for every image, those beyond its count zero."""
        best = logits.softmax(dim=-1)[..., 1:].transpose(1, 2).topk(min(self.config.top_k, logits.shape[1]), dim=-1)
        classes, ranks = best.values.shape[1:]
        candidates = _rows(raw_boxes.clamp(0, self.size), best.indices.flatten(1))
        solid = (candidates[..., 2:] > candidates[..., :2]).all(dim=-1)
        scores = torch.where(solid, best.values.flatten(1), -1.0)
        # Each class of each image is an entry of its own, because each has its own candidates.
        entries, of_entries = candidates.reshape(-1, ranks, 4), scores.reshape(-1, 1, ranks)
        entry, _, rank = _NonMaxSuppression.apply(entries, of_entries, self.config).unbind(dim=1)
        chosen, every = entry * ranks + rank, scores.flatten()
        kept = torch.zeros_like(every).scatter(0, chosen, every[chosen]).reshape(-1, classes * ranks)
        top = kept.topk(self.total, dim=1)
        found = top.values > 0
        numbers = torch.where(found, torch.div(top.indices, ranks, rounding_mode="floor") + 1, 0)
        return _rows(candidates, top.indices) * found[..., None], top.values, numbers, found.sum(dim=1)

    def _mask(self, map_logits: Tensor) -> Tensor:
        side = (self.size, self.size)
        return F.interpolate(map_logits, size=side, mode="bilinear", align_corners=False).argmax(dim=1).to(torch.uint8)


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator: boxes [N, K, 4] and scores [N, 1, K] to int64 rows (entry, 0, rank) of what is kept."""

    @staticmethod
    def forward(ctx: Any, boxes_xyxy: Tensor, scores: Tensor, config: Decode) -> Tensor:
        """PyTorch only traces it: the type alone counts."""
        return torch.zeros(1, 3, dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes_xyxy: Any, scores: Any, config: Decode) -> Any:
        limits = (config.per_class, config.nms_iou, config.score_floor)
        constants = [g.op("Constant", value_t=torch.tensor([limit])) for limit in limits]
        return g.op("NonMaxSuppression", boxes_xyxy, scores, *constants)


def _rows(tables: Tensor, indices: Tensor) -> Tensor:
    """Rows of each image's table: [B, A, 4] and [B, K] to [B, K, 4]."""
    return tables.gather(1, indices[..., None].expand(-1, -1, 4))


def _meanings(options: Options, size: int, anchors: int, classes: int, total: int) -> dict[str, str]:
    square = f"pixels of the {size} x {size} input"
    boxes_of_anchors = {
        "boxes": f"float32 [B, {anchors}, 4]: (x1, y1, x2, y2) in {square}, not clipped",
        "logits": f"float32 [B, {anchors}, {classes}]: before the softmax, class 0 background",
    }
    final = {
        "boxes": f"float32 [B, {total}, 4]: (x1, y1, x2, y2) in {square}, by falling score",
        "scores": f"float32 [B, {total}]: 0..1",
        "classes": f"int64 [B, {total}]: place in `names`, from 1",
        "count": f"int64 [B]: how many of the {total} rows hold a box; the others are zero",
    }
    mask = {"mask": f"uint8 [B, {size}, {size}]: each pixel's place in `names`, 0 background"}
    map_logits = {"map_logits": f"float32 [B, {classes}, h, w]: before the softmax, class 0 background"}
    return (final if options.nms else boxes_of_anchors) | (mask if options.mask else map_logits)
