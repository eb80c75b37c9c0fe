"""What is declared about an ONNX network: in a small YAML file beside it, or by the exporter that wrote it.

Exporters are known by the file's metadata, the names and shapes of its inputs and outputs, and files beside it;
docs/tutors.md lists them.
"""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tutored.config import merged, read_yaml
from tutored.errors import InputError
from tutored.labels import COCO_BY_NUMBER
from tutored.section import Positive, Section, Share, validated
from tutored.tasks.detection import Detection
from tutored.tasks.instances import InstanceSegmentation
from tutored.tasks.segmentation import Segmentation

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
    """Rows [1, A, ...] of a head that answers for the cells of several strides, see `onnx.yolox_boxes`."""

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


Shape = Sequence[int | str | None]
STRIDES = {"yolox": (8, 16, 32), "nanodet": (8, 16, 32, 64)}
"""Of the cells of a head, in pixels of the network's input."""
BINS = 8
"""Values for each side of a box in a NanoDet's rows (`reg_max` + 1)."""
IMAGENET = Picture(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
NAMED = {"labels", "boxes", "scores"}
"""The outputs of torchvision's detectors and of RT-DETR's exporter."""
EXAMPLES = (
    "`detection: {kind: boxes_scores, boxes: NAME, scores: NAME}`, `detection: {kind: final_boxes, boxes: NAME}` or "
    "`segmentation: {logits: NAME}`"
)


class Graph(NamedTuple):
    """What a model says of itself: its metadata, and inputs and outputs with the sides that it fixes."""

    weights: Path
    about: Mapping[str, str]
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]

    def __str__(self) -> str:
        told = [
            ", ".join(f"{name} [{', '.join(str(side or '?') for side in shape)}]" for name, shape in each.items())
            for each in (self.inputs, self.outputs)
        ]
        return f"inputs {told[0]}; outputs {told[1]}"

    def rank(self, name: str) -> int:
        return len(self.outputs.get(name, ()))


def declaration_path(weights: Path) -> Path:
    """Where the declaration of a model lies: beside it, with the ending `.yaml`, or `.yml`."""
    usual, short = weights.with_suffix(".yaml"), weights.with_suffix(".yml")
    return short if short.is_file() and not usual.is_file() else usual


def declaration_of(graph: Graph) -> tuple[Declaration, str | None]:
    """The declaration beside a model, or of its exporter, or of both, where the file leaves heads out. Returns the
    declaration, and the exporter; None where the file declares all. Raises InputError: no YAML mapping, keys or values
    that are not possible, an unknown network, or no soft answers.
    """
    path = declaration_path(graph.weights)
    given = (read_yaml(path) if path.is_file() else None) or {}
    if not isinstance(given, dict) or {Detection.kind, InstanceSegmentation.kind, Segmentation.kind} & given.keys():
        try:
            return validated(Declaration, given, str(path)), None
        except InputError as error:
            raise InputError(f"{error}; docs/tutors.md has an example of each kind") from error
    for family, recognise in FAMILIES.items():
        try:
            found = recognise(graph)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            told = " ".join(str(error).split())
            raise InputError(
                f"{graph.weights}: read as {family}, but its metadata, or JSON files beside it, have another form than "
                f"that exporter's ({told}); declare all of it in {path}, such as {EXAMPLES}"
            ) from error
        if found and "input" not in found.model_fields_set | given.keys():
            raise InputError(
                f"{graph.weights}: read as {family}, which says in {PREPARED[family]} how pictures are prepared; put "
                f"that beside the model, or declare `input` in {path}"
            )
        if found:
            return validated(Declaration, merged(found.model_dump(), given), str(path)) if given else found, family
    if any("point_coords" in name for name in graph.inputs) or {"image_embeddings", "image_embed"} & {*graph.outputs}:
        raise InputError(
            f"{graph.weights}: a part of a network that needs boxes as prompts; label with `prompted --encoder FILE "
            "--decoder FILE --boxes STORE`, or `--boxes ground_truth`"
        )
    raise InputError(
        f"{graph.weights}: of none of the exporters that are known ({', '.join(FAMILIES)}): {graph}; say in {path} "
        f"what they mean, such as {EXAMPLES}; docs/tutors.md has an example of each kind"
    )


