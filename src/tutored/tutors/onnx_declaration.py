"""What is declared about an ONNX network: in a small YAML file beside it, or by `onnx_families` for known exports."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutored.section import Positive, Section, Share

Activation = Literal["none", "sigmoid", "softmax"]
Format = Literal["xyxy", "cxcywh", "xywh"]
Triple = tuple[float, float, float]
Byte = Annotated[float, Field(ge=0, le=255)]


class Picture(Section):
    """How a picture becomes the network's input; channels are in the order of `colours`."""

    name: str | None = None
    """The input's name; not needed where there is one."""
    sizes: str | None = None
    """A further input, int64 [1, 2], that is told in pixels of which (width, height) the boxes are wanted."""
    size: tuple[Positive, Positive] | None = None
    """(height, width), where the model does not fix it."""
    layout: Literal["nchw", "nhwc", "chw", "hwc"] = "nchw"
    colours: Literal["rgb", "bgr"] = "rgb"
    white: Annotated[float, Field(gt=0)] = 1.0
    """The value of white before mean and deviation: 1 or 255."""
    mean: Triple = (0.0, 0.0, 0.0)
    deviation: Triple = (1.0, 1.0, 1.0)
    fit: Literal["stretch", "letterbox"] = "stretch"
    """`letterbox` keeps the aspect ratio and fills the rest."""
    corner: Literal["top_left", "centre"] = "top_left"
    """Where a letterboxed picture lies."""
    fill: Byte | tuple[Byte, Byte, Byte] = 114.0
    """Colour beside it, 0 to 255: grey, or a value for each channel."""
    antialias: bool = True
    """Average where a picture shrinks, as Pillow does; OpenCV's bilinear filter does not."""


class Cells(Section):
    """Rows [1, A, ...] of a head that answers for the cells of several strides, see `onnx.boxes_of_cells`."""

    kind: Literal["yolox", "nanodet"]
    output: str = "output"
    nms_iou: Share | None = 0.5
    masks: None = None


class Masks(Section):
    """A mask for each box: [1, A, h, w], [A, h, w] or [A, 1, h, w]; or prototypes [1, P, h, w] to mix."""

    output: str
    over: Literal["input", "boxes", "prototypes"] = "input"
    """What a mask is stretched over: the whole input, or its own box. `prototypes` lie over the whole input."""
    shares: str | None = None
    """Output [1, A, P] of how much each prototype counts; null: the last P columns of the boxes' output."""
    activation: Literal["none", "sigmoid"] = "sigmoid"
    """What makes probabilities of them."""


class BoxesAndScores(Section):
    """Boxes [1, A, 4] and scores [1, A, outputs]; where both name one output, its first four columns are the box."""

    kind: Literal["boxes_scores"]
    boxes: str
    scores: str
    transposed: bool = False
    """[1, 4, A] and [1, outputs, A]."""
    format: Format = "xyxy"
    unit: Literal["pixels", "normalised"] = "pixels"
    """Of the network's input."""
    activation: Activation = "none"
    """What makes probabilities of the scores."""
    objectness: bool = False
    """The first score says that there is an object; those of the classes are multiplied by it."""
    nms_iou: Share | None = 0.5
    """Suppression within a class; null: none."""
    masks: Masks | None = None


class FinalBoxes(Section):
    """Rows [1, A, 6] of box, score and class number: what networks give that choose their boxes themselves.

    Scores and class numbers may be outputs of their own, [1, A]; the rows are shorter then. Classes are numbered from 0
    in the order of the labels, `background` included where it is among them. A score of 0 marks a row without a box.
    """

    kind: Literal["final_boxes"]
    boxes: str
    scores: str | None = None
    classes: str | None = None
    format: Format = "xyxy"
    unit: Literal["pixels", "normalised"] = "pixels"
    """Of the network's input."""
    nms_iou: Share | None = None
    """Suppression within a class; null: none."""
    masks: Masks | None = None


Boxed = Cells | BoxesAndScores | FinalBoxes


class Logits(Section):
    """Class scores [1, outputs, h, w] over the whole input, or class numbers [1, h, w]."""

    logits: str
    activation: Activation | Literal["numbers"] = "softmax"
    """What makes probabilities of them; with `none` and `sigmoid`, what they leave of one is background. `numbers`:
    each cell holds the number of its class, counted as those of final boxes."""
    align_corners: bool = False
    """The outermost cells lie on the input's corners, as in TensorFlow's DeepLab."""


class Declaration(Section):
    """The whole file. Without `detection` and `segmentation`, its keys win over what is known of the export."""

    labels: str | tuple[str, ...] | None = None
    """A name for each output in order (`background` and `N/A` stand for no class), a known label space, or a file with
    one class a line beside this one; absent: `names` in the model's metadata."""
    background: Literal["first", "last"] | None = None
    """Where the output is that no label names, if there is one more than labels; null: the first, where a label space
    or a file names the classes. `first` holds for the numbers of final boxes, too."""
    input: Picture = Picture()
    detection: Annotated[Boxed, Field(discriminator="kind")] | None = None
    instances: Annotated[BoxesAndScores | FinalBoxes, Field(discriminator="kind")] | None = None
    """Boxes with `masks` of a head of their own, whose boxes are no answer to `detection`."""
    segmentation: Logits | None = None

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if not self.boxed and self.segmentation is None:
            raise ValueError("declare `detection`, `instances`, `segmentation` or several of them")
        if self.instances and not self.instances.masks:
            raise ValueError("instances: declare their `masks`")
        return self

    @property
    def boxed(self) -> tuple[Boxed, ...]:
        """The heads with boxes."""
        return tuple(head for head in (self.detection, self.instances) if head)

    @property
    def names_of_outputs(self) -> set[str]:
        """The outputs of the model that the declaration names."""
        heads = [head.model_dump() for head in (*self.boxed, self.segmentation) if head]
        heads += [head["masks"] for head in heads if head.get("masks")]
        keys = ("output", "boxes", "scores", "classes", "logits", "shares")
        return {head[key] for head in heads for key in keys if head.get(key)}
