"""Photographs as small files, for a machine to which little can be sent: `python recode.py FROM TO`.

The pixels' number stays; the files' names do too, a reader goes by the content.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

QUALITY = 72


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.jpg")):
        Image.open(path).convert("RGB").save(target / path.name, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
