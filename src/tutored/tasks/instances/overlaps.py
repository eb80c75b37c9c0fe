"""How far final masks and outlined objects overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutored.types import IGNORE


def mask_overlaps(masks: Tensor, truth: Tensor, difficult: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union, and the same with the share of a mask inside an object where that is difficult.

    Pixels of an object that nobody knows (255) are left out of both, so that an object's mask is neither right nor
    wrong there. What has no pixel overlaps nothing.

    Args:
        masks: bool [K, H, W].
        truth: uint8 [G, H, W], as in `Objects`.
        difficult: bool [G].

    Returns:
        float64 [K, G] each.
    """
    found = masks.flatten(1).numpy()
    plain = np.zeros((len(found), len(truth)))
    inside = plain.copy()
    for column, each in enumerate(truth.flatten(1).numpy()):
        seen = found[:, each != IGNORE]
        drawn = each[each != IGNORE] == 1
        shared, area = (seen & drawn).sum(axis=1), seen.sum(axis=1)
        plain[:, column] = shared / np.maximum(area + drawn.sum() - shared, 1)
        inside[:, column] = shared / np.maximum(area, 1) if difficult[column] else plain[:, column]
    return plain, inside
