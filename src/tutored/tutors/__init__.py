"""Tutors: trained networks of others, or files of their answers, asked once for what they know about an image.

What each kind can be told is stated once: keywords of `open_tutor` and options of `tutored label KIND`. Importing this
module takes neither torch nor the tutors, so that `--help` stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tutored.errors import InputError
from tutored.files import CHECKPOINT, STORE
from tutored.section import Positive, Section, Share, validated

if TYPE_CHECKING:
    from PIL import Image

    from tutored.labels import LabelSpace
    from tutored.types import Dataset, SoftLabels

Paths = Annotated[tuple[Path, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str | Path) else given)]
Labels = Annotated[str | Path | None, "NAMES"]


class Options(Section):
    """Options of one kind of tutor; what the kind is stands in the first line of each class's docstring.

    A text among a field's annotations is what `--help` shows in the place of its value.

    Attributes:
        MAKER: the class or function that takes the options and makes the tutor, as `module:name`.
        FIRST: the option that a name behind a colon gives (`hf:FOLDER`); None: there is no short form.
        OF_DATA: MAKER also takes the data set, as `dataset`.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, validate_by_name=True, validate_by_alias=True)
    MAKER: ClassVar[str]
    FIRST: ClassVar[str | None] = None
    OF_DATA: ClassVar[bool] = False

    @model_validator(mode="after")
    def _files_are_there(self) -> Self:
        for given in vars(self).values():
            for path in given if isinstance(given, tuple) else (given,):
                if isinstance(path, Path) and not path.exists():
                    raise ValueError(f"there is no file or folder {str(path)!r}; correct the path")
        return self


class DeviceOptions(Options):
    """A tutor that computes."""

    device: str | None = None
    """cpu, cuda, cuda:1, ... or mps; left out: the best one that is here."""


class SessionOptions(DeviceOptions):
    """A tutor that onnxruntime runs."""

    threads: Positive = 1
    """CPU threads within one image."""


class NetworkOptions(DeviceOptions):
    """A tutor that looks at the pictures."""

    flip: bool = False
    """Answer with the mean over the picture and its mirror image."""
    scales: tuple[float, ...] = (1.0,)
    """Answer with the mean over these sizes of the network's input, such as 0.75,1,1.25."""


class AnswerOptions(Options):
    """What is kept of an answer."""

    score_floor: Share = 0.01
    """Weaker boxes are dropped."""
    nms_iou: Share | None = None
    """Of boxes of one class that overlap more, the best stays; left out: as the network is meant to be used."""
    max_boxes: Positive = 100
    """Boxes that an image keeps, the best ones."""
    stride: Positive = 8
    """Pixels of the image that a cell of the map is wide, where the network's own cells are not wider."""


class ForeignOptions(AnswerOptions, NetworkOptions):
    """A network that was trained elsewhere."""

    labels: Labels = None
    """Names of the network's outputs, where it does not state them: voc, coco, coco-91 (as COCO numbers its classes),
    ade20k, cityscapes, open-images, or a file with one name a line."""


class MaskOptions(AnswerOptions):
    """The same of a tutor that may give masks of single objects."""

    mask_floor: Share = 0.05
    """Boxes from this score on keep their mask, where there are masks."""


class OnnxOptions(MaskOptions, ForeignOptions, SessionOptions):
    """A network in an ONNX file, of a known exporter or declared in a file of FILE's name with .yaml."""

    MAKER = "tutored.tutors.onnx:OnnxTutor"
    FIRST = "weights"
    weights: Annotated[Path, "FILE"]
    """The ONNX file."""

    @field_validator("weights")
    @classmethod
    def _is_onnx(cls, weights: Path) -> Path:
        refuse_weights(weights)
        return weights


class TorchvisionOptions(MaskOptions, ForeignOptions):
    """A detection or segmentation model of torchvision."""

    MAKER = "tutored.tutors.torchvision:open_torchvision"
    FIRST = "model"
    model: str | None = None
    """Such as maskrcnn_resnet50_fpn_v2 or deeplabv3_resnet101; may be left out where `weights` says it."""
    weights: Annotated[str | Path | None, "FILE|NAME"] = None
    """A local file, or a name of torchvision's weights; left out: the model's default ones."""
    download: bool = False
    """Fetch published weights that are not here."""


class HfOptions(ForeignOptions):
    """A detector, semantic or universal segmentation model of transformers."""

    MAKER = "tutored.tutors.hf:open_hf"
    FIRST = "model"
    model: Annotated[str | Path, "FOLDER|REPOSITORY"]
    """A folder of save_pretrained, or the name of a repository in the hub's cache."""
    download: bool = False
    """Fetch a repository that is not here."""
    instances: bool = False
    """Of a universal model, its objects with their masks instead of its map."""


class PythonOptions(MaskOptions):
    """A function of your own, from a picture to arrays."""

    MAKER = "tutored.tutors.own:FunctionTutor"
    FIRST = "function"
    function: Annotated[str | Callable[..., Any], "MODULE:FUNCTION"]
    """The function, in a module of the current folder or of an installed package."""
    weights: Annotated[Paths, "FILE"] = ()
    """Files on which its answers depend: they belong to the store's identity."""


