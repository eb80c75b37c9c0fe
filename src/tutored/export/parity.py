"""What an exported network answers against the student in PyTorch, in float32, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutored.config import Config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.export.network import Network
from tutored.pictures import read_picture, upright
from tutored.students import preprocess

TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-2
"""Largest difference, as a share of the output's largest value (of 1, if that is less)."""
COUNT = 8
"""Pictures to check on, where the user names none."""
BATCH = 3


class NotEqualError(RuntimeError):
    """An exported network computes something else than PyTorch."""


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


def choose_sample(config: Config, files: Sequence[Path | str]) -> Sample:
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
        ids = [dataset.ids[index * len(dataset.ids) // count] for index in range(count)]
        return Sample([dataset.image(image_id) for image_id in ids], f"{len(ids)} image(s) of {dataset.source}/{split}")
    except InputError:
        side = config.student.size
        noise = np.random.default_rng(0).integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8)
        return Sample([Image.fromarray(pixels) for pixels in noise], "noise: the run's images are not here")


class Parity(NamedTuple):
    """How far an exported network is from the student.

    Attributes:
        sample: the pictures it was measured on, in words.
        tolerance: see `TOLERANCE`.
        differences: raw output -> largest difference.
        largest: raw output -> its largest value in PyTorch.
        final: by task with final answers, how many of them (boxes, pixels) are others than PyTorch's, and how many
            there are.
    """

    sample: str
    tolerance: float
    differences: dict[str, float]
    largest: dict[str, float]
    final: dict[str, tuple[int, int]]

    def lines(self) -> list[str]:
        """The same for people."""
        found = [
            f"{name}: differ by up to {difference:.1g}, the largest value is {self.largest[name]:.3g}"
            for name, difference in self.differences.items()
        ]
        return found + [
            f"{task}: {apart} of {count} final answers differ" for task, (apart, count) in self.final.items()
        ]


def check(
    reference: Network, network: Network, answer: Callable[[Tensor], Mapping[str, NDArray[Any]]], sample: Sample
) -> Parity:
    """Compare what was written with the student: raw outputs, and final ones with what our decoding gives.

    Args:
        reference: the student without options.
        network: what was written, in PyTorch.
        answer: images to the outputs of `network`, by what was written.

    Raises:
        NotEqualError: raw outputs differ by more than the tolerance, or more final answers than may differ.
    """
    half = network.options.half
    tolerance = TOLERANCE_HALF if half else TOLERANCE
    parity = Parity(sample.words, tolerance, {}, {}, {})
    for images in sample.batches(network.size):
        with torch.no_grad():
            wanted = reference.answers(images)
        values = {name: torch.from_numpy(value) for name, value in answer(images).items()}
        for task, raw in wanted.items():
            prefix, export = f"{task}_", network.exports[task]
            if network.is_final(task):
                got = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
                before = parity.final.get(task, (0, 0))
                apart, count = export.apart(got, raw, tolerance)
                parity.final[task] = (before[0] + apart, before[1] + count)
                continue
            for name, want in raw.items():
                difference = float((values[prefix + name] - want).abs().nan_to_num(torch.inf).max())
                for table, value in ((parity.differences, difference), (parity.largest, float(want.abs().max()))):
                    table[prefix + name] = max(table.get(prefix + name, 0.0), value)
    where = f"on {sample.words}; nothing was written"
    for name, difference in parity.differences.items():
        if difference > tolerance * max(1.0, parity.largest[name]):
            raise NotEqualError(
                f"the exported network's {name} differ from PyTorch's by up to {difference:.2g}, the largest value is "
                f"{parity.largest[name]:.3g}, {where}"
            )
    for task, (apart, count) in parity.final.items():
        if apart > network.exports[task].most_apart[half] * count:
            raise NotEqualError(
                f"of the exported network's final answers for {task} {apart} differ from PyTorch's {count}, {where}"
            )
    return parity
