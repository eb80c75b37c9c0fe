"""A trained student on pictures: as a function, over a data set, and from files to drawings, masks and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutored.config import Decode
from tutored.data.pictures import picture_size, read_picture
from tutored.errors import InputError
from tutored.evaluate import Result, evaluate
from tutored.files import whole_file, write_text
from tutored.labels import LabelSpace
from tutored.structures import Dataset, Outputs, Prediction
from tutored.student import BlitzNet, decode
from tutored.visualise import draw, mask_image

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def preprocess(images: Sequence[Image.Image], size: int) -> Tensor:
    """The network's input: RGB, resized to a square without keeping the aspect ratio (PIL's bilinear filter).

    Returns:
        float32 [B, 3, size, size], 0..1.
    """
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float() / 255


class Predictor:
    """Pictures of any size to predictions in their own pixels.

    Args:
        student: is put on `device`, in evaluation mode.
        config: floors and limits of the boxes.
        batch: pictures that the network sees at once.
    """

    def __init__(
        self, student: BlitzNet, config: Decode | None = None, device: torch.device | str = "cpu", batch: int = 16
    ) -> None:
        self.student = student.to(device).eval()
        self.config = config or Decode()
        self.device = torch.device(device)
        self.batch = batch

    def __call__(self, images: Sequence[Image.Image]) -> list[Prediction]:
        found = []
        for first in range(0, len(images), self.batch):
            part = images[first : first + self.batch]
            sizes = [(image.height, image.width) for image in part]
            found += decode(self.outputs(part), sizes, self.config, self.student.config.size)
        return found

    @torch.inference_mode()
    def outputs(self, images: Sequence[Image.Image]) -> Outputs:
        """The student's raw answer for one batch."""
        outputs: Outputs = self.student(preprocess(images, self.student.config.size).to(self.device))
        return outputs


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
        InputError: a path is missing or no picture, a folder has none, or two pictures have one name but for the suffix.
    """
    found: dict[str, Path] = {}
    stems: dict[Path, Path] = {}
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
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


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    score: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Write for every picture `NAME.jpg` with boxes and mask drawn in and `NAME.mask.png`, and one `predictions.json`.

    The JSON is a list with an entry per box above the decoding floor: `image` (as `find_pictures` names it),
    `category`, `bbox` (x, y, width, height in pixels) and `score`, by image and falling score. The masks hold
    class indices with VOC's palette. Pictures are turned upright first where they say how (EXIF).

    Args:
        score: boxes from this score on are drawn.

    Returns:
        The path of `predictions.json`, which is written last.

    Raises:
        InputError: see `find_pictures`; or a picture is broken, or `out` holds the pictures themselves.
    """
    pictures = find_pictures(paths)
    clash = next((file for file in pictures.values() if out.resolve() in file.resolve().parents), None)
    if clash is not None:
        raise InputError(f"{out}: holds the picture {clash}, which a result might replace; choose another folder")
    labels = predictor.student.labels
    names, entries = list(pictures), []
    for first in range(0, len(names), predictor.batch):
        part = names[first : first + predictor.batch]
        images = [ImageOps.exif_transpose(read_picture(pictures[name])) for name in part]
        for name, image, prediction in zip(part, images, predictor(images), strict=True):
            entries += _entries(name, prediction, labels)
            _save(draw(image, _above(prediction, score), labels), out / Path(name).with_suffix(".jpg"))
            assert prediction.mask is not None
            _save(mask_image(prediction.mask), out / Path(name).with_suffix(".mask.png"))
        if progress:
            progress(first + len(part), len(names))
    write_text(out / "predictions.json", json.dumps(entries, indent=1) + "\n")
    return out / "predictions.json"


def evaluate_student(student: BlitzNet, dataset: Dataset, config: Decode, progress: Progress | None = None) -> Result:
    """A student's figures on a data set, on the device where the student is."""
    predictor = Predictor(student, config, student.anchors_xyxy.device)
    return evaluate(predict_dataset(predictor, dataset, progress), dataset)


def _above(prediction: Prediction, score: float) -> Prediction:
    assert prediction.boxes_xyxy is not None and prediction.classes is not None and prediction.scores is not None
    chosen = prediction.scores >= score
    return Prediction(
        size=prediction.size,
        boxes_xyxy=prediction.boxes_xyxy[chosen],
        classes=prediction.classes[chosen],
        scores=prediction.scores[chosen],
        mask=prediction.mask,
    )


def _entries(name: str, prediction: Prediction, labels: LabelSpace) -> list[dict[str, Any]]:
    assert prediction.boxes_xyxy is not None and prediction.classes is not None and prediction.scores is not None
    return [
        {
            "image": name,
            "category": labels.names[number],
            "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), number, score in zip(
            prediction.boxes_xyxy.tolist(), prediction.classes.tolist(), prediction.scores.tolist(), strict=True
        )
    ]


def _save(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix])
