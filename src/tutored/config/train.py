"""How sources are mixed, and optimiser, schedule and what is kept when."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.section import Positive, Section, Share


class Loss(Section):
    """How the terms of all tasks are divided and mixed; each field is one difference between the recipes."""

    joint: bool = True
    """Ground truth and tutor share one normaliser; false: each its own, mixed by the share of images, under the policy
    `both` by its `weights`."""
    untaught: Literal["counted", "skipped"] = "counted"
    """Images of a batch that nobody teaches a task: its means count them as zero, so that every label weighs alike;
    or leave them out, so that the only label of a batch weighs as much as a whole batch of labels."""


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
    """Of the network's forward pass; losses are always in fp32. `bf16` is quicker on GPUs, and on CPUs that have AMX or
    AVX-512 BF16."""
    compile: bool = False
    """Compile network and losses with torch's compiler: minutes before the first step; the gain is not measured yet."""
    shard: bool = False
    """Each of several processes keeps a piece of weights, gradients and Adam's averages (FSDP), for backbones too large
    for one device; slower. Nothing in one process. Not with `compile` or `fp16`."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: a GPU where there is one."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that read and augment images; 0: the training process does it itself. null: two on a CPU, on a GPU as
    many as there are cores but one, which several GPUs share."""
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
