"""From pictures to the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def preprocess(images: Sequence[Image.Image], size: int) -> Tensor:
    """Resize to a square without keeping the aspect ratio, by PIL's bilinear filter, which averages when it shrinks.

    Returns:
        float32 [B, 3, size, size], RGB in 0..1.
    """
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float() / 255
