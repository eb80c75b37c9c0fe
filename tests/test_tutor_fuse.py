"""Several answers made one: weighted box fusion, means of maps and masks, and test-time augmentation."""

import numpy as np
import pytest
import torch
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import get_model
from torchvision.ops import box_iou

from made import ask_boxes, ask_map, blank, noise
from test_tutor_stores import PETS, detected
from tutored.errors import InputError
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import TorchvisionOptions
from tutored.tutors.fuse import Augmented, fuse, mirrored
from tutored.tutors.torchvision import Detector, Segmenter
from tutored.types import SoftLabels

SIZE = (100, 100)
IMAGE = blank(*SIZE)


def answer(*rows):
    return SoftLabels.of(SIZE, detected(*rows, classes=3))


def fuse_boxes(answers, weights, limit=100, floor=0):
    return fuse(answers, weights, limit=limit, floor=floor).tasks["detection"]


def instance(box, mask, score):
    parts = {"boxes_xyxy": torch.tensor([box]), "classes": torch.tensor([1]), "scores": torch.tensor([score])}
    return SoftLabels.of(SIZE, Instances(masks=mask[None], **parts))


def test_fusion_by_hand():
    first = answer(([0, 0, 10, 10], 1, 0.9), ([50, 50, 60, 60], 2, 0.4))
    second = answer(([0, 0, 10, 12], 1, 0.6), ([0, 0, 10, 10], 2, 0.2))
    found = fuse_boxes([first, second], [1, 1])
    # IoU 10 / 12; the mean of 10 and 12, weighted by .9 and .6, is 10.8.
    assert found.boxes_xyxy.tolist() == pytest.approx(np.array([[0, 0, 10, 10.8], [50, 50, 60, 60], [0, 0, 10, 10]]))
    assert found.classes.tolist() == [1, 2, 2]
    assert found.scores.tolist() == pytest.approx([0.75, 0.2, 0.1]), "an answer without the object says background"
    assert found.probs[1].tolist() == pytest.approx([0.8, 0, 0.2])
    heavy = fuse_boxes([first, second], [3, 1], limit=1)
    assert heavy.scores.tolist() == pytest.approx([(3 * 0.9 + 0.6) / 4])
    assert len(fuse_boxes([first, second], [1, 1], floor=0.15).scores) == 2


ROW = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(5, 40)] * 2, st.integers(1, 2), st.integers(1, 99))
TIED = [[(0, 2, 5, 5, 1, 65)], [(1, 0, 5, 5, 1, 32)], [(2, 0, 5, 5, 1, 32)]]
"""The mean of the last two scores is a third of the first one, as the first alone has."""


@settings(deadline=None)
@given(st.lists(st.lists(ROW, max_size=6), min_size=2, max_size=3))
@example(TIED)
def test_fused_boxes_are_those_of_ensemble_boxes(rows):
    taken = set()
    answers = []
    for number, view in enumerate(rows):
        made = []
        for x, y, width, height, index, score in view:
            distinct = score * 3 + number  # ties may be taken in any order
            box = [x, y, x + width, y + height]
            # They fuse an answer's own boxes on one object; see the next test.
            own = torch.tensor([other for other, kind, _ in made if kind == index]).reshape(-1, 4).float()
            if distinct not in taken and not box_iou(torch.tensor([box]).float(), own).any():
                taken.add(distinct)
                made.append((box, index, distinct / 301))
        answers.append(answer(*made))
    found, given_boxes = fuse_boxes(answers, [1.0] * len(answers)), [each.tasks["detection"] for each in answers]
    sides = [((each.boxes_xyxy / 100).numpy(), each.scores.numpy(), each.classes.numpy()) for each in given_boxes]
    theirs = weighted_boxes_fusion(*map(list, zip(*sides, strict=True)))
    ours = torch.cat([found.classes[:, None], found.scores[:, None], found.boxes_xyxy / 100], dim=1)
    expected = np.concatenate([theirs[2][:, None], theirs[1][:, None], theirs[0]], axis=1).astype(np.float32)
    left = list(torch.from_numpy(expected))
    for row in ours:  # one by one: fused scores may tie
        same = [number for number, other in enumerate(left) if torch.allclose(row, other, rtol=0, atol=1e-4)]
        assert same, f"{row.tolist()} is not among {[other.tolist() for other in left]}"
        left.pop(same[0])
    assert not left