def stated_names(about: Mapping[str, str]) -> list[str]:
    """Names of the outputs in the metadata, as exporters write them: a list, or index -> name; else none."""
    names = _literal(about.get("names", ""))
    try:
        return [str(names[index]) for index in range(len(names))]
    except (KeyError, TypeError):
        return []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _beside(graph: Graph, name: str) -> Any:
    """A JSON file in the model's folder, or above it where that is called `onnx`, as the hub has it; else None."""
    folder = graph.weights.resolve().parent
    for place in (folder, *([folder.parent] if folder.name == "onnx" else [])):
        if (place / name).is_file():
            return read_yaml(place / name)  # JSON is YAML
    return None


# --- Exporters. Each function gives the declaration of its files, None for others', and none of `input` where it lacks
# the file that says how pictures are prepared.


def _own(graph: Graph) -> Declaration | None:
    """What an export of ours states about its tasks; those with soft answers are declared, at most one of a kind."""
    if not graph.about.get("made_by", "").startswith("tutored "):
        return None
    heads: dict[str, Section] = {}
    spaces: set[tuple[str, ...]] = set()
    for name, task in json.loads(graph.about.get("tasks", "{}")).items():
        boxes = BoxesAndScores(kind="boxes_scores", boxes=f"{name}_candidates", scores=f"{name}_probs")
        masks = Masks(output=f"{name}_prototypes", over="prototypes", shares=f"{name}_coefficients")
        head = {
            Detection.kind: boxes,
            InstanceSegmentation.kind: boxes.model_copy(update={"masks": masks}),
            Segmentation.kind: Logits(logits=f"{name}_map"),
        }.get(task["kind"])
        if head is None or not Declaration.model_validate({task["kind"]: head}).names_of_outputs <= {*graph.outputs}:
            continue
        spaces.add(tuple(task["names"]))
        if task["kind"] in heads or len(spaces) > 1:
            raise InputError(
                f"{graph.weights}: the exported student has several tasks of kind {task['kind']}, or tasks with other "
                "classes; label with the checkpoint, which takes --tasks"
            )
        heads[task["kind"]] = head
    if not heads:
        raise InputError(
            f"{graph.weights}: exported with --nms or --mask, which leave final answers, no soft ones; export it "
            "without, or label with the checkpoint"
        )
    return Declaration.model_validate({"labels": spaces.pop(), "input": {}, **heads})


def _ultralytics(graph: Graph) -> Declaration | None:
    """YOLOv5, whose own exporter names no task, and later; docs.ultralytics.com/modes/export says what the outputs are,
    pull request 24598 why a map holds class numbers, ultralytics/inference issue 494 what their RT-DETR gives.
    """
    names, (first, *others) = stated_names(graph.about), [*graph.outputs]
    if "stride" not in graph.about or not names:
        return None
    task, shape, old = graph.about.get("task", "detect"), graph.outputs[first], "task" not in graph.about
    size = _literal(graph.about.get("imgsz", ""))
    picture = Picture(fit="letterbox", corner="centre", antialias=False, size=size)
    if task == "semantic":
        labels = ("background", *names) if len(names) == 1 and len(shape) == 3 else None
        soft: Any = "sigmoid" if len(names) == 1 else "softmax"
        head = Logits(logits=first, activation="numbers" if len(shape) == 3 else soft)
        return Declaration(labels=labels, input=picture, segmentation=head)
    if task not in ("detect", "segment") or len(shape) != 3:
        raise InputError(
            f"{graph.weights}: an Ultralytics export of the task {task} ({graph}); possible: detect, segment, semantic"
        )
    if "detr" in f"{graph.about.get('head')} {graph.about.get('description')}".lower():
        # Its rows are shares of the whole input, and end in score and class where the metadata names the head.
        final = FinalBoxes(kind="final_boxes", boxes=first, format="cxcywh", unit="normalised")
        queries = final if "head" in graph.about else _queries(first, first, "none")
        return Declaration(input=Picture(antialias=False, size=size), detection=queries)
    prototypes = next((name for name in others if graph.rank(name) == 4), None)
    masks = Masks(output=prototypes, over="prototypes") if prototypes else None
    more = graph.outputs[prototypes][1] if prototypes else 0
    if isinstance(more, int) and shape[2] == 6 + more and not old:  # it chooses its boxes, or nms=True does
        return Declaration(input=picture, detection=FinalBoxes(kind="final_boxes", boxes=first, masks=masks))
    rows = BoxesAndScores(
        kind="boxes_scores", boxes=first, scores=first, format="cxcywh", transposed=not old, objectness=old,
        nms_iou=0.7, masks=masks,
    )  # fmt: skip
    return Declaration(input=picture, detection=rows)


