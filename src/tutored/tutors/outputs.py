"""What a network's outputs are called, and where each goes in its label space."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import SoftLabels

NOTHING = ("background", "__background__", "N/A")
"""Outputs of these names stand for no class; their probability counts as background."""

ROUNDING = 1e-3
"""By how much float16 may take a probability out of 0..1."""


class ClassOutputs:
    """The classes of a network that has one output for each name.

    Attributes:
        labels: the names that are classes, each once, in the network's order, background in front.
        to: int64 [N], the class of each output; 0 for those named as `NOTHING`.
        used: int64 [C], the outputs that are classes, of a name that occurs twice the first.
    """

    def __init__(self, names: Sequence[str], origin: str) -> None:
        """Read the names.

        Raises:
            InputError: they are no names (`LABEL_0`, what libraries write for want of them), or none is a class.
        """
        names = [name.strip() for name in names]
        if all(re.fullmatch(r"LABEL_\d+|\d+|", name) for name in names):
            raise InputError(
                f"{origin}: its {len(names)} classes have no names; give labels=FILE with one class a line"
            )
        classes = [name for name in dict.fromkeys(names) if name not in NOTHING]
        if not classes:
            raise InputError(f"{origin}: its outputs are {', '.join(names)}; none is a class")
        self.labels = LabelSpace.of(classes)
        place = {name: number for number, name in enumerate(classes, start=1)}
        self.to = torch.tensor([place.get(name, 0) for name in names])
        self.used = torch.tensor([names.index(name) for name in classes])

    def __len__(self) -> int:
        return len(self.to)

    def fold(self, probs: Tensor) -> Tensor:
        """Probabilities of the outputs [N, ...] as those of the label space [C+1, ...]; equal names are added."""
        return probs.new_zeros(len(self.labels), *probs.shape[1:]).index_add_(0, self.to.to(probs.device), probs)


def with_background(scores: Tensor) -> Tensor:
    """Scores [C+1, ...], 0 or more, as probabilities: a sum above one divides them, what a sum leaves is background."""
    probs = scores / scores.sum(0).clamp(min=1)
    probs[0] += (1 - probs.sum(0)).clamp(min=0)
    return probs


def one_by_one(
    ask: Callable[[Image.Image], SoftLabels], images: Sequence[Image.Image], image_ids: Sequence[str]
) -> list[SoftLabels]:
    """Each image's answer, asked alone. Raises InputError: what `ask` raises, naming the image."""
    answers = []
    for image, image_id in zip(images, image_ids, strict=True):
        try:
            answers.append(ask(image))
        except InputError as error:
            raise InputError(f"image {image_id}: {error}") from error
    return answers


def finite(values: Tensor, what: str) -> Tensor:
    """The values, of any shape. Raises InputError where some are NaN or infinite, which no comparison would tell."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise InputError(
            f"{bad} of the network's {values.numel()} {what} are NaN or infinite; take other weights, "
            "or an export in float32"
        )
    return values


def probabilities(values: Tensor, origin: Path, remedy: str) -> Tensor:
    """The values, of any shape, cut to 0..1.

    Raises:
        InputError: they lie outside by more than float16 rounds, or see `finite`.
    """
    low, high = (float(edge) for edge in finite(values, "scores").aminmax()) if values.numel() else (0.0, 0.0)
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(f"{origin}: scores from {low:.3g} to {high:.3g} are no probabilities; {remedy}")
    return values.clamp(0, 1)


def on_cells(probs: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """A map on a network's own grid, [C+1, h, w] over the whole image, averaged over cells of `stride` pixels.

    Args:
        size: (height, width) of the image in pixels.
        stride: pixels of the image a cell, where the own grid is not coarser.

    Raises:
        InputError: see `finite`.
    """
    height, width = (min(cells, -(-side // stride)) for cells, side in zip(probs.shape[1:], size, strict=True))
    # On the CPU: Apple's GPUs can't average over cells of unequal size.
    return adaptive_avg_pool2d(finite(probs, "map values").cpu(), (height, width))
