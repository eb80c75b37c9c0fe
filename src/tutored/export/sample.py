"""The pictures that an exported network is held against PyTorch on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from tutored.config import Config
from tutored.data import open_dataset
from tutored.data.pictures import read_picture, upright
from tutored.errors import InputError
from tutored.student import preprocess

COUNT = 8
"""Pictures, where the user names none."""
BATCH = 3


class Sample(NamedTuple):
    """Pictures, and in words where they are from."""

    pictures: Sequence[Image.Image]
    words: str

    def batches(self, size: int) -> Iterator[Tensor]:
        """The first picture alone, the others in batches, as the network takes them."""
        pictures = self.pictures if len(self.pictures) > 1 else [*self.pictures] * BATCH
        yield preprocess(pictures[:1], size)
        for first in range(1, len(pictures), BATCH):
            yield preprocess(pictures[first : first + BATCH], size)


def choose_sample(config: Config, files: Sequence[Path]) -> Sample:
    """These pictures; without any, some that the run validates on; where they can't be read here, noise.

    Raises:
        InputError: one of `files` is no picture.
    """
    if files:
        return Sample([upright(read_picture(file)) for file in files], f"{len(files)} picture(s)")
    data = config.data
    place, split = data.train, data.split
    if data.val_split and not data.held_out:
        place, split = data.val or data.train, data.val_split
    try:
        dataset = open_dataset(place, split)
        count = min(COUNT, len(dataset.ids))
        ids = [dataset.ids[place * len(dataset.ids) // count] for place in range(count)]
        return Sample([dataset.image(image_id) for image_id in ids], f"{len(ids)} image(s) of {dataset.source}/{split}")
    except InputError:
        side = config.student.size
        noise = np.random.default_rng(0).integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8)
        return Sample([Image.fromarray(pixels) for pixels in noise], "noise: the run's images are not here")
