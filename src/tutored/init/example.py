"""A folder to practise on: made-up pictures, some with boxes, some with masks, as a newcomer might have them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tutored.errors import InputError
from tutored.files import whole_folder, write_encoded, write_text
from tutored.palette import voc_palette
from tutored.scenes import CREDIT
from tutored.scenes.compose import STYLES, Scene, compose
from tutored.scenes.cutouts import load_cutouts

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
            photo = partial(scene.picture.save, format="JPEG", quality=92)
            write_encoded(out / "photos" / f"{name}.jpg", photo)
            if kind in ("both", "boxes"):
                write_text(out / "boxes" / f"{name}.xml", _xml(name, scene))
            if kind in ("both", "masks"):
                mask = Image.fromarray(scene.mask)
                mask.putpalette(voc_palette().tobytes())
                write_encoded(out / "masks" / f"{name}.png", partial(mask.save, format="PNG"))
        write_text(out / "labels.txt", "".join(f"{name}\n" for name in CLASSES))
        write_text(out / "CREDITS.txt", CREDIT + "\n")


def _xml(name: str, scene: Scene) -> str:
    """VOC's XML: pixels count from 1 and a box's last pixel is inside it."""
    names, objects = tuple(CLASSES), ""
    for seen in scene.objects:
        left, top, right, bottom = seen.box_xyxy
        objects += (
            f"  <object>\n    <name>{names[seen.label - 1]}</name>\n    <difficult>{seen.difficult:d}</difficult>\n"
            f"    <bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            "</bndbox>\n  </object>\n"
        )
    return f"<annotation>\n  <filename>{name}.jpg</filename>\n{objects}</annotation>\n"
