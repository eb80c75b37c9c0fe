"""A detector's boxes, vouched for by another tutor's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Folded
from tutored.structures import SoftLabels
from tutored.tutors.instances import soft_masks
from tutored.tutors.stores import find_answer, identity_of, open_pair


class VouchedTutor:
    """A detector's boxes, whose scores become the geometric mean of what the detector and a map say.

    What the map says about a box is the mean probability of the box' class inside it, over `full` and at most one. So
    a weak box on a region of its class rises, and a sure one where the map sees nothing falls. The rest of a box'
    class distribution shares what its own class leaves, in the proportions it had. Boxes of classes that the maps
    don't know stay as they are. An image for which one of the two stores has no answer gets none.

    Attributes:
        labels: the detector's.
    """

    def __init__(self, boxes: Path | str, maps: Path | str, *, full: float = 0.3) -> None:
        """Open both stores.

        Args:
            boxes: store with the detector's boxes.
            maps: store with class maps; confidences and instances are made maps as `Folded` does.
            full: mean probability inside a box, above 0, from which the map agrees in full; objects don't fill theirs.

        Raises:
            InputError: no such store, it does not answer the task, the two have no class in common, or `full` is not
                above 0 and at most 1.
        """
        if not 0 < full <= 1:
            raise InputError(f"full: {full}; possible: above 0, up to 1")
        detector, mapper = open_pair(boxes, maps)
        self.labels: LabelSpace = detector.labels
        seen = ClassMap.by_name(mapper.labels, self.labels)
        self._known = torch.tensor([name not in seen.unreached for name in self.labels.names])
        self._full = full
        self._detector = detector.path, Folded(detector, ClassMap.by_name(self.labels, self.labels))
        self._mapper = mapper.path, Folded(mapper, seen)
        self.identity: Mapping[str, Any] = identity_of(
            {"boxes": detector, "maps": mapper},
            kind="vouched",
            tutor=f"boxes of {detector.identity.get('tutor')}, vouched by maps of {mapper.identity.get('tutor')}",
            full=full,
        )

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        pairs = zip(images, image_ids, strict=True)
        return [self._answer(image_id, (image.height, image.width)) for image, image_id in pairs]

    def _answer(self, image_id: str, size: tuple[int, int]) -> SoftLabels:
        detected, drawn = find_answer(*self._detector, image_id, size), find_answer(*self._mapper, image_id, size)
        if detected.boxes_xyxy is None or drawn.map is None:
            return SoftLabels(size=size)
        assert detected.classes is not None
        inside = soft_masks(drawn.map, detected.boxes_xyxy, detected.classes, size).mean(dim=(1, 2))
        agreed = (detected.scores * (inside / self._full).clamp(max=1)).sqrt()
        scores = torch.where(self._known[detected.classes], agreed, detected.scores)
        return replace(detected, probs=detected.rescored(scores), map=None, instances=None)
