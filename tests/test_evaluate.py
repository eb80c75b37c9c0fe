"""Figures against hand-worked numbers, slow references and official code."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.evaluate import Resampled, Result, compare, detection, evaluate, figures, record, resample, table
from tutored.evaluate.result import AP_AREA, AP_COCO, AP_COCO_50, AP_POINTS, IOU
from tutored.labels import LabelSpace
from tutored.structures import GroundTruth, Prediction

LABELS = LabelSpace.of(["cat", "dog", "bird"])
CAT, DOG, BIRD = 1, 2, 3
SIZE = (100, 100)
A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
AWAY = (60, 60, 70, 70)

Row = tuple[Sequence[float], int, float]
Pair = tuple[str, GroundTruth, Prediction]


def truth(rows: Sequence[Row], annotated: tuple[int, ...] | None = None) -> GroundTruth:
    """Rows of box, class and 1 where difficult."""
    return GroundTruth(
        size=SIZE,
        boxes_xyxy=torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor([number for _, number, _ in rows], dtype=torch.int64),
        difficult=torch.tensor([bool(flag) for _, _, flag in rows], dtype=torch.bool),
        annotated=annotated,
    )


def answer(rows: Sequence[Row]) -> Prediction:
    """Rows of box, class and score."""
    return Prediction(
        size=SIZE,
        boxes_xyxy=torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor([number for _, number, _ in rows], dtype=torch.int64),
        scores=torch.tensor([score for _, _, score in rows], dtype=torch.float32),
    )


def boxes_only(objects: Sequence[Row], found: Sequence[Row]) -> Result:
    return evaluate([("a", truth(objects), answer(found))], LABELS)


def cat(result: Result, metric: str = AP_AREA) -> float | None:
    return result.per_class[metric]["cat"]


def maps_only(pairs: Sequence[tuple[list[list[int]], list[list[int]]]], annotated: tuple[int, ...] | None = None):
    for index, (mask, said) in enumerate(pairs):
        drawn, predicted = torch.tensor(mask, dtype=torch.uint8), torch.tensor(said, dtype=torch.uint8)
        size = (drawn.shape[0], drawn.shape[1])
        ground_truth = GroundTruth(size=size, mask=drawn, annotated=annotated)
        yield f"{index}", ground_truth, Prediction(size=size, mask=predicted)


def test_voc_ap_by_hand() -> None:
    # Three objects. Right, wrong, right: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
    result = boxes_only([(A, CAT, 0), (B, CAT, 0), (C, CAT, 0)], [(A, CAT, 0.9), (AWAY, CAT, 0.8), (B, CAT, 0.7)])
    assert cat(result) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # Recalls 0, .1, .2, .3 have precision 1; .4, .5, .6 have 2/3; the rest 0.
    assert cat(result, AP_POINTS) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert result.map_area == cat(result)


def test_the_envelope_lifts_earlier_precision() -> None:
    # Wrong, right: precision 0, 1/2; the envelope is 1/2 from the start.
    result = boxes_only([(A, CAT, 0)], [(AWAY, CAT, 0.9), (A, CAT, 0.8)])
    assert cat(result) == 0.5
    assert cat(result, AP_POINTS) == pytest.approx(0.5)


def test_recall_of_three_in_ten_reaches_the_third_point() -> None:
    objects = [((x, 0, x + 5, 5), CAT, 0.0) for x in range(0, 100, 10)]
    result = boxes_only(objects, [(box, number, 0.9) for box, number, _ in objects[:3]])
    assert cat(result) == pytest.approx(0.3)
    assert cat(result, AP_POINTS) == pytest.approx(4 / 11)


def test_a_second_hit_on_one_object_is_wrong() -> None:
    result = boxes_only([(A, CAT, 0), (B, CAT, 0)], [(A, CAT, 0.9), (A, CAT, 0.8), (B, CAT, 0.7)])
    assert cat(result) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_only_the_object_overlapped_most_can_be_found() -> None:
    # The second box overlaps the second object by 6/14 and more than half of the first, which is taken.
    objects = [((0, 0, 10, 10), CAT, 0.0), ((6, 0, 16, 10), CAT, 0.0)]
    result = boxes_only(objects, [((0, 0, 10, 10), CAT, 0.9), ((2, 0, 12, 10), CAT, 0.8)])
    assert cat(result) == pytest.approx(1 / 2)


@pytest.mark.parametrize(("width", "expected"), [(5.0, 1.0), (4.99, 0.0)])
def test_an_overlap_of_exactly_one_half_is_a_hit(width: float, expected: float) -> None:
    assert cat(boxes_only([(A, CAT, 0)], [((0, 0, width, 10), CAT, 0.9)])) == expected


def test_a_difficult_object_is_neither_gain_nor_loss() -> None:
    objects = [(A, CAT, 0), (B, CAT, 1)]
    found = boxes_only(objects, [(B, CAT, 0.95), (B, CAT, 0.94), (A, CAT, 0.9)])
    missed = boxes_only(objects, [(A, CAT, 0.9)])
    assert cat(found) == cat(missed) == 1
    assert cat(found, AP_COCO) == cat(missed, AP_COCO) == pytest.approx(1)
    assert (found.objects["cat"], found.difficult["cat"]) == (1, 1)


def test_a_box_of_another_class_finds_nothing() -> None:
    result = boxes_only([(A, CAT, 0), (B, DOG, 0)], [(A, DOG, 0.9), (B, DOG, 0.8)])
    assert cat(result) == 0
    assert result.per_class[AP_AREA]["dog"] == 0.5


def test_equal_scores_keep_the_order_of_the_prediction() -> None:
    assert cat(boxes_only([(A, CAT, 0)], [(A, CAT, 0.5), (AWAY, CAT, 0.5)])) == 1
    assert cat(boxes_only([(A, CAT, 0)], [(AWAY, CAT, 0.5), (A, CAT, 0.5)])) == 0.5


def test_the_order_of_images_changes_nothing() -> None:
    right = ("a", truth([(A, CAT, 0)]), answer([(A, CAT, 0.5)]))
    wrong = ("b", truth([]), answer([(A, CAT, 0.5)]))
    assert cat(evaluate([right, wrong], LABELS)) == cat(evaluate([wrong, right], LABELS)) == 1


def test_classes_without_objects_or_detections() -> None:
    # cat: found; dog: an object but no detection; bird: a detection but no object.
    result = boxes_only([(A, CAT, 0), (B, DOG, 0)], [(A, CAT, 0.9), (C, BIRD, 0.9)])
    for metric in (AP_AREA, AP_POINTS, AP_COCO, AP_COCO_50):
        assert result.per_class[metric] == {"cat": pytest.approx(1), "dog": 0, "bird": None}
        assert result.mean(metric) == pytest.approx(1 / 2)
        assert result.untold(metric) == ("bird",)


def test_a_class_with_difficult_objects_only_has_no_figure() -> None:
    result = boxes_only([(A, CAT, 1)], [(A, CAT, 0.9), (AWAY, CAT, 0.9)])
    assert cat(result) is None and cat(result, AP_COCO) is None and result.map_area is None


@pytest.mark.parametrize("found", [[], [(A, CAT, 0.9)]])
def test_a_split_without_objects_does_not_crash(found: list[Row]) -> None:
    result = boxes_only([], found)
    assert result.per_class[AP_AREA] == {"cat": None, "dog": None, "bird": None}
    assert result.map_area is None


def test_not_annotated_is_not_the_same_as_nothing_there() -> None:
    false_alarm = answer([(AWAY, CAT, 0.9)])
    right = ("a", truth([(A, CAT, 0)]), answer([(A, CAT, 0.8)]))
    unknown = evaluate([right, ("b", GroundTruth(size=SIZE), false_alarm)], LABELS)
    empty = evaluate([right, ("b", truth([]), false_alarm)], LABELS)
    assert (cat(unknown), unknown.images_with_boxes, unknown.images) == (1, 1, 2)
    assert (cat(empty), empty.images_with_boxes) == (0.5, 2)


def test_classes_that_an_image_is_not_annotated_for_are_not_counted_there() -> None:
    found = answer([(AWAY, DOG, 0.9), (AWAY, CAT, 0.8), (A, CAT, 0.7)])
    pairs = [("a", truth([(A, CAT, 0)], annotated=(CAT,)), found), ("b", truth([(B, DOG, 0)]), answer([(B, DOG, 0.5)]))]
    result = evaluate(pairs, LABELS)
    assert cat(result) == 0.5
    for metric in (AP_AREA, AP_COCO):
        assert result.per_class[metric]["dog"] == pytest.approx(1)


def grid_boxes() -> st.SearchStrategy[tuple[int, int, int, int]]:
    side = st.tuples(st.integers(0, 5), st.integers(1, 4))
    return st.tuples(side, side).map(lambda s: (s[0][0], s[1][0], s[0][0] + s[0][1], s[1][0] + s[1][1]))


def scenes(most: int = 6) -> st.SearchStrategy[list[Pair]]:
    """Images with boxes on a small grid and scores of few values: ties, halves and double hits abound."""
    objects = st.lists(st.tuples(grid_boxes(), st.integers(1, 3), st.integers(0, 1)), max_size=most)
    found = st.lists(st.tuples(grid_boxes(), st.integers(1, 3), st.sampled_from([0.25, 0.5, 0.75])), max_size=most)
    images = st.lists(st.tuples(objects, found), min_size=1, max_size=4)
    return images.map(lambda all_: [(f"{i}", truth(o), answer(f)) for i, (o, f) in enumerate(all_)])


def slow_voc_ap(pairs: Sequence[Pair], number: int) -> tuple[Fraction, Fraction] | None:
    """The devkit's procedure, one detection at a time, in whole numbers: area, and 11 points."""
    objects = {name: [box for box in zip_rows(truth_) if box[1] == number] for name, truth_, _ in pairs}
    total = sum(not flag for rows in objects.values() for _, _, flag in rows)
    if total == 0:
        return None
    found = [(name, row) for name, _, said in pairs for row in zip_rows(said) if row[1] == number]
    taken: set[tuple[str, int]] = set()
    curve: list[tuple[Fraction, Fraction]] = []
    right = wrong = 0
    for name, (box, _, _) in sorted(found, key=lambda item: -item[1][2]):
        overlaps = [slow_iou(box, other) for other, _, _ in objects[name]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if best is not None and 2 * overlaps[best] >= 1:
            if objects[name][best][2]:
                continue
            hit = (name, best) not in taken
            taken.add((name, best))
        else:
            hit = False
        right, wrong = right + hit, wrong + (not hit)
        curve.append((Fraction(right, total), Fraction(right, right + wrong)))

    def best_from(recall: Fraction) -> Fraction:
        return max((precision for reached, precision in curve if reached >= recall), default=Fraction(0))

    area = sum((best_from(Fraction(k, total)) for k in range(1, total + 1)), Fraction(0)) / total
    return area, sum((best_from(Fraction(k, 10)) for k in range(11)), Fraction(0)) / 11


def zip_rows(side: GroundTruth | Prediction) -> list[tuple[list[float], int, float]]:
    values = side.difficult if isinstance(side, GroundTruth) else side.scores
    assert side.boxes_xyxy is not None and side.classes is not None and values is not None
    return list(zip(side.boxes_xyxy.tolist(), side.classes.tolist(), values.tolist(), strict=True))


def slow_iou(a: Sequence[float], b: Sequence[float]) -> Fraction:
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return Fraction(int(shared), int(union))


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_voc_ap_equals_the_slow_procedure(pairs: list[Pair]) -> None:
    result = evaluate(pairs, LABELS)
    for number, name in enumerate(LABELS.classes, start=1):
        expected = slow_voc_ap(pairs, number)
        got = [result.per_class[metric][name] for metric in (AP_AREA, AP_POINTS)]
        assert got == ([None, None] if expected is None else [pytest.approx(float(value)) for value in expected])


def random_pairs(seed: int, images: int, count: int = 20, whole: bool = False) -> list[Pair]:
    """Six objects and `count` detections an image; `whole`: pixels and tenths of scores."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(images):
        corners = rng.uniform(0, 60, (6, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (6, 2))], axis=1).round(0 if whole else 8)
        classes = rng.integers(1, 4, 6)
        objects = list(zip(boxes.tolist(), classes.tolist(), (rng.random(6) < 0.2).tolist(), strict=True))
        of = rng.integers(0, 6, count)
        near = (boxes[of] + rng.normal(0, 2, (count, 4))).round(0 if whole else 8)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guesses = np.where(rng.random(count) < 0.8, classes[of], rng.integers(1, 4, count))
        scores = rng.random(count).round(1 if whole else 8)
        found = list(zip(near.tolist(), guesses.tolist(), scores.tolist(), strict=True))
        pairs.append((f"{index:03d}", truth(objects), answer(found)))
    return pairs


def coco_items(sides: Sequence[GroundTruth | Prediction], field: str) -> COCO:
    rows = [(index, *row) for index, side in enumerate(sides) for row in zip_rows(side)]
    bound = COCO()
    bound.dataset = {
        "images": [{"id": index} for index in range(len(sides))],
        "categories": [{"id": number} for number in (1, 2, 3)],
        "annotations": [
            {
                "id": item,
                "image_id": index,
                "category_id": number,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": 0,
            }
            | {field: value}
            for item, (index, box, number, value) in enumerate(rows, start=1)
        ],
    }
    bound.createIndex()
    return bound


@pytest.mark.parametrize("count", [20, 500])
@pytest.mark.parametrize("whole", [False, True])
def test_coco_ap_equals_pycocotools(count: int, whole: bool) -> None:
    # Whole numbers make equal scores, equal overlaps and overlaps on a floor; of 500 detections the 100 best of a class
    # count.
    pairs = random_pairs(seed=0, images=40, count=count, whole=whole)
    official = COCOeval(
        coco_items([item for _, item, _ in pairs], "iscrowd"),
        coco_items([item for _, _, item in pairs], "score"),
        "bbox",
    )
    official.evaluate()
    official.accumulate()
    precision = official.eval["precision"][:, :, :, 0, 2]
    result = evaluate(pairs, LABELS)
    assert 0.05 < precision.mean() < 0.95
    for number, name in enumerate(LABELS.classes):
        assert result.per_class[AP_COCO][name] == pytest.approx(precision[:, :, number].mean(), abs=1e-9)
        assert result.per_class[AP_COCO_50][name] == pytest.approx(precision[0, :, number].mean(), abs=1e-9)


def test_of_two_objects_overlapped_alike_coco_takes_the_later() -> None:
    # The first box overlaps either object by 8/12, the second one object wholly and the other by 6/14.
    objects = [((0, 0, 10, 10), CAT, 0.0), ((4, 0, 14, 10), CAT, 0.0)]
    found = [((2, 0, 12, 10), CAT, 0.9), ((0, 0, 10, 10), CAT, 0.8)]
    assert cat(boxes_only(objects, found), AP_COCO_50) == pytest.approx(1)
    # Half of the objects found, all of it right: recalls 0, .01, ..., .5.
    assert cat(boxes_only(objects[::-1], found), AP_COCO_50) == pytest.approx(51 / 101)


def test_iou_by_hand() -> None:
    # background: 2 right of 2 true + 3 said; cat: 2 right of 3 true + 3 said; dog: 1 right of 2 true + 1 said.
    mask = [[0, 0, 1, 1], [255, 1, 2, 2]]
    said = [[0, 0, 1, 1], [2, 0, 2, 1]]
    result = evaluate(maps_only([(mask, said)]), LABELS)
    assert result.per_class == {IOU: {"background": 2 / 3, "cat": 2 / 4, "dog": 1 / 2, "bird": None}}
    assert result.miou == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert result.pixel_accuracy == 5 / 7
    assert result.untold(IOU) == ("bird",)


def test_pixels_of_all_images_are_counted_together() -> None:
    # cat: 1 of 1 in the first image, 0 of 3 in the second: 1/4 together, not the mean of 1 and 0.
    result = evaluate(maps_only([([[1]], [[1]]), ([[1, 1, 1]], [[0, 0, 0]])]), LABELS)
    assert result.per_class[IOU]["cat"] == 1 / 4


def test_classes_restrict_what_is_averaged_not_what_is_counted() -> None:
    # One cat pixel right; one dog pixel called cat: cat's IoU is 1/2, and 1 where dog pixels are left out.
    pairs = list(maps_only([([[0, 1, 2]], [[0, 1, 1]])]))
    result = evaluate(pairs, LABELS, ["cat"])
    assert result.miou == (1 + 1 / 2) / 2
    assert result.miou_others_ignored == 1
    assert result.pixel_accuracy == 2 / 3
    assert result.per_class[IOU]["dog"] == 0
    assert evaluate(pairs, LABELS).miou_others_ignored is None

    boxes = boxes_only([(A, CAT, 0), (B, DOG, 0)], [(A, CAT, 0.9)])
    only_cat = evaluate([("a", truth([(A, CAT, 0), (B, DOG, 0)]), answer([(A, CAT, 0.9)]))], LABELS, ["cat"])
    assert (boxes.map_area, only_cat.map_area) == (0.5, 1)
    assert only_cat.per_class == boxes.per_class


def test_a_map_of_an_image_annotated_for_some_classes() -> None:
    # Only cats are annotated: the dog said in the background may be there; the dog said on the cat is a miss of cat.
    pairs = list(maps_only([([[0, 0, 1, 1]], [[0, 2, 2, 1]])], annotated=(CAT,)))
    result = evaluate(pairs, LABELS)
    assert result.per_class[IOU] == {"background": 1, "cat": 1 / 2, "dog": None, "bird": None}
    assert result.pixel_accuracy == 2 / 3
    other = ("other", *next(iter(maps_only([([[2]], [[2]])])))[1:])
    assert evaluate([*pairs, other], LABELS).per_class[IOU]["dog"] == 1


def test_nothing_but_void_has_no_figure() -> None:
    result = evaluate(maps_only([([[255]], [[1]])]), LABELS)
    assert result.miou is None and result.pixel_accuracy is None


@given(scenes(), st.data())
@settings(max_examples=50, deadline=None)
def test_weights_count_an_image_that_many_times(pairs: list[Pair], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    matches = [detection.match(objects, found, 3) for _, objects, found in pairs]
    # Equal scores within one image stand hit, miss, hit, miss in a repeated split, and hits first in a weighted one.
    assume(all(len(set(item.scores.tolist())) == len(item.scores) for item in matches))
    repeated = [item for item, weight in zip(matches, weights, strict=True) for _ in range(weight)]
    if repeated:
        weighted = detection.voc_ap(detection.rank(matches, 3), np.array(weights))
        np.testing.assert_allclose(weighted, detection.voc_ap(detection.rank(repeated, 3)), rtol=1e-12)


def test_bootstrap_knows_the_binomial() -> None:
    # One object an image; a finds every second one, b all: b - a is 1 - k/100 with k binomial (100, 1/2).
    # The middle 95 % of k are 40 to 60.
    objects = truth([(A, CAT, 0)])
    mask, empty = torch.ones(SIZE, dtype=torch.uint8), torch.zeros(SIZE, dtype=torch.uint8)
    drawn = GroundTruth(
        size=SIZE, boxes_xyxy=objects.boxes_xyxy, classes=objects.classes, difficult=objects.difficult, mask=mask
    )

    def said(finds: bool) -> Prediction:
        boxes = answer([(A, CAT, 0.9)] if finds else [])
        return Prediction(
            size=SIZE,
            boxes_xyxy=boxes.boxes_xyxy,
            classes=boxes.classes,
            scores=boxes.scores,
            mask=mask if finds else empty,
        )

    first = [record(f"{index}", drawn, said(index % 2 == 0), LABELS) for index in range(100)]
    second = [record(f"{index}", drawn, said(True), LABELS) for index in range(100)]
    without, with_all = (
        resample(first, LABELS, samples=2000, seed=1),
        resample(second[::-1], LABELS, samples=2000, seed=1),
    )
    for interval in compare([without], [with_all]).values():
        assert (interval.a, interval.b, interval.difference) == (0.5, 1, 0.5) and interval.verdict == "better"
        assert interval.low == pytest.approx(0.40, abs=0.015)
        assert interval.high == pytest.approx(0.60, abs=0.015)
    same = compare([without], [without])["mIoU"]
    assert same.low == same.high == 0 and same.verdict is None


def test_seeds_widen_the_interval() -> None:
    # No noise of images; three seeds with differences 0, .1 and .2. The mean of three drawn is 0 with
    # probability 1/27 (all zeros), widened by sqrt(3/2): the lower 2.5 % lie there, and so does .1 at the upper end.
    def constant(value: float) -> Resampled:
        return Resampled(np.full((4001, 2), value), "the same")

    interval = compare([constant(0.5)] * 3, [constant(0.5), constant(0.6), constant(0.7)])["mIoU"]
    assert interval.difference == pytest.approx(0.1)
    assert interval.low == pytest.approx(0.1 - 0.1 * 1.5**0.5) and interval.high == pytest.approx(0.1 + 0.1 * 1.5**0.5)
    assert interval.verdict is None


def test_resampled_figures_on_disk(tmp_path) -> None:
    records = [record(*pair, LABELS) for pair in random_pairs(seed=1, images=5)]
    there = resample(records, LABELS, samples=10)
    there.save(tmp_path / "resamples.npz")
    loaded = Resampled.load(tmp_path / "resamples.npz")
    assert loaded.images == there.images
    np.testing.assert_allclose(loaded.values, there.values, rtol=1e-6)
    assert list(compare([there], [there])) == ["mAP_voc_area@.5"]  # no masks: nothing to say of mIoU
    (tmp_path / "resamples.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="no resampled figures"):
        Resampled.load(tmp_path / "resamples.npz")


def test_what_cannot_be_compared() -> None:
    records = [record(*pair, LABELS) for pair in random_pairs(seed=1, images=5)]
    here = resample(records, LABELS, samples=10)
    with pytest.raises(InputError, match="different images"):
        compare([here], [resample(records[1:], LABELS, samples=10)])
    with pytest.raises(InputError, match="1 runs against 2"):
        compare([here], [here, here])


def test_records_and_evaluate_say_the_same() -> None:
    pairs = random_pairs(seed=2, images=10)
    assert figures([record(*pair, LABELS) for pair in pairs[::-1]], LABELS) == evaluate(iter(pairs), LABELS)


@pytest.mark.parametrize(
    ("pairs", "classes", "message"),
    [
        ([], None, "no images to evaluate"),
        ([("x", truth([]), answer([]))] * 2, None, "image x is given twice"),
        ([("x", truth([]), answer([(A, 4, 0.5)]))], None, "x: the prediction has a box of class 4; possible: 1 to 3"),
        ([("x", truth([]), answer([(A, CAT, float("nan"))]))], None, "x: the prediction has a box or score that is no"),
        (
            [("x", truth([]), Prediction(size=(1, 2)))],
            None,
            "x: image and prediction differ in size: 100 x 100 and 2 x 1",
        ),
        (list(maps_only([([[0]], [[7]])])), None, "0: the prediction has class 7; possible: 0 to 3"),
        (list(maps_only([([[9]], [[0]])])), None, "0: the mask has class 9; possible: 0 to 3"),
        (
            [("x", truth([]), answer([])), ("y", truth([]), Prediction(size=SIZE))],
            None,
            "no predicted boxes for 1 of 2",
        ),
        ([("x", truth([]), answer([]))], ["kat"], "did you mean cat"),
        ([("x", truth([]), answer([]))], ["background"], "name object classes only"),
    ],
)
def test_mistakes_are_named(pairs: list[Pair], classes: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(pairs, LABELS, classes)


def test_json_and_table_name_every_number() -> None:
    pairs = random_pairs(seed=3, images=4)
    mixed = [*pairs, *maps_only([([[0, 1]], [[0, 1]])])]
    with pytest.raises(InputError, match="no predicted"):
        evaluate([*mixed, ("z", truth([(A, CAT, 0)]), Prediction(size=SIZE))], LABELS)
    result = evaluate(mixed, LABELS, ["cat", "dog"])
    told = json.loads(json.dumps(result.to_dict()))
    assert told["mAP_voc_area@.5"] == result.map_area == (told[AP_AREA]["cat"] + told[AP_AREA]["dog"]) / 2
    assert told["mIoU"] == 1 and told["without_ground_truth"]["IoU"] == ["dog"]
    assert (told["images"], told["images_with_boxes"], told["images_with_masks"]) == (5, 4, 1)
    for name in ("mAP_voc07_11point@.5", "mAP_coco@.5:.95", "mAP_coco@.5", "mIoU_others_ignored", "pixel_accuracy"):
        assert 0 < told[name] <= 1

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(result))
    text = console.export_text()
    for word in (
        "VOC area",
        "VOC07",
        "11-point",
        "COCO",
        "AP50",
        "IoU",
        "background",
        "mAP, mIoU",
        f"{result.map_area:.3f}",
    ):
        assert word in text
    assert "bird" not in text
    assert "without a pixel, not in the mean: dog" in text


REAL = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[1].parent / "shared")) / "data"


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}")
def test_a_real_tutor_has_the_miou_that_an_independent_evaluator_found() -> None:
    dataset = open_dataset(f"voc:{REAL / 'voc2012-animals'}", "val")

    def answers():
        for image_id in dataset.ids:
            drawn = dataset.ground_truth(image_id)
            with np.load(REAL / "voc2012-animals-deeplab" / f"{image_id}.npz", allow_pickle=False) as file:
                probs = torch.from_numpy(file["probs"]).float().permute(2, 0, 1)
            full = torch.nn.functional.interpolate(probs[None], size=drawn.size, mode="bilinear")[0]
            yield image_id, drawn, Prediction(size=drawn.size, mask=full.argmax(dim=0).byte())

    six = {"cat": 0.870, "cow": 0.855, "dog": 0.797, "horse": 0.859, "person": 0.650, "sheep": 0.865}
    result = evaluate(answers(), dataset.labels, list(six))
    assert result.miou == pytest.approx(0.833, abs=0.0005)
    for name, share in six.items():
        assert result.per_class[IOU][name] == pytest.approx(share, abs=0.0006)
