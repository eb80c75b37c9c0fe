"""Training batches: who teaches each image, what is drawn when, vetted answers, and how examples become one batch."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from made import LABELS, MadeDataset, boxed, truthful, two_tasks
from tutored.config import Augment, TaskSection
from tutored.data.training import TrainingSet, drawn_and_hidden, epoch_batches, ranks, source_weights
from tutored.labels import LabelSpace
from tutored.tasks.detection import Boxes, Detection, SoftBoxes
from tutored.tasks.detection import types as box_targets
from tutored.tasks.segmentation import ClassMask, Segmentation, SoftMap
from tutored.tasks.segmentation import types as map_targets
from tutored.types import IGNORE, GroundTruth, SoftLabels

GRIDS = {"detection": 0, "segmentation": 8}


def training_set(count=10, soft=None, dataset=None, augment=None, size=32, **sections):
    tasks, seen = two_tasks(**sections), dataset or MadeDataset(count)
    return TrainingSet(seen, tasks, GRIDS, soft or {}, size=size, augment=augment or Augment(), seed=3)


def hidden(share, seed=0, task="detection", like=None):
    keys = TaskSection(kind=task, hidden=share, hidden_like=like)
    return set(drawn_and_hidden(MadeDataset(100), task, keys, seed)[1])


def test_a_hidden_share_is_exact_and_nested():
    sizes = [len(hidden(share)) for share in (0, 0.2, 0.5, 0.8, 1)]
    assert sizes == [0, 20, 50, 80, 100]
    assert hidden(0.2) < hidden(0.5) < hidden(0.8)


def test_seeds_and_tasks_hide_different_images():
    assert hidden(0.5, seed=0) != hidden(0.5, seed=1)
    assert hidden(0.5, task="segmentation") != hidden(0.5)
    assert hidden(0.5, task="segmentation", like="detection") == hidden(0.5) < hidden(0.8)


def section(**keys):
    return TaskSection(kind="detection", **keys)


def test_every_policy_in_every_state():
    def weights(task, rank=0.6):
        return [
            source_weights(task, rank, drawn=drawn, answered=answered)
            for drawn, answered in ((True, True), (True, False), (False, True), (False, False))
        ]

    none = (0.0, 0.0)
    assert weights(section()) == [(1, 0), (1, 0), none, none]
    assert weights(section(policy="none")) == [none] * 4
    assert weights(section(policy="fill", store="s")) == [(1, 0), (1, 0), (0, 1), none]
    assert weights(section(policy="replace", store="s", share=0.7)) == [(0, 1), none, (0, 1), none]
    assert weights(section(policy="replace", store="s", share=0.5)) == [(1, 0), (1, 0), none, none]
    both = section(policy="both", store="s", weights=(0.3, 0.7))
    assert weights(both) == [(0.3, 0.7), (1, 0), (0, 1), none]
    assert source_weights(both, 0.6, drawn=True, answered=True, joint=False) == (1, 1)


def test_resampling_gives_every_image_to_the_tutor_sometimes():
    task = section(policy="replace", store="store", share=0.5, resampled=True)
    rng = random.Random(0)
    drawn = [source_weights(task, 0.9, drawn=True, answered=True, rng=rng) for _ in range(400)]
    assert 150 < drawn.count((0.0, 1.0)) < 250


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 8), st.integers(0, 100))
def test_every_taught_image_is_drawn_equally_often(taught, extra, batch, seed):
    images = taught + extra
    epochs = 4
    every = [epoch_batches(range(taught), images, 1, seed, epoch) for epoch in range(epochs)]
    drawn = [place for batches in every for places in batches for place in places]
    assert len(drawn) == epochs * images
    assert len(set(drawn)) == len(drawn), "no example comes twice"
    often = Counter(position for _, position in drawn)
    assert max(often.values()) - min(often.get(position, 0) for position in range(taught)) <= 1
    steps = [len(list(epoch_batches(range(taught), images, batch, seed, epoch))) for epoch in range(epochs)]
    assert set(steps) == {max(images // batch, 1)}


def boxes_of(made, positions):
    return made.collate([made[0, position] for position in positions]).targets["detection"]


def test_the_batch_says_by_its_shape_that_nothing_is_unknown():
    soft = {image_id: truthful(MadeDataset(3).ground_truth(image_id)) for image_id in MadeDataset(3).ids}
    made = training_set(3, {"detection": soft}, detection={"policy": "both", "store": "x"})
    answer = soft["made1"]
    partly = replace(answer.tasks["detection"], unknown=(2,))
    soft["made1"] = replace(answer, tasks={**answer.tasks, "detection": partly})
    known, partial = (boxes_of(made, positions) for positions in ([0, 2], [0, 1]))
    assert known["tutor"].unknown.shape == (2, 0) and known["ground_truth"].unknown.shape == (2, 0)
    assert partial["tutor"].unknown.nonzero().tolist() == [[1, 2]]


def test_images_that_nobody_teaches_are_not_drawn():
    half, off = {"hidden": 0.5}, {"policy": "none"}
    assert len(training_set(detection=half, segmentation=off).taught()) == 5
    assert len(training_set(detection=half).taught()) == 10
    assert training_set(detection={**off, "resampled": True}, segmentation=off).taught() == []
    soft = {"detection": {"made0": None, "made1": None}}
    filled = {"policy": "fill", "store": "s", "hidden": 1.0}
    assert training_set(soft=soft, detection=filled, segmentation=off).taught() == [0, 1]
    for share, taught in ((1.0, [0, 1]), (0.5, [*range(10)])):
        drawn = {"policy": "replace", "store": "s", "resampled": True, "share": share}
        assert training_set(soft=soft, detection=drawn, segmentation=off).taught() == taught


SIZE = (4, 8)


def drawn_boxes(*boxes):
    return (
        torch.tensor([box for _, box in boxes]).reshape(-1, 4),
        torch.tensor([number for number, _ in boxes], dtype=torch.int64),
    )


def vetted_map(*boxes, anywhere=(False, False, False)):
    """Two rows of four cells, each 2 x 2 pixels; everywhere .2 background, .3 of class 1, .4 of class 2."""
    soft = SoftMap(map=torch.tensor([0.2, 0.3, 0.4])[:, None, None].repeat(1, 2, 4))
    return map_targets.vet_by_boxes(soft, SIZE, *drawn_boxes(*boxes), torch.tensor(anywhere)).map


def test_a_class_teaches_only_where_a_box_of_it_was_drawn():
    # Class 1: the left half of the upper row. Class 2: from the middle of the second column on, in both rows.
    kept = vetted_map((1, (0.0, 0.0, 4.0, 2.0)), (2, (3.0, 0.0, 6.0, 4.0)))
    upper = [[0.2, 0.3, 0.0], [0.2, 0.3, 0.4], [0.2, 0.0, 0.4], [0.9, 0.0, 0.0]]
    lower = [[0.9, 0.0, 0.0], [0.2, 0.0, 0.4], [0.2, 0.0, 0.4], [0.9, 0.0, 0.0]]
    torch.testing.assert_close(kept.permute(1, 2, 0), torch.tensor([upper, lower]))


def test_classes_that_are_not_annotated_may_be_anywhere():
    assert vetted_map(anywhere=(False, False, True))[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 0.4])


def test_a_box_without_a_pixel_of_its_class_does_not_teach():
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[0, 0] = 1  # one pixel
    mask[1:, 3] = IGNORE
    mask[:, 6:] = IGNORE
    there, wrong_class, beside = (1, (0.5, 0.0, 4.0, 4.0)), (2, (0.0, 0.0, 3.0, 3.0)), (1, (1.0, 0.0, 3.0, 4.0))
    mostly_ignored, a_line_ignored = (2, (5.0, 0.0, 8.0, 4.0)), (2, (2.0, 0.0, 4.0, 4.0))
    boxes_xyxy, classes = drawn_boxes(there, wrong_class, beside, mostly_ignored, a_line_ignored)
    probs = torch.nn.functional.one_hot(classes, 3).float() * 0.8
    answer, same = SoftBoxes(boxes_xyxy=boxes_xyxy, classes=classes, probs=probs), torch.arange(3)
    scores = {
        (most, annotated): box_targets.vet_by_mask(answer, mask, same, annotated, most).scores.tolist()
        for most, annotated in ((0.4, None), (0.9, None), (0.4, (1,)))
    }
    assert scores[0.4, None] == pytest.approx([0.8, 0.4, 0.4, 0.8, 0.4])
    assert scores[0.9, None] == pytest.approx([0.8] * 5)
    assert scores[0.4, (1,)] == pytest.approx([0.8, 0.8, 0.4, 0.8, 0.8])
    other = box_targets.vet_by_mask(answer, mask, torch.tensor([0, 0, 1]), None, 0.4).scores.tolist()
    assert other == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.4]), "by its class there; without one, never"


@given(st.data())
def test_truth_never_contradicts_itself(data):
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
    one_hot = torch.stack([mask == number for number in range(3)]).float()
    probs = torch.nn.functional.one_hot(classes, 3).float()
    anywhere = torch.zeros(3, dtype=torch.bool)
    kept = map_targets.vet_by_boxes(SoftMap(map=one_hot), (height, width), boxes_xyxy, classes, anywhere)
    assert torch.equal(kept.map, one_hot)
    answer = SoftBoxes(boxes_xyxy=boxes_xyxy, classes=classes, probs=probs)
    assert torch.equal(box_targets.vet_by_mask(answer, mask, torch.arange(3), None, 0.0).probs, probs)


class OneImage:
    """A data set of one image with a box of class 1 on its left half and a mask of the same."""

    ids = ("a",)
    name = source = "made-up"

    def annotated_tasks(self, image_id):
        return ("detection", "segmentation")

    def ground_truth(self, image_id):
        mask = torch.zeros(8, 8, dtype=torch.uint8)
        mask[:, :4] = 1
        return GroundTruth.of((8, 8), boxed(Boxes, [[0, 0, 4, 8]], [1]), ClassMask(mask=mask))

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
def test_only_ground_truth_that_a_run_may_see_vets(vetted, other, seen):
    probs = [[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]]
    said = boxed(SoftBoxes, [[0, 0, 4, 8], [4, 0, 8, 8]], [1, 2], probs=probs)
    tutor = SoftLabels.of((8, 8), said, SoftMap(map=torch.tensor([0.0, 0.0, 1.0])[:, None, None].repeat(1, 8, 8)))
    plain = Augment(colour=False, zoom_out="never", crop=False, flip_share=0.0)

    def taught(name, beside):
        keys = {"policy": "replace", "store": "nowhere", "vetted_by": beside if vetted else None}
        tasks = two_tasks(LabelSpace(("background", "a", "b")), **{name: keys, beside: other})
        answers = {each: {"a": tutor} for each in tasks}
        made = TrainingSet(OneImage(), tasks, GRIDS, answers, size=8, augment=plain)
        return made.collate([made[0, 0]]).targets[name]["tutor"]

    scores = taught("detection", "segmentation").probs[0].amax(dim=1)
    # Just under box_floor, .5: anchors on the box are ignored, and do not learn that nothing is there.
    assert scores.tolist() == pytest.approx([0.9, 0.4995 if seen else 0.9])
    assert taught("segmentation", "detection").map[0, 2].sum().item() == (0 if seen else 64)


IDS = [f"made{index}" for index in range(100)]


@given(st.integers(0, 1000), st.randoms())
def test_ranks_do_not_depend_on_the_order_of_ids(seed, rng):
    shuffled = list(IDS)
    rng.shuffle(shuffled)
    assert ranks(shuffled, seed, "detection") == ranks(IDS, seed, "detection")


def test_processes_share_each_batch_without_overlap():
    whole = list(epoch_batches(range(10), 10, 4, seed=0, epoch=1))
    parts = [list(epoch_batches(range(10), 10, 4, seed=0, epoch=1, rank=rank, processes=2)) for rank in (0, 1)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(shares[0] + shares[1])


def test_an_example_depends_on_seed_round_and_image_alone():
    one, other = training_set(), training_set()
    assert (one[(5, 2)].image == other[(5, 2)].image).all()
    assert (one[(5, 2)].image != one[(6, 2)].image).any()


def test_collate_pads_boxes_and_leaves_out_unused_sources():
    boxes = boxes_of(training_set(), range(10))
    assert list(boxes) == ["ground_truth"]
    truth = boxes["ground_truth"]
    assert truth.boxes_xyxy.shape[0] == 10
    assert (truth.probs.sum(-1) == (truth.classes > 0).float()).all()
    assert truth.weight.tolist() == [1.0] * 10


def test_a_tutor_of_one_task_leaves_the_other_to_ground_truth():
    dataset = MadeDataset(4)
    soft = {"detection": {image_id: truthful(dataset.ground_truth(image_id)) for image_id in dataset.ids}}
    made = training_set(4, soft=soft, detection={"policy": "replace", "store": "s"})
    targets = made.collate([made[(0, position)] for position in range(4)]).targets
    found = {name: list(each) for name, each in targets.items()}
    assert found == {"detection": ["tutor"], "segmentation": ["ground_truth"]}


def test_each_task_has_its_own_label_space():
    """Boxes of three classes beside masks of one."""
    dataset = MadeDataset(4, void=False)
    one = LabelSpace.of(["dog"])
    real = dataset.ground_truth

    def truth_of(image_id):
        truth = real(image_id)
        mask = truth.tasks["segmentation"].relabelled((0, 0, 1, 0), None)
        return replace(truth, tasks={**truth.tasks, "segmentation": mask})

    dataset.ground_truth = truth_of
    tasks = {"detection": Detection("detection", LABELS), "segmentation": Segmentation("segmentation", one)}
    made = TrainingSet(dataset, tasks, GRIDS, size=32, augment=Augment())
    targets = made.collate([made[(0, position)] for position in range(4)]).targets
    assert targets["detection"]["ground_truth"].probs.shape[-1] == 4
    assert targets["segmentation"]["ground_truth"].map.shape[1] == 2


def test_an_image_without_objects_is_background_with_its_weight():
    kept = vetted_map()
    assert torch.allclose(kept[0], torch.full((2, 4), 0.9)) and not kept[1:].any()


def test_a_box_beyond_the_image_counts_inside_it():
    kept = vetted_map((1, (-9.0, -9.0, 1.0, 99.0)))
    torch.testing.assert_close(kept[1], torch.tensor([[0.3, 0.0, 0.0, 0.0]] * 2))
