"""UberNet: one trunk, and for each task skip connections from every level with norms of their own.

After Kokkinos, "UberNet: Training a universal convolutional neural network for low-, mid- and high-level vision using
diverse datasets and limited memory", CVPR 2017 (arXiv 1609.02132): its figure of the architecture, its section on
diverse data sets for the updates (`UberNet.update_after`), and the network that its author published for the details
(github.com/jkokkin/UberNet, model/test.prototxt). As there:

- no task sees another's layers, and nothing but the trunk is shared;
- a map is a sum of linear maps of all levels, enlarged to the finest one, and of all images of a pyramid that the same
  trunk sees, each of them half as large as the one before; norms belong to a level of one such image;
- boxes see the pyramid's first image alone, by a 3x3 convolution and two of 1x1 from there, on anchors;
- a task's parameters wait until enough images taught it, the trunk's until enough images were seen.

Known differences:

- the trunk is any of timm's, not VGG-16 with holes; levels begin at stride 4;
- a norm comes after a task's 1x1 convolution, and then ReLU (so in Maninis et al., CVPR 2019, "UberNet-like"), not
  before it and for all tasks together; the last convolution of each image of the pyramid is its own;
- the fused map alone is learnt, not also the map of each image of the pyramid;
- anchors of all levels from stride 8 on, and of two coarser ones, are classified at once: no second stage looks at
  proposals;
- a step is the smallest unit of an update, not an image, and the optimiser is `train.optimizer`;
- what is kept in memory for the gradients is as usual (the paper's section on limited memory).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored.config.students import UberNetSection
from tutored.students.anchors import AnchorHead, AnchorRows, BoxOutputs, anchors
from tutored.students.backbone import Backbone, SharedConvolution
from tutored.students.heads import Student
from tutored.tasks import Task
from tutored.tasks.detection import Detection

COARSER = 2
"""Levels beyond the trunk's last one, each half as large as the one before, for large boxes."""


class UberNet(Student):
    """Images to raw outputs by task: `BoxOutputs` for detection, `InstanceOutputs` for instances, maps for dense tasks.
    Raises InputError: a task of a kind that it has no head for; see also `Backbone`.
    """

    Section: ClassVar[type[UberNetSection]] = UberNetSection
    config: UberNetSection
    backbone: Backbone

    def __init__(self, config: UberNetSection, tasks: Mapping[str, Task]) -> None:
        super().__init__(config, tasks)
        self.backbone = Backbone(config, config.map_stride)
        channels = self.backbone.channels
        self.add_heads(
            lambda task: BoxHead(task, self.backbone, config),
            lambda columns: nn.Sequential(BoxLevels(channels, config.width), _on_anchors(config, columns)),
            lambda maps: MapBranch(channels, config, maps),
            config.prototypes,
            self.backbone.sides[0],
        )
        self.to(memory_format=torch.channels_last)

    @property
    def update_after(self) -> Mapping[str, int]:
        return {**dict.fromkeys(self.tasks, self.config.task_images), "": self.config.trunk_images}

    def forward(self, images: Tensor) -> dict[str, Any]:
        pyramid = [self.backbone(self.checked(images))]
        for number in range(1, self.config.pyramid):
            side = -(-self.size // 2**number)
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
            pyramid.append(self.backbone(images))
        return {name: head(pyramid) for name, head in self.heads.items()}


class Skip(SharedConvolution):
    """One task's view of one level of the trunk: a convolution, and for each image of the pyramid a norm, then ReLU."""

    def __init__(self, channels: int, width: int, kernel: int = 1, images: int = 1) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(images))

    def forward(self, level: Tensor, image: int = 0) -> Tensor:
        return F.relu(self.norms[image](self.mix(level)))


class MapBranch(nn.Module):
    """A map from every level of every image of the pyramid, at the finest level's stride."""

    def __init__(self, channels: Sequence[int], config: UberNetSection, classes: int) -> None:
        super().__init__()
        self.skips = nn.ModuleList(Skip(each, config.width, images=config.pyramid) for each in channels)
        joined = config.width * len(channels)
        self.logits = nn.ModuleList(nn.Conv2d(joined, classes, 1) for _ in range(config.pyramid))

    def forward(self, pyramid: list[list[Tensor]]) -> Tensor:
        found = []
        for image, (levels, logits) in enumerate(zip(pyramid, self.logits, strict=True)):
            seen = [skip(level, image) for skip, level in zip(self.skips, levels, strict=True)]
            found.append(logits(torch.cat([_enlarged(each, seen[0]) for each in seen], dim=1)))
        return torch.stack([_enlarged(each, found[0]) for each in found]).sum(0)


class BoxLevels(nn.Module):
    """What boxes see: every level from stride 8 on, and `COARSER` ones, of the pyramid's first image."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        seen = [*channels[-3:], *([channels[-1]] * COARSER)]
        self.skips = nn.ModuleList(Skip(each, width, kernel=3) for each in seen)

    def forward(self, pyramid: list[list[Tensor]]) -> list[Tensor]:
        levels = pyramid[0][-3:]
        for _ in range(COARSER):
            levels = [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]
        return [skip(level) for skip, level in zip(self.skips, levels, strict=True)]


class BoxHead(AnchorHead):
    """Boxes and classes on the anchors of `BoxLevels`."""

    def __init__(self, task: Detection, trunk: Backbone, config: UberNetSection) -> None:
        sides = list(trunk.sides[-3:])
        for _ in range(COARSER):
            sides.append(-(-sides[-1] // 2))
        deltas, logits = _on_anchors(config, 4), _on_anchors(config, len(task.labels))
        fixed = anchors(sides, config.size, config.scales, config.ratios)
        super().__init__(task, deltas, logits, fixed, config)
        self.levels = BoxLevels(trunk.channels, config.width)

    def forward(self, pyramid: list[list[Tensor]]) -> BoxOutputs:
        return super().forward(self.levels(pyramid))


def _on_anchors(config: UberNetSection, columns: int) -> AnchorRows:
    per_cell = 2 + 2 * len(config.ratios)
    return AnchorRows((nn.Conv2d(config.width, per_cell * columns, 1) for _ in range(3 + COARSER)), columns)


def _enlarged(level: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(level, size=like.shape[-2:], mode="bilinear", align_corners=False)
