"""Soft labels folded from the tutor's label space into ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tutored.boxes import nms
from tutored.labels import ClassMap
from tutored.softlabels.draw import Rule, combine, draw_map
from tutored.softlabels.store import Store
from tutored.structures import Instances, SoftLabels


class Folded(Mapping[str, SoftLabels]):
    """A store seen in our label space; rows without a target class are dropped, confidences and instances made a map.

    Args:
        store: image id -> soft labels in the label space `class_map.source`.
        background: rule by which a map of confidences (`Store.map_values`), or instances where the tutor gave no
            map, become one with a background; see `combine`.
        stride: pixels a cell of such a map.
        nms_iou: suppression within a class, done again where several of the tutor's classes become one of ours.
    """

    def __init__(
        self,
        store: Mapping[str, SoftLabels],
        class_map: ClassMap,
        *,
        background: Rule = "noisy_or",
        stride: int = 8,
        nms_iou: float = 0.5,
    ) -> None:
        self.store = store
        self.class_map = class_map
        self.background: Rule = background
        self.stride = stride
        self.nms_iou = nms_iou
        # One number beyond the target space collects what has no target.
        beyond = len(class_map.target)
        self._to = torch.tensor([beyond if to is None else to for to in class_map.to])
        reached = [to for to in class_map.to if to is not None]
        self._merges = len(reached) > len(set(reached))
        self._confidences = isinstance(store, Store) and store.map_values == "confidences"
        self._unknown = tuple(class_map.target.index(name) for name in class_map.unreached)

    def __getitem__(self, image_id: str) -> SoftLabels:
        answer = self.store[image_id]
        if answer.boxes_xyxy is not None:
            answer = self._fold_boxes(answer)
        if answer.map is not None and self._confidences:
            answer = replace(answer, map=self._combine(answer.map))
        elif answer.map is not None:
            answer = replace(answer, map=self.class_map.fold(answer.map, dim=0))
        elif answer.instances is not None:
            answer = replace(answer, map=self._draw(answer.instances, answer.size))
        return replace(answer, instances=None, unknown=self._unknown)

    def __iter__(self) -> Iterator[str]:
        return iter(self.store)

    def __len__(self) -> int:
        return len(self.store)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self.store

    def _fold_boxes(self, answer: SoftLabels) -> SoftLabels:
        assert answer.boxes_xyxy is not None and answer.classes is not None and answer.probs is not None
        classes = self._to[answer.classes]
        kept = (classes < len(self.class_map.target)).nonzero()[:, 0]
        boxes, classes, probs = answer.boxes_xyxy[kept], classes[kept], self.class_map.fold(answer.probs[kept])
        if self._merges:
            once = nms(boxes, probs.gather(1, classes[:, None])[:, 0], classes, self.nms_iou)
            boxes, classes, probs = boxes[once], classes[once], probs[once]
        return replace(answer, boxes_xyxy=boxes, classes=classes, probs=probs)

    def _draw(self, instances: Instances, size: tuple[int, int]) -> Tensor:
        """Drawn after folding; what has no target takes its probability away, or is not drawn."""
        classes = len(self.class_map.target)
        index = self._to[instances.classes]
        drawn = self._drawn(index)
        instances = Instances(
            boxes_xyxy=instances.boxes_xyxy[drawn],
            classes=index[drawn],
            scores=instances.scores[drawn],
            masks=instances.masks[drawn],
        )
        grid = (-(-size[0] // self.stride), -(-size[1] // self.stride))
        return draw_map(instances, size, classes + 1, grid, self.background)[:classes]

    def _combine(self, confidences: Tensor) -> Tensor:
        """The same for a map of confidences [classes of the tutor, h, w], whose channel 0 says nothing."""
        classes, index = len(self.class_map.target), self._to[1:]
        drawn = self._drawn(index)
        return combine(confidences[1:][drawn], index[drawn], classes + 1, self.background)[:classes]

    def _drawn(self, index: Tensor) -> Tensor:
        """Which of these classes count; without a target, those whose probability is to be ignored."""
        return index <= len(self.class_map.target) - (self.class_map.elsewhere == "background")
