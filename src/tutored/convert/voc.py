"""A VOC folder made of a tutor's answers, as if a person had drawn them; softness is lost but for the scores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch.nn import functional as F

from tutored.files import write_text
from tutored.labels import VOC, LabelSpace
from tutored.structures import IGNORE, Dataset, SoftLabels
from tutored.tutors.files_boxes import IN_VOC_PIXELS
from tutored.visualise import save_mask


def write_voc(answers: Iterable[tuple[str, SoftLabels]], dataset: Dataset, out: Path, score: float) -> None:
    """`Annotations/ID.xml`, `SegmentationClass/ID.png`, the lists in `ImageSets` and, but for VOC's own, `labels.txt`.

    Boxes from `score` on, in VOC's pixels (from 1, the last one included; `source` tells `tutored label files` so),
    each with its `confidence`. In masks, pixels of which the tutor is less sure than `score` are 255 (ignore). Pictures
    are not copied: put `JPEGImages` beside, or link it, and `voc:OUT` is a data set.
    """
    boxed, masked = [], []
    for image_id, answer in answers:
        if answer.boxes_xyxy is not None:
            boxed.append(image_id)
            write_text(out / "Annotations" / f"{image_id}.xml", _xml(image_id, answer, dataset.labels, score))
        if answer.map is not None:
            masked.append(image_id)
            enlarged = F.interpolate(answer.map[None], size=answer.size, mode="bilinear", align_corners=False)[0]
            top, mask = enlarged.max(dim=0)
            mask[top < score] = IGNORE
            save_mask(mask.to(torch.uint8), out / "SegmentationClass" / f"{image_id}.png")
    split = re.sub("[/+]", "-", dataset.split)
    for folder, ids in (("Main", boxed), ("Segmentation", masked)):
        if ids:
            write_text(out / "ImageSets" / folder / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids))
    if dataset.labels != VOC:
        write_text(out / "labels.txt", "".join(f"{name}\n" for name in dataset.labels.classes))


def _xml(image_id: str, answer: SoftLabels, labels: LabelSpace, score: float) -> str:
    assert answer.boxes_xyxy is not None and answer.classes is not None
    height, width = answer.size
    root = ElementTree.Element("annotation")
    _texts(root, {"filename": f"{image_id}.jpg"})
    _texts(ElementTree.SubElement(root, "source"), {"annotation": IN_VOC_PIXELS})
    _texts(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    rows = zip(answer.boxes_xyxy.tolist(), answer.classes.tolist(), answer.scores.tolist(), strict=True)
    for (x1, y1, x2, y2), number, certain in rows:
        if certain < score:
            continue
        item = ElementTree.SubElement(root, "object")
        _texts(item, {"name": labels.names[number], "difficult": 0, "confidence": round(certain, 5)})
        (left, right), (top, bottom) = _inclusive(x1, x2, width), _inclusive(y1, y2, height)
        box = {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
        _texts(ElementTree.SubElement(item, "bndbox"), box)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _inclusive(first: float, last: float, pixels: int) -> tuple[int, int]:
    """Continuous edges as whole pixels from 1, at least one of them."""
    start = min(max(round(first) + 1, 1), pixels)
    return start, min(max(round(last), start), pixels)


def _texts(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)
