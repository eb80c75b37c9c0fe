"""Class maps enlarged to their image, whole and in strips."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tutored.tasks.segmentation import types
from tutored.tasks.segmentation.types import likeliest


def test_classes_meet_where_their_scores_are_equal() -> None:
    """Cell centres lie at 2 and 6 of 8 columns; between them the scores cross at 4."""
    scores = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert likeliest(scores, (1, 8)).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_strips_give_the_same_as_the_whole(h: int, w: int, height: int, width: int, seed: int) -> None:
    scores = torch.randn(4, h, w, generator=torch.Generator().manual_seed(seed))
    whole = likeliest(scores, (height, width))
    usual, types.AT_ONCE = types.AT_ONCE, 3 * 4 * width
    try:
        strips = likeliest(scores, (height, width))
    finally:
        types.AT_ONCE = usual
    assert strips.dtype == torch.uint8 and strips.shape == (height, width)
    assert float((strips != whole).float().mean()) <= 1 / (height * width), "a tie may fall either way"


SIDE = st.integers(1, 24)


@given(st.integers(1, 3), st.integers(2, 9), SIDE, SIDE, SIDE, SIDE, st.integers(0, 99), st.booleans())
def test_a_map_of_a_batch_gives_its_pixels_in_any_layout(
    count: int, classes: int, h: int, w: int, height: int, width: int, seed: int, last: bool
) -> None:
    batch = torch.randn(count, classes, h, w, generator=torch.Generator().manual_seed(seed))
    best = F.interpolate(batch, size=(height, width), mode="bilinear", align_corners=False).topk(2, dim=1)
    layout = batch.contiguous(memory_format=torch.channels_last) if last else batch
    found = torch.stack([likeliest(scores, (height, width)) for scores in layout])
    tie = best.values[:, 0] - best.values[:, 1] < 1e-6
    assert torch.equal(found[~tie], best.indices[:, 0][~tie].to(torch.uint8)), "only a tie may fall either way"


def test_a_slice_of_a_channels_last_batch_is_enlarged_fast() -> None:
    """Its classes lie side by side, but PyTorch's kernels see that by the strides of a batch alone."""
    batch = torch.randn(3, 21, 16, 16).contiguous(memory_format=torch.channels_last)
    for scores in (batch[1], batch.contiguous()[1]):
        packed = types.channels_last(scores)
        assert packed.stride() == (16 * 16 * 21, 1, 16 * 21, 21)
        assert torch.equal(packed[0], scores)
        enlarged = F.interpolate(packed, size=(40, 50), mode="bilinear", align_corners=False)
        assert enlarged.stride() == (40 * 50 * 21, 1, 50 * 21, 21), "the kernel took the layout"
