"""Figures against hand-worked numbers, slow references and official code."""

import json
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from made import boxed, coco_precision, refused, two_tasks
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.evaluate import Resampled, Result, benjamini_hochberg, compare, figures, record, resample, table
from tutored.labels import LabelSpace
from tutored.tasks import Figures
from tutored.tasks.detection import Boxes, Detections, measure
from tutored.tasks.detection.measure import AP_AREA, AP_COCO, AP_COCO_50, AP_POINTS
from tutored.tasks.segmentation import ClassMap, ClassMask
from tutored.types import GroundTruth, Prediction

LABELS = LabelSpace.of(["cat", "dog", "bird"])
CAT, DOG, BIRD = 1, 2, 3
SIZE = (100, 100)
A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
AWAY = (60, 60, 70, 70)
TASKS = two_tasks(LABELS)


def evaluate(pairs, reported=None):
    tasks = two_tasks(LABELS, *[{"reported": reported}] * 2)
    return figures([record(*pair, tasks) for pair in pairs], tasks)


def objects(rows, annotated=None):
    """Rows of box, class and 1 where difficult."""
    boxes, classes, difficult = zip(*rows, strict=True) if rows else ((), (), ())
    return boxed(Boxes, boxes, classes, difficult=[*difficult], annotated=annotated)


def found(rows):
    """Rows of box, class and score."""
    boxes, classes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return boxed(Detections, boxes, classes, scores=[*scores])


def truth(rows, annotated=None):
    return GroundTruth.of(SIZE, objects(rows, annotated))


def answer(rows):
    return Prediction.of(SIZE, found(rows))


def boxes_only(objects, found):
    return evaluate([("a", truth(objects), answer(found))]).tasks["detection"]


def cat(result, metric=AP_AREA):
    return result.per_class[metric]["cat"]


def pixels(rows):
    return torch.tensor(rows, dtype=torch.uint8)


def maps(*pairs, annotated=None):
    return [
        (
            f"{index}",
            GroundTruth.of((len(mask), len(mask[0])), ClassMask(mask=pixels(mask), annotated=annotated)),
            Prediction.of((len(mask), len(mask[0])), ClassMap(mask=pixels(said))),
        )
        for index, (mask, said) in enumerate(pairs)
    ]


def maps_only(*pairs, **options):
    return evaluate(maps(*pairs, **options)).tasks["segmentation"]


@pytest.mark.parametrize(
    ("drawn", "found", "area", "points"),
    [
        # Right, wrong, right: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3. Recalls 0 to .3 have 1, .4 to .6 have 2/3.
        ([A, B, C], [(A, 0.9), (AWAY, 0.8), (B, 0.7)], 1 / 3 + 1 / 3 * 2 / 3, (4 + 3 * 2 / 3) / 11),
        # Wrong, right: precision 0, 1/2; the envelope is 1/2 from the start.
        ([A], [(AWAY, 0.9), (A, 0.8)], 1 / 2, 1 / 2),
        # A second hit on one object is wrong.
        ([A, B], [(A, 0.9), (A, 0.8), (B, 0.7)], 1 / 2 + 1 / 2 * 2 / 3, (6 + 5 * 2 / 3) / 11),
        # The second box overlaps the second object by 6/14 and more than half of the first, which is found already.
        ([A, (6, 0, 16, 10)], [(A, 0.9), ((2, 0, 12, 10), 0.8)], 1 / 2, 6 / 11),
        # Exactly one half is a hit.
        ([A], [((0, 0, 5, 10), 0.9)], 1, 1),
        ([A], [((0, 0, 4.99, 10), 0.9)], 0, 0),
        # Recall .3 of ten objects reaches the fourth of eleven points.
        ([(x, 0, x + 5, 5) for x in range(0, 100, 10)], [((x, 0, x + 5, 5), 0.9) for x in (0, 10, 20)], 0.3, 4 / 11),
        # Equal scores keep the order of the prediction.
        ([A], [(A, 0.5), (AWAY, 0.5)], 1, 1),
        ([A], [(AWAY, 0.5), (A, 0.5)], 1 / 2, 1 / 2),
    ],
)
def test_voc_ap_by_hand(drawn, found, area, points):
    result = boxes_only([(box, CAT, 0) for box in drawn], [(box, CAT, score) for box, score in found])
    assert cat(result) == result.means["mAP_voc_area@.5"] == pytest.approx(area)
    assert cat(result, AP_POINTS) == pytest.approx(points)


