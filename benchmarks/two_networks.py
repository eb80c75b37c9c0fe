"""One network for both tasks against two: a step, a prediction, parameters and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from benchmarks.memory import held
from benchmarks.timing import side_by_side, table
from tutored.config import Student
from tutored.labels import VOC
from tutored.student import BlitzNet

BATCH = 8


class OneTask(nn.Module):
    """Our student with the head of one task alone; trunk, extra blocks and up-stream as they are."""

    def __init__(self, student: BlitzNet, task: str) -> None:
        super().__init__()
        self.trunk = nn.Sequential(student.backbone, student.down, student.up)
        self.head = student.boxes if task == "detection" else student.map

    def forward(self, images: Tensor) -> Any:
        return self.head(self.trunk(images.contiguous(memory_format=torch.channels_last)))


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Training steps and predictions of the joint student and of pairs of single-task networks."""
    size = 160 if scale < 1 else 300
    backbone = {"preset": "light"} if scale < 1 else {"backbone": "resnet50"}
    shape = Student.model_validate({**backbone, "size": size})
    pair = [OneTask(BlitzNet(shape, VOC), task) for task in ("detection", "segmentation")]
    joint = {"joint student": [BlitzNet(shape, VOC)]}
    others: dict[str, list[nn.Module]] = {
        "two students, same backbone": [*pair],
        "SSDLite + LR-ASPP (MobileNetV3)": [
            detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
            segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
        ],
        "SSDLite + DeepLabV3 (MobileNetV3)": [
            detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
            segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
        ],
        "SSD300 (VGG16) + LR-ASPP (MobileNetV3)": [
            detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21),
            segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
        ],
    }
    networks: dict[str, list[nn.Module]] = {**joint, **others}
    images = torch.rand(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    note = (
        f"{size} x {size} pixels into every network, batch {BATCH}, random weights, no loader; torchvision's detectors "
    )
    steps = side_by_side({name: _step(nets, images) for name, nets in networks.items()}, BATCH)
    answers = side_by_side({name: _answer(nets, images) for name, nets in networks.items()}, BATCH)
    tables = [
        table(
            "training step: one network against two",
            steps,
            "joint student",
            "images/s",
            note + "train with their losses",
        ),
        table(
            "prediction: one network against two", answers, "joint student", "images/s", note + "also suppress boxes"
        ),
    ]
    for each in tables:
        for row in each["rows"]:
            row["million parameters"] = round(
                sum(weight.numel() for net in networks[row["name"]] for weight in net.parameters()) / 1e6, 2
            )
    for row in tables[0]["rows"]:
        row["kept for backward, MB"] = round(sum(_kept(net, images) for net in networks[row["name"]]) / 1e6)
    return tables


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
    """Bytes; where two networks are trained in turns, the larger one's are what counts."""
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
