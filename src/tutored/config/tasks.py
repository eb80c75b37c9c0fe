"""What the tasks of a run can be told: every one, whatever its kind, and each kind that the package brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutored.section import Names, Positive, Section, Share, Text, Weight

if TYPE_CHECKING:
    from tutored.config.run import Config


class TaskSection(Section):
    """One task. The kind's own section adds its keys.

    Attributes:
        OWN_SCALE: keys that treat the tutor's probabilities; where one is set, an audit's temperature is not used.
    """

    OWN_SCALE: ClassVar[tuple[str, ...]] = ()

    kind: str
    """A kind of task (`config.entries.TASKS`), or a class of your own as `module:Class`. Where it is left out, it is
    the task's name."""
    policy: Literal["ground_truth", "fill", "replace", "both", "none"] = "ground_truth"
    """`fill`: ground truth, tutor where it is missing; `replace`: tutor on a `share` of images; `both`: their sum;
    `none`: nobody teaches it."""
    tutor: str | dict[str, Any] | None = None
    """Who answers, such as `onnx:yolox.onnx`; with options as a mapping, such as `{kind: onnx:yolox.onnx, labels:
    coco}`. `tutored train` asks before it trains, and audits the answers where there is ground truth."""
    store: Path | tuple[Path, ...] | None = None
    """Folder of the tutor's soft labels; several where several splits or data sets were labelled. Where it is left out,
    the answers of `tutor` go into the run's folder, to `stores/TASK`."""
    hidden: Share = 0.0
    """Share of the annotated training images whose ground truth is hidden; a larger share hides a superset."""
    hidden_like: Text | None = None
    """Draw the hidden images as those of this task: tasks that are annotated on the same images then keep the same
    ones. null: each task by itself, so that few images keep both."""
    share: Share = 1.0
    """Share of images that `replace` gives to the tutor."""
    resampled: bool = False
    """The thesis' reading of the `share` that `replace` gives: other images at every step, so that no image is without
    ground truth for good."""
    weights: tuple[Weight, Weight] = (0.5, 0.5)
    """Ground truth's and tutor's weight where `both` has both; without `loss.joint`, those of the sources' means over a
    batch, whatever each teaches in it (the thesis' formula 18)."""
    audit: Literal["use", "ignore"] = "use"
    """What `tutored audit` left in the store: mutes classes, calibrates probabilities and sets the scores from which
    boxes teach, where the task's keys have their defaults. The recipe `thesis` ignores it."""
    weight: Weight = 1.0
    """Of the task's terms in the loss."""
    folder: str | None = Field(default=None, alias="from")
    """Folder in the data set's folder that holds one annotation file an image; null: where the format has them."""

    @property
    def tutored(self) -> bool:
        """Whether the policy gives a tutor a say."""
        return self.policy in ("fill", "replace", "both")

    @property
    def stores(self) -> tuple[Path, ...]:
        """The stores that this task reads; empty where no tutor has a say, or `Config.placed` has to say where."""
        if self.store is None or not self.tutored:
            return ()
        return self.store if isinstance(self.store, tuple) else (self.store,)

    def idle(self, config: Config) -> list[str]:
        """What keys of this task ask for and do not get in this run, a sentence each."""
        return []

    @model_validator(mode="after")
    def _tutor_where_needed(self) -> Self:
        if self.tutored and not self.store and self.tutor is None:
            raise ValueError(
                f"policy '{self.policy}' needs a `tutor`, such as onnx:FILE, or the `store` of its answers, which "
                "`tutored label` makes"
            )
        return self

    @field_validator("weights")
    @classmethod
    def _teach_something(cls, weights: tuple[float, float]) -> tuple[float, float]:
        if not any(weights):
            raise ValueError("both are 0, so that nobody teaches; give one of them more, or policy 'none'")
        return weights