def test_a_difficult_object_is_neither_gain_nor_loss():
    objects = [(A, CAT, 0), (B, CAT, 1)]
    found = boxes_only(objects, [(B, CAT, 0.95), (B, CAT, 0.94), (A, CAT, 0.9)])
    missed = boxes_only(objects, [(A, CAT, 0.9)])
    assert cat(found) == cat(missed) == 1
    assert cat(found, AP_COCO) == cat(missed, AP_COCO) == pytest.approx(1)
    assert (found.counts["objects"]["cat"], found.counts["difficult"]["cat"]) == (1, 1)


def test_not_annotated_is_not_the_same_as_nothing_there():
    false_alarm = answer([(AWAY, CAT, 0.9)])
    right = ("a", truth([(A, CAT, 0)]), answer([(A, CAT, 0.8)]))
    unknown = evaluate([right, ("b", GroundTruth(SIZE), false_alarm)])
    empty = evaluate([right, ("b", truth([]), false_alarm)]).tasks["detection"]
    assert (cat(unknown.tasks["detection"]), unknown.tasks["detection"].images, unknown.images) == (1, 1, 2)
    assert (cat(empty), empty.images) == (0.5, 2)


def grid_boxes():
    side = st.tuples(st.integers(0, 5), st.integers(1, 4))
    return st.tuples(side, side).map(lambda s: (s[0][0], s[1][0], s[0][0] + s[0][1], s[1][0] + s[1][1]))


def scenes(most=6):
    """Images with boxes on a small grid and scores of few values: ties, halves and double hits abound."""
    objects = st.lists(st.tuples(grid_boxes(), st.integers(1, 3), st.integers(0, 1)), max_size=most)
    found = st.lists(st.tuples(grid_boxes(), st.integers(1, 3), st.sampled_from([0.25, 0.5, 0.75])), max_size=most)
    images = st.lists(st.tuples(objects, found), min_size=1, max_size=4)
    return images.map(lambda all_: [(f"{i}", truth(o), answer(f)) for i, (o, f) in enumerate(all_)])


def slow_voc_ap(pairs, number):
    """The devkit's procedure, one detection at a time, in whole numbers: area, and 11 points."""
    objects = {name: [box for box in zip_rows(truth_) if box[1] == number] for name, truth_, _ in pairs}
    total = sum(not flag for rows in objects.values() for _, _, flag in rows)
    if total == 0:
        return None
    found = [(name, row) for name, _, said in pairs for row in zip_rows(said) if row[1] == number]
    taken = set()
    curve = []
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

    def best_from(recall):
        return max((precision for reached, precision in curve if reached >= recall), default=Fraction(0))

    area = sum((best_from(Fraction(k, total)) for k in range(1, total + 1)), Fraction(0)) / total
    return area, sum((best_from(Fraction(k, 10)) for k in range(11)), Fraction(0)) / 11


def zip_rows(image):
    side = image.tasks["detection"]
    values = side.difficult if isinstance(image, GroundTruth) else side.scores
    return list(zip(side.boxes_xyxy.tolist(), side.classes.tolist(), values.tolist(), strict=True))


