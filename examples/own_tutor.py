"""A tutor of one's own: a function from a picture to arrays.

tutored label python:own_tutor:lamps --data voc:FOLDER --split train --out stores/lamps
"""

from __future__ import annotations

from typing import Any

import numpy as np


def lamps(image: np.ndarray) -> dict[str, Any]:
    """Takes what is bright for a lamp: a map, and the box around it. The picture is uint8 [H, W, 3]."""
    bright = image.mean(axis=2) / 255
    rows, columns = np.nonzero(bright > 0.9)
    seen = bool(len(rows))
    return {
        "names": ["background", "lamp"],
        "map": np.stack([1 - bright, bright]),
        "boxes": [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if seen else [],
        "labels": ["lamp"] if seen else [],
        "scores": [0.9] if seen else [],
    }
