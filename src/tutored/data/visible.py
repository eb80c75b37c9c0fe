"""The ground truth that a run may see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from tutored.data.view import View
from tutored.structures import Dataset, GroundTruth


class Visible(View):
    """A data set without the ground truth of some images.

    Attributes:
        hidden: by task, the images whose ground truth is not to be seen.
    """

    def __init__(self, inner: Dataset, hidden: Mapping[str, Collection[str]]) -> None:
        super().__init__(inner)
        self.hidden = hidden

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Those of the inner data set that are not hidden."""
        return tuple(task for task in self.inner.annotated_tasks(image_id) if image_id not in self.hidden[task])

    def ground_truth(self, image_id: str) -> GroundTruth:
        """The inner data set's, without what is hidden."""
        truth = self.inner.ground_truth(image_id)
        if image_id in self.hidden["detection"]:
            truth = replace(truth, boxes_xyxy=None, classes=None, difficult=None)
        return replace(truth, mask=None) if image_id in self.hidden["segmentation"] else truth
