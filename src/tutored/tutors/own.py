"""Tutors of one's own: a student that was trained here, and a function, from a picture to arrays."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutored.checkpoint import WEIGHTS, load_checkpoint
from tutored.config.entries import guarded, imported
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.processes import choose_device
from tutored.students import prepare, soft_answer
from tutored.tasks import Task
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import PythonOptions, StudentOptions, outputs
from tutored.tutors.outputs import files_sha256
from tutored.types import IGNORE, Size, SoftLabels


class StudentTutor:
    """A checkpoint's soft answers: boxes with their whole class distributions, maps on its own grid."""

    notes: Sequence[str] = ()

    def __init__(self, options: StudentOptions) -> None:
        """Load the checkpoint. Raises InputError: the folder is no checkpoint, it was not taught a task, or the tasks
        have no common label space.
        """
        folder = options.weights
        self._student, config = load_checkpoint(folder)
        self._device = choose_device(options.device)
        prepare(self._student, self._device)
        self._names = options.tasks or config.taught
        unknown = [name for name in self._names if name not in config.taught]
        if unknown:
            raise InputError(f"tasks: {folder} was not taught {unknown[0]!r}; possible: {', '.join(config.taught)}")
        tasks = [self._student.tasks[name] for name in self._names]
        self.labels = _common_labels(tasks)
        decode: dict[str, Any] = {"score_floor": None, "nms_iou": None}
        for task in tasks:
            if hasattr(task.section, "decode"):
                kept = task.section.decode
                if options.score_floor is not None:
                    kept = kept.model_copy(update={"score_floor": options.score_floor})
                    task.section = task.section.model_copy(update={"decode": kept})
                decode |= kept.model_dump(mode="json")
        size, grids = self._student.size, [self._student.grids[name] for name in self._names]
        self.identity: Mapping[str, Any] = {
            "kind": "student",
            "tutor": f"{config.student.kind} on {config.student.backbone}",
            "weights": config.run_id,
            "weights_sha256": files_sha256([folder / WEIGHTS], "the checkpoint's weights"),
            "tasks": list(self._names),
            "preprocessing": f"RGB 0..1, bilinear to {size} x {size}, aspect ratio not kept",
            **decode,
            "map_stride": None,
            "input_map_stride": next((size / grid for grid in grids if grid), None),
        }

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        # One at a time: in a batch, the last digits of an answer would depend on its neighbours.
        return [soft_answer(self._student, [image], self._device, self._names)[0] for image in images]


def _common_labels(tasks: Sequence[Task]) -> LabelSpace:
    kinds = [task.kind for task in tasks]
    spaces = {task.labels for task in tasks}
    if len(set(kinds)) < len(kinds) or len(spaces) != 1:
        raise InputError(
            f"tasks: the tasks {', '.join(task.name for task in tasks)} are of one kind or have other classes, and a "
            "tutor answers each kind in one label space; name some of them, and label once more for the others"
        )
    return spaces.pop()


KEYS = ("names", "boxes", "scores", "labels", "masks", "map")
ARRAY = (np.ndarray, "np.ndarray", "numpy.ndarray")
"""The annotation of a parameter that takes a picture as an array."""
Shape = Sequence[int | None]
SLACK = 1e-3
"""By how much float16 may take a probability, or a sum of them, above one."""


