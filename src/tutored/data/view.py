"""A data set seen through another one."""

from __future__ import annotations

from PIL import Image

from tutored.structures import Dataset, GroundTruth


class View:
    """All as the inner data set has it, but for what a subclass says otherwise."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.name, self.source, self.split = inner.name, inner.source, inner.split
        self.notes, self.labels, self.ids = inner.notes, inner.labels, inner.ids

    def image(self, image_id: str) -> Image.Image:
        return self.inner.image(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        return self.inner.ground_truth(image_id)

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return self.inner.annotated_tasks(image_id)

    def problems(self, image_id: str) -> tuple[str, ...]:
        return self.inner.problems(image_id)