class ClassSection(TaskSection):
    """A task whose answers are classes of a label space.

    Attributes:
        VETTING: kinds of task that `vetted_by` may name.
    """

    VETTING: ClassVar[tuple[str, ...]] = ()

    labels: Path | None = None
    """File with the classes of this task's annotations, one a line in the order of their numbers; null: those that the
    data set states."""
    classes: Names | None = None
    """The student's classes for this task; null: those of all training data."""
    reported: Names | None = None
    """The classes that the means of a validation are over; null: all."""
    renamed: dict[Text, Text | None] = Field(default_factory=dict)
    """Tutor class -> our class, where names and aliases don't say it; or `ignore`, `background`, or null (as
    `elsewhere` says) to drop it."""
    elsewhere: Literal["background", "ignore"] = "background"
    """Where the tutor's probability of classes without a counterpart here goes: to background (VOC), or nowhere, and
    the cell (with soft class targets the box too) weighs that much less."""
    vetted_by: str | None = None
    """Another task of this run. Where its ground truth is there, neither hidden nor replaced, what contradicts it does
    not teach: in a tutor's map a class outside its drawn boxes (and a cell in no box is background), and of a tutor's
    boxes those without a pixel of their class."""

    @field_validator("classes", "reported")
    @classmethod
    def _some_class(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names == ():
            raise ValueError("got [], no class at all; name one or more, or give null for all")
        return names


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


class DetectionSection(ClassSection):
    """Which of a tutor's boxes teach what, and which of the student's are kept."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "thesis": {"box_floor": 0.001, "ignore_floor": 0.001, "conflicts": "keep", "difficult": "train"}
    }
    OWN_SCALE: ClassVar[tuple[str, ...]] = ("box_floor", "ignore_floor")
    VETTING: ClassVar[tuple[str, ...]] = ("segmentation",)

    box_floor: Share = 0.5
    """Tutor boxes from this score on are positives."""
    ignore_floor: Share = 0.1
    """What lies on tutor boxes between this score and `box_floor` is neither positive nor negative."""
    class_target: Literal["hard", "soft"] = "hard"
    """Of a tutor box: its best class, or its whole class distribution."""
    confidence: bool = True
    """Weigh a tutor box's class and box loss by its score."""
    conflicts: Literal["score", "keep"] = "score"
    """`score`: of tutor boxes on one object the best-scored stays; `keep`: all compete by IoU alone."""
    conflict_iou: Share = 0.6
    """From this overlap on, tutor boxes are taken to be on one object."""
    difficult: Literal["train", "ignore"] = "ignore"
    """Objects that VOC marks difficult: positives, or neither positive nor negative."""
    decode: Decode = Decode()

    @property
    def silent_score(self) -> float:
        """The highest score of a box that must not teach; from `ignore_floor` on, what lies on it is ignored."""
        return 0.999 * self.box_floor

    def idle(self, config: Config) -> list[str]:
        if self.stores and self.vetted_by and self.ignore_floor > self.silent_score:
            return [
                "no score is ignored (ignore_floor is as high as box_floor), so that where a box is contradicted "
                "(vetted_by), nothing is taken to be there"
            ]
        return []


class InstancesSection(DetectionSection):
    """As a detection task's keys, for boxes with masks."""

    mask: Weight = 1.0
    """Of the term of the masks, against those of the boxes and classes that they belong to."""
    decode: Decode = Decode(total=100)


class SegmentationSection(ClassSection):
    """What a tutor's map teaches."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "thesis": {"target": "softmax", "temperature": 0.4, "background": "one", "padding": "background"}
    }
    OWN_SCALE: ClassVar[tuple[str, ...]] = ("temperature", "target")
    VETTING: ClassVar[tuple[str, ...]] = ("detection",)

    target: Literal["power", "softmax"] = "power"
    """`power`: p^(1/T), renormalised; `softmax`: softmax(p/T), as the thesis has it."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """T of `target`: below 1 sharper, above 1 softer."""
    cell_weight: Literal["mass", "margin"] = "mass"
    """Of a tutor's cell: what its probabilities sum to, or that times the lead of the likeliest class over the next, so
    that cells of which the tutor is unsure teach less."""
    background: Literal["noisy_or", "one", "complement", "zero"] = "noisy_or"
    """Channel 0 of a map drawn from instances. `noisy_or`: soft masks with an explicit background; the others:
    the box score where a binary mask is positive, and 1, 1 - max, or 0 elsewhere."""
    overlap: Weight = 0.0
    """Of a term that asks for the overlap (IoU) of each class in each image, against that of each cell's class."""
    padding: Literal["ignore", "background"] = "ignore"
    """Pixels outside the image: no loss, or background (ground truth) and uniform (tutor, `softmax`)."""

    def idle(self, config: Config) -> list[str]:
        notes = []
        lighter = {
            "vetted_by": self.vetted_by,
            "elsewhere": self.elsewhere == "ignore",
            "cell_weight": self.cell_weight != "mass",
        }
        if self.stores and self.target == "softmax" and any(lighter.values()):
            keys = ", ".join(key for key, value in lighter.items() if value)
            notes.append(f"target 'softmax' teaches every cell at full weight, in spite of {keys}")
        partly = config.data.annotated is not None or self.classes is not None or config.data.more
        if self.policy == "fill" and self.target == "softmax" and partly:
            notes.append(
                "target 'softmax' also softens what people drew, and teaches their void, where a data set annotates "
                "only some of the classes; 'power' does not"
            )
        return notes


class RegressionSection(TaskSection):
    """What the numbers of a task mean: depth, height, saliency, or any other number a pixel."""

    shift: float = 0.0
    """The student learns (number - shift) / scale; set it to the numbers' mean."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Set it to the numbers' spread, so that what the student learns is of the order of one."""
    missing: float | None = None
    """The number in annotations that means "not measured", such as 0 in 16-bit depth images; NaN always does."""
