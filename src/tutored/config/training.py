"""Where images come from and how they are augmented, how sources are mixed, and how a student is optimised."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.section import Names, Positive, Section, Share, Text

Annotates = Names | dict[str, Names] | None
"""Names of classes, for all tasks alike or by task; None: every class."""
Empty = Literal["annotated", "unannotated"]
"""What an image is for which a data set has a place for objects, and no object there."""


class MoreData(Section):
    """Another data set to train on together with the first."""

    train: str
    """Data set, such as `voc:FOLDER`."""
    split: Text = "train"
    """Its split."""
    annotated: Annotates = None
    """Names of the classes that it annotates, for all tasks or by task; null: all of its label spaces."""
    tasks: Names | None = None
    """The tasks whose annotations are taken from it; null: all that it has."""
    empty: Empty = "unannotated"
    """As `data.empty`, for this data set."""


class Data(Section):
    """Where images and ground truth come from."""

    train: str
    """Data set to train on, such as `voc:FOLDER` or `coco:FOLDER`."""
    split: Text = "train"
    """Split to train on; of a VOC folder, several are joined by `+`."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images that is kept out of training and validated on, instead of `val`: to choose settings
    on. The same images for every training seed."""
    val: str | None = None
    """Data set to validate on; if absent, the training data set's folder and `tasks`."""
    val_split: Text | None = "val"
    """Split to validate on while training; null: no validation."""
    val_annotated: Annotates = None
    """Names of the classes that `val` annotates; without `val`, those of the training data."""
    annotated: Annotates = None
    """Names of the classes that the training data annotates, for all tasks or by task; null: all of its label
    spaces."""
    tasks: Names | None = None
    """The tasks whose annotations are taken from it; null: all that it has."""
    empty: Empty = "unannotated"
    """What an image without any object is, here and in `val`, where the format leaves it open (VOC's XML, COCO, YOLO,
    CVAT and Labelme): `annotated`, so that it shows nothing, or `unannotated`, not labelled yet, so that it teaches
    nothing and a tutor may fill it."""
    more: tuple[MoreData, ...] = ()
    """Further training data. Their classes may differ: the student's are then all of them, and in each data set those
    that it does not have count as not annotated. An image may stand in several data sets if each annotates other
    tasks."""
    cache: Path | None = None
    """Folder for decoded training pictures and their annotations, which runs may share: what was read once is read from
    there, in a sixth of the time and equal to the bit, until a picture, an annotation or how it is read changes. null:
    none. It pays where reading holds the training up, as on a GPU, and the folder fits into memory."""
    cache_gb: Annotated[float, Field(gt=0)] = 10.0
    """Gigabytes that `cache` may take; a photograph of 500 x 375 pixels with boxes and a mask takes .00075."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides which images are held out, hidden or given to the tutor; shared by runs that differ in `train.seed`
    only."""


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
    as_specified: bool = False
    """Colours change one after the other, clipped in between, and crops end between pixels, as BlitzNet has it
    (specification 4.3); false: all colours change at once and crops end on pixels, in half of the time."""


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
