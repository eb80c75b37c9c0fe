"""A trained student as a function of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from tutored.checkpoint import load_checkpoint
from tutored.predict.frames import read_frames
from tutored.predict.inputs import VIDEOS, find_pictures
from tutored.predict.result import Picture, Result, opened
from tutored.processes import choose_device
from tutored.students import Student, answer
from tutored.tasks import Task


class Predictor:
    """Pictures of any size to predictions in their own pixels.

    Args:
        student: is put on `device`, in evaluation mode.
        batch: pictures that the network sees at once.
        tasks: names of those that the student was taught (`Config.taught`); the others are not answered. None: all.

    Attributes:
        tasks: those that are answered, by name.
        scores: by task, from which score on answers are shown.
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
        self.scores: Mapping[str, float] = {name: student.scores[name] for name in self.tasks}

    @classmethod
    def load(cls, checkpoint: Path | str, device: torch.device | str | None = None, batch: int = 16) -> Predictor:
        """A trained student as a function: `tutored.load("runs/first/checkpoint")("picture.jpg")`.

        Args:
            checkpoint: the folder, or the ONNX file that `tutored export` wrote.
            device: see `choose_device`.

        Raises:
            InputError: no checkpoint or exported file there, no such device here, or onnxruntime is missing.
        """
        where = choose_device(device)
        if Path(checkpoint).suffix == ".onnx":
            from tutored.students.exported import Exported

            return cls(Exported(Path(checkpoint), where), where, batch)
        student, config = load_checkpoint(checkpoint)
        return cls(student, where, batch, config.taught)

    @overload
    def __call__(self, images: Image.Image | np.ndarray) -> Result: ...
    @overload
    def __call__(self, images: Path | str) -> Any: ...
    @overload
    def __call__(self, images: Sequence[Picture]) -> list[Result]: ...
    def __call__(self, images: Picture | Sequence[Picture]) -> Result | list[Result] | Iterator[Result]:
        """The answers of all tasks, in each picture's own pixels.

        Args:
            images: a picture; a list of them; a folder or a video, whose results come one after the other and are
                computed a batch at a time: `for result in student("clip.mp4")`.

        Raises:
            InputError: a file is broken or missing, a folder has no picture, or an array is something else.
            FloatingPointError: the student's training diverged, so that it answers NaN.
        """
        if isinstance(images, (str, Path)) and Path(images).is_dir():
            return self._answers(find_pictures([Path(images)]).values())
        if isinstance(images, (str, Path)) and Path(images).suffix.lower() in VIDEOS:
            return self._answers(read_frames(images))
        if isinstance(images, Picture):
            return next(self._answers([images]))
        return list(self._answers(images))

    def _answers(self, pictures: Iterable[Picture]) -> Iterator[Result]:
        left = iter(pictures)
        while batch := list(islice(left, self.batch)):
            answers = answer(self.student, [opened(each) for each in batch], self.device, tuple(self.tasks))
            for source, found in zip(batch, answers, strict=True):
                yield Result(found.size, found.tasks, known=self.tasks, scores=self.scores, source=source)


load = Predictor.load
