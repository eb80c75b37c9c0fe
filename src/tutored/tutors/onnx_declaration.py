"""What a small YAML file says about the ONNX network beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tutored.config import TASKS, read_yaml
from tutored.config.section import Positive, Section, Share
from tutored.errors import InputError
from tutored.labels import KNOWN, LabelSpace
from tutored.tutors import read_outputs
from tutored.tutors.onnx_file import OnnxFile
from tutored.tutors.outputs import ClassOutputs

Triple = tuple[float, float, float]


class Picture(Section):
    """How a picture becomes the network's input; channels of `mean` and `deviation` are in the order of `colours`."""

    name: str | None = None
    """The input's name; not needed where there is one."""
    size: tuple[Positive, Positive] | None = None
    """(height, width), where the model does not fix it."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    colours: Literal["rgb", "bgr"] = "rgb"
    white: Annotated[float, Field(gt=0)] = 1.0
    """The value of white before mean and deviation: 1 or 255."""
    mean: Triple = (0.0, 0.0, 0.0)
    deviation: Triple = (1.0, 1.0, 1.0)
    fit: Literal["stretch", "letterbox"] = "stretch"
    """`letterbox` keeps the aspect ratio and fills the rest."""
    corner: Literal["top_left", "centre"] = "top_left"
    """Where a letterboxed picture lies."""
    fill: Annotated[float, Field(ge=0, le=255)] = 114.0
    """Grey beside it, 0 to 255."""
    antialias: bool = True
    """Average where a picture shrinks, as Pillow does; OpenCV's bilinear filter does not."""


class Yolox(Section):
    """A YOLOX head, see `onnx_yolox.decode`."""

    kind: Literal["yolox"]
    output: str = "output"
    nms_iou: Share | None = 0.5


class BoxesAndScores(Section):
    """Boxes [1, A, 4] and scores [1, A, outputs]; where both name one output, its first four columns are the box."""

    kind: Literal["boxes_scores"]
    boxes: str
    scores: str
    transposed: bool = False
    """[1, 4, A] and [1, outputs, A]."""
    format: Literal["xyxy", "cxcywh", "xywh"] = "xyxy"
    unit: Literal["pixels", "normalised"] = "pixels"
    """Of the network's input."""
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    """What makes probabilities of the scores."""
    nms_iou: Share | None = 0.5
    """Suppression within a class; null: none."""


class Logits(Section):
    """Class scores [1, outputs, h, w] over the whole input."""

    logits: str
    activation: Literal["none", "sigmoid", "softmax"] = "softmax"
    """What makes probabilities of them; what those of `none` and `sigmoid` leave of one is background."""
    align_corners: bool = False
    """The outermost cells lie on the input's corners, as in TensorFlow's DeepLab."""


class Declaration(Section):
    """The whole file."""

    labels: str | tuple[str, ...] | None = None
    """A name for each output in order (`background` and `N/A` stand for none), a known label space, or a file with one
    class a line beside this one; absent: `names` in the model's metadata. A label space or a file that has one class
    fewer than there are outputs has background in front."""
    input: Picture = Picture()
    detection: Annotated[Yolox | BoxesAndScores, Field(discriminator="kind")] | None = None
    segmentation: Logits | None = None

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if self.detection is None and self.segmentation is None:
            raise ValueError("declare `detection`, `segmentation` or both")
        return self

    def names_of_outputs(self) -> set[str]:
        """The outputs of the model that are spoken of."""
        heads = [head.model_dump(include={"output", "boxes", "scores"}) for head in [self.detection] if head]
        return {name for head in heads for name in head.values()} | (
            {self.segmentation.logits} if self.segmentation else set()
        )


OURS = Declaration(
    detection=BoxesAndScores(kind="boxes_scores", boxes="boxes", scores="logits", activation="softmax"),
    segmentation=Logits(logits="map_logits"),
)
"""What `tutored export` writes; its names, and the tasks that count, are in its metadata."""


def declaration_path(weights: Path) -> Path:
    """Where the declaration of a model lies: beside it, with the ending `.yaml`, or `.yml`."""
    usual, short = weights.with_suffix(".yaml"), weights.with_suffix(".yml")
    return short if short.is_file() and not usual.is_file() else usual


def declaration_of(model: OnnxFile) -> Declaration | None:
    """The declaration beside a model, or that of our own exports, for the tasks that the student was taught; None where
    there is neither.

    Raises:
        InputError: no YAML mapping, keys or values that are not possible, or an export without soft answers.
    """
    path = declaration_path(model.path)
    if not path.is_file():
        return _of_export(model) if model.taught else None
    try:
        return Declaration.model_validate(read_yaml(path))
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise InputError(f"{path}: {told}; docs/tutors.md has an example of each kind") from error


def _of_export(model: OnnxFile) -> Declaration:
    declared = OURS.model_copy(update={task: None for task in TASKS if task not in model.taught})
    if not declared.names_of_outputs() <= model.outputs:
        raise InputError(
            f"{model.path}: exported with --nms or --mask, which leave final answers, no soft ones; export it without, "
            "or label with the checkpoint"
        )
    return declared


def name_outputs(
    model: OnnxFile, declared: Declaration, given: LabelSpace | Path | str | None, count: int
) -> ClassOutputs:
    """The classes of `count` outputs: as the user says, else the declaration, else the model's metadata.

    Raises:
        InputError: nobody names them, or another number of them.
    """
    wanted = declared.labels if given is None else given
    if isinstance(wanted, tuple):
        names = list(wanted)
    elif wanted is not None:
        beside = given is None and str(wanted) not in KNOWN
        names = read_outputs(model.path.parent / str(wanted) if beside else wanted, count)
        if len(names) == count - 1:
            names = ["background", *names]
    else:
        names = model.names or []
    if len(names) != count:
        known = f"{len(names)} names are given" if names else "no names are known"
        raise InputError(
            f"{model.path}: {count} outputs, but {known}; declare `labels` with one name for each, background included"
        )
    return ClassOutputs(names, str(model.path))