def _queries(boxes: str, scores: str, activation: Activation, masks: Masks | None = None) -> BoxesAndScores:
    """What a DETR and its kin answer."""
    return BoxesAndScores(
        kind="boxes_scores", boxes=boxes, scores=scores, format="cxcywh", unit="normalised", activation=activation,
        nms_iou=None, masks=masks,
    )  # fmt: skip


def _rf_detr(graph: Graph) -> Declaration | None:
    """Its export.py, and issue 386 for masks, which had no name before 1.5; COCO's classes by their numbers."""
    if not {"dets", "labels"} <= graph.outputs.keys() or graph.rank("labels") != 3:
        return None
    mask = next((name for name in graph.outputs if graph.rank(name) == 4), None)
    coco = graph.outputs["labels"][2] == len(COCO_BY_NUMBER)
    head = _queries("dets", "labels", "sigmoid", Masks(output=mask) if mask else None)
    return Declaration(labels=COCO_BY_NUMBER if coco else None, background="last", input=IMAGENET, detection=head)


def _rt_detr(graph: Graph) -> Declaration | None:
    """RT-DETR, its second version, D-FINE and DEIM: their tools/deployment/export_onnx.py and postprocessors."""
    if "orig_target_sizes" not in graph.inputs or not graph.outputs.keys() >= NAMED:
        return None
    name = next((name for name, shape in graph.inputs.items() if len(shape) == 4), None)
    final = FinalBoxes(kind="final_boxes", boxes="boxes", scores="scores", classes="labels")
    return Declaration(input=Picture(name=name, sizes="orig_target_sizes"), detection=final)


def _torchvision(graph: Graph) -> Declaration | None:
    """Its detectors resize, normalise and choose boxes themselves; masks are pasted into the whole input."""
    if not graph.outputs.keys() >= NAMED:
        return None
    masks = Masks(output="masks", activation="none") if "masks" in graph.outputs else None
    final = FinalBoxes(kind="final_boxes", boxes="boxes", scores="scores", classes="labels", masks=masks)
    picture = Picture(layout="chw" if len(next(iter(graph.inputs.values()), ())) == 3 else "nchw")
    return Declaration(background="first", input=picture, detection=final)


def _mmdeploy(graph: Graph) -> Declaration | None:
    """Detectors of MMDetection; pipeline.json says how pictures are prepared, which differs by network."""
    if not {"dets", "labels"} <= graph.outputs.keys() or graph.rank("labels") != 2:
        return None
    shape, own = graph.outputs.get("masks", ()), next(iter(graph.inputs.values()), ())
    whole = bool(shape) and isinstance(shape[-1], int) and [*shape[-2:]] == [*own[-2:]]
    masks = Masks(output="masks", over="input" if whole else "boxes", activation="none") if shape else None
    final = FinalBoxes(kind="final_boxes", boxes="dets", classes="labels", masks=masks)
    steps = _beside(graph, PREPARED["MMDeploy"])
    return Declaration(detection=final, **({} if steps is None else {"input": _mmdeploy_input(steps)}))


def _mmdeploy_input(pipeline: Any) -> dict[str, Any]:
    (task,) = (each for each in pipeline["pipeline"]["tasks"] if each["name"] == "Preprocess")
    steps = {each["type"]: each for each in task["transforms"]}
    picture: dict[str, Any] = {"colours": "bgr", "white": 255, "antialias": False}
    if normalise := steps.get("Normalize"):
        colours = "rgb" if normalise.get("to_rgb", True) else "bgr"
        picture |= {"colours": colours, "mean": normalise["mean"], "deviation": normalise["std"]}
    if steps["Resize"].get("keep_ratio"):
        value = steps.get("Pad", {}).get("pad_val", 0)
        after = [each for each in steps if each in ("Normalize", "Pad")] == ["Normalize", "Pad"]
        fill = picture["mean"] if after else value.get("img", 0) if isinstance(value, dict) else value
        picture |= {"fit": "letterbox", "fill": fill}  # zero after normalising is the mean
    return picture


