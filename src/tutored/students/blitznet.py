"""BlitzNet: one trunk, extra down-scale blocks, an up-stream with skips, and heads that see every level.

After the specification's section 1. Letters in shapes as in `types`; a level's map is [B, width, side, side].
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutored.config.students import BlitzNetSection
from tutored.students.anchors import AnchorHead, AnchorRows, anchors
from tutored.students.backbone import Backbone
from tutored.students.heads import Student
from tutored.tasks import Task
from tutored.tasks.detection import Detection


class BlitzNet(Student):
    """Images to raw outputs by task: `BoxOutputs` for detection, maps [B, channels, h, w] for dense tasks. Raises
    InputError: a task of a kind that it has no head for; see also `Backbone`. `sides` has the cells along one side of
    each level, finest first; the last is the global level, 1.
    """

    Section: ClassVar[type[BlitzNetSection]] = BlitzNetSection
    config: BlitzNetSection

    def __init__(self, config: BlitzNetSection, tasks: Mapping[str, Task]) -> None:
        super().__init__(config, tasks)
        self.backbone = Backbone(config, config.stride, stride_in_1x1=config.stride_in_1x1)
        self.down = DownStream(self.backbone.channels[-1], self.backbone.sides[-1], config)
        skips = [*self.backbone.channels, *([config.extra_width] * config.extra)]
        self.up = UpStream(skips, config.up_width)
        sides = list(self.backbone.sides)
        for _ in range(config.extra - 1):
            sides.append(math.ceil(sides[-1] / 2))
        self.sides = (*sides, 1)
        levels = len(self.sides)

        def rows(columns: int) -> nn.Module:
            found = _on_anchors(config, levels, columns)
            _truncated_normal(found, 0.1)
            return found

        self.add_heads(
            lambda task: _anchor_head(task, config, self.sides),
            rows,
            lambda channels: MapHead(config, levels, channels),
            config.prototypes,
            self.sides[0],
        )
        # Twice as fast on CPUs, and what mixed precision on GPUs wants.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Any]:
        images = self.checked(images)
        levels = self.up(self.down(self.backbone(images)))
        assert [level.shape[-1] for level in levels] == list(self.sides), "anchors do not fit the maps"
        return {name: head(levels) for name, head in self.heads.items()}


class DownStream(nn.Module):
    """Extra blocks of two bottleneck units, each block halving the map (1.3). `channels` and `side` are those of the
    map that it is given.
    """

    def __init__(self, channels: int, side: int, config: BlitzNetSection) -> None:
        super().__init__()
        width, blocks = config.extra_width, []
        for index in range(config.extra):
            # A single cell has nothing to halve, and oneDNN (torch 2.15) leaves gradients of bf16 unwritten there.
            stride, side = (2, math.ceil(side / 2)) if side > 1 else (1, 1)
            first = Bottleneck(width if index else channels, width, stride, stride_first=config.stride_in_1x1)
            blocks.append(nn.Sequential(first, Bottleneck(width, width, 1)))
        self.blocks = nn.ModuleList(blocks)
        _truncated_normal(self, 2.0)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        for block in self.blocks:
            maps = [*maps, block(maps[-1])]
        return maps


class Bottleneck(nn.Module):
    """ResNet's unit, 1x1, 3x3, 1x1 with a quarter of the width inside; subsamples the shortcut unless widths differ.
    With `stride_first` the stride sits on the first 1x1 convolution (the original), not on the 3x3.
    """

    def __init__(self, channels: int, width: int, stride: int, *, stride_first: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.residual = _residual(channels, width, (stride, 1) if stride_first else (1, stride))
        self.projection = _conv_norm(channels, width, stride=stride) if channels != width else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.projection is None else self.projection(x)
        return F.relu(shortcut + self.residual(x))


class UpStream(nn.Module):
    """From the coarsest map back to the finest, each step joined by a skip (1.4). `channels` are those of the maps it
    is given, finest first; the last one starts it and is no skip.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        *skips, start = channels
        inputs = [start, *([width] * (len(skips) - 1))]
        self.blocks = nn.ModuleList(
            ResSkip(coarse, skip, width) for coarse, skip in zip(inputs, reversed(skips), strict=True)
        )
        _truncated_normal(self, 2.0)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Levels, finest first; last comes the global one, the mean of the first step's shortcut (no ReLU)."""
        *skips, x = maps
        levels: list[Tensor] = []
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x, shortcut = block(x, skip)
            if not levels:
                levels.append(shortcut.mean(dim=(2, 3), keepdim=True))
            levels.insert(0, x)
        return levels


