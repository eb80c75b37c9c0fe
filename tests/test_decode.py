from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutored import boxes
from tutored.config import Decode
from tutored.structures import Outputs
from tutored.student import decode, soft_decode

ANCHORS = torch.tensor([[0.0, 0, 50, 50], [2, 2, 52, 52], [50, 50, 100, 100], [-20, 40, 20, 80]])


def outputs(probs: list[list[float]], anchors: Tensor = ANCHORS, map_logits: Tensor | None = None) -> Outputs:
    """One image whose boxes are the anchors themselves, with these class distributions."""
    logits = torch.tensor([probs]).log()
    if map_logits is None:
        map_logits = torch.zeros(1, logits.shape[-1], 2, 2)
    return Outputs(anchors, torch.zeros(1, len(anchors), 4), logits, map_logits)


def test_boxes_are_suppressed_within_a_class_and_scaled_to_the_image() -> None:
    # Anchors 0 and 1 overlap by 48 x 48 of 50 x 50 each: IoU 2304 / 2696 = .85.
    answer = outputs([[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.25, 0.05, 0.7], [1.0, 0.0, 0.0]])
    (found,) = decode(answer, [(200, 400)], Decode(score_floor=0.2), 100)
    assert found.size == (200, 400)
    assert found.boxes_xyxy is not None and found.classes is not None and found.scores is not None
    assert found.boxes_xyxy.tolist() == [[0, 0, 200, 100], [200, 100, 400, 200]]
    assert found.classes.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])


def test_two_classes_on_one_anchor_both_stand() -> None:
    answer = outputs([[0.1, 0.5, 0.4]], ANCHORS[:1])
    (found,) = decode(answer, [(100, 100)], Decode(score_floor=0.2), 100)
    assert found.classes is not None and found.classes.tolist() == [1, 2]


def test_a_box_across_the_border_is_cut_not_shifted() -> None:
    (found,) = decode(outputs([[0.0, 1.0]], ANCHORS[3:]), [(100, 100)], Decode(), 100)
    assert found.boxes_xyxy is not None
    assert found.boxes_xyxy.tolist() == [[0, 40, 20, 80]]


def test_a_box_outside_the_image_is_dropped() -> None:
    outside = torch.tensor([[-30.0, 0, -10, 20], [100, 0, 120, 20]])
    (found,) = decode(outputs([[0.0, 1.0], [0.0, 1.0]], outside), [(100, 100)], Decode(), 100)
    assert found.boxes_xyxy is not None and found.boxes_xyxy.shape == (0, 4)


def test_offsets_move_and_stretch_the_anchor() -> None:
    answer = outputs([[0.0, 1.0]], torch.tensor([[40.0, 40, 60, 60]]))
    # Centre 50 + 1 x .1 x 20 = 52; width 20 x exp(.2 x ln(2) / .2) = 40.
    deltas = torch.tensor([[[1.0, 0.0, torch.log(torch.tensor(2.0)) / 0.2, 0.0]]])
    (found,) = decode(answer._replace(deltas=deltas), [(100, 100)], Decode(), 100)
    assert found.boxes_xyxy is not None
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor([[32.0, 40, 72, 60]]))


def test_a_score_at_the_floor_is_out() -> None:
    answer = outputs([[0.5, 0.5]], ANCHORS[:1])
    for floor, kept in ((0.5, 0), (0.49, 1)):
        (found,) = decode(answer, [(100, 100)], Decode(score_floor=floor), 100)
        assert found.scores is not None and len(found.scores) == kept


def test_limits_per_class_and_in_all() -> None:
    # Ten boxes side by side, none overlapping; class 1 leads everywhere, class 2 follows.
    anchors = torch.stack([torch.tensor([10.0 * i, 0, 10 * i + 10, 10]) for i in range(10)])
    answer = outputs([[0.2, 0.6 - 0.01 * i, 0.2 + 0.01 * i] for i in range(10)], anchors)

    def found(**limits: int) -> list[tuple[int, float]]:
        (prediction,) = decode(answer, [(100, 100)], Decode(score_floor=0.01, **limits), 100)
        assert prediction.classes is not None and prediction.scores is not None
        return [(c, round(s, 2)) for c, s in zip(prediction.classes.tolist(), prediction.scores.tolist(), strict=True)]

    assert len(found()) == 20
    assert found(per_class=2) == [(1, 0.6), (1, 0.59), (2, 0.29), (2, 0.28)]
    assert found(per_class=2, total=3) == [(1, 0.6), (1, 0.59), (2, 0.29)]
    assert found(top_k=1) == [(1, 0.6), (2, 0.29)]


