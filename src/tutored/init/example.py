"""A folder to practise on: made-up pictures, some with boxes, some with masks, as a newcomer might have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tutored.errors import InputError
from tutored.files import whole_folder, write_text
from tutored.scenes import CREDIT
from tutored.scenes.compose import STYLES, compose
from tutored.scenes.cutouts import load_cutouts
from tutored.scenes.write import write_boxes, write_mask, write_photo

CLASSES = {"plane": "aeroplane", "bus": "bus", "cat": "cat", "plant": "pottedplant"}
"""The folder's classes, and VOC's names of what is drawn."""

DRAWN = ("both", "boxes", "boxes", "masks", "masks", "none")
"""What a person would have drawn on a picture, in turn."""

PICTURES = 240
SIZE = (160, 120)


def make_example(folder: Path, pictures: int = PICTURES) -> None:
    """Write `photos/*.jpg`, `boxes/*.xml`, `masks/*.png` and `labels.txt`, whole or not at all.

    The same bytes each time. A third of the pictures has boxes alone, a third a mask alone, a sixth both, a sixth
    neither.

    Args:
        folder: must not exist, or be empty.

    Raises:
        InputError: the folder is in use, or Twemoji (`tutored[quickstart]`) is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is in use; --example makes a new folder")
    objects, scenery = load_cutouts("student")
    drawn = {name: objects[known] for name, known in CLASSES.items()}
    labels = {known: number for number, known in enumerate(CLASSES.values(), start=1)}
    with whole_folder(folder) as out:
        for part in ("photos", "boxes", "masks"):
            (out / part).mkdir()
        for index in range(pictures):
            name, kind = f"{index + 1:04d}", DRAWN[index % len(DRAWN)]
            scene = compose(np.random.default_rng([index]), STYLES["student"], SIZE, drawn, scenery, labels)
            write_photo(out / "photos" / f"{name}.jpg", scene)
            if kind in ("both", "boxes"):
                write_boxes(out / "boxes" / f"{name}.xml", scene, tuple(CLASSES))
            if kind in ("both", "masks"):
                write_mask(out / "masks" / f"{name}.png", scene)
        write_text(out / "labels.txt", "".join(f"{name}\n" for name in CLASSES))
        write_text(out / "CREDITS.txt", CREDIT + "\n")
