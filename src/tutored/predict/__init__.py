"""A student that answers for pictures in memory, in files and in videos, and what it says about one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from tutored.checkpoint import load_checkpoint
from tutored.errors import InputError
from tutored.files import write_encoded
from tutored.inputs import VIDEOS, find_pictures, read_frames
from tutored.pictures import as_rgb, read_picture, upright
from tutored.processes import choose_device
from tutored.students import Precision, Student, answer, prepare
from tutored.tasks import Task
from tutored.tasks.calibrate import rounded_down
from tutored.types import Prediction
from tutored.visualise import draw

Picture = Image.Image | np.ndarray | Path | str
"""A picture or a file, turned upright as its EXIF asks, or uint8 [H, W, 3] (RGB), taken as it is."""

NOTHING = "nothing"


def opened(picture: Picture) -> Image.Image:
    """The RGB picture. Raises InputError where a file is broken or missing, or an array is something else."""
    if isinstance(picture, (str, Path)):
        return upright(read_picture(Path(picture)))
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(f"array of {picture.dtype} {list(picture.shape)}; give uint8 [height, width, 3], RGB")
        return Image.fromarray(picture)
    return as_rgb(upright(picture))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Prediction):
    """The answers for one picture, by task, in the picture's own pixels; `print` says them in a line.

    Attributes:
        known: the tasks, by name: they draw, describe and save their answers.
        scores: by task, from which score on an answer is shown.
        source: the picture, as it was given; a file is read again where it is drawn.
    """

    known: Mapping[str, Task]
    scores: Mapping[str, float]
    source: Picture

    @property
    def image(self) -> Image.Image:
        """The picture, RGB, upright. Raises InputError where its file can't be read any more."""
        return opened(self.source)

    @property
    def best(self) -> dict[str, float]:
        """By task that found something with a score, the best score, rounded down to two digits."""
        scores = {name: answer.scores.tolist() for name, answer in self.tasks.items() if hasattr(answer, "scores")}
        return {name: rounded_down(max(each)) for name, each in scores.items() if each}

    def missed(self, score: float | None = None) -> dict[str, float]:
        """By task of which nothing is shown, though something was found, the best score."""
        shown = self._shown(score).entries()
        return {name: best for name, best in self.best.items() if shown.get(name) == []}

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """JSON-ready entries of each task whose answers have such a form, whatever they score; see `Task.describe`."""
        entries = {name: self.known[name].describe(answer) for name, answer in self.tasks.items()}
        return {name: each for name, each in entries.items() if each is not None}

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, Any]]:
        """The entries of all tasks in a list, in the manner of COCO results, whatever they score.

        Args:
            image_id: as a COCO file numbers the picture; None: the file's name without suffix, if there is a file.
        """
        if image_id is None and isinstance(self.source, (str, Path)):
            image_id = Path(self.source).stem
        named = {} if image_id is None else {"image_id": image_id}
        return [{**named, "task": task, **entry} for task, each in self.entries().items() for entry in each]

    def to_supervision(self, score: float | None = None) -> Any:
        """The boxes of all tasks as `supervision.Detections`, with `class_name` and `task` in its data.

        Args:
            score: boxes from this score on; None: from `scores` on.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise InputError("to_supervision needs supervision; run `pip install supervision`") from error
        boxes = [entry for entry in self._shown(score).to_coco() if "bbox" in entry]
        corners = np.array([entry["bbox"] for entry in boxes], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return Detections(
            xyxy=corners,
            confidence=np.array([entry["score"] for entry in boxes], np.float32),
            class_id=np.array([entry["category_id"] for entry in boxes], int),
            data={
                "class_name": np.array([entry["category"] for entry in boxes], str),
                "task": np.array([entry["task"] for entry in boxes], str),
            },
        )

    def plot(self, score: float | None = None, *, at_most: float = math.inf) -> Image.Image:
        """The picture with the answers drawn in, RGB.

        Args:
            score: answers that have scores are drawn from this one on; None: from `scores` on.
            at_most: pixels that the long side has.
        """
        return draw(self.image, self._shown(score), self.known, at_most=at_most)

    def save(self, path: Path | str, score: float | None = None) -> list[Path]:
        """Write the drawing, and beside it each task's own file, such as `seen/dog.maps.png` for `seen/dog.jpg`.

        Args:
            path: of the drawing; its suffix says the format.
            score: as in `plot`.

        Returns:
            What was written.

        Raises:
            InputError: the suffix names no format that can be written.
        """
        path = Path(path)
        format_ = Image.registered_extensions().get(path.suffix.lower())
        if format_ not in Image.SAVE:
            raise InputError(f"{path}: its suffix names no format of pictures; give a name such as seen.jpg")
        write_encoded(path, partial(self.plot(score).save, format=format_))
        beside = {name: path.with_name(f"{path.stem}.{name}") for name in self.tasks}
        files = [self.known[name].save(self.tasks[name], place) for name, place in beside.items()]
        return [path, *(file for file in files if file is not None)]

    def told(self, score: float | None = None) -> str:
        """What each task found, such as `detection: 2 x dog, 1 x person; maps: dog 31 %`; where nothing scores enough,
        the best score.
        """
        told = {name: _words(entries) for name, entries in self._shown(score).entries().items()}
        for name, best in self.missed(score).items():
            told[name] += _unseen(self.scores[name] if score is None else score, best)
        return "; ".join(f"{name}: {words}" for name, words in told.items()) or "answered"

    __str__ = told

    def _shown(self, score: float | None) -> Result:
        return self.above(self.scores if score is None else score)


class Film:
    """What is seen on the frames of a video, whose results `add` takes; `print` says it in a line."""

    def __init__(self, score: float | None = None) -> None:
        self.score, self.frames = score, 0
        self._on: dict[str, Counter[str]] = defaultdict(Counter)
        self._best: dict[str, float] = {}
        self._least: Mapping[str, float] = {}

    def add(self, result: Result) -> None:
        self.frames += 1
        self._least = result.scores if self.score is None else dict.fromkeys(result.tasks, self.score)
        for task, entries in result._shown(self.score).entries().items():
            self._on[task].update(sorted({entry.get("category", "something") for entry in entries}))
        for task, best in result.best.items():
            self._best[task] = max(best, self._best.get(task, 0.0))

    def missed(self) -> dict[str, float]:
        """As `Result.missed`, of all frames."""
        return {task: best for task, best in self._best.items() if task in self._on and not self._on[task]}

    def __str__(self) -> str:
        told = {task: ", ".join(f"{name} on {n:,}" for name, n in on.most_common()) for task, on in self._on.items()}
        unseen = {task: _unseen(self._least[task], best) for task, best in self.missed().items()}
        words = (f"{task}: {each or NOTHING + unseen.get(task, '')}" for task, each in told.items())
        return "; ".join((f"{self.frames:,} frames", *words))


def _unseen(least: float, best: float) -> str:
    return f" from score {least:.2f} on, the best has {best:.2f}"


def _words(entries: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the picture, or a count for each class, the class of the best one first."""
    counts = Counter(entry["category"] for entry in entries if "category" in entry and "share" not in entry)
    shares = [f"{entry['category']} {100 * entry['share']:.0f} %" for entry in entries if "share" in entry]
    words = [*(f"{count} x {name}" for name, count in counts.items()), *shares]
    return ", ".join(words) or (f"{len(entries)} found" if entries else NOTHING)


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
    def load(
        cls,
        checkpoint: Path | str,
        device: torch.device | str | None = None,
        batch: int = 16,
        precision: Precision = "fp32",
    ) -> Predictor:
        """A trained student as a function: `tutored.load("runs/first/checkpoint")("picture.jpg")`.

        Args:
            checkpoint: the folder, or the ONNX file that `tutored export` wrote.
            device: see `choose_device`.
            precision: of the network's passes; bf16 is the quicker one on GPUs from Ampere on and on CPUs with AMX.

        Raises:
            InputError: no checkpoint or exported file there, no such device here, onnxruntime is missing, or an
                exported file is to answer in bf16.
        """
        where = choose_device(device)
        if Path(checkpoint).suffix == ".onnx":
            from tutored.students import Exported

            if precision != "fp32":
                raise InputError(
                    f"{checkpoint}: precision {precision} is for checkpoints, a file keeps the one that it has; "
                    "give the checkpoint, or a file that `tutored export --half` wrote in float16"
                )
            return cls(Exported(Path(checkpoint), where), where, batch)
        student, config = load_checkpoint(checkpoint)
        return cls(prepare(student, where, precision), where, batch, config.taught)

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
