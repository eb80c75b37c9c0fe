"""Each optimisation that was kept, against the plain way of doing the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.data import SIZE, config, make_data
from benchmarks.timing import side_by_side, table
from tutored import losses
from tutored.config import Student
from tutored.data.training import TrainingSet, collate
from tutored.engine.batches import split
from tutored.engine.optimise import Average
from tutored.engine.supervision import open_supervision
from tutored.labels import VOC
from tutored.maps import likeliest
from tutored.structures import Outputs
from tutored.student import BlitzNet
from tutored.targets import Batch

BATCH = 16


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """A table for each: before, and after."""
    pairs = {
        "memory layout of the light student, forward and backward": _layout({"preset": "light"}, BATCH),
        "memory layout of BlitzNet300 on ResNet-50, forward and backward": _layout({"preset": "blitznet300-s8"}, 2),
        "assignment and loss terms": _terms(folder, scale),
        "averaged weights": _average(),
        "a mask of the picture's own size": _mask(),
    }
    tables = []
    for title, (before, after, what, count) in pairs.items():
        timed = side_by_side({before[0]: before[1], after[0]: after[1]}, count)
        tables.append(table(title, timed, before[0], f"{what}/s"))
    return tables


Way = tuple[str, Callable[[], object]]
Pair = tuple[Way, Way, str, float]


def _layout(shape: dict[str, Any], batch: int) -> Pair:
    packed = BlitzNet(Student.model_validate(shape), VOC).train()
    plain = BlitzNet(packed.config, VOC).to(memory_format=torch.contiguous_format).train()
    images = torch.rand(batch, 3, packed.config.size, packed.config.size)

    def step(student: BlitzNet, layout: torch.memory_format) -> None:
        levels = student.up(student.down(student.backbone(images.contiguous(memory_format=layout))))
        deltas, logits = student.boxes(levels)
        (deltas.mean() + logits.mean() + student.map(levels).mean()).backward()
        student.zero_grad()

    before = ("channels first", lambda: step(plain, torch.contiguous_format))
    return before, ("channels last", lambda: step(packed, torch.channels_last)), "images", batch


def _terms(folder: Path, scale: float) -> Pair:
    data, store = make_data(folder, max(32, round(128 * scale)))
    settings = config(data, store, "both")
    supervision = open_supervision(settings)
    student = BlitzNet(settings.student, supervision.train.labels)
    examples = TrainingSet(supervision.train, settings, student.sides[0], supervision.soft_labels)
    batch = collate([examples[0, position] for position in range(BATCH)])
    assert isinstance(batch, Batch)
    with torch.no_grad():
        outputs = student(batch.images.float() / 255)
    raw = [each.requires_grad_() for each in outputs[1:]]

    def terms(parts: list[Batch]) -> None:
        first = 0
        for part in parts:
            rows = slice(first, first := first + len(part.image_ids))
            assigned = losses.assign(student.anchors_xyxy, part, settings.loss)
            some = Outputs(outputs.anchors_xyxy, *[each[rows] for each in raw])
            factors = losses.divide(assigned.weights, settings.loss)
            losses.mix(losses.sums(some, part, assigned, settings.loss), factors).backward()

    one_by_one = split(batch, 1)
    return ("image by image", lambda: terms(one_by_one)), ("the whole batch", lambda: terms([batch])), "images", BATCH


def _average() -> Pair:
    student = BlitzNet(Student.model_validate({"preset": "blitznet300-s8"}), VOC)
    plain, fast = BlitzNet(student.config, VOC), BlitzNet(student.config, VOC)

    @torch.no_grad()
    def tensor_by_tensor() -> None:
        theirs = student.state_dict()
        for name, mine in plain.state_dict().items():
            if mine.is_floating_point():
                mine.copy_(0.998 * mine + 0.002 * theirs[name])

    average = Average(fast, student)
    after = ("all at once, in place", lambda: average.update(0.998, 10_000))
    return ("tensor by tensor", tensor_by_tensor), after, "updates", 1


def _mask() -> Pair:
    logits, size = torch.randn(21, 38, 38, generator=torch.Generator().manual_seed(0)), (SIZE[1], SIZE[0])

    def plain() -> Tensor:
        return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False).argmax(dim=1)

    return ("enlarge, then argmax", plain), ("the same, channels last", lambda: likeliest(logits, size)), "masks", 1
