"""The same images under each student, from the answers that runs keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutored.data import open_dataset
from tutored.data.text import read_json
from tutored.labels import LabelSpace
from tutored.page import uri
from tutored.palette import voc_palette
from tutored.structures import BACKGROUND, IGNORE, Dataset, GroundTruth, Prediction
from tutored.studies.outcome import RowOutcome, StudyOutcome
from tutored.studies.setting import Setting
from tutored.visualise import draw_small

Shown = Prediction | GroundTruth
SIDE = 300
"""Longer side of a picture in pixels."""
PEOPLE = "drawn by people"


class Picture(NamedTuple):
    """A drawn answer or ground truth, ready for a page.

    Attributes:
        anchor: the id under which the page holds it.
        uri: the JPEG file.
        told: image and classes, for those who can't see it.
    """

    anchor: str
    uri: str
    width: int
    height: int
    told: str


class Gallery:
    """Draws each answer once, whichever tables show it.

    Only if photographs are asked for, the data set is opened: they are drawn on, and its ground truth comes first.

    Attributes:
        pictures: what was drawn so far, by (run id or `PEOPLE`, image).
    """

    def __init__(self, outcomes: Sequence[StudyOutcome], setting: Setting, *, photos: bool) -> None:
        """Raises InputError where `photos` are asked for and the data set can't be read."""
        self.pictures: dict[tuple[str, str], Picture] = {}
        self._seen: set[int] = set()
        results = [run.result for study in outcomes for row in study.rows for run in row.runs if run.result is not None]
        classes = next((tuple(result["figures"]["objects"]) for result in results if result["figures"]), ())
        self._labels = LabelSpace.of(classes)
        self._dataset: Dataset | None = None
        if photos and classes:
            self._dataset = open_dataset(setting.data, setting.evaluation, None, classes)
        self._ids = {_file_name(image_id): image_id for image_id in self._dataset.ids} if self._dataset else {}

    @property
    def legend(self) -> list[tuple[str, str]]:
        """The classes that were drawn so far, each with its colour in CSS."""
        colours = voc_palette()
        return [(self._labels.names[number], f"rgb{tuple(colours[number].tolist())}") for number in sorted(self._seen)]

    def table(self, rows: Sequence[RowOutcome]) -> list[tuple[str, list[Picture]]]:
        """Each row's label with the answers of its first run that keeps any, to the images that all rows answer."""
        sheets: list[tuple[str, str, Mapping[str, Shown]]] = [
            (row.row.label, run.name, _answers(run)) for row in rows if (run := _first(row)) is not None
        ]
        names = sorted(set.intersection(*(set(answers) for *_, answers in sheets))) if sheets else []
        if names and self._dataset is not None and self._ids.keys() >= set(names):
            truth = {name: self._dataset.ground_truth(self._ids[name]) for name in names}
            sheets.insert(0, (PEOPLE, PEOPLE, truth))
        return [
            (label, [self._once(drawn_by, name, answers[name]) for name in names])
            for label, drawn_by, answers in sheets
            if names
        ]

    def _once(self, drawn_by: str, name: str, shown: Shown) -> Picture:
        if (drawn_by, name) not in self.pictures:
            photo = self._dataset.image(self._ids[name]) if self._dataset is not None else None
            drawn = draw_small(photo, shown, self._labels, SIDE)
            seen = _classes(shown)
            self._seen |= seen
            told = f"{name}: {', '.join(self._labels.names[number] for number in sorted(seen)) or 'nothing'}"
            self.pictures[drawn_by, name] = Picture(f"picture-{len(self.pictures)}", uri(drawn), *drawn.size, told)
        return self.pictures[drawn_by, name]


def _classes(shown: Shown) -> set[int]:
    """The classes of boxes and map."""
    return {
        number
        for there in (shown.classes, shown.mask)
        if there is not None
        for number in np.unique(there.numpy()).tolist()
        if number not in (BACKGROUND, IGNORE)
    }


def _first(row: RowOutcome) -> Path | None:
    return next(
        (run.folder for run in row.runs if run.result and (run.folder / "answers" / "boxes.json").exists()), None
    )


def _answers(run: Path) -> dict[str, Prediction]:
    """By file name; a student of one task answers with boxes alone or with maps alone."""
    folder = run / "answers"
    boxes = {_file_name(image_id): found for image_id, found in read_json(folder / "boxes.json").items()}
    maps = {path.stem: torch.from_numpy(np.array(Image.open(path))) for path in sorted(folder.glob("*.png"))}
    return {name: _prediction(boxes.get(name), maps.get(name)) for name in boxes.keys() | maps.keys()}


def _prediction(boxes: Mapping[str, Any] | None, mask: Tensor | None) -> Prediction:
    if boxes is None:
        assert mask is not None
        return Prediction(size=(mask.shape[0], mask.shape[1]), mask=mask)
    return Prediction(
        size=tuple(boxes["size"]),
        boxes_xyxy=torch.tensor(boxes["boxes_xyxy"], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor(boxes["classes"], dtype=torch.int64),
        scores=torch.tensor(boxes["scores"], dtype=torch.float32),
        mask=mask,
    )


def _file_name(image_id: str) -> str:
    return image_id.replace("/", "-")