class FunctionTutor(outputs.NetworkTutor):
    """Boxes, masks and a map as a function gives them for one picture, in its pixels.

    The function takes a PIL picture, or an array, uint8 [H, W, 3], where its parameter is annotated `np.ndarray`; of a
    class, an object is made once. It returns a dictionary with the same keys for every picture:

    - `names`: of the classes; `background` may be among them.
    - `boxes`: [N, 4], x1, y1, x2, y2. With `labels` [N], names or positions in `names`, and `scores` [N]; or without
      `labels`, and `scores` [N, classes].
    - `masks`: [N, h, w], 0 to 1, each over the whole picture.
    - `map`: [h, w], positions in `names`, 255 for nothing; or [classes, h, w], probabilities.
    """

    threads = 1  # it may keep something from one picture to the next

    def __init__(self, options: PythonOptions) -> None:
        """Import the function, and ask it about a black picture. Raises InputError: it can't be imported, raises an
        error, or answers otherwise.
        """
        function = options.function
        given = imported(function, "tutor") if isinstance(function, str) else function
        code = given if hasattr(given, "__qualname__") else type(given)
        self._name = function if isinstance(function, str) else f"{code.__module__}:{code.__qualname__}"
        if not callable(given):
            raise InputError(f"{self._name}: no function, but {given!r}; docs/extend.md shows one")
        self._function: Any = guarded(self._name, given) if isinstance(given, type) else given
        called = self._function if inspect.isroutine(self._function) else type(self._function).__call__
        hints = inspect.get_annotations(called)
        self._wants_array = next(iter(hints.values()), None) in ARRAY
        self.options, found = options, self._ask(Image.new("RGB", (64, 64)))
        self._keys, names = sorted(found), found.get("names")
        if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
            raise self._wrong("names", f"{names!r}, expected a list of the names of all classes")
        self._names: list[str] = [*names]
        self._outputs = outputs.ClassOutputs(self._names, self._name)
        self.labels = self._outputs.labels
        file, boxes = getattr(sys.modules.get(code.__module__), "__file__", None), "boxes" in found
        self.identity = {
            "kind": "python",
            "tutor": self._name,
            "weights": ", ".join(each.name for each in options.weights) or None,
            "weights_sha256": outputs.files_sha256(options.weights, "the weights") if options.weights else None,
            "code_sha256": outputs.files_sha256([Path(file)], "the code") if file else None,
            "preprocessing": None,
            "score_floor": options.score_floor if boxes else None,
            "nms_iou": options.nms_iou if boxes else None,
            "max_boxes": options.max_boxes if boxes else None,
            "mask_floor": options.mask_floor if "masks" in found else None,
            "map_stride": options.stride if "map" in found else None,
        }
        self._read(found, (64, 64))

    def answers(self, image: Image.Image) -> Sequence[Any]:
        found = self._ask(image)
        if sorted(found) != self._keys or [*found["names"]] != self._names:
            raise InputError(
                f"{self._name}: the keys {', '.join(sorted(found))}, for another picture {', '.join(self._keys)}; give "
                "the same for all, the same `names` too, and empty arrays where nothing is"
            )
        return self._read(found, (image.height, image.width))

    def _ask(self, image: Image.Image) -> Mapping[str, Any]:
        what = f"{self._name}, on a picture of {image.width} x {image.height},"
        found = guarded(what, self._function, np.array(image) if self._wants_array else image)
        if not isinstance(found, Mapping) or not {"boxes", "map"} & found.keys() or not found.keys() <= {*KEYS}:
            what = f"the keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
            raise InputError(
                f"{self._name}: gives {what}, expected a dictionary with boxes or map, of {', '.join(KEYS)}"
            )
        alone = [key for key in ("scores", "labels", "masks") if key in found and "boxes" not in found]
        if alone:
            raise self._wrong(alone[0], "of no `boxes`; give these, too")
        return found

    def _read(self, found: Mapping[str, Any], size: Size) -> Sequence[Any]:
        """The soft answers. Raises InputError: naming the key whose value is not possible."""
        answers: list[Any] = []
        if "boxes" in found:
            boxes = self._array(found, "boxes", (None, 4))
            if not (boxes[:, :2] <= boxes[:, 2:]).all():
                raise self._wrong("boxes", "x1 above x2 or y1 above y2; expected x1, y1, x2, y2 in pixels")
            scores = self._scores(found, len(boxes))[:, self._outputs.used]
            masks = self._shares(found, "masks", (len(boxes), None, None)) if "masks" in found else None

            def inside(rows: Tensor, places: Tensor) -> Tensor:
                assert masks is not None
                return outputs.masks_in_boxes(masks, places, rows, size)

            how = (self.options, self.options.nms_iou, size, None if masks is None else inside)
            answers += outputs.detected(boxes, scores, *how)
        if "map" in found:
            answers.append(SoftMap(map=outputs.on_cells(self._map(found), size, self.options.stride)))
        return answers

    def _scores(self, found: Mapping[str, Any], count: int) -> Tensor:
        """Scores of all classes, [N, classes]."""
        if "labels" not in found:
            return self._shares(found, "scores", (count, len(self._names)))
        labels = np.asarray(found["labels"])
        if labels.dtype.kind in "UO":
            strange = sorted({str(each) for each in labels.flat} - {*self._names})
            if strange:
                raise self._wrong("labels", f"{strange[0]!r}, which is not among `names`")
            labels = np.array([self._names.index(str(each)) for each in labels.flat]).reshape(labels.shape)
        numbers = self._numbers({"labels": labels}, "labels", (count,))
        return torch.eye(len(self._names))[numbers] * self._shares(found, "scores", (count,))[:, None]

    def _map(self, found: Mapping[str, Any]) -> Tensor:
        """Probabilities [C+1, h, w]."""
        if not np.size(found["map"]):
            raise self._wrong("map", "no cells")
        if np.ndim(found["map"]) == 2:
            numbers = self._numbers(found, "map", (None, None), IGNORE)
            places = torch.arange(len(self._names))[:, None, None]
            return self._outputs.remap((numbers == places).float())
        probs = self._shares(found, "map", (len(self._names), None, None))
        most = float(probs.sum(0).max())
        if most > 1 + SLACK:
            raise self._wrong("map", f"sums to {most:.3g} in a cell, expected probabilities")
        return outputs.with_background(self._outputs.remap(probs))

    def _numbers(self, found: Mapping[str, Any], key: str, shape: Shape, nothing: int = 0) -> Tensor:
        """Positions in `names`, int64, or `nothing`."""
        numbers = self._array(found, key, shape)
        wrong = numbers[(numbers != numbers.round().clamp(0, len(self._names) - 1)) & (numbers != nothing)]
        if len(wrong):
            told = f"{float(wrong[0]):g}, expected positions in the {len(self._names)} `names`, from 0"
            raise self._wrong(key, told)
        return numbers.long()

    def _shares(self, found: Mapping[str, Any], key: str, shape: Shape) -> Tensor:
        """Numbers from 0 to 1."""
        values = self._array(found, key, shape)
        low, high = (float(edge) for edge in values.aminmax()) if values.numel() else (0, 0)
        if low < 0 or high > 1 + SLACK:
            raise self._wrong(key, f"from {low:.3g} to {high:.3g}, expected 0 to 1")
        return values.clamp(max=1)

    def _array(self, found: Mapping[str, Any], key: str, shape: Shape) -> Tensor:
        """The value of a key as float32 of this shape; None: any length."""
        array = np.asarray(found.get(key, "nothing"))
        if array.shape == (0,):
            array = array.reshape([side or 0 for side in shape])
        wanted = [got if want is None else want for want, got in zip(shape, array.shape, strict=False)]
        fits = array.ndim == len(shape) and [*array.shape] == wanted
        if array.dtype.kind not in "buif" or not fits:
            told = f"expected numbers [{', '.join('any' if side is None else str(side) for side in shape)}]"
            raise self._wrong(key, f"{array.dtype} {list(array.shape)}, {told}")
        values = torch.from_numpy(array.astype(np.float32))
        if not values.isfinite().all():
            raise self._wrong(key, "NaN or infinite values")
        return values

    def _wrong(self, key: str, told: str) -> InputError:
        return InputError(f"{self._name}: `{key}`: {told}")
