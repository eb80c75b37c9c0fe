"""A part of a data set's images, kept out of training to choose settings on."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from tutored.data.sources import ranks
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import Dataset, GroundTruth


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a data set, in its order."""

    whole: Dataset
    what: str
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.whole.name} ({self.what})"

    @property
    def source(self) -> str:
        return self.whole.source

    @property
    def split(self) -> str:
        return f"{self.whole.split} ({self.what})"

    @property
    def notes(self) -> tuple[str, ...]:
        return self.whole.notes

    @property
    def labels(self) -> LabelSpace:
        return self.whole.labels

    def image(self, image_id: str) -> Image.Image:
        """As the whole has it."""
        return self.whole.image(image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        """As the whole has it."""
        return self.whole.ground_truth(image_id)

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """As the whole has it."""
        return self.whole.annotated_tasks(image_id)

    def problems(self, image_id: str) -> tuple[str, ...]:
        """As the whole has it."""
        return self.whole.problems(image_id)


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set in two: what is left, and a share of its images held out.

    The same seed holds out the same images, a larger share a superset.

    Raises:
        InputError: one of the two would be empty.
    """
    places = ranks(dataset.ids, seed, "held out")
    out = tuple(image_id for image_id in dataset.ids if places[image_id] < share)
    left = tuple(image_id for image_id in dataset.ids if places[image_id] >= share)
    if not out or not left:
        raise InputError(
            f"{dataset.name}: {share:.0%} of {len(dataset.ids)} images can't be held out; give another share"
        )
    return Part(dataset, "without the held-out part", left), Part(dataset, "held out", out)
