"""Tutors: trained networks of others, or files of their answers, asked once for what they know about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from tutored.errors import InputError
from tutored.tutors.options import KINDS, NetworkOptions, Options, checked

if TYPE_CHECKING:
    from PIL import Image

    from tutored.labels import LabelSpace
    from tutored.types import Dataset, SoftLabels

__all__ = ["KINDS", "Options", "Tutor", "checked", "open_tutor"]


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
        options: the fields of the kind's section in `tutored.tutors.options`.
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
