"""A function of the user's own as a tutor: a picture in, arrays out."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutored.config.entries import imported
from tutored.errors import InputError
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import outputs
from tutored.tutors.options import PythonOptions
from tutored.types import IGNORE

KEYS = ("names", "boxes", "scores", "labels", "masks", "map")
ARRAY = (np.ndarray, "np.ndarray", "numpy.ndarray")
"""The annotation of a parameter that takes a picture as an array."""
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

    def __init__(self, options: PythonOptions) -> None:
        """Import the function, and ask it about a black picture.

        Raises:
            InputError: it can't be imported, raises an error, or answers otherwise.
        """
        given = options.function
        function = imported(given, "tutor") if isinstance(given, str) else given
        self.options, self._function = options, function() if isinstance(function, type) else function
        code = function if hasattr(function, "__qualname__") else type(function)
        self._name = given if isinstance(given, str) else f"{code.__module__}:{code.__qualname__}"
        if not callable(self._function):
            raise InputError(
                f"{self._name}: {type(function).__name__} is no function; give one, as docs/extend.md shows"
            )
        self._takes_array = _takes_array(self._function)
        found = self._ask(Image.new("RGB", (64, 64)))
        self._keys = sorted(found)
        names = found.get("names")
        if (
            not isinstance(names, Sequence)
            or isinstance(names, str)
            or not all(isinstance(each, str) for each in names)
        ):
            raise self._wrong("names", f"{names!r}, expected a list of the names of all classes")
        self._names = list(names)
        self._outputs = outputs.ClassOutputs(self._names, self._name)
        self.labels = self._outputs.labels
        file, boxes = Path(inspect.getfile(code)), "boxes" in found
        self.identity = {
            "kind": "python",
            "tutor": self._name,
            "weights": ", ".join(each.name for each in options.weights) or None,
            "weights_sha256": outputs.files_sha256(options.weights, "the weights") if options.weights else None,
            "code_sha256": outputs.files_sha256([file], "the code") if file.is_file() else None,
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
        if sorted(found) != self._keys:
            told = f"{', '.join(sorted(found))}, for another picture {', '.join(self._keys)}"
            raise InputError(f"{self._name}: keys {told}; give the same for all, with empty arrays where nothing is")
        if list(found["names"]) != self._names:
            raise self._wrong("names", "others than for another picture")
        return self._read(found, (image.height, image.width))

    def _ask(self, image: Image.Image) -> Mapping[str, Any]:
        try:
            found = self._function(np.array(image) if self._takes_array else image)
        except InputError:
            raise
        except Exception as error:  # a user's function may raise anything
            at = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
            raise InputError(f"{self._name} fails on a picture of {image.width} x {image.height}: {told}") from error
        if not isinstance(found, Mapping) or not {"boxes", "map"} & found.keys() or not found.keys() <= {*KEYS}:
            what = f"the keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
            raise InputError(
                f"{self._name}: gives {what}, expected a dictionary with boxes or map, of {', '.join(KEYS)}"
            )
        return found

    def _read(self, found: Mapping[str, Any], size: tuple[int, int]) -> Sequence[Any]:
        """The soft answers. Raises InputError: naming the key whose value is not possible."""
        answers: list[Any] = []
        if "boxes" in found:
            boxes = self._array(found, "boxes", (None, 4), None)
            if not (boxes[:, :2] <= boxes[:, 2:]).all():
                raise self._wrong("boxes", "x1 above x2 or y1 above y2; expected x1, y1, x2, y2 in pixels")
            scores = self._scores(found, len(boxes))[:, self._outputs.used]
            masks = self._array(found, "masks", (len(boxes), None, None), 1) if "masks" in found else None

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
            return self._array(found, "scores", (count, len(self._names)), 1)
        labels = np.asarray(found["labels"])
        if labels.dtype.kind in "UO":
            strange = sorted({str(each) for each in labels.flat} - {*self._names})
            if strange:
                raise self._wrong("labels", f"{strange[0]!r}, which is not among `names`")
            labels = np.array([self._names.index(str(each)) for each in labels.flat]).reshape(labels.shape)
        numbers = self._numbers({"labels": labels}, "labels", (count,))
        return torch.eye(len(self._names))[numbers] * self._array(found, "scores", (count,), 1)[:, None]

    def _map(self, found: Mapping[str, Any]) -> Tensor:
        """Probabilities [C+1, h, w]."""
        if np.ndim(found["map"]) == 2:
            numbers = self._numbers(found, "map", (None, None), IGNORE)
            places = torch.arange(len(self._names))[:, None, None]
            return self._outputs.remap((numbers == places).float())
        probs = self._array(found, "map", (len(self._names), None, None), 1)
        most = float(probs.sum(0).max())
        if most > 1 + SLACK:
            raise self._wrong("map", f"sums to {most:.3g} in a cell, expected probabilities")
        return outputs.with_background(self._outputs.remap(probs))

    def _numbers(self, found: Mapping[str, Any], key: str, shape: Sequence[int | None], nothing: int = 0) -> Tensor:
        """Positions in `names`, int64, or `nothing`."""
        numbers = self._array(found, key, shape, None)
        wrong = (numbers != numbers.round().clamp(0, len(self._names) - 1)) & (numbers != nothing)
        if wrong.any():
            told = f"{float(numbers[wrong][0]):g}, expected positions in the {len(self._names)} `names`, from 0"
            raise self._wrong(key, told)
        return numbers.long()

    def _array(self, found: Mapping[str, Any], key: str, shape: Sequence[int | None], most: float | None) -> Tensor:
        """The value of a key as float32 of this shape (None: any length) and, if `most` is given, from 0 to it."""
        if key not in found:
            raise self._wrong(key, f"not given; expected [{', '.join(str(side or 'N') for side in shape)}]")
        array = np.asarray(found[key])
        array = array.reshape(*(side or 0 for side in shape)) if array.shape == (0,) else array
        fits = array.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind not in "buif" or not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            raise self._wrong(key, f"{array.dtype} {list(array.shape)}, expected numbers [{wanted}]")
        values = torch.from_numpy(array.astype(np.float32))
        if not values.isfinite().all():
            raise self._wrong(key, "NaN or infinite values")
        if most is not None and values.numel() and not 0 <= values.min() <= values.max() <= most + SLACK:
            raise self._wrong(
                key, f"from {float(values.min()):.3g} to {float(values.max()):.3g}, expected 0 to {most:g}"
            )
        return values if most is None else values.clamp(0, most)

    def _wrong(self, key: str, told: str) -> InputError:
        return InputError(f"{self._name}: `{key}`: {told}")


def _takes_array(function: Callable[..., Any]) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except ValueError:  # functions of C have no signature
        return False
    return first is not None and first.annotation in ARRAY
