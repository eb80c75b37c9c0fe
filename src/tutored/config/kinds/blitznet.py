"""The config keys of the student BlitzNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tutored.config.kinds.anchors import AnchorSection
from tutored.config.student import Width

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "blitznet300-s8": {"size": 300, "stride": 8, "extra": 3, "scales": (0.10, 0.20, 0.95)},
    "blitznet300-s4": {"size": 300, "stride": 4, "extra": 3, "scales": (0.04, 0.10, 0.95)},
    "blitznet512-s8": {"size": 512, "stride": 8, "extra": 4, "scales": (0.04, 0.10, 0.95)},
    "blitznet512-s4": {"size": 512, "stride": 4, "extra": 4, "scales": (0.02, 0.08, 0.95)},
    "light": {"backbone": "tf_efficientnet_lite0", "size": 160, "extra_width": 256, "up_width": 96, "map_width": 32},
}
"""What `student.preset` sets: the original's four on ResNet-50 (specification 1.5), and one for CPUs."""


class BlitzNetSection(AnchorSection):
    """BlitzNet's shape. The defaults are BlitzNet300 s8 on ResNet-50."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    FREE: ClassVar[frozenset[str]] = AnchorSection.FREE | {"preset"}

    preset: Literal["blitznet300-s8", "blitznet300-s4", "blitznet512-s8", "blitznet512-s4", "light"] | None = None
    """A named shape (`PRESETS`); keys given beside it win. In a complete config all of them are given."""
    stride: Literal[4, 8] = 8
    """Stride of the finest map: BlitzNet's s4 and s8."""
    extra: Annotated[int, Field(ge=1, le=5)] = 3
    """Extra down-scale blocks; the last one only starts the up-stream. 3 at size 300, 4 at 512."""
    extra_width: Width = 2048
    """Channels of the extra blocks."""
    up_width: Width = 512
    """Channels of the up-stream, which both heads see."""
    map_width: Annotated[int, Field(gt=0, le=8192)] = 64
    """Channels that the map head keeps of each level."""
    map_kernel: Literal[1, 3] = 1
    """Side of the convolutions that reduce levels to `map_width`."""
    prototypes: Annotated[int, Field(gt=0, le=256)] = 24
    """Maps of which an instance's mask is a weighted sum."""
    shared_head: bool = False
    """One pair of box convolutions for all levels, instead of a pair each."""
    stride_in_1x1: bool = False
    """ResNets only: stage strides on the first 1x1 convolution, as the original has them."""

    @model_validator(mode="before")
    @classmethod
    def _preset_defaults(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, Mapping) else None
        return {**PRESETS[name], **given} if isinstance(name, str) and name in PRESETS else given