def slow_iou(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return Fraction(int(shared), int(union))


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_voc_ap_equals_the_slow_procedure(pairs):
    result = evaluate(pairs).tasks["detection"]
    for number, name in enumerate(LABELS.classes, start=1):
        expected = slow_voc_ap(pairs, number)
        got = [result.per_class[metric][name] for metric in (AP_AREA, AP_POINTS)]
        assert got == ([None, None] if expected is None else [pytest.approx(float(value)) for value in expected])


def random_pairs(seed, images, count=20, whole=False):
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


def entries(side, field):
    rows = [(number, [x1, y1, x2 - x1, y2 - y1], value) for (x1, y1, x2, y2), number, value in zip_rows(side)]
    return [{"category_id": number, "bbox": box, field: value} for number, box, value in rows]


@pytest.mark.parametrize("count", [20, 500])
@pytest.mark.parametrize("whole", [False, True])
def test_coco_ap_equals_pycocotools(count, whole):
    # Whole numbers make equal scores, equal overlaps and overlaps on a floor; of 500 detections the 100 best of a class
    # count.
    pairs = random_pairs(seed=0, images=40, count=count, whole=whole)
    drawn, said = ([entries(pair[place], field) for pair in pairs] for place, field in ((1, "iscrowd"), (2, "score")))
    precision = coco_precision("bbox", drawn, said)
    result = evaluate(pairs).tasks["detection"]
    assert 0.05 < precision.mean() < 0.95
    for number, name in enumerate(LABELS.classes):
        assert result.per_class[AP_COCO][name] == pytest.approx(precision[:, :, number].mean(), abs=1e-12)
        assert result.per_class[AP_COCO_50][name] == pytest.approx(precision[0, :, number].mean(), abs=1e-12)
    assert result.means["mAP_coco@.75"] == pytest.approx(precision[5].mean(), abs=1e-12)


def test_iou_by_hand():
    # background: 2 right of 2 true + 3 said; cat: 2 right of 3 true + 3 said; dog: 1 right of 2 true + 1 said.
    mask = [[0, 0, 1, 1], [255, 1, 2, 2]]
    said = [[0, 0, 1, 1], [2, 0, 2, 1]]
    result = maps_only((mask, said))
    assert result.per_class == {"IoU": {"background": 2 / 3, "cat": 2 / 4, "dog": 1 / 2, "bird": None}}
    assert result.means["mIoU"] == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert result.means["pixel_accuracy"] == 5 / 7
    assert set(maps_only(([[255]], [[1]])).means.values()) == {None}


def test_reported_classes_restrict_means_not_counts():
    # One cat pixel right; one dog pixel called cat: cat's IoU is 1/2, and 1 where dog pixels are left out.
    pairs = maps(([[0, 1, 2]], [[0, 1, 1]]))
    result = evaluate(pairs, ["cat"]).tasks["segmentation"]
    assert result.means == {"mIoU": (1 + 1 / 2) / 2, "mIoU_others_ignored": 1, "pixel_accuracy": 2 / 3}
    assert result.per_class["IoU"]["dog"] == 0
    assert evaluate(pairs).tasks["segmentation"].means["mIoU_others_ignored"] is None

    pairs = [("a", truth([(A, CAT, 0), (B, DOG, 0)]), answer([(A, CAT, 0.9)]))]
    every, only = (evaluate(pairs, reported).tasks["detection"] for reported in (None, ["cat"]))
    assert (every.means["mAP_voc_area@.5"], only.means["mAP_voc_area@.5"]) == (0.5, 1)
    assert only.per_class == every.per_class


def test_a_map_of_an_image_annotated_for_some_classes():
    # Only cats are annotated: the dog said in the background may be there; the dog said on the cat is a miss of cat.
    pairs = maps(([[0, 0, 1, 1]], [[0, 2, 2, 1]]), annotated=(CAT,))
    result = evaluate(pairs).tasks["segmentation"]
    assert result.per_class["IoU"] == {"background": 1, "cat": 1 / 2, "dog": None, "bird": None}
    assert result.means["pixel_accuracy"] == 2 / 3
    other = ("other", *maps(([[2]], [[2]]))[0][1:])
    assert evaluate([*pairs, other]).tasks["segmentation"].per_class["IoU"]["dog"] == 1


def test_bootstrap_knows_the_binomial():
    # One object an image; a finds every second one, b all: b - a is 1 - k/100 with k binomial (100, 1/2).
    # Its standard deviation is .05, so that the middle 95 % are .5 -+ .098.
    mask = torch.ones(SIZE, dtype=torch.uint8)
    drawn = GroundTruth.of(SIZE, objects([(A, CAT, 0)]), ClassMask(mask=mask))
    right = Prediction.of(SIZE, found([(A, CAT, 0.9)]), ClassMap(mask=mask))
    wrong = Prediction.of(SIZE, found([]), ClassMap(mask=torch.zeros_like(mask)))
    first = [record(f"{index}", drawn, wrong if index % 2 else right, TASKS) for index in range(100)]
    second = [record(f"{index}", drawn, right, TASKS) for index in range(100)]
    some = resample(first, TASKS, samples=2000, seed=1)
    every = resample(second[::-1], TASKS, samples=2000, seed=1)
    intervals = compare([some], [every])
    assert list(intervals) == ["detection/mAP_voc_area@.5", "segmentation/mIoU"]
    for interval in intervals.values():
        assert (interval.a, interval.b, interval.difference, interval.verdict) == (0.5, 1, 0.5, "better")
        assert (interval.low, interval.high) == (pytest.approx(0.402, abs=0.005), pytest.approx(0.598, abs=0.005))
        assert interval.p < 1e-12
    same = compare([some], [some])["segmentation/mIoU"]
    assert (same.low, same.high, same.p, same.verdict) == (0, 0, 1, None)


def runs(values):
    """One run a row: its figure on the images, then on resamples of them."""
    return [Resampled(each[:, None], ("task/figure",), "the same images") for each in values]


def test_the_spread_of_seeds_alone_by_hand():
    # No noise of images; three seeds with differences 0, .1 and .2: .1 -+ 4.303 * .1 / sqrt(3), t with two degrees.
    a, b = np.full((3, 101), 0.5), np.repeat([[0.5], [0.6], [0.7]], 101, axis=1)
    interval = compare(runs(a), runs(b))["task/figure"]
    assert str(interval) == "+0.100 [-0.148, +0.348]"
    assert interval.p == pytest.approx(0.2254, abs=1e-4)  # t = 1.732
    assert interval.verdict is None and interval.within(0.35) and not interval.within(0.2)


@pytest.mark.parametrize(("seeds", "own"), [(1, 0.0), (3, 0.08), (6, 0.08)])
def test_one_interval_in_twenty_misses(seeds, own):
    # One seed's variance over images is a quarter shared between seeds and three quarters interaction; `own` is the
    # seeds' variance in units of it. In our studies it is 0 to .1 on 300 images, and up to .6 on seven times as many.
    rng, images, times = np.random.default_rng(0), 300, 2500
    weights = np.vstack([np.ones(images), rng.multinomial(images, np.full(images, 1 / images), size=300)]) / images
    missed, width = 0, 0.0
    for _ in range(times):
        shared, both = rng.normal(0, 0.5, images), rng.normal(0, 0.75**0.5, (seeds, images))
        differences = (shared + both) @ weights.T + rng.normal(0, (own / images) ** 0.5, (seeds, 1))
        interval = compare(runs(np.zeros_like(differences)), runs(differences))["task/figure"]
        missed += not interval.low <= 0 <= interval.high
        width += (interval.high - interval.low) / times
    assert 0.035 < missed / times < 0.065
    assert width < 1.2 * 2 * 1.96 * ((0.25 + (0.75 + own) / seeds) / images) ** 0.5


def test_benjamini_hochberg_by_hand():
    # By rising p: .005 * 4/1, .01 * 4/2, .03 * 4/3, .04 * 4/4; none may exceed one behind it.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]) == []


def test_resampled_figures_on_disk_and_what_can_be_compared(tmp_path):
    records = [record(*pair, TASKS) for pair in random_pairs(seed=1, images=5)]
    there = resample(records, TASKS, samples=10)
    assert there.names == ("detection/mAP_voc_area@.5",)  # no masks: nothing to say about mIoU
    there.save(tmp_path / "resamples.npz")
    loaded = Resampled.load(tmp_path / "resamples.npz")
    assert (loaded.images, loaded.names, loaded.lower_is_better) == (there.images, there.names, ())
    np.testing.assert_allclose(loaded.values, there.values, rtol=1e-6)
    (tmp_path / "resamples.npz").write_bytes(b"PK")
    refused("no resampled figures", Resampled.load, tmp_path / "resamples.npz")
    with pytest.raises(InputError, match="different images"):
        compare([there], [resample(records[1:], TASKS, samples=10)])
    refused("1 runs against 2", compare, [there], [there, there])


@pytest.mark.parametrize(
    ("pairs", "reported", "message"),
    [
        ([], None, "no images to evaluate"),
        ([("x", truth([]), answer([]))] * 2, None, "image x is given twice"),
        ([("x", truth([]), answer([(A, 4, 0.5)]))], None, "x: detection: .* a box of class 4; possible: 1 to 3"),
        ([("x", truth([]), answer([(A, CAT, float("nan"))]))], None, "x: detection: .* a box or score that is NaN"),
        ([("x", truth([]), Prediction((1, 2)))], None, "x: image and prediction differ in size: 100 x 100 and 2 x 1"),
        (maps(([[0]], [[7]])), None, "0: segmentation: the prediction has class 7; possible: 0 to 3"),
        (
            [("x", truth([]), answer([])), ("y", truth([]), Prediction(SIZE))],
            None,
            "no answer of the task detection for 1 of 2 images, such as y",
        ),
        ([("x", truth([]), answer([]))], ["kat"], "did you mean cat"),
    ],
)
def test_mistakes_are_named(pairs, reported, message):
    refused(message, evaluate, pairs, reported)


def test_json_and_table_name_every_number():
    mixed = [*random_pairs(seed=3, images=4), *maps(([[0, 1]], [[0, 1]]))]
    result = evaluate(mixed, ["cat", "dog"])
    told = json.loads(json.dumps(result.to_dict()))
    boxes, map_ = told["tasks"]["detection"], told["tasks"]["segmentation"]
    by_class = boxes["per_class"][AP_AREA]
    assert boxes["mAP_voc_area@.5"] == (by_class["cat"] + by_class["dog"]) / 2 and map_["mIoU"] == 1
    assert (told["images"], boxes["images"], map_["images"]) == (5, 4, 1)
    text = shown(result)
    for word in ("AP voc area@.5", "AP voc07", "11point@.5", "AP coco@.5", f"{boxes['mAP_voc_area@.5']:.3f}"):
        assert word in text
    for word in ("background", "IoU", "mean", "pixel accuracy 1.000", "without ground truth, not in the mean: dog"):
        assert word in text
    assert "bird" not in text


def shown(result):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(result))
    return capture.get()


