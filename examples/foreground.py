"""A task of one's own in one file: how likely is each pixel to belong to anything at all?

    tasks:
      detection: {}
      foreground: {kind: "foreground:Foreground", from: Foreground}

reads grey PNGs (255 foreground, 0 background, 128 unknown) from the folder `Foreground` of the data set. It is a dense
task, so any student can learn it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tutored.config import TaskSection
from tutored.errors import InputError
from tutored.geometry import Geometry
from tutored.labels import LabelSpace
from tutored.losses import Term
from tutored.tasks import DenseTask, Figures

UNKNOWN = 128


class Mask(NamedTuple):
    """The annotation: uint8 [H, W]; also the prediction, float32 [H, W] in 0..1."""

    pixels: Tensor

    def counts(self, space: int) -> dict[str, list[int]]:
        """For `tutored data check`: pixels that are known, and pixels that are not."""
        unknown = int((self.pixels == UNKNOWN).sum())
        return {"pixels": [self.pixels.numel() - unknown, unknown]}


class Row(NamedTuple):
    """What one augmented image teaches: float32 [h, w] each."""

    wanted: Tensor
    known: Tensor


class Targets(NamedTuple):
    """The same for a batch: float32 [B, h, w], [B, h, w] and [B]."""

    wanted: Tensor
    known: Tensor
    weight: Tensor


class Foreground(DenseTask):
    """Foreground against background, by binary cross-entropy; measured by the F1 of its pixels."""

    kind: ClassVar[str] = "foreground:Foreground"
    Section: ClassVar[type[TaskSection]] = TaskSection
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    headline: ClassVar[tuple[str, str]] = ("F1", "F1")
    channels = 1

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], labels: LabelSpace) -> Mask:
        pixels = np.array(Image.open(path, formats=["PNG"]).convert("L"))
        if pixels.shape != size:
            raise InputError(f"{path}: {pixels.shape} pixels, the image has {size}; make both the same size")
        return Mask(torch.from_numpy(pixels))

    def teach(self, truth: Mask | None, size: tuple[int, int], geometry: Geometry, grid: int) -> Row:
        if truth is None:
            return Row(torch.zeros(grid, grid), torch.zeros(grid, grid))
        pixels = geometry.nearest(truth.pixels, grid, outside=UNKNOWN)
        return Row((pixels == 255).float(), (pixels != UNKNOWN).float())

    def stack(self, rows: Sequence[Row], weight: Tensor) -> Targets:
        return Targets(*(torch.stack(column) for column in zip(*rows, strict=True)), weight)

    def assign(self, targets: Targets, *, tutor: bool) -> Tensor:
        return targets.known * targets.weight[:, None, None]

    @property
    def terms(self) -> Mapping[str, Term]:
        def cross_entropy(raw: Tensor, targets: Targets, cells: Tensor) -> Tensor:
            losses = F.binary_cross_entropy_with_logits(raw[:, 0].float(), targets.wanted, reduction="none")
            return (losses * cells).sum()

        return {"pixel": Term(lambda _, cells: cells.sum(), cross_entropy)}

    def decode(self, raw: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Mask]:
        probs = raw.float().sigmoid().cpu()
        return [
            Mask(F.interpolate(each[None], size=size, mode="bilinear")[0, 0])
            for each, size in zip(probs, sizes, strict=True)
        ]

    def record(self, truth: Mask, prediction: Mask) -> tuple[int, int, int]:
        known, said = truth.pixels != UNKNOWN, prediction.pixels >= 0.5
        right, there = truth.pixels == 255, said & known
        return int((there & right).sum()), int(there.sum()), int((right & known).sum())

    def figures(self, records: Sequence[Any]) -> Figures:
        right, said, true = (sum(column) for column in zip(*records, strict=True))
        return Figures(len(records), (), {"F1": 2 * right / (said + true) if said + true else None}, {}, {})

    def draw(self, picture: Image.Image, shown: Mask, zoom: float) -> Image.Image:
        bright = shown.pixels.float() * (1 if shown.pixels.is_floating_point() else 1 / 255)
        mask = Image.fromarray((bright * 200).byte().numpy()).resize(picture.size)
        return Image.composite(Image.new("RGB", picture.size, (230, 120, 30)), picture, mask)
