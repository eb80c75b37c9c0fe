"""Detections that lie in files, one by one; and XML with confidences, as the thesis has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from tutored.data.pictures import Box, fit_box, is_empty
from tutored.data.text import read_xml
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import Instances

IN_VOC_PIXELS = "tutored"
"""What `tutored convert --to voc` writes as the source of its annotations."""


class Detection(NamedTuple):
    box: Box
    class_index: int
    score: float
    mask: Tensor | None


class ConfidenceXml:
    """VOC-like XML, a file for each image: `object` with `name`, `confidence` and `bndbox` (specification 8.1).

    Boxes are 0-based float pixels, as the thesis' tutor wrote them; where `source/annotation` is `IN_VOC_PIXELS`, they
    count from 1 and include the last pixel.
    """

    meaning = "XML with confidences"

    def __init__(self, folder: Path, labels: LabelSpace) -> None:
        self.folder = folder
        self.labels = labels

    def detections(self, image_id: str, size: tuple[int, int]) -> list[Detection] | None:
        """Those of one image of `size` (height, width); None where there is no file.

        Raises:
            InputError: the file is no such XML, a field is missing, a class unknown, a box outside the image.
        """
        path = self.folder / f"{image_id}.xml"
        if not path.exists():
            return None
        root = read_xml(path)
        first = 1 if root.findtext("source/annotation") == IN_VOC_PIXELS else 0
        found = (
            self._detection(element, first, size, f"{path}: object {number}")
            for number, element in enumerate(root.findall("object"), start=1)
        )
        return [detection for detection in found if detection is not None]

    def lacks(self, image_id: str) -> str:
        return f"{self.folder}: no {image_id}.xml"

    def _detection(self, element: Element, first: int, size: tuple[int, int], what: str) -> Detection | None:
        try:
            index = self.labels.index((element.findtext("name") or "").strip())
        except InputError as error:
            raise InputError(f"{what}: {error}; give labels=FILE with the tutor's classes") from error
        if index == 0:
            raise InputError(f"{what}: background is no object; remove it")
        x1, y1, x2, y2 = (
            read_number(element.findtext(f"bndbox/{field}"), field, what) for field in ("xmin", "ymin", "xmax", "ymax")
        )
        score = read_score(element.findtext("confidence"), "confidence", what)
        fitted = fit((x1 - first, y1 - first, x2, y2), size, what)
        return None if fitted is None else Detection(fitted, index, score, None)


def boxes_of(found: list[Detection], classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [K, 4], classes [K] and distributions [K, classes]: the score on the class, the rest on background."""
    scores = torch.tensor([detection.score for detection in found], dtype=torch.float32)
    index = torch.tensor([detection.class_index for detection in found], dtype=torch.int64)
    probs = torch.zeros(len(found), classes).scatter(1, index[:, None], scores[:, None])
    probs[:, 0] = 1 - scores
    return torch.tensor([detection.box for detection in found], dtype=torch.float32).reshape(-1, 4), index, probs


def instances_of(found: list[Detection]) -> Instances | None:
    """The detections with masks; None where none has one."""
    masks = [detection.mask for detection in found if detection.mask is not None]
    if not masks:
        return None
    masked = [detection for detection in found if detection.mask is not None]
    return Instances(
        boxes_xyxy=torch.tensor([detection.box for detection in masked], dtype=torch.float32),
        classes=torch.tensor([detection.class_index for detection in masked]),
        scores=torch.tensor([detection.score for detection in masked], dtype=torch.float32),
        masks=torch.stack(masks),
    )


def fit(box: Box, size: tuple[int, int], what: str) -> Box | None:
    """The box within its image of `size` (height, width); None for one of no width or height, as detectors round them.

    Raises:
        InputError: beginning with `what`; a negative side, or all of it outside the image.
    """
    if box[2] < box[0] or box[3] < box[1]:
        raise InputError(f"{what}: the box {box} has a negative side; COCO results are [x, y, width, height]")
    return None if is_empty(box) else fit_box(box, size, what)


def read_number(value: Any, field: str, what: str) -> float:
    """A finite number. Raises InputError beginning with `what`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{what}: '{field}' must be a number, got {value!r}")
    return number


def read_score(value: Any, field: str, what: str) -> float:
    """A probability. Raises InputError beginning with `what`."""
    score = read_number(value, field, what)
    if not 0 <= score <= 1:
        raise InputError(f"{what}: a score is a probability from 0 to 1, got {score}; calibrate or rescale the scores")
    return score
