"""VOC's colours, in which masks are written and pictures drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def voc_palette() -> NDArray[np.uint8]:
    """PASCAL VOC's colours, uint8 [256, 3]: a class number's bits, dealt to red, green and blue in turn."""
    numbers = np.arange(256)
    channels = [sum(((numbers >> (3 * bit + first)) & 1) << (7 - bit) for bit in range(3)) for first in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
