"""Training batches: what is drawn, when, and how examples become one batch."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from made import MadeDataset, truthful
from tutored.config import Loss, make_config
from tutored.data.training import TrainingSet, collate, epoch_batches
from tutored.losses import detection
from tutored.student.anchors import anchors


def training_set(count=10, soft=None, **tasks):
    config = make_config(
        {"data": {"train": "made"}, "supervision": tasks, "student": {"size": 32}, "train": {"seed": 3}}
    )
    return TrainingSet(MadeDataset(count), config, 8, soft or {})


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 8), st.integers(0, 100))
def test_every_taught_image_is_drawn_equally_often(taught, extra, batch, seed):
    images = taught + extra
    epochs = 4
    drawn = [
        place
        for epoch in range(epochs)
        for places in epoch_batches(range(taught), images, 1, seed, epoch)
        for place in places
    ]
    assert len(drawn) == epochs * images
    assert len(set(drawn)) == len(drawn), "no example comes twice"
    often = Counter(position for _, position in drawn)
    assert max(often.values()) - min(often.get(position, 0) for position in range(taught)) <= 1
    steps = [len(list(epoch_batches(range(taught), images, batch, seed, epoch))) for epoch in range(epochs)]
    assert set(steps) == {max(images // batch, 1)}


def test_processes_share_each_batch_without_overlap():
    whole = list(epoch_batches(range(10), 10, 4, seed=0, epoch=1))
    parts = [list(epoch_batches(range(10), 10, 4, seed=0, epoch=1, rank=rank, processes=2)) for rank in (0, 1)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(shares[0] + shares[1])


def test_where_no_image_has_unknown_classes_the_batch_says_so_by_its_shape():
    soft = {image_id: truthful(MadeDataset(3).ground_truth(image_id)) for image_id in MadeDataset(3).ids}
    made = training_set(3, {"detection": soft}, detection={"policy": "both", "store": "x"})
    soft["made1"] = replace(soft["made1"], unknown=(2,))
    known, partial = (collate([made[0, position] for position in positions]) for positions in ([0, 2], [0, 1]))
    assert known.tutor.detection_unknown.shape == (2, 0) and known.ground_truth.detection_unknown.shape == (2, 0)
    assert partial.tutor.detection_unknown.nonzero().tolist() == [[1, 2]]


def test_images_that_nobody_teaches_are_not_drawn():
    half = {"hidden": 0.5}
    assert len(training_set(detection=half, segmentation={"policy": "none"}).taught()) == 5
    assert len(training_set(detection=half).taught()) == 10
    nobody = {"policy": "none", "resampled": True}
    assert training_set(detection=nobody, segmentation={"policy": "none"}).taught() == []
    soft = {"detection": {"made0": None, "made1": None}}
    filled = {"policy": "fill", "store": "s", "hidden": 1.0}
    assert training_set(soft=soft, detection=filled, segmentation={"policy": "none"}).taught() == [0, 1]
    for share, taught in ((1.0, [0, 1]), (0.5, [*range(10)])):
        drawn = {"policy": "replace", "store": "s", "resampled": True, "share": share}
        assert training_set(soft=soft, detection=drawn, segmentation={"policy": "none"}).taught() == taught


def test_an_example_depends_on_seed_round_and_image_alone():
    one, other = training_set(), training_set()
    assert (one[(5, 2)].image == other[(5, 2)].image).all()
    assert (one[(5, 2)].image != one[(6, 2)].image).any()


def test_collate_pads_boxes_and_leaves_out_a_source_that_nobody_uses():
    made = training_set()
    batch = collate([made[(0, position)] for position in range(10)])
    assert batch.tutor is None
    assert batch.ground_truth.boxes_xyxy.shape[0] == 10
    rows = batch.ground_truth.classes > 0
    assert (batch.ground_truth.probs.sum(-1) == rows.float()).all()
    assert batch.ground_truth.detection_weight.tolist() == [1.0] * 10


def test_a_padded_row_teaches_nothing():
    made = training_set()
    examples = [made[(0, position)] for position in range(10)]
    fixed = anchors((8, 4, 1), 32, (0.1, 0.2, 0.95))
    together = detection.assign(fixed, collate(examples).ground_truth, Loss())
    alone = [detection.assign(fixed, collate([example]).ground_truth, Loss()) for example in examples]
    assert together.normaliser.item() == pytest.approx(sum(each.normaliser.item() for each in alone))
    assert torch.equal(together.positive, torch.cat([each.positive for each in alone]))


def test_a_tutor_of_one_task_leaves_the_other_to_ground_truth():
    dataset = MadeDataset(4)
    soft = {"detection": {image_id: truthful(dataset.ground_truth(image_id)) for image_id in dataset.ids}}
    made = training_set(4, soft=soft, detection={"policy": "replace", "store": "s"})
    batch = collate([made[(0, position)] for position in range(4)])
    assert batch.tutor.detection_weight.tolist() == [1.0] * 4
    assert batch.tutor.segmentation_weight.tolist() == [0.0] * 4
    assert batch.ground_truth.detection_weight.tolist() == [0.0] * 4
    assert batch.ground_truth.segmentation_weight.tolist() == [1.0] * 4