@settings(deadline=None)
@given(st.lists(ROW, max_size=8), st.integers(1, 3))
def test_an_answer_fused_with_itself_stays(rows, times):
    boxes = [([x, y, x + width, y + height], index, score / 100) for x, y, width, height, index, score in rows]
    own = answer(*sorted(boxes, key=lambda row: -row[2]))
    found, before = fuse_boxes([own] * times, [1.0] * times), own.tasks["detection"]
    assert found.classes.tolist() == before.classes.tolist()
    assert torch.allclose(found.boxes_xyxy, before.boxes_xyxy) and torch.allclose(found.probs, before.probs)


def test_maps_are_averaged_on_the_finest_grid():
    fine, coarse = torch.zeros(2, 2, 4), torch.zeros(2, 1, 1)
    fine[0], coarse[1] = 1, 1
    answers = [SoftLabels.of(SIZE, SoftMap(map=each)) for each in (fine, coarse)]
    found = fuse(answers, [3, 1], limit=1, floor=0).tasks
    mean = found["segmentation"].map
    assert len(found) == 1 and mean.shape == (2, 2, 4) and mean[:, 1, 3].tolist() == [0.75, 0.25]


def test_masks_are_averaged_in_the_place_where_they_lie():
    left = torch.zeros(28, 28)
    left[:, :14] = 1
    one, other = instance([0.0, 0, 28, 28], left, 0.8), instance([8.0, 0, 36, 28], left, 0.8)
    same = fuse([one, one], [1, 1], limit=9, floor=0).tasks["instances"]
    assert torch.allclose(same.masks[0], left, atol=1e-5) and same.scores.tolist() == pytest.approx([0.8])
    moved = fuse([one, other], [1, 1], limit=9, floor=0).tasks["instances"]
    assert moved.boxes_xyxy.tolist() == [[4, 0, 32, 28]]
    # In the frame from 4 to 32: the first covers 4 to 14, the second 8 to 22.
    assert moved.masks[0, 14, [2, 7, 13, 20]].tolist() == pytest.approx([0.5, 1, 0.5, 0], abs=1e-4)


# Test-time augmentation


class Left:
    """A tutor that sees a cat in the left half, four pixels from the border, and takes one size."""

    labels = PETS

    def __init__(self, **identity):
        self.identity = {"tutor": "left", "score_floor": 0.01} | identity
        self.notes = ()

    def __call__(self, images, image_ids):
        drawn = torch.zeros(3, 1, 4)
        drawn[1, 0, :2] = drawn[0, 0, 2:] = 1
        cat = detected(([4, 10, 44, 90], 1, 0.8), classes=3)
        return [SoftLabels.of(SIZE, cat, SoftMap(map=drawn)) for _ in images]


def test_mirrored_answers_are_mirrored_back():
    found = ask_boxes(Augmented(Left(), flip=True), IMAGE)
    assert found.boxes_xyxy.tolist() == [[4, 10, 44, 90], [56, 10, 96, 90]]
    assert found.scores.tolist() == pytest.approx([0.4, 0.4])
    assert ask_map(Augmented(Left(), flip=True), IMAGE)[1, 0].tolist() == [0.5] * 4
    assert Augmented(Left(), flip=True).identity == Left().identity | {"flip": True, "scales": [1.0]}
    for name in ("max_boxes", "total"):
        assert len(ask_boxes(Augmented(Left(**{name: 1}), flip=True), IMAGE).scores) == 1, "as many as the tutor may"
    with pytest.raises(InputError, match="left takes pictures of one size only"):
        Augmented(Left(), scales=(0.5, 1))
    for scales in ((1, 1), (1, 0), (1, float("inf"))):
        with pytest.raises(InputError, match="different positive numbers"):
            Augmented(Left(), scales=scales)


