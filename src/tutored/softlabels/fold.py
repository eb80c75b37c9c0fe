"""Soft labels folded from the tutor's label space into ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tutored.labels import ClassMap
from tutored.softlabels.block import Block, Fold
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
        temperature: probabilities become p^(1/T), those of a box for "its class" and "not its class".
        muted: classes of our space that the tutor is not to teach. Their probability is taken away, background may be
            any of them (`SoftLabels.unknown`), and their boxes stay with `muted_score` at most, so that anchors there
            are ignored instead of learning that nothing is there.
        task: only images with an answer of "detection" or "segmentation" are in the mapping; None: all of the store.
    """

    def __init__(
        self,
        store: Mapping[str, SoftLabels],
        class_map: ClassMap,
        *,
        background: Rule = "noisy_or",
        stride: int = 8,
        nms_iou: float = 0.5,
        temperature: float = 1.0,
        muted: Sequence[int] = (),
        muted_score: float = 0.0,
        task: str | None = None,
    ) -> None:
        self.store = store
        self.class_map = class_map
        self.background: Rule = background
        self.stride = stride
        # Two numbers beyond the target space collect what has no target: what is ignored, and what is background.
        beyond, kept = len(class_map.target), class_map.ignored
        to = [to if to is not None else beyond + (number not in kept) for number, to in enumerate(class_map.to)]
        self._to = torch.tensor(to)
        reached = [to for to in class_map.to if to is not None]
        self._confidences = isinstance(store, Store) and store.map_values == "confidences"
        unreached = [class_map.target.index(name) for name in class_map.unreached]
        self._fold = Fold(
            self._to.numpy(),
            beyond,
            boxes=to != list(range(beyond)),
            maps=to != list(range(beyond)) and not self._confidences,
            nms_iou=nms_iou if len(reached) > len(set(reached)) else None,
            unknown=tuple(sorted({*unreached, *muted})),
        )
        self.temperature = temperature
        self.muted = list(muted)
        self.muted_score = muted_score
        self.task = task

    def __getitem__(self, image_id: str) -> SoftLabels:
        if isinstance(self.store, Store):
            answer = self.store.read(image_id, self._fold)
        else:
            answer = Block.of(self.store[image_id], len(self.class_map.source)).fold(self._fold).cut(0)
        if answer.map is not None and self._confidences:
            answer = replace(answer, map=self._combine(answer.map))
        if answer.instances is not None:
            drawn = answer.map if answer.map is not None else self._draw(answer.instances, answer.size)
            answer = replace(answer, map=drawn, instances=None)
        if self.task and (answer.boxes_xyxy if self.task == "detection" else answer.map) is None:
            raise KeyError(image_id)
        if self.temperature != 1:
            answer = _tempered(answer, self.temperature)
        if self.muted:
            answer = _silenced(answer, self.muted, self.muted_score)
        return answer

    def __iter__(self) -> Iterator[str]:
        return (image_id for image_id in self.store if image_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, image_id: object) -> bool:
        if self.task and isinstance(self.store, Store):
            return isinstance(image_id, str) and self.store.answers(image_id, self.task)
        return super().__contains__(image_id) if self.task else image_id in self.store

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
        return index <= len(self.class_map.target)


def _tempered(answer: SoftLabels, temperature: float) -> SoftLabels:
    probs, drawn = answer.probs, answer.map
    if probs is not None:
        own = answer.scores
        probs = answer.rescored(_power(torch.stack([1 - own, own]), temperature)[1])
    return replace(answer, probs=probs, map=None if drawn is None else _power(drawn, temperature))


def _power(probs: Tensor, temperature: float) -> Tensor:
    """p^(1/T) along the first dimension, with the sum it had."""
    powers = probs ** (1 / temperature)
    return powers * (probs.sum(0) / powers.sum(0).clamp(min=torch.finfo(probs.dtype).tiny))


def _silenced(answer: SoftLabels, muted: list[int], most: float) -> SoftLabels:
    probs, drawn = answer.probs, answer.map
    if probs is not None and answer.classes is not None:
        own = torch.isin(answer.classes, torch.tensor(muted))
        heard = probs.index_fill(1, torch.tensor(muted), 0.0)
        probs = torch.where(own[:, None], answer.quietened(own, most), heard)
    if drawn is not None:
        drawn = drawn.index_fill(0, torch.tensor(muted), 0.0)
    return replace(answer, probs=probs, map=drawn)
