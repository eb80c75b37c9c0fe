"""Several tutors for one task, joined from their stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.softlabels import Folded, Store
from tutored.structures import SoftLabels
from tutored.tutors.fuse import OVERLAP, fuse
from tutored.tutors.stores import find_answer, identity_of

LIMIT = 100
"""Boxes of one image, the best."""


class JoinedTutor:
    """The mean of what several stores say: boxes by weighted box fusion, maps by the mean of their probabilities.

    An image for which only some of the stores have an answer gets the mean of those.

    Attributes:
        labels: the classes that all stores know, in the first one's order and spelling; the stores are folded into it
            by name, what else they say counts as background.
    """

    def __init__(self, join: Sequence[Path | str], *, shares: Sequence[float] | None = None) -> None:
        """Open the stores.

        Args:
            join: two stores or more that answer the same task.
            shares: what each counts in the mean; None: all the same.

        Raises:
            InputError: fewer than two stores, no such store, shares that don't fit, no task in common or no class.
        """
        if len(join) < 2:
            raise InputError(f"join: give two stores or more, got {len(join)}")
        shares = [1.0] * len(join) if shares is None else [float(share) for share in shares]
        if len(shares) != len(join) or not 0 < min(shares) <= sum(shares) < math.inf:
            raise InputError(
                f"shares {shares}: give one positive number for each of the {len(join)} stores, none of them infinite"
            )
        stores = [Store.open(path) for path in join]
        if not set.intersection(*(set(store.tasks) for store in stores)):
            told = ", ".join(f"{store.path}: {' and '.join(store.tasks) or 'nothing'}" for store in stores)
            raise InputError(f"the stores answer no task in common ({told}); join tutors of one task")
        first, *others = [store.labels for store in stores]
        common = [name for name in first.classes if all(same_class(name, other) is not None for other in others)]
        if not common:
            raise InputError(f"the stores {', '.join(map(str, join))} have no class in common; join tutors of one task")
        self.labels = LabelSpace.of(common)
        self._stores = [(store.path, Folded(store, ClassMap.by_name(store.labels, self.labels))) for store in stores]
        self._shares = [share / sum(shares) for share in shares]
        self.identity: Mapping[str, Any] = identity_of(
            {str(number): store for number, store in enumerate(stores, start=1)},
            kind="joined",
            tutor=" and ".join(str(store.identity.get("tutor")) for store in stores),
            max_boxes=LIMIT,
            fusion_iou=OVERLAP,
            shares=shares,
        )

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        pairs = zip(images, image_ids, strict=True)
        return [self._answer(image_id, (image.height, image.width)) for image, image_id in pairs]

    def _answer(self, image_id: str, size: tuple[int, int]) -> SoftLabels:
        answers = [find_answer(path, store, image_id, size) for path, store in self._stores]
        return fuse(answers, self._shares, limit=LIMIT, floor=0)
