import random
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as colour

from tutored.config import Augment
from tutored.data.training import change_colours, change_colours_in_steps
from tutored.geometry import Geometry, draw_geometry, whole


def test_boxes_by_hand():
    geometry = Geometry((10.0, 0.0, 30.0, 40.0), flip=False, size=80)
    moved, kept = geometry.boxes(torch.tensor([[12.0, 10, 20, 20], [0, 0, 12, 40], [29.8, 0, 40, 1]]))
    assert moved.tolist() == [[8, 20, 40, 40], [0, 0, 8, 80], [79.19999694824219, 0, 80, 2]]
    assert kept.tolist() == [True, False, False]
    flipped, _ = Geometry((10.0, 0.0, 30.0, 40.0), flip=True, size=80).boxes(torch.tensor([[12.0, 10, 20, 20]]))
    assert flipped.tolist() == [[40, 20, 72, 40]]


def test_whole_image_is_a_plain_resize():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    expected = np.array(picture.resize((20, 20), Image.Resampling.BILINEAR))
    for on_pixels, most in ((False, 0), (True, 1)):
        image = replace(whole((30, 50), 20), on_pixels=on_pixels).image(torch.from_numpy(np.array(picture)))
        assert abs(image.numpy() - expected.astype(int)).max() <= most


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(20, 60), st.booleans(), st.booleans())
def test_one_geometry_moves_image_mask_map_and_boxes_together(seed, height, width, zoom_out, as_specified):
    rng = random.Random(seed)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    x1, y1 = rng.randrange(0, width - 12), rng.randrange(0, height - 12)
    x2, y2 = x1 + rng.randrange(8, 12), y1 + rng.randrange(8, 12)
    mask[y1:y2, x1:x2] = 1
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    augment = Augment(as_specified=as_specified)
    geometry = draw_geometry((height, width), box, 64, augment, rng, zoom_out=zoom_out)

    moved_mask = geometry.nearest(mask, 64, outside=255)
    one_hot = torch.nn.functional.one_hot(mask.long(), 2).permute(2, 0, 1).float()
    moved_map = geometry.soft_map(one_hot, (height, width), 64)
    inside = geometry.inside((height, width), 64)
    assert (moved_map.argmax(0)[inside] == moved_mask[inside].long()).all()
    assert (moved_mask[~inside] == 255).all()
    assert (moved_map.sum(0) == inside.float()).all()

    moved_box, kept = geometry.boxes(box)
    if kept[0]:
        rows, columns = torch.where(moved_mask == 1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (seen - moved_box[0]).abs().max() <= 1.0

    picture = (255 * mask)[:, :, None].repeat(1, 1, 3)
    shown = geometry.image(picture, lambda part: part // 3)[:, :, 2]  # padding is 103 there
    assert as_specified or ((shown != 103) == inside).all()  # on whole pixels, it fills all of its cells
    mine = moved_mask == 1
    object_pixels = shown[mine & (torch.nn.functional.avg_pool2d(mine.float()[None], 5, 1, 2)[0] > 0.999)]
    assert len(object_pixels) == 0 or object_pixels.min() > 200 / 3


def test_a_crop_covers_the_share_that_it_drew(monkeypatch):
    monkeypatch.setattr("tutored.geometry.MIN_COVERED", (0.9,))
    guides = torch.tensor([[0.0, 0, 20, 20], [70.0, 70, 100, 100]])
    partly = 0
    for seed in range(100):
        window = draw_geometry((100, 100), guides, 64, Augment(), random.Random(seed), zoom_out=False).window_xyxy
        x1, y1, x2, y2 = window
        covered = [
            max(0, min(x2, c) - max(x1, a)) * max(0, min(y2, d) - max(y1, b)) / ((c - a) * (d - b))
            for a, b, c, d in guides.tolist()
        ]
        assert max(covered) >= 0.9
        partly += min(covered) < 0.9
    assert partly > 50


def test_colours_are_jittered_as_torchvision_does_it():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image[:, :8] = image[:1, :8]  # grey has no hue
    orders = set()
    for seed in range(20):
        rng = random.Random(seed)
        brightness, hue = rng.uniform(-0.125, 0.125), rng.uniform(-0.07, 0.07)
        saturation, contrast = rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)
        order = rng.choice(("bshc", "sbch", "chbs", "hscb"))
        orders.add(order)
        expected = image.float() / 255
        for step in order:
            expected = {
                "b": lambda x, by=brightness: (x + by).clamp(0, 1),
                "s": lambda x, by=saturation: colour.adjust_saturation(x, by),
                "h": lambda x, by=hue: colour.adjust_hue(x, by),
                "c": lambda x, by=contrast: colour.adjust_contrast(x, by),
            }[step](expected)
        found = change_colours_in_steps(image.permute(1, 2, 0), random.Random(seed)).permute(2, 0, 1)
        difference = (found - 255 * expected).abs()
        assert difference.max() < 0.51, f"seed {seed}, order {order}"
    assert len(orders) == 4


def test_soft_map_of_two_cells_by_hand():
    soft = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    out = whole((4, 8), 4).soft_map(soft, (4, 8), 4)
    assert out[0, 0].tolist() == [1.0, 0.75, 0.25, 0.0]
    assert torch.allclose(out.sum(0), torch.ones(4, 4))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_coarse_maps_keep_their_probability(seed):
    rng = random.Random(seed)
    soft = torch.rand(5, 6, 9, generator=torch.Generator().manual_seed(seed)) + 0.01
    soft = soft / soft.sum(0)
    geometry = draw_geometry((48, 72), torch.zeros(0, 4), 40, Augment(), rng, zoom_out=rng.random() < 0.5)
    moved = geometry.soft_map(soft, (48, 72), 20)
    inside = geometry.inside((48, 72), 20).float()
    assert torch.allclose(moved.sum(0), inside, atol=1e-5)


def test_a_crop_covers_a_guide():
    guide = torch.tensor([[40.0, 40, 60, 60]])
    for seed in range(200):
        rng = random.Random(seed)
        x1, y1, x2, y2 = draw_geometry((100, 100), guide, 64, Augment(), rng, zoom_out=False).window_xyxy
        assert 0 <= x1 < x2 <= 100
        assert 0 <= y1 < y2 <= 100
        assert 0.29 <= (x2 - x1) * (y2 - y1) / 100**2 <= 1.001


class Drawn(random.Random):
    """Brightness, hue, saturation and contrast as they are given, in the first order."""

    def __init__(self, *drawn):
        self.drawn = iter(drawn)

    def uniform(self, low, high):
        return next(self.drawn)

    def choice(self, orders):
        return orders[0]


def test_colours_in_one_map_by_hand():
    image = torch.tensor([[[200, 100, 60], [100, 100, 100]]], dtype=torch.uint8)
    for drawn, expected in {
        (0.1, 0, 1, 1): [[225.5, 125.5, 85.5], [125.5, 125.5, 125.5]],
        (0, 1 / 3, 1, 1): [[60, 200, 100], [100, 100, 100]],  # red becomes green
        (0, 0, 0.5, 1): [[162.7, 112.7, 92.7], [100, 100, 100]],  # half way to the pixel's grey, 125.32
        (0, 0, 1, 0.5): [[156.3, 106.3, 86.3], [106.3, 106.3, 106.3]],  # half way to the picture's grey, 112.66
        (0.5, 0, 1, 1): [[255, 227.5, 187.5], [227.5, 227.5, 227.5]],
    }.items():
        assert (change_colours(image, Drawn(*drawn)) - torch.tensor([expected])).abs().max() <= 0.51, drawn


def test_one_map_is_as_steps_where_nothing_is_clipped():
    image = torch.randint(100, 140, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        once, steps = (change(image, random.Random(seed)) for change in (change_colours, change_colours_in_steps))
        assert once.dtype == torch.uint8
        assert (once.float() - steps.float()).abs().max() <= 12, seed  # of 40 levels: the hue turns otherwise
        assert abs(once.float().mean() - steps.float().mean()) <= 4, seed
