"""Soft labels built from the ground truth give the ground truth's losses and gradients, term by term.

One law over class maps, transforms, sources, matching and losses together.
"""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from made import LABELS, MadeDataset, truthful
from tutored import losses
from tutored.config import make_config
from tutored.data.training import TrainingSet, collate
from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Folded, Store
from tutored.structures import Outputs, SoftLabels
from tutored.student.anchors import anchors
from tutored.tutors.label import label

SIDE, SIZE = 16, 64
ANCHORS = anchors((16, 8, 4, 1), SIZE, (0.1, 0.2, 0.95))

FOREIGN = LabelSpace.of(["tree", "horse", "dog", "cat"])
"""Another numbering and one class more: what a tutor may bring."""


class Truthful:
    """A tutor that says in its own label space, with certainty, what the ground truth says."""

    labels = FOREIGN
    identity: ClassVar = {"kind": "truthful"}

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, images, image_ids):
        return [self.answer(image_id) for image_id in image_ids]

    def answer(self, image_id):
        there = ClassMap.by_name(LABELS, FOREIGN)
        soft = truthful(self.dataset.ground_truth(image_id))
        return replace(
            soft,
            classes=torch.tensor(there.to)[soft.classes],
            probs=there.fold(soft.probs),
            map=there.fold(soft.map, dim=0),
        )


def answers(dataset, folder):
    """What the truthful tutor says, labelled into a store and read back in our label space."""
    store = Store.open(label(Truthful(dataset), dataset, folder / "store"))
    return Folded(store, ClassMap.by_name(FOREIGN, LABELS))


def in_memory(dataset):
    """The same without the store, which has no place for cells that say nothing (void)."""
    class_map = ClassMap.by_name(FOREIGN, LABELS)
    return Folded({image_id: Truthful(dataset).answer(image_id) for image_id in dataset.ids}, class_map)


def batch(dataset, policy, soft, loss=None, **task):
    section = {"policy": policy, "store": "truthful", **task}
    config = make_config(
        {
            "data": {"train": "made"},
            "supervision": {"detection": section, "segmentation": section},
            "student": {"size": SIZE},
            "augment": {"crop_guides": "all"},
            "loss": loss or {},
        }
    )
    made = TrainingSet(dataset, config, SIDE, {"detection": soft, "segmentation": soft})
    return config, collate([made[(0, position)] for position in range(len(dataset.ids))])


