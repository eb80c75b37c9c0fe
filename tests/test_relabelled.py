"""A data set seen in another label space: what is dropped, what is renamed, and what counts as not annotated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from tutored.data.relabelled import relabelled
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import GroundTruth

DOG, CAT = 1, 2


class Made:
    """One image of 4 x 1 pixels with a dog, a difficult cat, and the mask dog, cat, background, ignore."""

    name, source, split, notes = "made", "voc:made", "train", ("a note",)
    labels = LabelSpace.of(("dog", "cat", "tvmonitor"))
    ids = ("a", "boxes", "mask")

    def image(self, image_id: str) -> Image.Image:
        return Image.new("RGB", (4, 1))

    def problems(self, image_id: str) -> tuple[str, ...]:
        return (f"{image_id} is broken",)

    def ground_truth(self, image_id: str) -> GroundTruth:
        boxes = {
            "boxes_xyxy": torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]]),
            "classes": torch.tensor([DOG, CAT]),
            "difficult": torch.tensor([False, True]),
        }
        mask = {"mask": torch.tensor([[DOG, CAT, 0, 255]], dtype=torch.uint8)}
        return GroundTruth(size=(1, 4), **{"a": boxes | mask, "boxes": boxes, "mask": mask}[image_id])


def test_what_the_inner_data_set_says_of_itself_is_passed_on() -> None:
    seen = relabelled(Made(), None, ("cat",))
    assert (seen.name, seen.source, seen.split, seen.notes) == ("made", "voc:made", "train", ("a note",))
    assert seen.problems("a") == ("a is broken",)


def truth_of(annotated: tuple[str, ...] | None, classes: tuple[str, ...] | None, image_id: str = "a") -> GroundTruth:
    return relabelled(Made(), annotated, classes).ground_truth(image_id)


def test_with_nothing_asked_the_data_set_stays_what_it_is() -> None:
    dataset = Made()
    assert relabelled(dataset, None, None) is dataset
    assert relabelled(dataset, None, ("dog", "cat", "tvmonitor")) is dataset


def test_what_is_not_annotated_is_dropped_and_said() -> None:
    truth = truth_of(("dog",), None)
    assert truth.annotated == (DOG,)
    assert truth.classes.tolist() == [DOG] and truth.boxes_xyxy.tolist() == [[0, 0, 1, 1]]
    assert truth.mask.tolist() == [[DOG, 0, 0, 255]]


def test_classes_are_matched_by_name_and_alias() -> None:
    dataset = relabelled(Made(), None, ("tv", "cat"))
    assert dataset.labels.names == ("background", "tv", "cat")
    assert (dataset.name, dataset.ids, dataset.image("a").size) == ("made", ("a", "boxes", "mask"), (4, 1))
    truth = dataset.ground_truth("a")
    assert truth.annotated is None
    assert truth.classes.tolist() == [2] and truth.difficult.tolist() == [True]
    assert truth.boxes_xyxy.tolist() == [[1, 0, 2, 1]] and truth.mask.tolist() == [[0, 2, 0, 255]]


def test_classes_that_the_data_set_lacks_are_not_annotated() -> None:
    truth = truth_of(None, ("zebra", "dog", "cat"))
    assert truth.annotated == (2, 3)
    assert truth.classes.tolist() == [2, 3] and truth.mask.tolist() == [[2, 3, 0, 255]]
    both = truth_of(("cat", "tvmonitor"), ("zebra", "dog", "cat"))
    assert both.annotated == (3,)
    assert both.classes.tolist() == [3] and both.mask.tolist() == [[0, 3, 0, 255]]


def test_a_class_is_annotated_only_if_all_that_fold_into_it_are() -> None:
    class Both(Made):
        labels = LabelSpace.of(("dog", "tv", "tvmonitor"))

    assert relabelled(Both(), ("dog", "tv"), ("dog", "tv")).ground_truth("a").annotated == (1,)
    assert relabelled(Both(), ("tv", "tvmonitor"), ("dog", "tv")).ground_truth("a").annotated == (2,)


def test_missing_boxes_and_masks_stay_missing() -> None:
    assert truth_of(("dog",), None, "mask").boxes_xyxy is None
    assert truth_of(("dog",), None, "mask").annotated == (DOG,)
    assert truth_of(("dog",), None, "boxes").mask is None
    assert truth_of(("tvmonitor",), None, "boxes").boxes_xyxy.shape == (0, 4)


class Many(Made):
    """The same among 300 classes, its boxes of the classes 255 and 300."""

    labels = LabelSpace.of([f"c{number}" for number in range(1, 301)])

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return ("detection", "segmentation")

    def ground_truth(self, image_id: str) -> GroundTruth:
        return replace(super().ground_truth("a"), classes=torch.tensor([255, 300]))


def test_boxes_may_be_of_more_classes_than_a_mask_tells_apart() -> None:
    few = relabelled(Many(), None, ("c2", "c300"))
    truth = few.ground_truth("a")
    assert truth.classes.tolist() == [2] and truth.boxes_xyxy.tolist() == [[1, 0, 2, 1]]
    assert truth.mask.tolist() == [[0, 1, 0, 255]]
    assert relabelled(Many(), None, ("c255",)).ground_truth("a").classes.tolist() == [1]
    assert few.annotated_tasks("a") == ("detection", "segmentation")
    many = relabelled(Many(), ("c1", "c300"), None)
    assert many.ground_truth("a").classes.tolist() == [300] and many.ground_truth("a").annotated == (1, 300)
    assert many.ground_truth("a").mask is None and many.annotated_tasks("a") == ("detection",)


def test_unknown_and_repeated_names_are_refused() -> None:
    with pytest.raises(InputError, match="unknown class 'dgo'; did you mean dog"):
        truth_of(("dgo",), None)
    with pytest.raises(InputError, match=r"made: none of its classes \(dog, cat, tvmonitor\) is one of zebra, giraffe"):
        truth_of(None, ("zebra", "giraffe"))
    with pytest.raises(InputError, match=r"classes cat, cat: .* twice: cat"):
        truth_of(None, ("cat", "cat"))