class StudentOptions(NetworkOptions):
    """A student that was trained here."""

    MAKER = "tutored.tutors.own:StudentTutor"
    FIRST = "weights"
    weights: Annotated[Path, "CHECKPOINT"]
    """A checkpoint's folder, such as RUN/checkpoint."""
    tasks: tuple[str, ...] | None = None
    """The tasks that it answers; left out: all that it was taught."""
    score_floor: Share | None = None
    """Weaker boxes are dropped; left out: as the checkpoint's config has it."""


class FilesOptions(Options):
    """Answers that lie in files: COCO results, XML with confidences, maps in arrays."""

    MAKER = "tutored.tutors.files:FilesTutor"
    FIRST = "folders"
    OF_DATA = True
    folders: Annotated[Paths, "FOLDER"] = Field(alias="from")
    """Folder of boxes or maps, or a COCO results file; may be given twice, for boxes and for maps."""
    labels: Labels = None
    """The tutor's classes, where the files do not state them: voc, coco, ade20k, cityscapes, open-images, or a file
    with one class a line; left out: the data set's, where they fit."""
    values: Literal["auto", "probabilities", "confidences"] = "auto"
    """What the numbers in maps are; `auto`: confidences where the first .npy files do not sum to one."""
    missing: Literal["refuse", "allow"] = "refuse"
    """`allow`: some images have no answer (in COCO results: nothing was found there)."""
    stride: Positive = 8
    """Pixels of the image that a cell of the map is wide, where the files are finer."""


class StoresOptions(Options):
    """A tutor that is made of boxes and of a store of maps."""

    maps: Annotated[Path, "STORE"]
    """Class maps of the same images."""


class BoxesOptions(Options):
    """A tutor that gives a mask to each box."""

    OF_DATA = True
    boxes: Annotated[str | Path, "STORE|ground_truth"]
    """The boxes of a detector, or those that people drew."""
    classes: tuple[str, ...] | None = None
    """Of these classes alone, such as cat,dog: where people drew no others, which may be there; left out: all."""
    score_floor: Share = 0.5
    """Weaker boxes become no instances. The default is that of a task's `box_floor`."""


class InstancesOptions(BoxesOptions, StoresOptions):
    """Instances: boxes, each with the probability of its class that another store's map has in it."""

    MAKER = "tutored.tutors.stores:InstancesTutor"


class PromptedOptions(BoxesOptions, SessionOptions):
    """Instances: boxes, each with the mask that a promptable segmenter such as SAM draws for it."""

    MAKER = "tutored.tutors.prompted:PromptedTutor"
    encoder: Annotated[Path, "FILE"]
    """The ONNX file that sees the picture."""
    decoder: Annotated[Path, "FILE"]
    """The ONNX file that takes what the encoder gives, and the corners of a box."""