def test_a_segmenters_scales_are_those_of_its_input():
    torch.manual_seed(0)
    network = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3).eval()
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    tutor, picture = Segmenter(network, PETS.names, {"tutor": "lraspp"}, TorchvisionOptions()), noise(60, 80)
    found = ask_map(Augmented(tutor, flip=True, scales=(0.5, 1.0)), picture)
    assert seen == [(260, 346), (520, 693)] * 2
    sizes = (tutor, tutor.at_scale(0.5))
    flipped = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    views = [ask_map(view, picture) for view in sizes] + [ask_map(view, flipped).flip(-1) for view in sizes]
    assert torch.allclose(found, torch.stack(views).mean(0), atol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_fused_scores_stay_at_most_one(weights):
    sure = detected(([0, 0, 40, 40], 1, 1.0), classes=3)
    masks = {"classes": torch.tensor([1]), "scores": torch.tensor([1.0]), "masks": torch.ones(1, 28, 28)}
    both = SoftLabels.of(SIZE, sure, Instances(boxes_xyxy=sure.boxes_xyxy, **masks))
    found = fuse([both] * len(weights), [float(weight) for weight in weights], limit=9, floor=0).tasks
    assert 1 - 1e-6 < float(found["detection"].scores) <= 1 and 1 - 1e-6 < float(found["instances"].scores) <= 1


def test_a_double_of_one_answer_is_no_second_vote():
    sure, double = ([0, 0, 40, 40], 1, 0.9), ([2, 0, 42, 40], 1, 0.8)
    found = fuse_boxes([answer(sure, double), answer()], [1, 1])
    assert found.scores.tolist() == pytest.approx([0.45, 0.4]), "the other answer found neither"
    found = fuse_boxes([answer(sure, double), answer(sure)], [1, 1])
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert found.boxes_xyxy.tolist() == [[0, 0, 40, 40], [2, 0, 42, 40]]


def test_boxes_without_width_when_mirrored_are_left_out():
    """Between 100 and 100 - 1e-6 float32 knows no number."""
    found = {"boxes_xyxy": torch.tensor([[0, 10, 1e-6, 50], [4, 10, 44, 90]]), "classes": torch.tensor([1, 2])}
    masks = torch.arange(8.0).reshape(2, 2, 2) / 8
    seen = Instances(**found, scores=torch.tensor([0.9, 0.8]), masks=masks)
    probs = torch.tensor([[0.1, 0.9, 0], [0.2, 0, 0.8]])
    turned = mirrored(SoftLabels.of(SIZE, SoftBoxes(**found, probs=probs), seen)).tasks
    boxes, instances = turned["detection"], turned["instances"]
    assert boxes.boxes_xyxy.tolist() == instances.boxes_xyxy.tolist() == [[56, 10, 96, 90]]
    assert boxes.classes.tolist() == instances.classes.tolist() == [2]
    assert torch.equal(boxes.probs, probs[1:]) and instances.scores.tolist() == pytest.approx([0.8])
    assert instances.masks.tolist() == [[[0.625, 0.5], [0.875, 0.75]]]


def test_a_detectors_scales_are_those_of_its_input():
    small = {"weights": None, "weights_backbone": None, "num_classes": 3}
    network = get_model("fasterrcnn_mobilenet_v3_large_320_fpn", min_size=64, max_size=96, **small).eval()
    tutor = Detector(network, PETS.names, {"tutor": "faster"}, TorchvisionOptions())
    scaled = tutor.at_scale(1.5)
    assert scaled.model.transform.min_size == (96,) and scaled.model.transform.max_size == 144
    assert tutor.model.transform.min_size == (64,), "the tutor itself stays"
    assert scaled.model.backbone is tutor.model.backbone, "the weights are shared"
    (found,) = scaled([noise(60, 80)], ["a"])
    assert set(found.tasks) == {"detection"}
    ssd = get_model("ssdlite320_mobilenet_v3_large", **small).eval()
    with pytest.raises(InputError, match="ssd takes pictures of one size only"):
        Augmented(Detector(ssd, PETS.names, {"tutor": "ssd"}, TorchvisionOptions()), scales=(0.75, 1.0))
