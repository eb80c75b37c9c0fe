"""Answers that lie in files already, whoever gave them: boxes, maps, or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from tutored.errors import InputError
from tutored.files import sha256
from tutored.labels import VOC, LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors import read_labels
from tutored.tutors.files_boxes import ConfidenceXml, boxes_of, instances_of
from tutored.tutors.files_coco import CocoResults
from tutored.tutors.files_coco_ids import CocoIds
from tutored.tutors.files_maps import Maps, Values

FORMATS = {
    ".json": "COCO results",
    ".xml": "XML with confidences, a file for each image",
    ".npz": "probability maps, a file for each image",
    ".npy": "probability maps, a file for each image",
}
BOXES, MAPS = (".json", ".xml"), (".npz", ".npy")


class FilesTutor:
    """Boxes from COCO results or XML, maps from arrays; the formats are recognised by what the folders hold.

    Each box has its score on its class and the rest on background. See `CocoResults`, `ConfidenceXml`, `Maps`.
    """

    def __init__(
        self,
        folders: Sequence[Path | str] | Path | str,
        *,
        labels: LabelSpace | Path | str | None = None,
        default_labels: LabelSpace | None = None,
        own_ids: CocoIds | None = None,
        image_ids: Collection[str] = (),
        values: Values = "auto",
        missing: Literal["refuse", "allow"] = "refuse",
        stride: int = 8,
    ) -> None:
        """Recognise the files and read what belongs to all images.

        Args:
            folders: one or two; a COCO results file may stand for its folder.
            labels: the tutor's classes; else what the files say, or `default_labels` where that fits.
            default_labels: the data set's classes.
            own_ids: a COCO data set's, which its COCO results have.
            image_ids: the data set's, if known: then answers about none of them are refused.
            values: what the numbers of maps are, see `Maps`.
            missing: "allow": an image without file or entry is one that was not asked; in COCO results,
                one where nothing was found.
            stride: pixels of the image a cell of the map, where the files are finer.

        Raises:
            InputError: no known files, twice the same task, label spaces that differ, or a broken file.
        """
        roots = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
        found = _recognise(roots, image_ids)
        given = None if labels is None else read_labels(labels)
        self._missing = missing
        self._maps: Maps | None = None
        self._boxes: CocoResults | ConfidenceXml | None = None
        for suffix, root in found.items():
            if suffix in MAPS:
                self._maps = Maps(root, suffix, given, default_labels, values, stride)
                given = self._maps.labels
        for suffix, root in found.items():
            if suffix == ".json":
                self._boxes = CocoResults(root, given, default_labels, own_ids, image_ids)
            elif suffix == ".xml":
                self._boxes = ConfidenceXml(root, given or default_labels or VOC)
        readers = [reader for reader in (self._boxes, self._maps) if reader]
        self.labels: LabelSpace = readers[0].labels
        self.identity: dict[str, Any] = {
            "kind": "files",
            "tutor": " and ".join(reader.meaning for reader in readers),
            "weights": ", ".join(root.name for root in roots),
            "weights_sha256": _digest(found),
            "preprocessing": None,
            "score_floor": None,
            "nms_iou": None,
            "map_stride": stride if self._maps else None,
            "missing": missing,
        }
        if self._maps and self._maps.values == "confidences":
            self.identity["map_values"] = "confidences"
        if own_ids and isinstance(self._boxes, CocoResults):
            self.identity["own_ids_sha256"] = hashlib.sha256(json.dumps(own_ids).encode()).hexdigest()

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        pairs = zip(images, image_ids, strict=True)
        return [self._answer(image_id, (image.height, image.width)) for image, image_id in pairs]

    def _answer(self, image_id: str, size: tuple[int, int]) -> SoftLabels:
        drawn = self._maps.read(image_id, size) if self._maps else None
        found = self._boxes.detections(image_id, size) if self._boxes else None
        for reader, answer in ((self._maps, drawn), (self._boxes, found)):
            if reader and answer is None and self._missing == "refuse":
                raise InputError(
                    f"{reader.lacks(image_id)}; add it, label a split without {image_id}, "
                    'or give --missing allow (missing="allow") if the tutor has no answer for some images'
                )
        if found is None and isinstance(self._boxes, CocoResults):
            found = []
        if found is None:
            return SoftLabels(size=size, map=drawn)
        boxes, classes, probs = boxes_of(found, len(self.labels))
        return SoftLabels(
            size=size, boxes_xyxy=boxes, classes=classes, probs=probs, map=drawn, instances=instances_of(found)
        )


def _recognise(roots: Sequence[Path], image_ids: Collection[str]) -> dict[str, Path]:
    """What is where: suffix -> the JSON file, or the folder of the files with that suffix, be they in folders of it."""
    found: dict[str, Path] = {}
    for root in roots:
        if not root.exists():
            raise InputError(f"{root}: there is no such folder or file; give the folder of the tutor's answers")
        files = [root] if root.is_file() else sorted(path for path in root.iterdir() if path.is_file())
        suffixes = sorted({path.suffix for path in files} & FORMATS.keys()) or [
            suffix for suffix in FORMATS if any((root / f"{image_id}{suffix}").is_file() for image_id in image_ids)
        ]
        if not suffixes:
            known = "; ".join(f"{suffix}: {text}" for suffix, text in FORMATS.items())
            under = sorted({str(path.parent) for path in root.glob("*/*") if path.suffix in FORMATS})
            hint = f"; perhaps {' or '.join(under[:3])} is meant" if under else ""
            raise InputError(f"{root}: no answers of a tutor here; possible files: {known}{hint}")
        for suffix in suffixes:
            named = [path for path in files if path.suffix == suffix]
            if suffix == ".json" and len(named) > 1:
                raise InputError(f"{root}: {len(named)} JSON files; give the one with the results")
            other = next((other for other in found if (other in BOXES) == (suffix in BOXES)), None)
            if other:
                task = "boxes" if suffix in BOXES else "maps"
                raise InputError(f"{root}: {task} as {suffix}, but {found[other]} holds {task} as {other}; choose one")
            found[suffix] = named[0] if suffix == ".json" else named[0].parent if named else root
    return found


def _digest(found: Mapping[str, Path]) -> str:
    """SHA-256 over the names and the bytes of all files that may be read."""
    digest = hashlib.sha256()
    for suffix, root in sorted(found.items()):
        for path in [root] if root.is_file() else sorted(root.rglob(f"*{suffix}")):
            name = path.name if path == root else path.relative_to(root).as_posix()
            digest.update(f"{name} {sha256(path)}\n".encode())
    return digest.hexdigest()
