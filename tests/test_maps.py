"""Class maps enlarged to their image, whole and in strips."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tutored import geometry
from tutored.geometry import likeliest


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_strips_give_the_same_as_the_whole(h, w, height, width, seed):
    scores = torch.randn(4, h, w, generator=torch.Generator().manual_seed(seed))
    whole = likeliest(scores, (height, width))
    usual, geometry.AT_ONCE = geometry.AT_ONCE, 3 * 4 * width
    try:
        strips = likeliest(scores, (height, width))
    finally:
        geometry.AT_ONCE = usual
    assert strips.dtype == torch.uint8 and strips.shape == (height, width)
    assert float((strips != whole).float().mean()) <= 1 / (height * width), "a tie may fall either way"


SIDE = st.integers(1, 24)


@given(st.integers(1, 3), st.integers(2, 9), SIDE, SIDE, SIDE, SIDE, st.integers(0, 99), st.booleans(), st.booleans())
def test_a_map_of_a_batch_gives_its_pixels_in_any_layout(count, classes, h, w, height, width, seed, last, sure):
    batch = torch.randn(count, classes, h, w, generator=torch.Generator().manual_seed(seed))
    if sure:  # of most classes it is known beforehand that they are nowhere
        batch[:, :2] += 3.0
    best = F.interpolate(batch, size=(height, width), mode="bilinear", align_corners=False).topk(2, dim=1)
    layout = batch.contiguous(memory_format=torch.channels_last) if last else batch
    found = torch.stack([likeliest(scores, (height, width)) for scores in layout])
    tie = best.values[:, 0] - best.values[:, 1] < 1e-6
    assert torch.equal(found[~tie], best.indices[:, 0][~tie].to(torch.uint8)), "only a tie may fall either way"


def test_of_equal_scores_the_first_class_is_taken():
    scores = torch.stack([torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 3)])
    assert likeliest(scores, (5, 7)).unique().tolist() == [1]
    assert likeliest(torch.zeros(3, 2, 3), (5, 7)).unique().tolist() == [0]
