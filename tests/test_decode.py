import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutored import boxes
from tutored.config.tasks import Decode
from tutored.geometry import likeliest
from tutored.labels import LabelSpace
from tutored.tasks.detection.decode import keep
from tutored.tasks.segmentation import Segmentation

ANCHORS = torch.tensor([[0.0, 0, 50, 50], [2, 2, 52, 52], [50, 50, 100, 100], [-20, 40, 20, 80]])


def decode(probs, boxes_xyxy, size, config):
    """The final boxes of one image of a network of 100 pixels."""
    return soft_decode(probs, boxes_xyxy, size, config).final()


def soft_decode(probs, boxes_xyxy, size, config):
    ((found, _),) = keep(boxes_xyxy[None], torch.tensor([probs]), [size], config, 100)
    return found


def test_boxes_are_suppressed_within_a_class_and_scaled():
    # Anchors 0 and 1 overlap by 48 x 48 of 50 x 50 each: IoU 2304 / 2696 = .85.
    probs = [[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.25, 0.05, 0.7], [1.0, 0.0, 0.0]]
    found = decode(probs, ANCHORS, (200, 400), Decode(score_floor=0.2))
    assert found.boxes_xyxy.tolist() == [[0, 0, 200, 100], [200, 100, 400, 200]]
    assert found.classes.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])


def test_limits_per_class_and_in_all():
    # Ten boxes side by side, none overlapping; class 1 leads everywhere, class 2 follows.
    anchors = torch.stack([torch.tensor([10.0 * i, 0, 10 * i + 10, 10]) for i in range(10)])
    probs = [[0.2, 0.6 - 0.01 * i, 0.2 + 0.01 * i] for i in range(10)]

    def found(**limits):
        prediction = decode(probs, anchors, (100, 100), Decode(score_floor=0.01, **limits))
        return [(c, round(s, 2)) for c, s in zip(prediction.classes.tolist(), prediction.scores.tolist(), strict=True)]

    assert len(found()) == 20
    assert found(per_class=2) == [(1, 0.6), (1, 0.59), (2, 0.29), (2, 0.28)]
    assert found(per_class=2, total=3) == [(1, 0.6), (1, 0.59), (2, 0.29)]
    assert found(top_k=1) == [(1, 0.6), (2, 0.29)]


MAPS = Segmentation("segmentation", LabelSpace.of(["cat", "dog"]))


def test_the_map_is_enlarged_before_the_best_class_is_taken():
    logits = torch.zeros(2, 1, 2)
    logits[1, 0] = torch.tensor([3.0, -1.0])
    # Half-pixel bilinear from 2 to 8 columns: 3 3 2.5 1.5 .5 -.5 -1 -1, so the border is at five eighths, not half.
    assert likeliest(logits, (2, 8)).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]] * 2


def test_a_student_that_diverged_is_told():
    told = "NaN, so its training diverged; lower train.lr"
    nan = torch.full((1, 1, 3), float("nan"))
    for boxes_xyxy, probs in ((ANCHORS[None, :1], nan), (nan.new_full((1, 1, 4), float("nan")), torch.ones(1, 1, 3))):
        with pytest.raises(FloatingPointError, match=told):
            keep(boxes_xyxy, probs, [(100, 100)], Decode(), 100)
    for ask in (MAPS.decode, MAPS.soften):
        with pytest.raises(FloatingPointError, match=told):
            ask(nan[..., None], [(100, 100)])


def test_a_soft_map_keeps_its_grid_up_to_the_pixels():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2] = torch.tensor(2.0).log()
    (soft,) = MAPS.soften(logits, [(200, 100)])
    torch.testing.assert_close(soft.map[:, 0, 0], torch.tensor([0.25, 0.25, 0.5]))
    (thin,) = MAPS.soften(logits, [(1, 90)])
    assert (soft.map.shape, thin.map.shape) == ((3, 2, 2), (3, 1, 2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 90), width=st.integers(1, 90))
