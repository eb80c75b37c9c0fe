"""Head and body of animals, a second map beside that of classes, made of class masks and keypoints.

    python examples/keypoints.py convert keypoints.json FOLDER
    python examples/parts.py FOLDER

writes FOLDER/SegmentationPart and FOLDER/parts.txt. A run then has two maps, each with its own classes:

    tasks:
      segmentation: {}
      parts: {kind: segmentation, from: SegmentationPart, labels: parts.txt}

The head is what lies within discs around eyes, ears and nose, and between them; the body is the rest of the animal. Of
an animal of which fewer than `FEWEST` of these are to be seen, and where no class is drawn, nothing is known.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PARTS = ("head", "body")
VOID = 255
OF_HEAD = ("left_eye", "right_eye", "left_ear", "right_ear", "nose")
FEWEST = 3
RADIUS = 0.3
"""Of a disc, as a share of the longest distance between two keypoints of the head."""


def mask_of(classes: np.ndarray, animals: list[dict]) -> np.ndarray:
    """uint8 [H, W]: 1 head, 2 body, 255 unknown, 0 background, of the classes of an image's pixels.

    An animal is of the class that most keypoints of its head lie on, since other objects may be in its box.
    """
    height, width = classes.shape
    parts = np.where(classes == 0, 0, VOID).astype(np.uint8)
    heads = Image.new("L", (width, height))
    pen = ImageDraw.Draw(heads)
    for animal in animals:
        points = [animal["keypoints"][name] for name in OF_HEAD if name in animal["keypoints"]]
        pixels = (classes[min(int(y), height - 1), min(int(x), width - 1)] for x, y in points)
        beneath = [number for number in pixels if 0 < number < VOID]
        if len(points) < FEWEST or not beneath:
            continue
        x1, y1, x2, y2 = (round(side) for side in animal["box"])
        parts[y1:y2, x1:x2][classes[y1:y2, x1:x2] == np.bincount(beneath).argmax()] = 2
        radius = RADIUS * max(np.hypot(x - u, y - v) for x, y in points for u, v in points)
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), 1)
            for u, v in points:
                pen.line((x, y, u, v), 1, max(1, round(radius)))
    parts[(np.asarray(heads) == 1) & (parts == 2)] = 1
    return parts


def make(folder: Path) -> str:
    """Write the masks of all images with keypoints and a class mask. Returns what was made."""
    (folder / "SegmentationPart").mkdir(exist_ok=True)
    (folder / "parts.txt").write_text("\n".join(PARTS) + "\n", encoding="utf-8")
    pixels = np.zeros(VOID + 1, np.int64)
    for path in sorted((folder / "Keypoints").glob("*.json")):
        drawn = folder / "SegmentationClass" / f"{path.stem}.png"
        if drawn.exists():
            mask = mask_of(np.asarray(Image.open(drawn)), json.loads(path.read_text(encoding="utf-8")))
            Image.fromarray(mask).save(folder / "SegmentationPart" / drawn.name)
            pixels += np.bincount(mask.ravel(), minlength=VOID + 1)
    return f"{folder / 'SegmentationPart'}: {pixels[1]:,} pixels of heads, {pixels[2]:,} of bodies"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: parts.py FOLDER")
    print(make(Path(sys.argv[1])))
