"""The network, its augmentation, its losses, its training and its answers: every key with its meaning and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.config.presets import PRESETS, Preset
from tutored.config.section import Positive, Section, Share, Weight

Width = Annotated[int, Field(ge=4, le=8192)]
"""Channels; a checkpoint's description is not to fill the memory before its weights are seen."""


class Student(Section):
    """BlitzNet's shape. The defaults are BlitzNet300 s8 on ResNet-50."""

    preset: Preset | None = None
    """A named shape (`PRESETS`); keys given beside it win. In a complete config all of them are given."""
    backbone: str = "resnet50"
    """A timm model with feature maps at strides 4 to 32."""
    weights: str | None = None
    """Path to the backbone's safetensors, or `timm` for its default pretrained weights; null: random."""
    size: Annotated[int, Field(gt=0, le=4096)] = 300
    """Side of the network's input in pixels. Alone it leaves stride, extra blocks and anchor scales as they are; a
    preset sets what belongs together."""
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
    shared_head: bool = False
    """One pair of box convolutions for all levels, instead of a pair each."""
    scales: tuple[float, float, float] = (0.10, 0.20, 0.95)
    """Anchor scales as shares of the side: smallest, min, max.
    300 s4 and 512 s8: (.04, .10, .95); 512 s4: (.02, .08, .95)."""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=16)] = (2.0, 3.0)
    """Aspect ratios of the anchors beside the two squares; each stands for itself and its inverse."""
    stride_in_1x1: bool = False
    """ResNets only: stage strides on the first 1x1 convolution, as the original has them."""
    frozen: Literal[0, 4, 8, 16, 32] = 0
    """The backbone's weights and batch statistics up to its last map of this stride stay as they were loaded; 0: all of
    them learn."""
    freeze_norm: bool = False
    """Keep the backbone's batch statistics as they were loaded; faster, and steadier with small batches."""

    @field_validator("scales")
    @classmethod
    def _rising(cls, given: tuple[float, float, float]) -> tuple[float, float, float]:
        if not 0 < given[0] <= given[1] <= given[2] <= 2:
            raise ValueError("must rise, from above 0 to 2 at most")
        return given

    @model_validator(mode="before")
    @classmethod
    def _preset_defaults(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, Mapping) else None
        return {**PRESETS[name], **given} if isinstance(name, str) and name in PRESETS else given


class Augment(Section):
    """One random geometry for image, boxes and maps; colour for the image only."""

    colour: bool = True
    """Random brightness, contrast, saturation and hue, as SSD has them."""
    zoom_out: Literal["image", "run", "never"] = "image"
    """Drawn for each `image`, or once for the whole `run`, the thesis' defect (specification 7.1, 1)."""
    zoom_out_share: Share = 0.5
    """Share of images that are placed, smaller, on a larger canvas."""
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0
    """The canvas is at most so many times as wide and high as the image, and at least 1.05 times."""
    crop: bool = True
    """Random crops as SSD has them; false: the whole image."""
    flip_share: Share = 0.5
    """Share of images that are mirrored left to right."""
    crop_guides: Literal["taught", "all"] = "taught"
    """Boxes of which a crop must cover one: the ground truth that is taught, or all ground truth and every box of the
    tutor, the thesis' defects (7.1, 4 and 5)."""


