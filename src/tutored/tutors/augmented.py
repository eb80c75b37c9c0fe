"""Test-time augmentation: a tutor asked several times about an image, mirrored and at other sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutored.errors import InputError
from tutored.structures import SoftLabels
from tutored.tutors import Tutor
from tutored.tutors.fuse import fuse


@runtime_checkable
class Scalable(Protocol):
    """A tutor whose network takes pictures of several sizes."""

    def at_scale(self, scale: float) -> Self:
        """The same tutor, whose network sees every picture `scale` times as large as it would.

        Raises:
            InputError: the network takes one size only.
        """


class Augmented:
    """A tutor whose answers are the mean over views of each image; see `fuse.fuse` for what that is."""

    def __init__(self, tutor: Tutor, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> None:
        """Make the views: every scale, and with `flip` each also mirrored left to right.

        Raises:
            InputError: scales that are not positive, finite and different, or a network that takes one size only.
        """
        if not scales or not all(0 < scale < math.inf for scale in scales) or len(set(scales)) < len(scales):
            raise InputError(f"scales {list(scales)}: give different positive numbers, such as 0.75, 1, 1.25")
        self.labels = tutor.labels
        self._tutors = [tutor if scale == 1 else _scaled(tutor, scale) for scale in scales]
        self._flips = (False, True) if flip else (False,)
        # A student's limit is its `decode.total`.
        self._limit = int(tutor.identity.get("max_boxes") or tutor.identity.get("total") or 100)
        self._floor = float(tutor.identity.get("score_floor") or 0)
        self.identity: Mapping[str, Any] = {
            **tutor.identity,
            "flip": flip,
            "scales": [float(scale) for scale in scales],
        }

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        views: list[list[SoftLabels]] = []
        for flipped in self._flips:
            seen = [ImageOps.mirror(image) for image in images] if flipped else images
            for tutor in self._tutors:
                answers = tutor(seen, image_ids)
                views.append([mirrored(answer) for answer in answers] if flipped else answers)
        weights = [1.0] * len(views)
        return [fuse(answers, weights, limit=self._limit, floor=self._floor) for answers in zip(*views, strict=True)]


def mirrored(answer: SoftLabels) -> SoftLabels:
    """The answer for the image mirrored left to right, without the slivers that rounding leaves no width there."""
    width = answer.size[1]
    changed: dict[str, Any] = {"map": None if answer.map is None else answer.map.flip(-1)}
    if answer.boxes_xyxy is not None and answer.classes is not None and answer.probs is not None:
        boxes, kept = _mirror(answer.boxes_xyxy, width)
        changed |= {"boxes_xyxy": boxes, "classes": answer.classes[kept], "probs": answer.probs[kept]}
    found = answer.instances
    if found is not None:
        boxes, kept = _mirror(found.boxes_xyxy, width)
        kinds, scores, masks = found.classes[kept], found.scores[kept], found.masks[kept].flip(-1)
        changed["instances"] = replace(found, boxes_xyxy=boxes, classes=kinds, scores=scores, masks=masks)
    return replace(answer, **changed)


def _mirror(boxes_xyxy: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The boxes that still have a width, and which these are, bool [K]."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    kept = boxes[:, 0] < boxes[:, 2]
    return boxes[kept], kept


def _scaled(tutor: Tutor, scale: float) -> Tutor:
    if not isinstance(tutor, Scalable):
        raise InputError(
            f"scales: the network of {tutor.identity['tutor']} takes pictures of one size only; leave scales out"
        )
    return tutor.at_scale(scale)
