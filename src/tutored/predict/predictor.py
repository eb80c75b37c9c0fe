"""A trained student as a function of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from tutored.checkpoint import load_checkpoint
from tutored.device import choose_device
from tutored.errors import InputError
from tutored.pictures import as_rgb, read_picture, upright
from tutored.students import Student, answer
from tutored.tasks import Task
from tutored.types import Prediction

Picture = Image.Image | np.ndarray | Path | str
"""A picture or a file, turned upright as its EXIF asks, or uint8 [H, W, 3] (RGB), taken as it is."""


class Predictor:
    """Pictures of any size to predictions in their own pixels.

    Args:
        student: is put on `device`, in evaluation mode.
        batch: pictures that the network sees at once.
        tasks: names of those that the student was taught (`Config.taught`); the others are not answered. None: all.

    Attributes:
        tasks: those that are answered, by name.
    """

    def __init__(
        self,
        student: Student,
        device: torch.device | str = "cpu",
        batch: int = 16,
        tasks: Sequence[str] | None = None,
    ) -> None:
        self.student = student.to(device).eval()
        self.device = torch.device(device)
        self.batch = batch
        self.tasks: Mapping[str, Task] = {
            name: task for name, task in student.tasks.items() if tasks is None or name in tasks
        }

    @classmethod
    def load(cls, checkpoint: Path | str, device: torch.device | str | None = None, batch: int = 16) -> Predictor:
        """A trained student as a function: `tutored.load("runs/first/checkpoint")("picture.jpg")`.

        Args:
            device: see `choose_device`.

        Raises:
            InputError: no checkpoint there, or no such device here.
        """
        where = choose_device(device)
        student, config = load_checkpoint(Path(checkpoint))
        return cls(student, where, batch, config.taught)

    @overload
    def __call__(self, images: Picture) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is a Sequence
    @overload
    def __call__(self, images: Sequence[Picture]) -> list[Prediction]: ...
    def __call__(self, images: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """The answers of all tasks for one picture or several, in each picture's own pixels.

        Raises:
            InputError: a file is broken or missing, or an array is something else.
            FloatingPointError: the student's training diverged, so that it answers NaN.
        """
        if isinstance(images, Picture):
            return self([images])[0]
        found: list[Prediction] = []
        for first in range(0, len(images), self.batch):
            batch = [_opened(image) for image in images[first : first + self.batch]]
            found += answer(self.student, batch, self.device, tuple(self.tasks))
        return found


load = Predictor.load


def describe(prediction: Prediction, tasks: Mapping[str, Task]) -> dict[str, list[dict[str, Any]]]:
    """JSON-ready entries of a prediction, for each task whose answers have such a form; see `Task.describe`."""
    entries = {name: tasks[name].describe(found) for name, found in prediction.tasks.items()}
    return {name: each for name, each in entries.items() if each is not None}


def _opened(image: Picture) -> Image.Image:
    if isinstance(image, (str, Path)):
        return upright(read_picture(Path(image)))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"array of {image.dtype} {list(image.shape)}; give uint8 [height, width, 3], RGB")
        return Image.fromarray(image)
    return as_rgb(upright(image))
