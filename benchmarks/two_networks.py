"""One network for both tasks against two: a step, a prediction, parameters and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from benchmarks.memory import held
from benchmarks.timing import side_by_side, table
from tutored.config import TASKS, Student
from tutored.labels import VOC
from tutored.student import BlitzNet

STUDENTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "light, 160 pixels": ({"preset": "light"}, 8, 5),
    "BlitzNet300 s8, ResNet-50": ({"preset": "blitznet300-s8"}, 2, 3),
}
"""Shape, batch and rounds; torchvision's pairs are held against the first one alone, since they take long."""


class OneTask(nn.Module):
    """Our student with the head of one task alone; trunk, extra blocks and up-stream as they are."""

    def __init__(self, student: BlitzNet, task: str) -> None:
        super().__init__()
        self.trunk = nn.Sequential(student.backbone, student.down, student.up)
        self.head = student.boxes if task == "detection" else student.map

    def forward(self, images: Tensor) -> Any:
        return self.head(self.trunk(images.contiguous(memory_format=torch.channels_last)))


def measure(_folder: Path, _scale: float) -> Iterator[dict[str, Any]]:
    """For each student two tables, training steps and predictions: the joint one against pairs of networks."""
    for name, (given, batch, rounds) in STUDENTS.items():
        shape = Student.model_validate(given)
        networks = _ours(shape) | (_torchvision() if shape.size < LARGE else {})
        images = torch.rand(batch, 3, shape.size, shape.size, generator=torch.Generator().manual_seed(0))
        note = f"{shape.size} x {shape.size} pixels into every network, batch {batch}, random weights, no loader"
        for title, do, more in (
            ("training step", _step, "torchvision's detectors train with their losses"),
            ("prediction", _answer, "torchvision's detectors also suppress boxes"),
        ):
            timed = side_by_side({who: do(nets, images) for who, nets in networks.items()}, batch, rounds, twice=True)
            found = table(f"{title}: {name}", timed, JOINT, "images/s", f"{note}; {more}")
            for row in found["rows"]:
                nets = networks[row["name"]]
                row["million parameters"] = round(sum(w.numel() for net in nets for w in net.parameters()) / 1e6, 2)
                if do is _step:
                    row["kept for backward, MB"] = round(max(_kept(net, images) for net in nets) / 1e6)
            yield found


JOINT, LARGE = "joint student", 300


def _ours(shape: Student) -> dict[str, list[nn.Module]]:
    pair: list[nn.Module] = [OneTask(BlitzNet(shape, VOC), task) for task in TASKS]
    return {JOINT: [BlitzNet(shape, VOC)], "two students, same backbone": pair}


def _torchvision() -> dict[str, list[nn.Module]]:
    def untrained(make: Callable[..., nn.Module]) -> nn.Module:
        return make(weights=None, weights_backbone=None, num_classes=21)

    ssdlite, small = detection.ssdlite320_mobilenet_v3_large, segmentation.lraspp_mobilenet_v3_large
    deeplab = segmentation.deeplabv3_mobilenet_v3_large
    return {
        "SSDLite + LR-ASPP (MobileNetV3)": [untrained(ssdlite), untrained(small)],
        "SSDLite + DeepLabV3 (MobileNetV3)": [untrained(ssdlite), untrained(deeplab)],
        "SSD300 (VGG16) + LR-ASPP (MobileNetV3)": [untrained(detection.ssd300_vgg16), untrained(small)],
    }


def _step(networks: list[nn.Module], images: Tensor) -> Callable[[], None]:
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-5, foreach=True) for net in networks]

    def run() -> None:
        for net, optimizer in zip(networks, optimizers, strict=True):
            net.train()
            _total(net, images).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def _kept(net: nn.Module, images: Tensor) -> int:
    """Bytes that wait for the backward pass; of two networks that are trained in turns, the larger one's count."""
    with held(net.train()) as count:
        _total(net, images)
    return count()


def _total(net: nn.Module, images: Tensor) -> Tensor:
    if isinstance(net, detection.ssd.SSD):
        box, one = torch.tensor([[10.0, 10, 100, 100]]), torch.tensor([1])
        losses = net(list(images), [{"boxes": box, "labels": one} for _ in images])
        return torch.stack(list(losses.values())).sum()
    return _sum(net(images))


def _sum(outputs: Any) -> Tensor:
    """The mean of every tensor in there that the network computed, added up."""
    if isinstance(outputs, Tensor):
        return outputs.mean() if outputs.requires_grad else torch.zeros(())
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([_sum(part) for part in parts]).sum()


def _answer(networks: list[nn.Module], images: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for net in networks:
                net.eval()
                net(list(images) if isinstance(net, detection.ssd.SSD) else images)

    return run