@pytest.mark.parametrize(
    ("found", "score"),
    [
        # Right, wrong, right of three objects: F1 is 2/4, 2/5, 4/6.
        ([(A, 0.9), (AWAY, 0.8), (B, 0.705)], 0.7),
        # Right, wrong, wrong: F1 is 2/4, 2/5, 2/6.
        ([(A, 0.35), (AWAY, 0.3), (AWAY, 0.2)], 0.35),
        ([(AWAY, 0.9)], None),
        ([], None),
    ],
)
def test_boxes_are_shown_from_the_best_f1_on(found, score):
    result = boxes_only([(box, CAT, 0) for box in (A, B, C)], [(box, CAT, value) for box, value in found])
    assert result.score == result.to_dict().get("score") == score
    assert [note[-8:] for note in result.notes] == ([] if score is None else [f"{score:.2f} on".rjust(8)])


def test_the_order_of_images_changes_nothing():
    right = ("a", truth([(A, CAT, 0)]), answer([(A, CAT, 0.5)]))
    wrong = ("b", truth([]), answer([(A, CAT, 0.5)]))
    assert evaluate([right, wrong]) == evaluate([wrong, right])
    assert cat(evaluate([right, wrong]).tasks["detection"]) == 1


def test_classes_without_objects_or_detections():
    # cat: found; dog: an object but no detection; bird: a detection but no object.
    result = boxes_only([(A, CAT, 0), (B, DOG, 0)], [(A, CAT, 0.9), (C, BIRD, 0.9)])
    for metric in (AP_AREA, AP_POINTS, AP_COCO, AP_COCO_50):
        assert result.per_class[metric] == {"cat": pytest.approx(1), "dog": 0, "bird": None}
        assert result.means[f"m{metric}"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(("drawn", "found"), [([(A, CAT, 1)], [(A, CAT, 0.9), (AWAY, CAT, 0.9)]), ([], [])])
def test_without_an_object_to_find_there_is_no_figure(drawn, found):
    result = boxes_only(drawn, found)
    assert cat(result) is None and cat(result, AP_COCO) is None and result.means["mAP_voc_area@.5"] is None


def test_unannotated_classes_of_an_image_do_not_count():
    found = answer([(AWAY, DOG, 0.9), (AWAY, CAT, 0.8), (A, CAT, 0.7)])
    pairs = [("a", truth([(A, CAT, 0)], annotated=(CAT,)), found), ("b", truth([(B, DOG, 0)]), answer([(B, DOG, 0.5)]))]
    result = evaluate(pairs).tasks["detection"]
    assert cat(result) == 0.5
    for metric in (AP_AREA, AP_COCO):
        assert result.per_class[metric]["dog"] == pytest.approx(1)


def test_of_two_objects_overlapped_alike_coco_takes_the_later():
    # The first box overlaps either object by 8/12, the second one object wholly and the other by 6/14.
    objects = [((0, 0, 10, 10), CAT, 0.0), ((4, 0, 14, 10), CAT, 0.0)]
    found = [((2, 0, 12, 10), CAT, 0.9), ((0, 0, 10, 10), CAT, 0.8)]
    assert cat(boxes_only(objects, found), AP_COCO_50) == pytest.approx(1)
    # Half of the objects found, all of it right: recalls 0, .01, ..., .5.
    assert cat(boxes_only(objects[::-1], found), AP_COCO_50) == pytest.approx(51 / 101)


def test_pixels_of_all_images_are_counted_together():
    # cat: 1 of 1 in the first image, 0 of 3 in the second: 1/4 together, not the mean of 1 and 0.
    assert cat(maps_only(([[1]], [[1]]), ([[1, 1, 1]], [[0, 0, 0]])), "IoU") == 1 / 4


@given(scenes(), st.data())
@settings(max_examples=50, deadline=None)
def test_weights_count_an_image_that_many_times(pairs, data):
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    matches = [TASKS["detection"].record(*(side.tasks["detection"] for side in pair[1:])) for pair in pairs]
    # Equal scores within one image stand hit, miss, hit, miss in a repeated split, and hits first in a weighted one.
    assume(all(len(set(item.scores.tolist())) == len(item.scores) for item in matches))
    repeated = [item for item, weight in zip(matches, weights, strict=True) for _ in range(weight)]
    if repeated:
        weighted = measure.voc_ap(measure.rank(matches, 3), np.array(weights))
        np.testing.assert_allclose(weighted, measure.voc_ap(measure.rank(repeated, 3)), rtol=1e-12)


class Error:
    """A task of numbers, the mean of which is better where it is lower."""

    headline: ClassVar[tuple[str, str]] = ("error", "error")
    lower_is_better = True

    def record(self, truth: float, prediction: float) -> float:
        return abs(truth - prediction)

    def figures(self, records: Sequence[float]) -> Figures:
        return Figures(len(records), (), {"error": float(np.mean(records)), "worst": max(records)}, {}, {})

    def resampler(self, records: Sequence[float | None]) -> Any:
        return lambda weights: float(weights @ np.array(records, np.float64) / weights.sum())


def test_lower_is_better():
    tasks: Any = {"depth": Error()}
    a, b = (
        [record(f"{i}", GroundTruth(SIZE, {"depth": 0.0}), Prediction(SIZE, {"depth": x}), tasks) for i in range(9)]
        for x in (0.5, 0.25)
    )
    interval = compare([resample(a, tasks, samples=10)], [resample(b, tasks, samples=10)])["depth/error"]
    assert interval.difference == -0.25 and interval.verdict == "better"
    assert compare([resample(b, tasks)], [resample(a, tasks)])["depth/error"].verdict == "worse"


def test_the_table_of_a_task_without_classes():
    tasks: Any = {"depth": Error()}
    pair = GroundTruth(SIZE, {"depth": 1.0}), Prediction(SIZE, {"depth": 0.25})
    text = shown(figures([record("a", *pair, tasks)], tasks))
    assert "depth" in text and "error" in text and "0.750" in text and "1 image" in text


def test_a_mean_that_is_called_like_its_column_is_below_it():
    points = Figures(2, ("eye", "nose"), {"PCK": 0.5}, {"PCK": {"eye": 0.25, "nose": 0.75}}, {})
    text = shown(Result(2, {"points": points}))
    assert re.search(r"mean +│ +0\.500", text)


def test_details_of_boxes_and_maps():
    # Right, wrong, right of three objects: precision 1 up to recall 1/3, 2/3 up to 2/3, then 0.
    pairs = [("a", truth([(x, CAT, 0) for x in (A, B, C)]), answer([(A, CAT, 0.9), (AWAY, CAT, 0.8), (B, CAT, 0.7)]))]
    (curves,) = TASKS["detection"].details([record(*pairs[0], TASKS).tasks["detection"]])
    assert curves.names == ("cat",)
    assert curves.values[0, [0, 33, 34, 66, 67, 100]] == pytest.approx([1, 1, 2 / 3, 2 / 3, 0, 0])
    (matrix,) = TASKS["segmentation"].details(
        [record(*maps(([[0, 1, 1]], [[0, 1, 2]]))[0], TASKS).tasks["segmentation"]]
    )
    assert matrix.names == ("background", "cat", "dog", "bird", "not annotated")
    assert matrix.values.tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0] * 5, [0] * 5]


