"""Trained networks of others, asked once for what they know about an image; each kind in a module of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from tutored.data.text import read_classes
from tutored.errors import InputError
from tutored.labels import COCO, VOC, LabelSpace
from tutored.softlabels.store import sha256
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


KINDS = {
    "onnx": ("tutored.tutors.onnx", "OnnxTutor"),
    "torchvision": ("tutored.tutors.torchvision", "open_torchvision"),
    "files": ("tutored.tutors.files", "FilesTutor"),
    "student": ("tutored.tutors.student", "StudentTutor"),
    "instances": ("tutored.tutors.instances", "InstancesTutor"),
}


def open_tutor(kind: str, **options: Any) -> Tutor:
    """Make a tutor of one of `KINDS`; the options are those of its class or function, which says what they mean.

    Raises:
        InputError: an unknown kind, or what the kind itself refuses.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of tutor {kind!r}; possible: {', '.join(KINDS)}")
    module, name = KINDS[kind]
    tutor: Tutor = getattr(import_module(module), name)(**options)
    return tutor


def read_labels(labels: LabelSpace | Path | str) -> LabelSpace:
    """A label space as users give it: `voc`, `coco`, or a text file with one object class a line, in order.

    Raises:
        InputError: no such file, or no list of distinct names.
    """
    if isinstance(labels, LabelSpace):
        return labels
    if str(labels) in ("voc", "coco"):
        return VOC if str(labels) == "voc" else COCO
    try:
        return read_classes(Path(labels))
    except InputError as error:
        raise InputError(f"labels {error}; give voc, coco, or a text file with one class a line") from error


def file_sha256(path: Path, what: str) -> str:
    """Hex digest of a file that the user named. Raises InputError where it can't be read."""
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: {what} can't be read ({error.strerror})") from error
