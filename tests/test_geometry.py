import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as colour

from tutored.config import Augment
from tutored.data.training import jitter_colour
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
    image, (rows, columns) = whole((30, 50), 20).image(picture)
    expected = np.array(picture.resize((20, 20), Image.Resampling.BILINEAR))
    assert (rows, columns) == (slice(0, 20), slice(0, 20))
    assert (image.permute(1, 2, 0).numpy() == expected).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(20, 60), st.booleans())
def test_one_geometry_moves_image_mask_map_and_boxes_together(seed, height, width, zoom_out):
    rng = random.Random(seed)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    x1, y1 = rng.randrange(0, width - 12), rng.randrange(0, height - 12)
    x2, y2 = x1 + rng.randrange(8, 12), y1 + rng.randrange(8, 12)
    mask[y1:y2, x1:x2] = 1
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    geometry = draw_geometry((height, width), box, 64, Augment(), rng, zoom_out=zoom_out)

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

    picture = Image.fromarray((one_hot[1].numpy() * 255).astype(np.uint8)).convert("RGB")
    image, _ = geometry.image(picture)
    mine = moved_mask == 1
    object_pixels = image[0][mine & (torch.nn.functional.avg_pool2d(mine.float()[None], 5, 1, 2)[0] > 0.999)]
    assert len(object_pixels) == 0 or object_pixels.min() > 200


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
        difference = (jitter_colour(image, random.Random(seed)) - 255 * expected).abs()
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


def test_colour_moves_colours_only_and_by_the_seed():
    image = torch.randint(0, 255, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    once = jitter_colour(image, random.Random(3))
    assert once.shape == image.shape
    assert once.dtype == torch.uint8
    assert (once == jitter_colour(image, random.Random(3))).all()
    assert (once != image).any()
