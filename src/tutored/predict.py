"""A trained student on pictures: as a function, over a data set, and from files to drawings, masks and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tutored.checkpoint import load_checkpoint
from tutored.config import TASKS, Decode
from tutored.data.pictures import picture_size, read_picture
from tutored.device import choose_device
from tutored.errors import InputError
from tutored.files import whole_file, write_text
from tutored.labels import LabelSpace
from tutored.progress import Progress
from tutored.structures import Dataset, Prediction
from tutored.student import BlitzNet, decode, preprocess
from tutored.visualise import draw, save_mask

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DRAWN, MASK = ".predicted.jpg", ".mask.png"
"""How the names of results end; no picture in a folder is taken that ends so."""


class Predictor:
    """Pictures of any size to predictions in their own pixels.

    Args:
        student: is put on `device`, in evaluation mode.
        config: floors and limits of the boxes.
        batch: pictures that the network sees at once.
        tasks: those that the student was taught (`Config.taught`); the others are answered by None.
    """

    def __init__(
        self,
        student: BlitzNet,
        config: Decode | None = None,
        device: torch.device | str = "cpu",
        batch: int = 16,
        tasks: Sequence[str] = TASKS,
    ) -> None:
        self.student = student.to(device).eval()
        self.config = config or Decode()
        self.device = torch.device(device)
        self.batch = batch
        self.tasks = tasks

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[Prediction]:
        size, found = self.student.config.size, []
        for first in range(0, len(images), self.batch):
            part = images[first : first + self.batch]
            outputs = self.student(preprocess(part, size).to(self.device))
            found += decode(outputs, [(image.height, image.width) for image in part], self.config, size)
        return [self._taught(prediction) for prediction in found]

    def _taught(self, prediction: Prediction) -> Prediction:
        if "detection" not in self.tasks:
            prediction = replace(prediction, boxes_xyxy=None, classes=None, scores=None)
        return prediction if "segmentation" in self.tasks else replace(prediction, mask=None)


class Loaded:
    """A trained student that answers one picture at a time.

    Attributes:
        labels: what class numbers mean.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.labels: LabelSpace = predictor.student.labels

    def __call__(self, image: Image.Image | NDArray[np.uint8] | Path | str) -> Prediction:
        """Boxes with scores above the decoding floor, and the class map, in the picture's own pixels.

        Args:
            image: a picture, its file (turned upright where it says how), or uint8 [H, W, 3], RGB.

        Raises:
            InputError: the file is broken or missing, or the array is something else.
        """
        if isinstance(image, (str, Path)):
            image = ImageOps.exif_transpose(read_picture(Path(image)))
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InputError(f"array of {image.dtype} {list(image.shape)}; give uint8 [height, width, 3], RGB")
            image = Image.fromarray(image)
        return self.predictor([image])[0]


def load(checkpoint: Path | str, device: torch.device | str | None = None) -> Loaded:
    """A trained student as a function: `tutored.load("runs/first/checkpoint")("picture.jpg")`.

    Args:
        device: see `choose_device`.

    Raises:
        InputError: no checkpoint there, or no such device here.
    """
    student, config, _ = load_checkpoint(Path(checkpoint))
    return Loaded(Predictor(student, config.decode, choose_device(device), tasks=config.taught))


def predict_dataset(
    predictor: Predictor, dataset: Dataset, progress: Progress | None = None
) -> Iterator[tuple[str, Prediction]]:
    """Image id and prediction of every image of a data set, in its order."""
    ids = dataset.ids
    for first in range(0, len(ids), predictor.batch):
        part = ids[first : first + predictor.batch]
        yield from zip(part, predictor([dataset.image(image_id) for image_id in part]), strict=True)
        if progress:
            progress(first + len(part), len(ids))


def find_pictures(paths: Sequence[Path]) -> dict[str, Path]:
    """Pictures by name: files as given, folders with all the pictures in and under them.

    The name is the file's, or its path inside the given folder; it says what `predict_files` calls its results.

    Raises:
        InputError: a path is missing or no picture, a folder has none, or two names differ in their suffix only.
    """
    found: dict[str, Path] = {}
    stems: dict[Path, Path] = {}
    for path in paths:
        inside = _pictures_in(path) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no picture in this folder; possible: {', '.join(SUFFIXES)}")
        for file in inside:
            picture_size(file)
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            other = stems.setdefault(name.with_suffix(""), file)
            if other != file:
                raise InputError(f"{other} and {file}: their results would have the same name; predict them separately")
            found[name.as_posix()] = file
    return found


def _pictures_in(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in files if not file.name.endswith((DRAWN, MASK)))


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    score: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Write for every picture one with boxes and mask drawn in, the mask, and for all of them `predictions.json`.

    The JSON is a list in the manner of COCO results, by image and falling score, an entry per box above the decoding
    floor: `file_name` (as `find_pictures` names it), `image_id` (the same without suffix), `category_id` (1..C),
    `category`, `bbox` (x, y, width, height in pixels), `score`. As in COCO results, a picture in which nothing
    was found has none; its drawing and mask are there. The masks hold class numbers, with VOC's palette.
    A picture is turned upright first where it says how (EXIF).

    Args:
        score: boxes from this score on are drawn.

    Returns:
        The path of `predictions.json`, which is written last.

    Raises:
        InputError: see `find_pictures`; or a picture is broken.
    """
    pictures = find_pictures(paths)
    labels = predictor.student.labels
    names, entries = list(pictures), []
    for first in range(0, len(names), predictor.batch):
        part = names[first : first + predictor.batch]
        images = [ImageOps.exif_transpose(read_picture(pictures[name])) for name in part]
        for name, image, prediction in zip(part, images, predictor(images), strict=True):
            entries += _entries(name, prediction, labels)
            with whole_file(out / Path(name).with_suffix(DRAWN)) as temporary:
                draw(image, prediction.above(score), labels).save(temporary, format="JPEG")
            if prediction.mask is not None:
                save_mask(prediction.mask, out / Path(name).with_suffix(MASK))
        if progress:
            progress(first + len(part), len(names))
    write_text(out / "predictions.json", json.dumps(entries, indent=1) + "\n")
    return out / "predictions.json"


def _entries(name: str, prediction: Prediction, labels: LabelSpace) -> list[dict[str, Any]]:
    if prediction.boxes_xyxy is None or prediction.classes is None or prediction.scores is None:
        return []
    return [
        {
            "image_id": Path(name).with_suffix("").as_posix(),
            "file_name": name,
            "category_id": number,
            "category": labels.names[number],
            "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), number, score in zip(
            prediction.boxes_xyxy.tolist(), prediction.classes.tolist(), prediction.scores.tolist(), strict=True
        )
    ]
