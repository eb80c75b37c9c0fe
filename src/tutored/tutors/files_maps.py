"""Class-probability maps that lie in files, one array an image."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from tutored.errors import InputError
from tutored.labels import COCO, VOC, LabelSpace

Values = Literal["auto", "probabilities", "confidences"]
KEY = "probs"
SLACK = 0.05
"""How far a cell's probabilities may sum from one, for rounding; they are divided by their sum."""
MOST_BYTES = 2**30
"""No map is larger: 1000 x 1000 cells of 268 classes."""
LOOKED_AT = 8
"""Files that decide what the values of a folder are."""


class Maps:
    """`<image id>.npz` (key `probs`) or `<image id>.npy`, [h, w, classes] with background first.

    Values are probabilities: floats, or uint8 with p = value / 255; the grid spans the whole image. Or they
    are detection confidences, as in the thesis' H x W x 21 arrays (specification 8.2): v_c where class c was
    found, anything in channel 0, which becomes 0; what is background is decided when the store is read.
    Of a map finer than `stride` pixels of the image, probabilities are averaged over the cells; confidences, which
    are constant within an object, are those at the cells' centres.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        labels: LabelSpace | None,
        default: LabelSpace | None,
        values: Values,
        stride: int,
    ) -> None:
        """Look at the first files.

        Args:
            labels: the classes; None: `default`, VOC or COCO, whichever has as many names as the maps have channels.
            values: "auto": confidences where the first `.npy` files don't sum to one.

        Raises:
            InputError: a file is no such array, or its number of channels fits no label space.
        """
        self.folder, self.suffix, self.stride = folder, suffix, stride
        paths = sorted(folder.glob(f"*{suffix}"))[:LOOKED_AT]
        first = [_read(path) for path in paths]
        channels = len(first[0])
        spaces = [labels] if labels else [space for space in (default, VOC, COCO) if space]
        fitting = [space for space in spaces if len(space) == channels]
        if not fitting:
            raise InputError(
                f"{paths[0]}: {channels} channels, background included, fit no known classes "
                f"({', '.join(str(len(space)) for space in spaces)} names); give labels=FILE with one class a line"
            )
        self.labels = fitting[0]
        if values == "auto":
            certain = suffix == ".npz" or all(_sums_to_one(array) for array in first)
            values = "probabilities" if certain else "confidences"
        self.values = values
        self.meaning = f"maps of {values}"

    def read(self, image_id: str, size: tuple[int, int]) -> Tensor | None:
        """float32 [classes, h, w] for an image of `size` (height, width); None where there is no file.

        Raises:
            InputError: no such array, another number of channels, a grid finer than the image, or values that
                are not what this folder's are.
        """
        path = self.folder / f"{image_id}{self.suffix}"
        if not path.exists():
            return None
        given = _read(path)
        if len(given) != len(self.labels):
            raise InputError(f"{path}: {len(given)} channels, expected {len(self.labels)}: background and the classes")
        if given.shape[1] > size[0] or given.shape[2] > size[1]:
            raise InputError(
                f"{path}: a grid of {tuple(given.shape[1:])} for an image of {size}; is it another image's?"
            )
        height, width = (
            min(have, -(-pixels // self.stride)) for have, pixels in zip(given.shape[1:], size, strict=True)
        )
        if self.values == "confidences":
            given[0] = 0
            return interpolate(given[None], (height, width), mode="nearest-exact")[0]
        if not _sums_to_one(given):
            sums = given.sum(0)
            raise InputError(
                f"{path}: the values of a cell sum to {float(sums.min()):.3g} to {float(sums.max()):.3g}, "
                'not to one; normalise them, or give values="confidences" if they are detection scores'
            )
        return adaptive_avg_pool2d(given / given.sum(0), (height, width))

    def lacks(self, image_id: str) -> str:
        return f"{self.folder}: no {image_id}{self.suffix}"


def _read(path: Path) -> Tensor:
    """An array [h, w, C] as float32 [C, h, w], values 0..1."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, NpzFile):
            with content:
                if content.zip and any(entry.file_size > MOST_BYTES for entry in content.zip.infolist()):
                    raise ValueError(f"more than {MOST_BYTES // 2**20} MiB unpacked")
                content = content[KEY]
    except KeyError as error:
        raise InputError(
            f"{path}: holds no array {KEY!r}; save it as np.savez_compressed(file, {KEY}=array)"
        ) from error
    except Exception as error:  # zip files and arrays fail in all sorts of ways
        raise InputError(f"{path}: not an array that can be read without running code ({error})") from error
    kinds = ("uint8", "float16", "float32", "float64")
    if content.ndim != 3 or 0 in content.shape or content.dtype.name not in kinds:
        raise InputError(
            f"{path}: {content.dtype} {list(content.shape)}, expected [height, width, classes] of {', '.join(kinds)}"
        )
    values = content.astype(np.float32) / (255 if content.dtype == np.uint8 else 1)
    if not (values.min() >= 0 and values.max() <= 1.001):  # also true for NaN
        raise InputError(f"{path}: values from {values.min()} to {values.max()}; probabilities lie from 0 to 1")
    return torch.from_numpy(values).permute(2, 0, 1).clamp(max=1)


def _sums_to_one(values: Tensor) -> bool:
    return bool(((values.sum(0) - 1).abs() <= SLACK).all())
