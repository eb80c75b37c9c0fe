"""A trained student as a function of pictures, and over a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tutored.checkpoint import load_checkpoint
from tutored.config import TASKS, Decode
from tutored.data.pictures import as_rgb, read_picture, upright
from tutored.device import choose_device
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.progress import Progress
from tutored.structures import Dataset, Prediction
from tutored.student import BlitzNet, decode, preprocess


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

    @classmethod
    def load(cls, checkpoint: Path | str, device: torch.device | str | None = None, batch: int = 16) -> Predictor:
        """A checkpoint's student, on the device that `choose_device` gives. Raises InputError as `load` does."""
        where = choose_device(device)
        student, config, _ = load_checkpoint(Path(checkpoint))
        return cls(student, config.decode, where, batch, config.taught)

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
            FloatingPointError: the student's training diverged, so that it answers NaN.
        """
        if isinstance(image, (str, Path)):
            image = upright(read_picture(Path(image)))
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InputError(f"array of {image.dtype} {list(image.shape)}; give uint8 [height, width, 3], RGB")
            image = Image.fromarray(image)
        else:
            image = as_rgb(image)
        return self.predictor([image])[0]


def load(checkpoint: Path | str, device: torch.device | str | None = None) -> Loaded:
    """A trained student as a function: `tutored.load("runs/first/checkpoint")("picture.jpg")`.

    Args:
        device: see `choose_device`.

    Raises:
        InputError: no checkpoint there, or no such device here.
    """
    return Loaded(Predictor.load(checkpoint, device))


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
