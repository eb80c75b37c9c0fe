"""What a person drew for one task, held against a tutor's answer for the other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tutored.config import make_config
from tutored.data.training import TrainingSet
from tutored.data.vetting import boxes_by_mask, map_by_boxes
from tutored.labels import LabelSpace
from tutored.structures import IGNORE, GroundTruth, SoftLabels

SIZE = (4, 8)


def drawn_boxes(*boxes: tuple[int, tuple[float, ...]], **over) -> GroundTruth:
    return GroundTruth(
        size=SIZE,
        boxes_xyxy=torch.tensor([box for _, box in boxes]).reshape(-1, 4),
        classes=torch.tensor([number for number, _ in boxes], dtype=torch.int64),
        difficult=torch.zeros(len(boxes), dtype=torch.bool),
        **over,
    )


def soft_map() -> SoftLabels:
    """Two rows of four cells, each 2 x 2 pixels; everywhere .2 background, .3 of class 1, .4 of class 2."""
    return SoftLabels(size=SIZE, map=torch.tensor([0.2, 0.3, 0.4])[:, None, None].repeat(1, 2, 4))


def test_a_class_teaches_only_where_a_box_of_it_was_drawn() -> None:
    # Class 1: the left half of the upper row. Class 2: from the middle of the second column on, in both rows.
    kept = map_by_boxes(soft_map(), drawn_boxes((1, (0.0, 0.0, 4.0, 2.0)), (2, (3.0, 0.0, 6.0, 4.0)))).map
    upper = [[0.2, 0.3, 0.0], [0.2, 0.3, 0.4], [0.2, 0.0, 0.4], [0.9, 0.0, 0.0]]
    lower = [[0.9, 0.0, 0.0], [0.2, 0.0, 0.4], [0.2, 0.0, 0.4], [0.9, 0.0, 0.0]]
    torch.testing.assert_close(kept.permute(1, 2, 0), torch.tensor([upper, lower]))


def test_an_image_without_objects_is_background_as_surely_as_the_tutor_says_anything() -> None:
    kept = map_by_boxes(soft_map(), drawn_boxes()).map
    assert torch.allclose(kept[0], torch.full((2, 4), 0.9)) and not kept[1:].any()


def test_classes_that_are_not_annotated_may_be_anywhere() -> None:
    kept = map_by_boxes(soft_map(), drawn_boxes(annotated=(1,))).map
    assert kept[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 0.4])


def test_a_box_beyond_the_image_is_taken_as_far_as_it_reaches() -> None:
    kept = map_by_boxes(soft_map(), drawn_boxes((1, (-9.0, -9.0, 1.0, 99.0)))).map
    torch.testing.assert_close(kept[1], torch.tensor([[0.3, 0.0, 0.0, 0.0]] * 2))


def soft_boxes(*boxes: tuple[int, tuple[float, ...]]) -> SoftLabels:
    numbers = torch.tensor([number for number, _ in boxes])
    probs = torch.nn.functional.one_hot(numbers, 3).float() * 0.8
    return SoftLabels(size=SIZE, boxes_xyxy=torch.tensor([box for _, box in boxes]), classes=numbers, probs=probs)


def test_a_box_without_a_pixel_of_its_class_does_not_teach() -> None:
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[0, 0] = 1  # one pixel
    mask[1:, 3] = IGNORE
    mask[:, 6:] = IGNORE
    there, wrong_class, beside, mostly_ignored, a_line_ignored = (
        (1, (0.5, 0.0, 4.0, 4.0)),
        (2, (0.0, 0.0, 3.0, 3.0)),
        (1, (1.0, 0.0, 3.0, 4.0)),
        (2, (5.0, 0.0, 8.0, 4.0)),
        (2, (2.0, 0.0, 4.0, 4.0)),
    )
    answer = soft_boxes(there, wrong_class, beside, mostly_ignored, a_line_ignored)
    kept = boxes_by_mask(answer, GroundTruth(size=SIZE, mask=mask), 0.4)
    assert torch.equal(kept.boxes_xyxy, answer.boxes_xyxy)
    assert kept.scores.tolist() == pytest.approx([0.8, 0.4, 0.4, 0.8, 0.4])
    assert boxes_by_mask(answer, GroundTruth(size=SIZE, mask=mask), 0.9).scores.tolist() == pytest.approx([0.8] * 5)
    partly = boxes_by_mask(answer, GroundTruth(size=SIZE, mask=mask, annotated=(1,)), 0.4)
    assert partly.scores.tolist() == pytest.approx([0.8, 0.8, 0.4, 0.8, 0.8])


@given(st.data())
def test_truth_never_contradicts_itself(data) -> None:
    """Boxes around the objects of a mask, held against that mask, and the mask against these boxes, change nothing."""
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    cells = data.draw(st.lists(st.sampled_from([0, 1, 2, IGNORE]), min_size=height * width, max_size=height * width))
    mask = torch.tensor(cells, dtype=torch.uint8).reshape(height, width)
    boxes, numbers = [], []
    for number in (1, 2):
        rows, columns = (mask == number).nonzero(as_tuple=True)
        if len(rows):
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            numbers.append(number)
    boxes_xyxy, classes = torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(numbers, dtype=torch.int64)
    truth = GroundTruth(
        size=(height, width),
        boxes_xyxy=boxes_xyxy,
        classes=classes,
        difficult=torch.zeros(len(classes), dtype=torch.bool),
        mask=mask,
    )
    one_hot = torch.stack([mask == number for number in range(3)]).float()
    probs = torch.nn.functional.one_hot(classes, 3).float()
    soft = SoftLabels(size=(height, width), boxes_xyxy=boxes_xyxy, classes=classes, probs=probs, map=one_hot)
    assert torch.equal(map_by_boxes(soft, truth).map, one_hot)
    assert torch.equal(boxes_by_mask(soft, truth, 0.0).probs, probs)


class OneImage:
    """A data set of one image with a box of class 1 on its left half and a mask of the same."""

    ids = ("a",)
    name = source = "made-up"

    def __init__(self, labels) -> None:
        self.labels = labels

    def annotated_tasks(self, image_id):
        return frozenset({"detection", "segmentation"})

    def ground_truth(self, image_id):
        mask = torch.zeros(8, 8, dtype=torch.uint8)
        mask[:, :4] = 1
        return GroundTruth(
            size=(8, 8),
            boxes_xyxy=torch.tensor([[0.0, 0.0, 4.0, 8.0]]),
            classes=torch.tensor([1]),
            difficult=torch.tensor([False]),
            mask=mask,
        )

    def image(self, image_id):
        return Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("vetted", "other", "seen"),
    [
        (True, {}, True),
        (True, {"policy": "none"}, True),
        (True, {"hidden": 1.0}, False),
        (True, {"policy": "none", "hidden": 1.0}, False),
        (True, {"policy": "replace", "store": "nowhere"}, False),
        (False, {}, False),
    ],
)
def test_only_ground_truth_that_a_run_may_see_vets(vetted, other, seen) -> None:
    tutor = SoftLabels(
        size=(8, 8),
        boxes_xyxy=torch.tensor([[0.0, 0.0, 4.0, 8.0], [4.0, 0.0, 8.0, 8.0]]),
        classes=torch.tensor([1, 2]),
        probs=torch.tensor([[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]]),
        map=torch.tensor([0.0, 0.0, 1.0])[:, None, None].repeat(1, 8, 8),
    )
    answers = {"detection": {"a": tutor}, "segmentation": {"a": tutor}}

    def taught(name, beside):
        config = make_config(
            {
                "data": {"train": "voc:nowhere"},
                "supervision": {name: {"policy": "replace", "store": "nowhere", "vetted": vetted}, beside: other},
                "augment": {"colour": False, "zoom_out": "never", "crop": False, "flip_share": 0.0},
                "student": {"size": 8},
            }
        )
        return TrainingSet(OneImage(LabelSpace(("background", "a", "b"))), config, 8, answers)[0, 0].tutor

    scores = taught("detection", "segmentation").probs.amax(dim=1)
    # Just under loss.box_floor, .5: anchors on the box are ignored, and do not learn that nothing is there.
    assert scores.tolist() == pytest.approx([0.9, 0.4995 if seen else 0.9])
    assert taught("segmentation", "detection").map[2].sum().item() == (0 if seen else 64)
