"""The ground truth that a run may see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from PIL import Image

from tutored.config import Supervision, Task
from tutored.data.sources import ranks
from tutored.labels import LabelSpace
from tutored.structures import Dataset, GroundTruth


def hidden(dataset: Dataset, supervision: Supervision, name: str) -> frozenset[str]:
    """The images whose ground truth for a task a run hides (`Task.hidden`)."""
    task: Task = getattr(supervision, name)
    if not task.hidden:
        return frozenset()
    annotated = [image_id for image_id in dataset.ids if name in dataset.annotated_tasks(image_id)]
    places = ranks(annotated, supervision.seed, name)
    return frozenset(image_id for image_id, place in places.items() if place < task.hidden)


@dataclass(frozen=True, slots=True)
class Visible:
    """A data set without the ground truth of some images.

    Attributes:
        hidden: by task, the images whose ground truth is not to be seen.
    """

    inner: Dataset
    hidden: Mapping[str, Collection[str]]

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def source(self) -> str:
        return self.inner.source

    @property
    def split(self) -> str:
        return self.inner.split

    @property
    def notes(self) -> tuple[str, ...]:
        return self.inner.notes

    @property
    def labels(self) -> LabelSpace:
        return self.inner.labels

    @property
    def ids(self) -> tuple[str, ...]:
        return self.inner.ids

    def image(self, image_id: str) -> Image.Image:
        """The inner data set's picture."""
        return self.inner.image(image_id)

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """Those of the inner data set that are not hidden."""
        return tuple(task for task in self.inner.annotated_tasks(image_id) if image_id not in self.hidden[task])

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Those of the inner data set."""
        return self.inner.problems(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        """The inner data set's, without what is hidden."""
        truth = self.inner.ground_truth(image_id)
        if image_id in self.hidden["detection"]:
            truth = replace(truth, boxes_xyxy=None, classes=None, difficult=None)
        return replace(truth, mask=None) if image_id in self.hidden["segmentation"] else truth
