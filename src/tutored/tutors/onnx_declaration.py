"""What a small YAML file says about the ONNX network beside it; YOLOX and our own exports need none."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tutored.config import read_yaml
from tutored.errors import InputError
from tutored.section import Positive, Section, Share
from tutored.tasks.detection import Detection
from tutored.tasks.segmentation import Segmentation
from tutored.tutors.options import validated

Activation = Literal["none", "sigmoid", "softmax"]
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
    """A YOLOX head, see `onnx.yolox_boxes`."""

    kind: Literal["yolox"] = "yolox"
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
    activation: Activation = "none"
    """What makes probabilities of the scores."""
    nms_iou: Share | None = 0.5
    """Suppression within a class; null: none."""


class FinalBoxes(Section):
    """Rows [1, A, 6] of x1, y1, x2, y2, score and class number: what networks give that choose their boxes themselves.

    Classes are numbered from 0 in the order of the labels, `background` included where it is among them. A score of 0
    marks a row without a box.
    """

    kind: Literal["final_boxes"]
    output: str
    unit: Literal["pixels", "normalised"] = "pixels"
    """Of the network's input."""
    nms_iou: Share | None = None
    """Suppression within a class; null: none."""


class Logits(Section):
    """Class scores [1, outputs, h, w] over the whole input."""

    logits: str
    activation: Activation = "softmax"
    """What makes probabilities of them; with `none` and `sigmoid`, what they leave of one is background."""
    align_corners: bool = False
    """The outermost cells lie on the input's corners, as in TensorFlow's DeepLab."""


class Declaration(Section):
    """The whole file."""

    labels: str | tuple[str, ...] | None = None
    """A name for each output in order (`background` and `N/A` stand for no class), a known label space, or a file with
    one class a line beside this one; absent: `names` in the model's metadata. A label space or a file that has one
    class fewer than there are outputs has background in front."""
    input: Picture = Picture()
    detection: Annotated[Yolox | BoxesAndScores | FinalBoxes, Field(discriminator="kind")] | None = None
    segmentation: Logits | None = None

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if self.detection is None and self.segmentation is None:
            raise ValueError("declare `detection`, `segmentation` or both")
        return self

    @property
    def names_of_outputs(self) -> set[str]:
        """The outputs of the model that the declaration names."""
        heads = [head.model_dump() for head in (self.detection, self.segmentation) if head]
        return {head[key] for head in heads for key in ("output", "boxes", "scores", "logits") if key in head}


YOLOX = Declaration(
    input=Picture(colours="bgr", white=255, fit="letterbox", antialias=False), detection=Yolox(kind="yolox")
)
"""A detector as its authors export it: BGR 0..255, scaled to fit and put top left on grey 114."""


def declaration_path(weights: Path) -> Path:
    """Where the declaration of a model lies: beside it, with the ending `.yaml`, or `.yml`."""
    usual, short = weights.with_suffix(".yaml"), weights.with_suffix(".yml")
    return short if short.is_file() and not usual.is_file() else usual


def declaration_of(weights: Path, about: Mapping[str, str], outputs: Collection[str]) -> Declaration:
    """The declaration beside a model, else that of our own exports, else YOLOX's.

    Args:
        about: the model's metadata.
        outputs: names of the model's outputs.

    Raises:
        InputError: no YAML mapping, keys or values that are not possible, or an export without soft answers.
    """
    path = declaration_path(weights)
    if path.is_file():
        try:
            return validated(Declaration, read_yaml(path), str(path))
        except InputError as error:
            raise InputError(f"{error}; docs/tutors.md has an example of each kind") from error
    return _of_export(weights, about, outputs) if about.get("made_by", "").startswith("tutored ") else YOLOX


def _of_export(weights: Path, about: Mapping[str, str], outputs: Collection[str]) -> Declaration:
    """What an export of ours states about its tasks; those with soft answers are declared, at most one of a kind."""
    heads: dict[str, Any] = {}
    spaces: set[tuple[str, ...]] = set()
    for name, task in json.loads(about.get("tasks", "{}")).items():
        boxes = {"kind": "boxes_scores", "boxes": f"{name}_candidates", "scores": f"{name}_probs"}
        head = {Detection.kind: boxes, Segmentation.kind: {"logits": f"{name}_map"}}.get(task["kind"])
        if head is None or not {*head.values()} - {"boxes_scores"} <= {*outputs}:
            continue
        spaces.add(tuple(task["names"]))
        if task["kind"] in heads or len(spaces) > 1:
            raise InputError(
                f"{weights}: the exported student has several tasks of kind {task['kind']}, or tasks with other "
                "classes; label with the checkpoint, which takes --tasks"
            )
        heads[task["kind"]] = head
    if not heads:
        raise InputError(
            f"{weights}: exported with --nms or --mask, which leave final answers, no soft ones; export it without, "
            "or label with the checkpoint"
        )
    return Declaration.model_validate({"labels": spaces.pop(), **heads})