class ResSkip(nn.Module):
    """Enlarge a coarse map to a skip's side and add what the two together say.

    The resize is bilinear with half-pixel centres; the original's (TensorFlow 1) is asymmetric, so weights
    converted from it would see their maps moved by up to half a cell.
    """

    def __init__(self, coarse: int, skip: int, width: int) -> None:
        super().__init__()
        self.projection = _conv_norm(coarse, width) if coarse != width else nn.Identity()
        self.residual = _residual(coarse + skip, width)

    def forward(self, coarse: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        coarse = F.interpolate(coarse, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        shortcut = self.projection(coarse)
        return F.relu(shortcut + self.residual(torch.cat([coarse, skip], dim=1))), shortcut


def _anchor_head(task: Detection, config: BlitzNetSection, sides: tuple[int, ...]) -> AnchorHead:
    """Offsets and class logits of every anchor (1.6)."""
    deltas, logits = (_on_anchors(config, len(sides), columns) for columns in (4, len(task.labels)))
    head = AnchorHead(task, deltas, logits, anchors(sides, config.size, config.scales, config.ratios), config)
    _truncated_normal(head, 0.1)
    return head


def _on_anchors(config: BlitzNetSection, levels: int, columns: int) -> AnchorRows:
    per_cell, own = 2 + 2 * len(config.ratios), 1 if config.shared_head else levels
    return AnchorRows((nn.Conv2d(config.up_width, per_cell * columns, 3, padding=1) for _ in range(own)), columns)


class MapHead(nn.Module):
    """A map of the finest level, [B, channels, h, w], from all levels together (1.7)."""

    def __init__(self, config: BlitzNetSection, levels: int, channels: int) -> None:
        super().__init__()
        kernel = config.map_kernel
        self.reduce = nn.ModuleList(
            nn.Conv2d(config.up_width, config.map_width, kernel, padding=kernel // 2) for _ in range(levels)
        )
        self.logits = nn.Conv2d(levels * config.map_width, channels, 3, padding=1)
        for conv in (*self.reduce, self.logits):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, levels: list[Tensor]) -> Tensor:
        side = levels[0].shape[-2:]
        reduced = [F.relu(conv(level)) for conv, level in zip(self.reduce, levels, strict=True)]
        joined = torch.cat([F.interpolate(level, size=side, mode="nearest") for level in reduced], dim=1)
        logits: Tensor = self.logits(joined)
        return logits


def _conv_norm(channels: int, width: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


def _residual(channels: int, width: int, strides: tuple[int, int] = (1, 1)) -> nn.Sequential:
    inside = width // 4
    return nn.Sequential(
        *_conv_norm(channels, inside, stride=strides[0]),
        nn.ReLU(inplace=True),
        *_conv_norm(inside, inside, kernel=3, stride=strides[1]),
        nn.ReLU(inplace=True),
        *_conv_norm(inside, width),
    )


def _truncated_normal(module: nn.Module, factor: float) -> None:
    """Fan-in variance scaling, cut at two sigma; 1.3 makes good the variance that the cut takes (slim's rule)."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            sigma = math.sqrt(1.3 * factor / conv.weight[0].numel())
            nn.init.trunc_normal_(conv.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
