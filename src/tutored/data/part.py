"""A part of a data set's images, kept out of training to choose settings on."""

from __future__ import annotations

from tutored.data.sources import ranks
from tutored.data.view import View
from tutored.errors import InputError
from tutored.structures import Dataset


class Part(View):
    """Some images of a data set, in its order."""

    def __init__(self, whole: Dataset, what: str, ids: tuple[str, ...]) -> None:
        super().__init__(whole)
        self.name, self.split, self.ids = f"{whole.name} ({what})", f"{whole.split} ({what})", ids


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