def _transformers(graph: Graph) -> Declaration | None:
    """Exports of Hugging Face's optimum; classes and preparation are in JSON files beside the model."""
    if "pixel_values" not in graph.inputs or "logits" not in graph.outputs:
        return None
    stated, how = _beside(graph, "config.json"), _beside(graph, "preprocessor_config.json")
    if stated is None or how is None:
        # Without the classes, it is unknown whether one of the outputs is "no object".
        return Declaration(segmentation=Logits(logits="logits"))
    labels = tuple(str(name) for _, name in sorted(stated["id2label"].items(), key=lambda item: int(item[0])))
    size = how.get("size", {})
    picture = Picture(
        name="pixel_values",
        size=(size["height"], size["width"]) if {"height", "width"} <= {*size} else None,
        white=1 if how.get("do_rescale", True) else 255,
        **({"mean": how["image_mean"], "deviation": how["image_std"]} if how.get("do_normalize") else {}),
    )
    if "pred_boxes" not in graph.outputs:
        activation: Activation = "sigmoid" if graph.outputs["logits"][1] == 1 else "softmax"
        return Declaration(labels=labels, input=picture, segmentation=Logits(logits="logits", activation=activation))
    # With one output more than classes, the last is "no object": DETR, YOLOS. RT-DETR and others have sigmoids.
    activation = "softmax" if graph.outputs["logits"][2] == len(labels) + 1 else "sigmoid"
    head = _queries("pred_boxes", "logits", activation)
    return Declaration(labels=labels, background="last", input=picture, detection=head)


def _cells(graph: Graph, kind: str, least: int) -> bool:
    """Whether the only output has a row of so many columns for each cell of a kind of head."""
    shape, side = next(iter(graph.outputs.values())), next(iter(graph.inputs.values()), ())[2:]
    if len(graph.outputs) > 1 or len(shape) != 3 or not isinstance(shape[2], int) or shape[2] < least:
        return False
    rows, *pixels = (each for each in (shape[1], *side) if isinstance(each, int))
    if len(pixels) != 2:
        return "output" in graph.outputs  # it leaves their count open
    return rows == sum(ceil(pixels[0] / stride) * ceil(pixels[1] / stride) for stride in STRIDES[kind])


def _nanodet(graph: Graph) -> Declaration | None:
    """NanoDet-Plus; `config/nanodet-plus-*.yml` of its repository, whose pictures are stretched."""
    if "data" not in graph.inputs or not _cells(graph, "nanodet", 1 + 4 * BINS):
        return None
    normalise = {"mean": (103.53, 116.28, 123.675), "deviation": (57.375, 57.12, 58.395)}
    picture = Picture(colours="bgr", white=255, antialias=False, **normalise)
    return Declaration(input=picture, detection=Cells(kind="nanodet", output=next(iter(graph.outputs)), nms_iou=0.6))


def _yolox(graph: Graph) -> Declaration | None:
    """A detector as its authors export it: BGR 0..255, scaled to fit and put top left on grey 114."""
    if not _cells(graph, "yolox", 6):
        return None
    picture = Picture(colours="bgr", white=255, fit="letterbox", antialias=False)
    return Declaration(input=picture, detection=Cells(kind="yolox", output=next(iter(graph.outputs))))


PREPARED = {"MMDeploy": "pipeline.json", "Hugging Face": "config.json and preprocessor_config.json"}
"""Files beside a model that say how pictures are prepared."""
FAMILIES: Mapping[str, Callable[[Graph], Declaration | None]] = {
    "an export of tutored": _own,
    "Ultralytics": _ultralytics,
    "RF-DETR": _rf_detr,
    "RT-DETR, D-FINE": _rt_detr,
    "torchvision": _torchvision,
    "MMDeploy": _mmdeploy,
    "Hugging Face": _transformers,
    "NanoDet": _nanodet,
    "YOLOX": _yolox,
}
