"""What kinds of task with classes share: which classes of a source mean nothing where it says background."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def marked(numbers: tuple[int, ...], space: int) -> Tensor:
    """bool [space], true at `numbers`. The same tensor for equal arguments: do not change it."""
    return torch.isin(torch.arange(space), torch.tensor(numbers, dtype=torch.int64))


def unannotated(annotated: tuple[int, ...] | None, space: int) -> Tensor:
    """bool [space]: the object classes that an annotation leaves out; the same tensor for equal arguments."""
    if annotated is None:
        return marked((), space)
    return marked(tuple(number for number in range(1, space) if number not in annotated), space)


def stack_unknown(marks: Sequence[Tensor]) -> Tensor:
    """bool [B, space] of the images' marks; [B, 0] where nothing is unknown, so that the loss need not ask a device."""
    stacked = torch.stack(list(marks))
    return stacked if stacked.any() else stacked[:, :0]
