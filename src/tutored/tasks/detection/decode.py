"""From the boxes of a detection head to final boxes, or to soft labels where the student is a tutor."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tutored import boxes
from tutored.config.tasks import Decode
from tutored.tasks.detection.types import Detections, SoftBoxes
from tutored.tasks.task import refuse_nan
from tutored.types import Size


class Kept(NamedTuple):
    """The boxes of one image that are kept.

    Attributes:
        boxes: on the CPU.
        rows: int64 [K], the place of each among the A that were given, on their device.
    """

    boxes: SoftBoxes
    rows: Tensor


def keep(boxes_xyxy: Tensor, probs: Tensor, sizes: Sequence[Size], config: Decode, network_size: int) -> list[Kept]:
    """The boxes of every image that are kept, by falling score, in its own pixels (specification 5.1).

    Per class: scores above the floor, the best `top_k`, NMS, at most `per_class`; then the best `total` of all. Boxes
    are cut at the image's borders; those without any area left are dropped. Raises FloatingPointError: the values are
    NaN, as from a student whose training diverged. Returns each box with its whole class distribution.

    Args:
        boxes_xyxy: float32 [B, A, 4], pixels of the network's input.
        probs: float32 [B, A, C+1], column 0 background.
        sizes: (height, width) of each image in pixels.
        network_size: side of the square that the images were resized to.
    """
    refuse_nan(probs, boxes_xyxy)
    best = probs[..., 1:].transpose(1, 2).topk(min(config.top_k, probs.shape[1]), dim=-1)
    found = []
    for index, (height, width) in enumerate(sizes):
        classes, rank = (best.values[index] > config.score_floor).nonzero(as_tuple=True)
        anchor, scores = best.indices[index, classes, rank], best.values[index, classes, rank]
        scale = boxes_xyxy.new_tensor([width, height, width, height]) / network_size
        corners = boxes.clip(boxes_xyxy[index, anchor] * scale, (height, width))
        solid = (corners[:, 2:] > corners[:, :2]).all(dim=1).nonzero()[:, 0]
        kept = solid[boxes.nms(corners[solid], scores[solid], classes[solid], config.nms_iou)]
        kept = kept[_earlier_of_class(classes[kept]) < config.per_class][: config.total]
        rows = anchor[kept]
        boxes_kept = SoftBoxes(
            boxes_xyxy=corners[kept].cpu(), classes=classes[kept].cpu() + 1, probs=probs[index, rows].cpu()
        )
        found.append(Kept(boxes_kept, rows))
    return found


def _earlier_of_class(classes: Tensor) -> Tensor:
    """For each entry the number of entries of the same class before it, [K]."""
    if not len(classes):
        return classes
    return torch.as_tensor(F.one_hot(classes).cumsum(dim=0).gather(1, classes[:, None])[:, 0] - 1)


class BoxExport:
    """One task of an exported student, whose head gives boxes and class probabilities.

    Attributes:
        option: of `export.Options`, which asks for final boxes.
        gives: what the option is about, in words.
        most_apart: share of final answers that may be others than PyTorch's, in float32 and in float16: where two
            scores, or an overlap and its limit, differ by a rounding, either choice is right.
        facts: what the file says about the task, JSON-ready.
    """

    option: ClassVar[str] = "nms"
    gives: ClassVar[str] = "boxes"
    most_apart: ClassVar[tuple[float, float]] = (1e-2, 1e-1)

    def __init__(self, head: Any, side: int) -> None:
        self.head, self.side = head, side
        self.limits: Decode = head.task.section.decode
        self.facts = {"decode": self.limits.model_dump()}
        square = f"(x1, y1, x2, y2) in pixels of the {side} x {side} input"
        self.meanings = {
            "candidates": f"{square}, not clipped",
            "probs": "probability of each class, 0 background",
            "boxes": f"{square}, by falling score",
            "scores": "0..1",
            "classes": "place in the task's names, from 1",
            "count": "how many rows hold a box; the others are zero",
        }

    def raw(self, raw: Any) -> dict[str, Tensor]:
        """Candidates float32 [B, A, 4] and probs float32 [B, A, C+1], from the head's raw outputs."""
        return dict(zip(("candidates", "probs"), self.head.boxes_and_probs(raw), strict=True))

    def final(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `keep` has them, but N rows for every image, of which those beyond its count are zero. Returns boxes
        float32 [B, N, 4], scores float32 [B, N], classes int64 [B, N], count int64 [B].
        """
        return self.chosen(raw)[0]

    def chosen(self, raw: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What `final` returns, and int64 [B, N], the candidate that each box comes from."""
        limits, candidates, probs = self.limits, raw["candidates"], raw["probs"]
        best = probs[..., 1:].transpose(1, 2).topk(min(limits.top_k, int(probs.shape[1])), dim=-1)
        classes, ranks = (int(length) for length in best.values.shape[1:])
        boxes_xyxy = rows_of(candidates.clamp(0, self.side), best.indices.flatten(1))
        solid = (boxes_xyxy[..., 2:] > boxes_xyxy[..., :2]).all(dim=-1)
        scores = torch.where(solid, best.values.flatten(1), -1.0)
        # Each class of each image is an entry of its own, because each has its own candidates.
        entries, of_entries = boxes_xyxy.reshape(-1, ranks, 4), scores.reshape(-1, 1, ranks)
        entry, _, rank = _NonMaxSuppression.apply(entries, of_entries, limits).unbind(dim=1)
        chosen, every = entry * ranks + rank, scores.flatten()
        kept = torch.zeros_like(every).scatter(0, chosen, every[chosen]).reshape(-1, classes * ranks)
        top = kept.topk(min(limits.total, classes * ranks), dim=1)
        found = top.values > 0
        final = {
            "boxes": rows_of(boxes_xyxy, top.indices) * found[..., None],
            "scores": top.values,
            "classes": torch.where(found, torch.div(top.indices, ranks, rounding_mode="floor") + 1, 0),
            "count": found.sum(dim=1),
        }
        return final, best.indices.flatten(1).gather(1, top.indices)

    def apart(self, final: Mapping[str, Tensor], raw: Mapping[str, Tensor], tolerance: float) -> tuple[int, int]:
        """How many of the boxes in `final`, and of those that `keep` makes of `raw`, are not among the others.

        Boxes are the same that are of one class and differ by at most the tolerance in score, and times S in pixels.
        Returns the boxes without a partner on either side, and the boxes of `raw`.
        """
        sizes = [(self.side, self.side)] * len(final["count"])
        lonely, count = 0, 0
        wanted = [each.boxes for each in keep(raw["candidates"], raw["probs"], sizes, self.limits, self.side)]
        for want, boxes_xyxy, scores, classes, many in zip(
            wanted, *(final[name] for name in ("boxes", "scores", "classes", "count")), strict=True
        ):
            distance = (want.boxes_xyxy[:, None] - boxes_xyxy[None, :many]).abs().amax(dim=-1)
            partners = (
                (distance <= tolerance * self.side)
                & ((want.scores[:, None] - scores[None, :many]).abs() <= tolerance)
                & (want.classes[:, None] == classes[None, :many])
            )
            lonely += int((~partners.any(dim=0)).sum() + (~partners.any(dim=1)).sum())
            count += len(want.scores)
        return lonely, count


def read(outputs: Mapping[str, Tensor], sizes: Sequence[Size], limits: Decode, side: int) -> list[Detections]:
    """Final boxes in each image's own pixels from what a file gives: all candidates, or its own final boxes. Raises
    FloatingPointError: the candidates are NaN, see `keep`.
    """
    if "candidates" in outputs:
        kept = keep(outputs["candidates"], outputs["probs"], sizes, limits, side)
        return [each.boxes.final() for each in kept]
    found = []
    for row, (height, width) in enumerate(sizes):
        count = int(outputs["count"][row])
        boxes_xyxy, scores, classes = (outputs[name][row, :count] for name in ("boxes", "scores", "classes"))
        scale = torch.tensor([width, height, width, height]) / side
        found.append(Detections(boxes_xyxy=boxes_xyxy * scale, classes=classes, scores=scores))
    return found


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator: boxes [N, K, 4] and scores [N, 1, K] to int64 rows (entry, 0, rank) of what is kept."""

    @staticmethod
    def forward(ctx: Any, boxes_xyxy: Tensor, scores: Tensor, limits: Decode) -> Tensor:
        """PyTorch only traces it: the type alone counts."""
        return torch.zeros(1, 3, dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes_xyxy: Any, scores: Any, limits: Decode) -> Any:
        values = (limits.per_class, limits.nms_iou, limits.score_floor)
        constants = [g.op("Constant", value_t=torch.tensor([value])) for value in values]
        return g.op("NonMaxSuppression", boxes_xyxy, scores, *constants)


def rows_of(tables: Tensor, indices: Tensor) -> Tensor:
    """Rows of each image's table: [B, A, n] and [B, K] to [B, K, n]."""
    return tables.gather(1, indices[..., None].expand(-1, -1, tables.shape[2]))
