"""Scale a data set in VOC's layout to a long side of 256: `python shrink.py FROM TO`."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PIL import Image

SIDE = 256
QUALITY = 82


def shrink(source: Path, target: Path, name: str) -> None:
    picture = Image.open(source / "JPEGImages" / f"{name}.jpg").convert("RGB")
    width, height = picture.size
    factor = SIDE / max(width, height)
    size = round(width * factor), round(height * factor)
    smaller = picture.resize(size, Image.Resampling.BICUBIC)
    smaller.save(target / "JPEGImages" / f"{name}.jpg", quality=QUALITY, optimize=True)
    mask = Image.open(source / "SegmentationClass" / f"{name}.png")
    mask.resize(size, Image.Resampling.NEAREST).save(target / "SegmentationClass" / f"{name}.png", optimize=True)
    tree = ElementTree.parse(source / "Annotations" / f"{name}.xml")
    scales = {"x": size[0] / width, "y": size[1] / height}
    for field, length in zip(("width", "height"), size, strict=True):
        tree.find(f"size/{field}").text = str(length)  # type: ignore[union-attr]
    for box in tree.iter("bndbox"):
        for corner in box:
            # VOC's pixels count from 1, the last one belongs to the box.
            first = int(corner.tag.endswith("min"))
            corner.text = f"{(float(corner.text or 0) - first) * scales[corner.tag[0]] + first:.2f}"
    tree.write(target / "Annotations" / f"{name}.xml")


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    for folder in ("JPEGImages", "SegmentationClass", "Annotations"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "ImageSets", target / "ImageSets", dirs_exist_ok=True)
    for picture in sorted((source / "JPEGImages").glob("*.jpg")):
        shrink(source, target, picture.stem)


if __name__ == "__main__":
    main()