def terms(config, batch):
    rng = torch.Generator().manual_seed(0)
    count = len(batch.image_ids)
    shapes = ((count, len(ANCHORS), 4), (count, len(ANCHORS), 4), (count, 4, SIDE, SIDE))
    out = Outputs(ANCHORS, *[torch.randn(shape, generator=rng, requires_grad=True) for shape in shapes])
    assigned = losses.assign(ANCHORS, batch, config.loss)
    factors = losses.divide(assigned.weights, config.loss)
    sums = losses.sums(out, batch, assigned, config.loss)
    return {
        name.split("/")[0]: (
            value * factors[name],
            torch.autograd.grad(value * factors[name], out[1:], allow_unused=True, retain_graph=True),
        )
        for name, value in sums.items()
    }


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"class_target": "soft"},
        {"normaliser": "positives", "mining": "batch"},
        {"joint": False, "temperature": 2.0},
        {"conflicts": "keep", "box_floor": 0.001, "confidence": False},
    ],
)
@pytest.mark.parametrize("void", [False, True])
def test_the_truthful_tutor_teaches_what_the_ground_truth_teaches(loss, void, tmp_path):
    dataset = MadeDataset(void=void)
    soft = in_memory(dataset) if void else answers(dataset, tmp_path)
    config, by_hand = batch(dataset, "ground_truth", soft, loss)
    _, by_tutor = batch(dataset, "replace", soft, loss)
    assert by_hand.tutor is None
    assert by_tutor.ground_truth is None
    assert (by_hand.images == by_tutor.images).all()
    drawn, answered = terms(config, by_hand), terms(config, by_tutor)
    assert drawn.keys() == answered.keys() == {"class", "box", "map"}
    for name in drawn:
        assert drawn[name][0].item() > 0
        assert answered[name][0].item() == pytest.approx(drawn[name][0].item(), rel=1e-6)
        for mine, theirs in zip(answered[name][1], drawn[name][1], strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.allclose(mine, theirs, atol=1e-7)


def test_half_and_half_and_both_together_are_the_ground_truth_too():
    dataset = MadeDataset()
    soft = in_memory(dataset)
    config, by_hand = batch(dataset, "ground_truth", soft)
    whole = {name: value.item() for name, (value, _) in terms(config, by_hand).items()}
    for policy, extra in (("replace", {"share": 0.5}), ("both", {"weights": [0.5, 0.5]}), ("fill", {"hidden": 0.5})):
        _, mixed = batch(dataset, policy, soft, **extra)
        assert mixed.ground_truth is not None
        assert mixed.tutor is not None
        assigned = losses.assign(ANCHORS, mixed, config.loss)
        rng = torch.Generator().manual_seed(0)
        shapes = ((6, len(ANCHORS), 4), (6, len(ANCHORS), 4), (6, 4, SIDE, SIDE))
        out = Outputs(ANCHORS, *[torch.randn(shape, generator=rng) for shape in shapes])
        sums, factors = losses.sums(out, mixed, assigned, config.loss), losses.divide(assigned.weights, config.loss)
        for term, expected in whole.items():
            value = sum(sums[f"{term}/{source}"] * factors[f"{term}/{source}"] for source in losses.SOURCES)
            assert value.item() == pytest.approx(expected, rel=1e-5)


def test_a_truthful_tutor_completes_a_data_set_that_annotates_one_class():
    everything = MadeDataset(void=False)
    partial = MadeDataset(void=False, annotated=(1,))
    soft = in_memory(everything)
    config, _ = batch(everything, "ground_truth", soft)

    def only_cats(image_id, real=partial.ground_truth):
        truth = real(image_id)
        cats = truth.classes == 1
        return type(truth)(
            size=truth.size,
            boxes_xyxy=truth.boxes_xyxy[cats],
            classes=truth.classes[cats],
            difficult=truth.difficult[cats],
            mask=torch.where(truth.mask == 1, 1, 0).to(torch.uint8),
            annotated=(1,),
        )

    partial.ground_truth = only_cats
    section = {"policy": "fill", "store": "truthful"}
    filling = make_config(
        {**config.to_dict(), "supervision": {"detection": section, "segmentation": section}, "augment": {"crop": False}}
    )
    plain = make_config({**config.to_dict(), "augment": {"crop": False}})
    sets = (
        TrainingSet(partial, filling, SIDE, {"detection": soft, "segmentation": soft}),
        TrainingSet(everything, plain, SIDE),
    )
    completed, drawn = (collate([each[(0, position)] for position in range(6)]) for each in sets)
    assert completed.ground_truth is None
    assert completed.tutor.detection_unknown.sum() == 0
    assert torch.allclose(completed.tutor.map, drawn.ground_truth.map)
    mine, theirs = terms(filling, completed), terms(plain, drawn)
    for name in theirs:
        assert mine[name][0].item() == pytest.approx(theirs[name][0].item(), rel=1e-5)


def test_a_box_that_ground_truth_contradicts_silences_none_of_a_class_that_the_tutor_alone_knows():
    partial = MadeDataset(annotated=(1,))
    real = partial.ground_truth
    none = {"boxes_xyxy": torch.zeros(0, 4), "classes": torch.zeros(0, dtype=torch.int64)}
    partial.ground_truth = lambda image_id: replace(real(image_id), **none, difficult=none["classes"].bool())
    boxes = torch.tensor([[2.0, 2, 30, 30], [3, 2, 30, 30]])
    probs = torch.tensor([[0.1, 0.2, 0.7, 0], [0.1, 0.75, 0.15, 0]])
    soft = {
        image_id: SoftLabels(size=real(image_id).size, boxes_xyxy=boxes, classes=torch.tensor([2, 1]), probs=probs)
        for image_id in partial.ids
    }
    _, made = batch(partial, "fill", soft)
    assert {tuple(row) for row in made.tutor.classes.tolist()} == {(2,)}, "without the surer box of class 1"


def test_without_a_tutor_unannotated_classes_are_never_called_background():
    partial = MadeDataset(annotated=(1,))
    _, given = batch(partial, "ground_truth", {})
    assert given.ground_truth.detection_unknown.tolist() == [[False, False, True, True]] * 6


def test_where_the_tutor_has_no_answer_unannotated_classes_stay_unknown():
    partial = MadeDataset(annotated=(1,))
    soft = {partial.ids[0]: truthful(partial.ground_truth(partial.ids[0]))}
    _, made = batch(partial, "fill", soft)
    assert made.tutor.detection_weight.tolist() == [1, 0, 0, 0, 0, 0]
    assert made.ground_truth.detection_weight.tolist() == [0, 1, 1, 1, 1, 1]
    assert made.ground_truth.detection_unknown[1:, 2:].all()


def test_an_answer_for_another_size_of_image_is_refused():
    dataset = MadeDataset()
    soft = {image_id: truthful(dataset.ground_truth(image_id)) for image_id in dataset.ids}
    soft["made0"] = replace(soft["made0"], size=(500, 375))
    _, error = batch(dataset, "replace", soft)
    assert isinstance(error, InputError)
    assert "made0" in str(error)
    assert "375 x 500" in str(error)