class Loss(Section):
    """How targets are built and terms divided; each field is one difference between the recipes."""

    box_floor: Share = 0.5
    """Tutor boxes from this score on are positives."""
    ignore_floor: Share = 0.1
    """Anchors on tutor boxes between this score and `box_floor` are neither positive nor negative."""
    class_target: Literal["hard", "soft"] = "hard"
    """Of a tutor box: its best class, or its whole class distribution."""
    confidence: bool = True
    """Weigh a tutor box's class and box loss by its score."""
    conflicts: Literal["score", "keep"] = "score"
    """`score`: of tutor boxes on one object the best-scored stays; `keep`: all compete for anchors by IoU alone."""
    conflict_iou: Share = 0.6
    """From this overlap on, tutor boxes are taken to be on one object."""
    normaliser: Literal["weights", "positives"] = "weights"
    """Detection terms are divided by the positives' summed weights, or by their number."""
    joint: bool = True
    """Ground truth and tutor share one normaliser; false: each its own, mixed by the share of images, under the policy
    `both` by its `weights`."""
    untaught: Literal["counted", "skipped"] = "counted"
    """Images of a batch that nobody teaches a task: its means count them as nothing, so that every label weighs alike;
    or leave them out, so that the only label of a batch weighs as much as a whole batch of labels."""
    mining: Literal["image", "batch"] = "image"
    """Hard negatives are chosen within each image, or over the batch with the thesis' cap (7.3, 23)."""
    negatives: Annotated[float, Field(ge=0)] = 3.0
    """Negatives per positive; at least one of an image that has a positive (`mining: image`)."""
    min_negatives: Annotated[int, Field(ge=0)] = 3
    """Negatives of an image without positives (`mining: image`; a batch without positives has none)."""
    difficult: Literal["train", "ignore"] = "ignore"
    """Objects that VOC marks difficult: positives, or neither positive nor negative."""
    match_floor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """An anchor is positive from this IoU with a box on."""
    forced_floor: Share = 0.0
    """A box's best anchor is forced positive from this IoU on."""
    map_target: Literal["power", "softmax"] = "power"
    """`power`: p^(1/T), renormalised; `softmax`: softmax(p/T), as the thesis has it."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """T of `map_target`: below 1 sharper, above 1 softer."""
    map_weight: Literal["mass", "margin"] = "mass"
    """Of a tutor's cell: what its probabilities sum to, or that times the lead of the likeliest class over the next, so
    that cells of which the tutor is unsure teach less."""
    background: Literal["noisy_or", "one", "complement", "zero"] = "noisy_or"
    """Channel 0 of a map drawn from instances. `noisy_or`: soft masks with an explicit background; the others:
    the box score where a binary mask is positive, and 1, 1 - max, or 0 elsewhere."""
    padding: Literal["ignore", "background"] = "ignore"
    """Pixels outside the image: no loss, or background (ground truth) and uniform (tutor, `softmax`)."""
    detection_weight: Weight = 1.0
    """Of class and box terms in the loss."""
    segmentation_weight: Weight = 1.0
    """Of the map term in the loss."""

    @property
    def silent_score(self) -> float:
        """The highest score of a box that is not to teach; from `ignore_floor` on, anchors on it are ignored."""
        return 0.999 * self.box_floor


class Train(Section):
    """Optimiser, schedule, and what is kept when."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of weights, order and augmentation."""
    start: str | None = None
    """A checkpoint whose weights training starts from, such as `runs/first/checkpoint`; its classes, size of input and
    anchor scales may be others. null: the backbone's `student.weights`, all else random."""
    epochs: Annotated[int, Field(gt=0)] = 40
    """Passes over as many images as the split has."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of one step, of all processes together."""
    micro_batch: Annotated[int, Field(ge=2)] | None = None
    """Images in memory at once, a divisor of `batch`; but for batch statistics, gradients do not depend on it."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Weight decay is decoupled in `adamw` and part of the gradient in `adam`."""
    lr: Annotated[float, Field(gt=0)] = 5e-4
    """The highest learning rate."""
    backbone_lr: Annotated[float, Field(ge=0)] = 0.1
    """The backbone's learning rate, as a share of `lr`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of convolution kernels alone."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    milestones: tuple[Share, ...] = (0.625, 0.875)
    """Shares of the run after which `step` multiplies the rate by .1."""
    warmup: Share = 0.02
    """Share of the run in which the rate rises from zero."""
    ema: Share = 0.998
    """Decay of the averaged weights that are evaluated and saved; 0: none."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; null: no limit."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network's forward pass; losses are always in fp32."""
    compile: bool = False
    """Compile network and losses with torch's compiler: minutes before the first step; the gain is not measured yet."""
    shard: bool = False
    """Each of several processes keeps a piece of weights, gradients and Adam's averages (FSDP), for backbones too large
    for one device; slower. Nothing in one process. Not with `compile` or `fp16`."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: a GPU where there is one."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that read and augment images; 0: the training process does it itself."""
    threads: Positive | None = None
    """CPU threads of the network; null: torch's choice."""
    val_every: Positive = 10
    """Epochs between validations; the last epoch always validates."""
    save_every: Positive = 1
    """Epochs between checkpoints."""
    shown: Annotated[int, Field(ge=0)] = 6
    """Validation images that the run's page shows, answered at each validation; 0: no pictures."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Who else is told what the log holds: `tensorboard`, `wandb`, `mlflow`, `trackio`; several with commas."""

    @field_validator("trackers", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _shards_plain_networks(self) -> Self:
        if self.shard and (self.compile or self.precision == "fp16"):
            raise ValueError("shard goes with neither compile nor precision 'fp16'; take bf16 or fp32, uncompiled")
        return self

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} must divide batch {self.batch}")
        return self


class Decode(Section):
    """From raw outputs to final boxes."""

    score_floor: Share = 0.01
    """Weaker boxes are dropped."""
    nms_iou: Share = 0.45
    """Of boxes of one class that overlap more, the best stays."""
    top_k: Positive = 400
    """Boxes of each class that suppression sees."""
    per_class: Positive = 50
    """Boxes of each class that an image keeps."""
    total: Positive = 200
    """Boxes that an image keeps."""
