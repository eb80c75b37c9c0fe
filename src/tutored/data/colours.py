"""CVAT's masks of colours, and the file `labelmap.txt` that says what these mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from tutored.data.images import AnnotationFiles, Size
from tutored.data.text import CLASS_FILES, numbered, read_lines
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.pictures import read_picture
from tutored.tasks.segmentation.types import ClassMask
from tutored.types import IGNORE

LABEL_MAP = re.compile(r"(.+):(\d+),(\d+),(\d+):[^:]*:[^:]*")
"""A line of CVAT's `labelmap.txt`: a class and its colour in masks."""


@dataclass(frozen=True, kw_only=True)
class ColourMasks(AnnotationFiles):
    """Masks whose colours mean classes: by colour, as 0xRRGGBB, the class."""

    states_classes: ClassVar[bool] = True
    colours: Mapping[int, int]

    def read(self, image_id: str, size: Size) -> ClassMask:
        path = self.path(image_id)
        assert path is not None
        pixels = np.asarray(read_picture(path), np.int32) @ (1 << 16, 1 << 8, 1)
        if pixels.shape != size:
            height, width = pixels.shape
            raise InputError(f"{path}: the mask is {width}x{height} pixels, its image {size[1]}x{size[0]}")
        values, where = np.unique(pixels, return_inverse=True)
        strange = [f"{value >> 16},{value >> 8 & 255},{value & 255}" for value in values if value not in self.colours]
        if strange:
            raise InputError(
                f"{path}: labelmap.txt has no class of the colour {' or '.join(strange[:3])}; add it, or, where pixels "
                f"are numbers of classes, list these in {CLASS_FILES[0]}"
            )
        classes = np.array([self.colours[value] for value in values.tolist()], np.uint8)
        return ClassMask(mask=torch.from_numpy(classes[where.reshape(size)]))


def label_map(folder: Path) -> tuple[LabelSpace, Mapping[int, int]] | None:
    """The classes of CVAT's `labelmap.txt`, and the class of each colour, 0xRRGGBB; None without such a file. Raises
    InputError: naming file and line; a line is no class with a colour, or two have one colour or name.
    """
    path = folder / "labelmap.txt"
    if not path.is_file():
        return None
    names: list[str] = []
    colours: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LABEL_MAP.fullmatch(line.strip())
        levels = [int(each) for each in found.groups()[1:]] if found else [256]
        colour = sum(level << shift for level, shift in zip(levels, (16, 8, 0), strict=False))
        if not found or max(levels) > 255 or colour in colours:
            raise InputError(
                f"{path}: line {number}: {line!r} is not name:red,green,blue:parts:actions, each colour once"
            )
        colours[colour] = len(names)
        names.append(found[1])
    labels, classes = numbered(names, path)
    if len(labels) > IGNORE:
        raise InputError(f"{path}: {len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1})")
    return labels, {colour: classes[place] % 256 for colour, place in colours.items()}  # -1 is ignored
