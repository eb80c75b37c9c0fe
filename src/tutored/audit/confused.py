"""What a tutor's boxes call each object that there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutored.audit.calibrate import Floats
from tutored.audit.facts import BoxFacts, Said
from tutored.audit.figures import Rate
from tutored.labels import LabelSpace


class Confused(NamedTuple):
    """Each object to find: the number of its image, its class, and what its best-scored teaching box says (0: nothing);
    int64 [N]."""

    home: NDArray[np.int64]
    true: NDArray[np.int64]
    said: NDArray[np.int64]

    def matrix(self, size: int) -> NDArray[np.int64]:
        """See `BoxReport.objects`."""
        return np.bincount(self.true * size + self.said, minlength=size * size).reshape(size, size)

    def own(self, labels: LabelSpace) -> dict[str, Rate]:
        """See `BoxReport.own`."""
        right = self.true == self.said
        return {
            name: Rate.of(self.home[right & (self.true == index)], self.home[self.true == index])
            for index, name in enumerate(labels.names)
            if index
        }

    def swapped(self, matrix: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `BoxReport.swapped`."""
        lower = np.zeros(matrix.shape)
        for true, said in zip(*np.nonzero(matrix), strict=True):
            called = self.said == said
            lower[true, said] = Rate.of(self.home[called & (self.true == true)], self.home[called]).low
        return lower


def confuse(
    ids: Sequence[str],
    facts: Mapping[str, BoxFacts],
    said: Mapping[str, Said],
    scores: Mapping[str, Floats],
    box_floor: float,
) -> Confused:
    """Args as in `judge_boxes`; of all images `ids`, and boxes that score `box_floor` or more."""
    found = [np.zeros((3, 0), np.int64)]
    for number, each in enumerate(ids):
        truth, answered = facts[each].matches, np.zeros(len(facts[each].matches.truth_classes), np.int64)
        teach = np.flatnonzero(scores[each] >= box_floor)
        for row in teach[np.argsort(scores[each][teach], kind="stable")]:
            if facts[each].thing[row] >= 0:
                answered[facts[each].thing[row]] = said[each].classes[row]
        true = truth.truth_classes[~truth.difficult].astype(np.int64)
        found.append(np.stack([np.full(len(true), number), true, answered[~truth.difficult]]))
    return Confused(*np.concatenate(found, axis=1))