class RescoredOptions(StoresOptions):
    """The boxes of one store, with higher scores where another store's maps agree and lower ones where they do not."""

    MAKER = "tutored.tutors.stores:RescoredTutor"
    boxes: Annotated[Path, "STORE"]
    """The boxes of a detector."""
    full: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Mean probability in a box from which the map agrees in full, since objects do not fill their boxes."""


class JoinedOptions(Options):
    """Several stores of one task, joined: boxes are fused, maps averaged."""

    MAKER = "tutored.tutors.stores:JoinedTutor"
    join: Annotated[Paths, "STORE"]
    """Two stores or more."""
    shares: Annotated[tuple[float, ...] | None, "A,B"] = None
    """What each store counts in the mean; left out: by their audits on one data set, where all have one, or alike."""


KINDS: Mapping[str, type[Options]] = {
    "onnx": OnnxOptions,
    "torchvision": TorchvisionOptions,
    "hf": HfOptions,
    "python": PythonOptions,
    "student": StudentOptions,
    "files": FilesOptions,
    "instances": InstancesOptions,
    "prompted": PromptedOptions,
    "rescored": RescoredOptions,
    "joined": JoinedOptions,
}
"""Kinds of tutor."""
POSSIBLE = f"possible: {', '.join(KINDS)}, such as onnx:FILE, or {{kind: onnx:FILE, labels: coco}}"


def checked(tutor: str | Mapping[str, Any], **more: Any) -> Options:
    """What a user gave for a tutor, without a look into its files. Raises InputError: an unknown kind or option, an
    impossible value, or a file that does not exist. `tutor` is such as `onnx:FILE`, or a mapping with `kind` and
    options.
    """
    options = {"kind": tutor} if isinstance(tutor, str) else {name.replace("-", "_"): tutor[name] for name in tutor}
    kind, _, name = str(options.pop("kind", "")).partition(":")
    first = KINDS[kind].FIRST if kind in KINDS else None
    if kind not in KINDS or (name and first is None):
        refuse_weights(kind)
        raise InputError(f"unknown tutor {tutor!r}; {meant(tutor) if isinstance(tutor, str) else POSSIBLE}")
    return validated(KINDS[kind], {**options, **({first: name} if name and first else {}), **more}, f"tutor {kind}")


def meant(kind: str) -> str:
    """What may be meant by words that name no tutor, such as a file or folder alone."""
    path, (kind, colon, name) = Path(kind), kind.partition(":")
    if kind == "store" or (path / STORE.file).exists():
        return f"a store holds a tutor's answers: write `store: {name or path}` into the task, in the place of `tutor`"
    if kind in KINDS:
        return f"the tutor `{kind}` has no short form, so give its options"
    signs = {"student": path / CHECKPOINT.file, "hf": path / "config.json", "files": path / "."}
    found = "onnx" if path.suffix == ".onnx" else next((kind for kind, sign in signs.items() if sign.exists()), None)
    if found and not colon:
        return f"did you mean {found}:{path}?"
    near = difflib.get_close_matches(kind, KINDS, n=1)
    return f"did you mean {near[0]}{colon}{name}?" if near else POSSIBLE


_IN_CODE = "where the network is made, `torch.onnx.export(network, torch.zeros(1, 3, HEIGHT, WIDTH), 'NAME.onnx')`"
TO_ONNX = {
    **dict.fromkeys((".pt", ".pth", ".ckpt"), f"`yolo export model=FILE format=onnx` (Ultralytics), or {_IN_CODE}"),
    ".safetensors": f"{_IN_CODE}; or give the folder of a model of transformers, hf:FOLDER",
    **dict.fromkeys((".engine", ".trt"), "TensorRT made this engine of an ONNX file: give that one"),
    ".tflite": "`python -m tf2onnx.convert --tflite FILE --output NAME.onnx`",
    **dict.fromkeys((".h5", ".keras"), "`python -m tf2onnx.convert --keras FILE --output NAME.onnx`"),
    **dict.fromkeys(
        (".mlmodel", ".mlpackage"), "from the network that was converted to Core ML, since nothing leads back"
    ),
}
"""How a network of another suffix becomes an ONNX file."""


def refuse_weights(path: str | Path) -> None:
    """Refuse a network that is no ONNX file, which is not opened. Raises InputError: it says how to export it."""
    suffix = Path(path).suffix.lower()
    if suffix in TO_ONNX:
        how = TO_ONNX[suffix].replace("FILE", str(path))
        raise InputError(f"{path}: {suffix} is not read as a tutor, and pickles are never loaded; export it: {how}")


def flags_of(kind: str) -> dict[str, str]:
    """What each option of a kind of tutor is called on the command line: required ones first, then the kind's own."""
    fields = KINDS[kind].model_fields
    common = {name for base in KINDS[kind].__mro__[1:] for name in getattr(base, "__annotations__", ())}
    ordered = sorted(fields, key=lambda name: (not fields[name].is_required(), name in common))
    return {name: f"--{fields[name].alias or name}".replace("_", "-") for name in ordered}


def value_type(annotation: Any) -> tuple[Any, bool]:
    """The type of one value of a field, the first of several possible ones, and whether it takes several values."""
    origin = get_origin(annotation)
    if origin is tuple:
        return value_type(get_args(annotation)[0])[0], True
    if origin in (Annotated, Union, UnionType):
        return value_type(get_args(annotation)[0])
    return annotation, False


class Tutor(Protocol):
    """A network that is already trained for some tasks, or the file of its answers."""

    @property
    def labels(self) -> LabelSpace:
        """The tutor's own label space, in which it answers."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-ready facts on which the answers depend, without paths and times.

        Kind, weights and their SHA-256, preprocessing, `score_floor`, `nms_iou`, `map_stride` (pixels of the image a
        cell of the map; `input_map_stride`: pixels of the network's input, where that is what is fixed). A fact that
        does not apply is None.
        """

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about it, a sentence each."""

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        """Answers for RGB images, in each image's own pixels. An image's answer does not depend on its neighbours."""


def open_tutor(tutor: str | Mapping[str, Any], *, dataset: Dataset | None = None, **options: Any) -> Tutor:
    """Make a tutor. Raises InputError: an unknown kind or option, an impossible value, or what the kind itself refuses.

    Args:
        tutor: one of `KINDS`, or with a name behind a colon: `torchvision:maskrcnn_resnet50_fpn_v2`,
            `hf:FOLDER_OR_REPOSITORY`, `onnx:FILE`, `python:MODULE:FUNCTION`, `student:CHECKPOINT`,
            `files:FOLDER`; or a mapping with this as its `kind`, and options.
        dataset: the data set that will be labelled, which says what the class and image numbers of `files` mean.
        options: the fields of the kind's `Options`.
    """
    given = checked(tutor, **options)
    module, _, maker = given.MAKER.partition(":")
    made: Tutor = getattr(import_module(module), maker)(given, **({"dataset": dataset} if given.OF_DATA else {}))
    for unused in sorted(given.model_fields_set & made.identity.keys()):
        if made.identity[unused] is None and getattr(given, unused) is not None:
            raise InputError(f"{unused}: the tutor {made.identity['tutor']} has no use for this option; leave it out")
    if isinstance(given, NetworkOptions) and (given.flip or given.scales != (1.0,)):
        from tutored.tutors.fuse import Augmented

        return Augmented(made, flip=given.flip, scales=given.scales)
    return made
