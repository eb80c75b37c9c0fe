"""Photographs as small files, for a machine to which little can be sent: `python recode.py FROM TO`.

The pixels' number stays; the files' names do too, a reader goes by the content. Says at the end how far the pixels are
from what they were, scaled to the student's size.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 72
SEEN = 160, 160


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    apart = []
    for path in sorted(source.glob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        picture.save(target / path.name, "WEBP", quality=QUALITY, method=6)
        before, after = (
            np.asarray(each.resize(SEEN, Image.Resampling.BILINEAR), dtype=np.float64)
            for each in (picture, Image.open(target / path.name).convert("RGB"))
        )
        apart.append(float(np.abs(before - after).mean()))
    print(f"{len(apart)} photographs, {statistics.mean(apart):.1f} of 255 apart at {SEEN[0]} pixels on average")


if __name__ == "__main__":
    main()
