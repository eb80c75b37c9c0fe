"""What an exported network answers against the student in PyTorch, in float32, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutored import boxes
from tutored.export.network import RAW, Network
from tutored.export.sample import Sample
from tutored.structures import Outputs, Prediction
from tutored.student import BlitzNet, decode

TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-2
"""Largest difference, as a share of the output's largest value (of 1, if that is less)."""
BOXES_APART, PIXELS_APART = 1e-2, 1e-4
"""Share of boxes and pixels that may come out otherwise than `decode` makes them of the same raw outputs: where two
scores, or an overlap and its limit, differ by a rounding, either choice is right."""

Answers = Mapping[str, NDArray[Any]]


class NotEqualError(RuntimeError):
    """An exported network computes something else than PyTorch."""


class Parity(NamedTuple):
    """How far an exported network is from the student.

    Attributes:
        sample: the pictures it was measured on, in words.
        tolerance: see `TOLERANCE`.
        differences: raw output -> largest difference.
        largest: raw output -> its largest value in PyTorch.
        boxes: final boxes of either side without a partner on the other, and the student's boxes; None without NMS.
            Partners are of one class, and differ by less than the tolerance in score and times S in pixels.
        pixels: those of another class, and all; None without mask.
    """

    sample: str
    tolerance: float
    differences: dict[str, float]
    largest: dict[str, float]
    boxes: tuple[int, int] | None
    pixels: tuple[int, int] | None

    def lines(self) -> list[str]:
        """The same for people."""
        found = [
            f"{name}: differ by up to {self.differences[name]:.1g}, the largest value is {self.largest[name]:.3g}"
            for name in RAW
        ]
        if self.boxes:
            found.append(f"final boxes: {self.boxes[0]} without a partner, PyTorch has {self.boxes[1]}")
        if self.pixels:
            found.append(f"mask: {self.pixels[0]} of {self.pixels[1]} pixels differ")
        return found


class _Part(NamedTuple):
    """Of one batch. `*_apart`: from what the student says; `*_astray`: from `decode` of the same raw outputs."""

    differences: list[float]
    largest: list[float]
    boxes_apart: int = 0
    boxes_astray: int = 0
    boxes: int = 0
    pixels_apart: int = 0
    pixels_astray: int = 0
    pixels: int = 0


def check(student: BlitzNet, network: Network, answer: Callable[[Tensor], Answers], sample: Sample) -> Parity:
    """Hold what was written against the student.

    Raw outputs must be equal within the tolerance; final boxes and mask must be what `decode` makes of them.

    Args:
        answer: images to `network.names`, by what was written.

    Raises:
        NotEqualError: it differs.
    """
    parts = [_compare(student, network, answer(images), images) for images in sample.batches(network.size)]
    tolerance = TOLERANCE_HALF if network.options.half else TOLERANCE
    worst = np.max([part.differences for part in parts], axis=0).tolist()
    largest = np.max([part.largest for part in parts], axis=0).tolist()
    for name, difference, value in zip(RAW, worst, largest, strict=True):
        if not difference <= tolerance * max(1.0, value):
            raise NotEqualError(
                f"the exported network's {name} differ from PyTorch's by up to {difference:.2g}, the largest value is "
                f"{value:.3g}, on {sample.words}; nothing was written"
            )
    apart, astray, count = (sum(getattr(part, f"boxes{end}") for part in parts) for end in ("_apart", "_astray", ""))
    _refuse_astray("boxes", astray, count, BOXES_APART, sample)
    other, lost, pixels = (sum(getattr(part, f"pixels{end}") for part in parts) for end in ("_apart", "_astray", ""))
    _refuse_astray("pixels of the mask", lost, pixels, PIXELS_APART, sample)
    return Parity(
        sample=sample.words,
        tolerance=tolerance,
        differences=dict(zip(RAW, worst, strict=True)),
        largest=dict(zip(RAW, largest, strict=True)),
        boxes=(apart, count) if network.options.nms else None,
        pixels=(other, pixels) if network.options.mask else None,
    )


def _refuse_astray(what: str, astray: int, count: int, share: float, sample: Sample) -> None:
    if astray > share * count:
        raise NotEqualError(
            f"of the exported network's {what} {astray} (PyTorch has {count}) are not what its own raw outputs say, "
            f"on {sample.words}; nothing was written"
        )


def _compare(student: BlitzNet, network: Network, got: Answers, images: Tensor) -> _Part:
    with torch.no_grad():
        outputs = student(images)
    anchors = outputs.anchors_xyxy
    raw = [torch.from_numpy(got[name]) for name in network.raw]
    expected = (boxes.decode(outputs.deltas, anchors), outputs.logits, outputs.map_logits)
    part = _Part(
        [float((found - want).abs().max()) for found, want in zip(raw, expected, strict=True)],
        [float(want.abs().max()) for want in expected],
    )
    if network.options.raw:
        return part
    sizes = [(network.size, network.size)] * len(images)
    wanted = decode(outputs, sizes, network.config, network.size)
    own = Outputs(anchors, boxes.encode(raw[0], anchors), raw[1], raw[2])
    implied = decode(own, sizes, network.config, network.size)
    if network.options.nms:
        tolerance = TOLERANCE_HALF if network.options.half else TOLERANCE
        part = part._replace(
            boxes_apart=_without_partner(wanted, got, tolerance, network.size),
            boxes_astray=_without_partner(implied, got, TOLERANCE, network.size),
            boxes=sum(len(prediction.scores) for prediction in wanted if prediction.scores is not None),
        )
    if network.options.mask:
        part = part._replace(
            pixels_apart=_other_pixels(wanted, got),
            pixels_astray=_other_pixels(implied, got),
            pixels=got["mask"].size,
        )
    return part


def _without_partner(wanted: Sequence[Prediction], got: Answers, tolerance: float, size: int) -> int:
    count = 0
    for prediction, boxes_xyxy, scores, classes, many in zip(
        wanted, got["boxes"], got["scores"], got["classes"], got["count"], strict=True
    ):
        assert prediction.boxes_xyxy is not None and prediction.scores is not None and prediction.classes is not None
        apart = np.abs(prediction.boxes_xyxy.numpy()[:, None] - boxes_xyxy[None, :many]).max(axis=-1)
        partners = (
            (apart <= tolerance * size)
            & (np.abs(prediction.scores.numpy()[:, None] - scores[None, :many]) <= tolerance)
            & (prediction.classes.numpy()[:, None] == classes[None, :many])
        )
        count += int((~partners.any(axis=0)).sum() + (~partners.any(axis=1)).sum())
    return count


def _other_pixels(wanted: Sequence[Prediction], got: Answers) -> int:
    masks = [prediction.mask.numpy() for prediction in wanted if prediction.mask is not None]
    return int((np.stack(masks) != got["mask"]).sum())
