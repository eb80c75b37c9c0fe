"""What "background" may mean for a source that does not know every class."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_unknown(log_probs: Tensor, unknown: Tensor, *, dim: int) -> Tensor:
    """Let background stand for itself or any class the source knows nothing about.

    Where a source says "background", the student is right with any of background and the unknown classes, so the
    log-probability of channel 0 becomes that of their union; the other channels stay. With nothing unknown, nothing
    changes; where that is known beforehand, it costs nothing.

    Args:
        log_probs: float32, classes along `dim`.
        unknown: bool, broadcastable to `log_probs`; background itself counts as included. Nothing along `dim`: nothing
            is unknown.
    """
    if unknown.shape[dim] == 0:
        return log_probs
    known = ~unknown
    known.select(dim, 0).fill_(False)
    union = log_probs.masked_fill(known, float("-inf")).logsumexp(dim=dim, keepdim=True)
    return torch.cat([union, log_probs.narrow(dim, 1, log_probs.shape[dim] - 1)], dim=dim)
