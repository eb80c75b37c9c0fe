"""What detection is made of: annotated boxes, a tutor's soft boxes, final boxes, and targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from tutored.tasks.columns import Rows, answered
from tutored.tasks.detection import codec
from tutored.tasks.task import Remap, Size
from tutored.types import expect, expect_boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The objects that a person drew on one image; no rows mean "nothing there".

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], 1..C.
        difficult: bool [K], VOC's flag; COCO's crowds have it too.
        annotated: the classes that the data set annotates; None means every class. The others may be anywhere.
    """

    kind: ClassVar[str] = "detection"
    boxes_xyxy: Tensor
    classes: Tensor
    difficult: Tensor
    annotated: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        expect_boxes(self.boxes_xyxy, "Boxes.boxes_xyxy")
        expect(self.classes, "Boxes.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.difficult, "Boxes.difficult", (len(self.boxes_xyxy),), torch.bool)

    def relabelled(self, to: Sequence[int], annotated: tuple[int, ...] | None) -> Boxes:
        """The same in another label space: `to[c]` is the class there of class c; boxes of those with 0 are dropped."""
        classes = torch.tensor(to)[self.classes]
        kept = classes > 0
        return Boxes(
            boxes_xyxy=self.boxes_xyxy[kept], classes=classes[kept], difficult=self.difficult[kept], annotated=annotated
        )

    def counts(self, space: int) -> dict[str, list[int]]:
        """By column, how much there is of each class of a label space with `space` names."""
        classes = {"objects": self.classes, "difficult": self.classes[self.difficult]}
        return {column: torch.bincount(each, minlength=space).tolist() for column, each in classes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftBoxes:
    """A tutor's boxes for one image; no rows mean "nothing there".

    Attributes:
        boxes_xyxy: float32 [K, 4], pixels of the image.
        classes: int64 [K], 1..C, the class each box was kept for (one proposal may be kept for two classes).
        probs: float32 [K, C+1], the full class distribution, column 0 background; a row may sum to less than 1.
        unknown: classes of the label space that this tutor knows nothing about, so that its background may be any.
    """

    kind: ClassVar[str] = "detection"
    fields: ClassVar[Sequence[pa.Field]] = codec.FIELDS
    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    unknown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expect_boxes(self.boxes_xyxy, "SoftBoxes.boxes_xyxy")
        expect(self.classes, "SoftBoxes.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.probs, "SoftBoxes.probs", (len(self.boxes_xyxy), None), torch.float32)

    @property
    def scores(self) -> Tensor:
        """float32 [K]: the probability of the class that each box was kept for."""
        return self.probs.gather(1, self.classes[:, None])[:, 0]

    def chosen(self, which: Tensor) -> SoftBoxes:
        """The boxes at these indices (int64 [n], or bool [K])."""
        return replace(self, boxes_xyxy=self.boxes_xyxy[which], classes=self.classes[which], probs=self.probs[which])

    def rescored(self, scores: Tensor) -> SoftBoxes:
        """The same with these scores (float32 [K], 0..1), the other classes scaled to the remaining probability."""
        others = self.probs.scatter(1, self.classes[:, None], 0.0)
        # Where the score is 1, the other classes hold only rounding, which may exceed the remainder.
        before = torch.maximum(1 - self.scores, others.sum(dim=1)).clamp(min=torch.finfo(scores.dtype).tiny)
        probs = (others * ((1 - scores) / before)[:, None]).scatter(1, self.classes[:, None], scores[:, None])
        return replace(self, probs=probs)

    def limited(self, which: Tensor, most: float) -> SoftBoxes:
        """The same with the boxes `which` (bool [K]) scaled so that their scores are `most` at most."""
        scale = most / self.scores.clamp(min=max(most, torch.finfo(self.probs.dtype).tiny))
        return replace(self, probs=self.probs * torch.where(which, scale, 1.0)[:, None])

    def normalised(self) -> SoftBoxes:
        """The same with distributions that sum to 1 at most, where the classes were scored by themselves."""
        return replace(self, probs=self.probs / self.probs.sum(dim=1, keepdim=True).clamp(min=1))

    def tempered(self, temperature: float) -> SoftBoxes:
        """Every score s and its rest 1 - s become powers 1 / T, renormalised."""
        own = self.scores
        powers = torch.stack([own, 1 - own]).clamp(min=0) ** (1 / temperature)
        return self.rescored(powers[0] / powers.sum(0).clamp(min=torch.finfo(own.dtype).tiny))

    def muted(self, classes: Sequence[int], most: float) -> SoftBoxes:
        """The same with nothing said about some classes: their boxes keep a score of `most` at most.

        Those boxes stay so that what lies on them is ignored instead of learning that nothing is there. Background may
        be any of these classes.
        """
        own = torch.isin(self.classes, torch.tensor(classes))
        heard = self.probs.index_fill(1, torch.tensor(classes), 0.0)
        probs = torch.where(own[:, None], self.limited(own, most).probs, heard)
        return replace(self, probs=probs, unknown=tuple(sorted({*self.unknown, *classes})))

    def encode(self) -> dict[str, Any]:
        """A store's row, see `codec.FIELDS`."""
        corners, classes, scores = (each.numpy() for each in (self.boxes_xyxy, self.classes, self.scores))
        return codec.encode(corners, classes, scores, self.probs.double().numpy().copy())

    @classmethod
    def decode(
        cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None
    ) -> Sequence[SoftBoxes | None]:
        """The answers of a table's rows, in another label space with a remap; see `SoftAnswer`."""
        block, unknown = codec.decode(table, space), remap.unknown if remap else ()
        if remap is not None and not remap.identical:
            block = block.remapped(remap)
        return Rows(answered(table, cls.fields), lambda row: cls(**block.cut(row), unknown=unknown))

    def final(self) -> Detections:
        """The boxes as final ones, each with the probability of its class as its score."""
        return Detections(boxes_xyxy=self.boxes_xyxy, classes=self.classes, scores=self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Final boxes of one image in its own pixels.

    Attributes:
        boxes_xyxy: float32 [K, 4].
        classes: int64 [K], 1..C.
        scores: float32 [K], 0..1.
    """

    kind: ClassVar[str] = "detection"
    boxes_xyxy: Tensor
    classes: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        expect(self.boxes_xyxy, "Detections.boxes_xyxy", (None, 4), torch.float32)
        expect(self.classes, "Detections.classes", (len(self.boxes_xyxy),), torch.int64)
        expect(self.scores, "Detections.scores", (len(self.boxes_xyxy),), torch.float32)

    def above(self, score: float) -> Detections:
        """Only the boxes of at least this score."""
        kept = self.scores >= score
        return Detections(boxes_xyxy=self.boxes_xyxy[kept], classes=self.classes[kept], scores=self.scores[kept])


class BoxTargets(NamedTuple):
    """What one source teaches about the boxes of a batch; ground truth and tutor have the same form.

    An image of weight 0 is not taught by this source. Padding rows have no area and no probability.

    Attributes:
        boxes_xyxy: float32 [B, K, 4], pixels of the network's input.
        classes: int64 [B, K], 1..C, 0 in padding rows.
        probs: float32 [B, K, C+1], class distributions; ground truth's are one-hot.
        difficult: bool [B, K], ground truth's flag.
        unknown: bool [B, C+1], classes the source draws no boxes of: its background may be any of them; [B, 0] where no
            image of the batch has such a class.
        weight: float32 [B].
    """

    boxes_xyxy: Tensor
    classes: Tensor
    probs: Tensor
    difficult: Tensor
    unknown: Tensor
    weight: Tensor

    @property
    def scores(self) -> Tensor:
        """float32 [B, K]: the probability of each box's class."""
        return self.probs.gather(2, self.classes[..., None])[..., 0]