def test_what_is_kept_is_inside_ordered_and_apart(seed, height, width):
    torch.manual_seed(seed)
    corner = torch.rand(60, 2) * 60 - 10
    anchors = torch.cat([corner, corner + torch.rand(60, 2) * 40 + 1], dim=1)
    probs = (torch.randn(1, 60, 4) * 2).softmax(-1)
    config = Decode(score_floor=0.05, per_class=7, total=15)
    found = keep(anchors[None], probs, [(height, width)], config, 50)[0].boxes.final()
    low, high = found.boxes_xyxy[:, :2], found.boxes_xyxy[:, 2:]
    assert bool((low >= 0).all() and (high <= torch.tensor([width, height])).all() and (high > low).all())
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert bool((found.scores > 0.05).all()) and len(found.scores) <= 15
    for number in (1, 2, 3):
        mine = found.boxes_xyxy[found.classes == number]
        assert len(mine) <= 7
        overlap = boxes.iou(mine, mine).fill_diagonal_(0)
        assert not len(mine) or float(overlap.max()) <= 0.45 + 1e-4


def test_two_classes_on_one_anchor_both_stand():
    found = decode([[0.1, 0.5, 0.4]], ANCHORS[:1], (100, 100), Decode(score_floor=0.2))
    assert found.classes.tolist() == [1, 2]


def test_a_box_across_the_border_is_cut_not_shifted():
    found = decode([[0.0, 1.0]], ANCHORS[3:], (100, 100), Decode())
    assert found.boxes_xyxy.tolist() == [[0, 40, 20, 80]]


def test_a_box_outside_the_image_is_dropped():
    outside = torch.tensor([[-30.0, 0, -10, 20], [100, 0, 120, 20]])
    found = decode([[0.0, 1.0], [0.0, 1.0]], outside, (100, 100), Decode())
    assert found.boxes_xyxy.shape == (0, 4)


def test_a_score_at_the_floor_is_out():
    for floor, kept in ((0.5, 0), (0.49, 1)):
        assert len(decode([[0.5, 0.5]], ANCHORS[:1], (100, 100), Decode(score_floor=floor)).scores) == kept


def test_the_best_of_a_class_count_before_suppression():
    # The two best are one object: with top_k 2 the third box is never looked at.
    for top_k, kept in ((2, 1), (3, 2)):
        found = decode([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], ANCHORS[:3], (100, 100), Decode(top_k=top_k))
        assert len(found.scores) == kept


def test_images_of_a_batch_do_not_meet():
    boxes_xyxy, probs = ANCHORS[None, :1].repeat(2, 1, 1), torch.tensor([[[0.1, 0.9]], [[0.2, 0.8]]])
    one, two = (each.boxes.final() for each in keep(boxes_xyxy, probs, [(100, 100), (50, 200)], Decode(), 100))
    assert (one.scores.tolist(), two.scores.tolist()) == (pytest.approx([0.9]), pytest.approx([0.8]))
    assert (one.boxes_xyxy.tolist(), two.boxes_xyxy.tolist()) == ([[0, 0, 50, 50]], [[0, 0, 100, 25]])


def test_nothing_above_the_floor_is_no_boxes():
    found = decode([[1.0, 0.0]], ANCHORS[:1], (10, 10), Decode())
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.classes.dtype == torch.int64


def test_soft_boxes_keep_the_whole_distribution():
    soft = soft_decode([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]], ANCHORS[[0, 2]], (200, 100), Decode(score_floor=0.2))
    assert soft.boxes_xyxy.tolist() == [[0, 0, 50, 100]] * 2
    assert soft.classes.tolist() == [1, 2]
    torch.testing.assert_close(soft.probs, torch.tensor([[0.1, 0.5, 0.4]] * 2))
    torch.testing.assert_close(soft.scores, torch.tensor([0.5, 0.4]))