REAL = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[1].parent / "shared")) / "data"


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}")
def test_a_real_tutor_has_the_miou_of_another_evaluator():
    dataset = open_dataset(f"voc:{REAL / 'voc2012-animals'}", "val")

    def answers():
        for image_id in dataset.ids:
            drawn = dataset.ground_truth(image_id)
            with np.load(REAL / "voc2012-animals-deeplab" / f"{image_id}.npz", allow_pickle=False) as file:
                probs = torch.from_numpy(file["probs"]).float().permute(2, 0, 1)
            full = torch.nn.functional.interpolate(probs[None], size=drawn.size, mode="bilinear")[0]
            mask = ClassMap(mask=full.argmax(dim=0).byte())
            yield record(image_id, drawn.without("detection"), Prediction.of(drawn.size, mask), tasks)

    six = {"cat": 0.870, "cow": 0.855, "dog": 0.797, "horse": 0.859, "person": 0.650, "sheep": 0.865}
    tasks = two_tasks(dataset.labels["segmentation"], *[{"reported": list(six)}] * 2)
    result = figures(list(answers()), tasks).tasks["segmentation"]
    assert result.means["mIoU"] == pytest.approx(0.833, abs=0.0005)
    for name, share in six.items():
        assert result.per_class["IoU"][name] == pytest.approx(share, abs=0.0006)
