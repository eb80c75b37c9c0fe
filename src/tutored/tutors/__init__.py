"""Trained networks of others, asked once for what they know about an image; each kind in a module of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from tutored.data.text import BACKGROUND_NAMES, read_classes, read_lines
from tutored.errors import InputError
from tutored.files import sha256
from tutored.labels import KNOWN, LabelSpace
from tutored.structures import SoftLabels


class Tutor(Protocol):
    """A network that is already trained for one task, or the file of its answers."""

    @property
    def labels(self) -> LabelSpace:
        """The tutor's own label space; its answers are in it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-ready facts that the answers depend on: kind, weights and their SHA-256, preprocessing,
        `score_floor`, `nms_iou`, `map_stride` (pixels of the image a cell of the map; `input_map_stride`: pixels of
        the network's input, where that is what is fixed); no paths, no times. None: does not apply.
        `map_values: confidences` says that maps hold detection confidences, their channel 0 nothing."""

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        """Answers for RGB images, in each image's own pixels. An image's answer does not depend on its neighbours."""


class Kind(NamedTuple):
    """Where a kind of tutor is made.

    Attributes:
        module, name: the class or function.
        first: the option that a name behind a colon gives (`hf:FOLDER`); None: there is no short form.
        sees: it looks at the images, so that they may be mirrored and scaled.
    """

    module: str
    name: str
    first: str | None
    sees: bool


KINDS = {
    "onnx": Kind("tutored.tutors.onnx", "open_onnx", "weights", True),
    "torchvision": Kind("tutored.tutors.torchvision", "open_torchvision", "model", True),
    "hf": Kind("tutored.tutors.hf", "open_hf", "model", True),
    "student": Kind("tutored.tutors.student", "StudentTutor", "weights", True),
    "files": Kind("tutored.tutors.files", "FilesTutor", None, False),
    "instances": Kind("tutored.tutors.instances", "InstancesTutor", None, False),
    "vouched": Kind("tutored.tutors.vouched", "VouchedTutor", None, False),
    "joined": Kind("tutored.tutors.joined", "JoinedTutor", None, False),
}


def open_tutor(kind: str, *, flip: bool = False, scales: Sequence[float] = (1.0,), **options: Any) -> Tutor:
    """Make a tutor.

    Args:
        kind: one of `KINDS`, or with a name behind a colon: `torchvision:maskrcnn_resnet50_fpn_v2`,
            `hf:FOLDER_OR_REPOSITORY`, `onnx:FILE`, `student:CHECKPOINT`.
        flip, scales: the answer is the mean over views of each image, see `Augmented`; of tutors that see images.
        options: those of the kind's class or function, which says what they mean.

    Raises:
        InputError: an unknown kind, or what the kind itself refuses.
    """
    kind, _, name = kind.partition(":")
    if kind not in KINDS:
        raise InputError(f"unknown kind of tutor {kind!r}; possible: {', '.join(KINDS)}")
    known = KINDS[kind]
    if name:
        if known.first is None:
            raise InputError(f"{kind}:{name}: the tutor `{kind}` is not named like this; give its options")
        options[known.first] = name
    tutor: Tutor = getattr(import_module(known.module), known.name)(**options)
    if "score_floor" in options and tutor.identity["score_floor"] is None:
        raise InputError(f"score_floor: this tutor `{kind}` answers with a map and has no boxes; leave it out")
    if not flip and tuple(scales) == (1.0,):
        return tutor
    if not known.sees:
        raise InputError(f"flip and scales: the tutor `{kind}` does not look at the images; leave them out")
    from tutored.tutors.augmented import Augmented

    return Augmented(tutor, flip=flip, scales=scales)


def read_labels(labels: LabelSpace | Path | str) -> LabelSpace:
    """A label space as users give it: a name of `labels.KNOWN`, or a text file with one object class a line, in order.

    Raises:
        InputError: no such file, or no list of distinct names.
    """
    if isinstance(labels, LabelSpace):
        return labels
    if str(labels) in KNOWN:
        return KNOWN[str(labels)]
    try:
        return read_classes(Path(labels))
    except InputError as error:
        raise InputError(f"labels {error}; give {', '.join(KNOWN)}, or a text file with one class a line") from error


def read_outputs(labels: LabelSpace | Path | str, count: int | None = None) -> list[str]:
    """Names of a network's outputs in order: a label space as in `read_labels`, or a text file with an output a line.

    Lines stand as they are: several may name the background, "N/A" or one class.

    Args:
        count: of the outputs; None, or where there is another number of names: those of the background are left out.

    Raises:
        InputError: no such file.
    """
    if isinstance(labels, LabelSpace) or str(labels) in KNOWN:
        names = list(read_labels(labels).names)
    else:
        try:
            names = [line.strip() for line in read_lines(Path(labels)) if line.strip()]
        except InputError as error:
            raise InputError(
                f"labels {error}; give {', '.join(KNOWN)}, or a text file with one output a line"
            ) from error
    return names if len(names) == count else [name for name in names if name not in BACKGROUND_NAMES]


def file_sha256(path: Path, what: str) -> str:
    """Hex digest of a file that the user named. Raises InputError where it can't be read."""
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: {what} can't be read ({error.strerror})") from error