def test_the_best_of_a_class_count_before_suppression() -> None:
    # The two best are one object: with top_k 2 the third box is never looked at.
    answer = outputs([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], ANCHORS[:3])
    for top_k, kept in ((2, 1), (3, 2)):
        (found,) = decode(answer, [(100, 100)], Decode(top_k=top_k), 100)
        assert found.scores is not None and len(found.scores) == kept


def test_the_map_is_enlarged_before_the_best_class_is_taken() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0] = torch.tensor([3.0, -1.0])
    (found,) = decode(outputs([[1.0, 0.0]], ANCHORS[:1], logits), [(2, 8)], Decode(), 100)
    # Half-pixel bilinear from 2 to 8 columns: 3 3 2.5 1.5 .5 -.5 -1 -1, so the border is at five eighths, not half.
    assert found.mask is not None and found.mask.dtype == torch.uint8
    assert found.mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]] * 2


def test_images_of_a_batch_do_not_meet() -> None:
    one, two = outputs([[0.1, 0.9]], ANCHORS[:1]), outputs([[0.2, 0.8]], ANCHORS[:1])
    both = Outputs(one.anchors_xyxy, *(torch.cat(pair) for pair in zip(one[1:], two[1:], strict=True)))
    found = decode(both, [(100, 100), (50, 200)], Decode(), 100)
    assert [prediction.scores.tolist() for prediction in found if prediction.scores is not None] == [
        pytest.approx([0.9]),
        pytest.approx([0.8]),
    ]
    assert [prediction.boxes_xyxy.tolist() for prediction in found if prediction.boxes_xyxy is not None] == [
        [[0, 0, 50, 50]],
        [[0, 0, 100, 25]],
    ]


def test_nothing_above_the_floor_is_no_boxes_not_none() -> None:
    (found,) = decode(outputs([[1.0, 0.0]], ANCHORS[:1]), [(10, 10)], Decode(), 100)
    assert found.boxes_xyxy is not None and found.boxes_xyxy.shape == (0, 4)
    assert found.classes is not None and found.classes.dtype == torch.int64


@pytest.mark.parametrize("name", ["deltas", "logits", "map_logits"])
def test_a_student_that_diverged_is_no_student_that_finds_nothing(name: str) -> None:
    answer = outputs([[0.1, 0.8, 0.1]], ANCHORS[:1])
    broken = answer._replace(**{name: torch.full_like(getattr(answer, name), float("nan"))})
    for ask in (decode, soft_decode):
        with pytest.raises(FloatingPointError, match="no numbers, so its training diverged; lower train.lr"):
            ask(broken, [(100, 100)], Decode(), 100)


def test_soft_labels_keep_the_distribution_and_the_map_s_own_grid() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2] = torch.tensor(2.0).log()
    answer = outputs([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]], ANCHORS[[0, 2]], logits)
    (soft,) = soft_decode(answer, [(200, 100)], Decode(score_floor=0.2), 100)
    assert soft.boxes_xyxy is not None and soft.classes is not None and soft.probs is not None and soft.map is not None
    assert soft.size == (200, 100)
    assert soft.boxes_xyxy.tolist() == [[0, 0, 50, 100]] * 2
    assert soft.classes.tolist() == [1, 2]
    torch.testing.assert_close(soft.probs, torch.tensor([[0.1, 0.5, 0.4]] * 2))
    torch.testing.assert_close(soft.scores, torch.tensor([0.5, 0.4]))
    assert soft.map.shape == (3, 2, 2)
    torch.testing.assert_close(soft.map[:, 0, 0], torch.tensor([0.25, 0.25, 0.5]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 90), width=st.integers(1, 90))
def test_what_is_kept_is_inside_ordered_and_apart(seed: int, height: int, width: int) -> None:
    torch.manual_seed(seed)
    corner = torch.rand(60, 2) * 60 - 10
    anchors = torch.cat([corner, corner + torch.rand(60, 2) * 40 + 1], dim=1)
    answer = Outputs(anchors, torch.randn(1, 60, 4), torch.randn(1, 60, 4) * 2, torch.randn(1, 4, 3, 3))
    config = Decode(score_floor=0.05, per_class=7, total=15)
    (found,) = decode(answer, [(height, width)], config, 50)
    assert found.boxes_xyxy is not None and found.classes is not None and found.scores is not None
    low, high = found.boxes_xyxy[:, :2], found.boxes_xyxy[:, 2:]
    assert bool((low >= 0).all() and (high <= torch.tensor([width, height])).all() and (high > low).all())
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert bool((found.scores > 0.05).all()) and len(found.scores) <= 15
    for number in (1, 2, 3):
        mine = found.boxes_xyxy[found.classes == number]
        assert len(mine) <= 7
        overlap = boxes.iou(mine, mine).fill_diagonal_(0)
        assert not len(mine) or float(overlap.max()) <= 0.45 + 1e-4
