import pytest
import torch
from torchvision.ops import batched_nms

from tutored import boxes
from tutored.losses.match import match

ANCHORS = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]], dtype=torch.float32)
YES = torch.tensor([[True, True]])


def test_an_anchor_takes_the_box_it_overlaps_by_half():
    box = torch.tensor([[[0, 0, 10, 8]]], dtype=torch.float32)
    matches = match(ANCHORS, box, YES[:, :1])
    assert matches.box.tolist() == [[0, -1, -1, -1]]
    assert not matches.ignored.any()


def test_iou_of_exactly_half_is_enough():
    box = torch.tensor([[[0, 0, 10, 20]]], dtype=torch.float32)
    assert boxes.iou(ANCHORS, box)[0, :, 0].tolist() == [0.5, 0, 0.5, 0]
    assert match(ANCHORS, box, YES[:, :1]).box.tolist() == [[0, -1, 0, -1]]


def test_a_small_box_claims_its_best_anchor():
    small = torch.tensor([[[12, 12, 14, 14]]], dtype=torch.float32)
    assert match(ANCHORS, small, YES[:, :1]).box.tolist() == [[-1, -1, -1, 0]]
    assert match(ANCHORS, small, YES[:, :1], forced_floor=0.05).box.tolist() == [[-1, -1, -1, -1]]


def test_a_claim_overrides_and_the_lowest_index_wins_a_shared_one():
    two = torch.tensor([[[1, 1, 3, 3], [0, 0, 10, 10]]], dtype=torch.float32)
    assert match(ANCHORS, two, YES).box[0, 0] == 0
    assert match(ANCHORS, two.flip(1), YES).box[0, 0] == 0


def test_uncertain_boxes_only_silence_anchors():
    two = torch.tensor([[[0, 0, 10, 10], [10, 0, 20, 10]]], dtype=torch.float32)
    matches = match(ANCHORS, two, torch.tensor([[True, False]]))
    assert matches.box.tolist() == [[0, -1, -1, -1]]
    assert matches.ignored.tolist() == [[False, True, False, False]]


def test_padding_and_no_boxes_leave_every_anchor_negative():
    for padding in (torch.zeros(1, 2, 4), torch.zeros(1, 0, 4)):
        matches = match(ANCHORS, padding, torch.ones(padding.shape[:2], dtype=torch.bool))
        assert (matches.box == -1).all()
        assert not matches.ignored.any()


def test_offsets_by_hand():
    anchor = torch.tensor([[0.0, 0, 10, 20]])
    box = torch.tensor([[1.0, 2, 11, 22]])
    assert torch.allclose(boxes.encode(box, anchor), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    wide = torch.tensor([[-5.0, 0, 15, 20]])
    assert torch.allclose(boxes.encode(wide, anchor), torch.tensor([[0.0, 0.0, 3.4657359, 0.0]]))
    assert torch.allclose(boxes.decode(boxes.encode(wide, anchor), anchor), wide, atol=1e-5)


@pytest.mark.parametrize("count", [900, 3000])
def test_suppression_within_groups_is_torchvisions_ties_included(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 100
    made = torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    groups = torch.randint(0, 5, (count,), generator=generator) * 2
    kept = boxes.nms(made, scores, groups, 0.5)
    assert count / 10 < len(kept) < count * 2 / 3
    assert torch.equal(kept, batched_nms(made, scores, groups, 0.5))
