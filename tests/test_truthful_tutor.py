"""Soft labels built from the ground truth give the ground truth's losses and gradients, term by term.

One law over class maps, stores, transforms, sources, assignment and losses together, for every student.
"""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from made import LABELS, MadeDataset, boxed, chosen, truthful, two_tasks
from tutored import losses
from tutored.config import Augment, Loss
from tutored.config.entries import STUDENTS, section_of
from tutored.data.training import TrainingSet
from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Remapped, Store
from tutored.students import make_student
from tutored.tasks.detection import Boxes, SoftBoxes
from tutored.tasks.segmentation import ClassMask, SoftMap
from tutored.tutors.label import label
from tutored.types import SOURCES, SoftLabels

SMALL = {
    "blitznet": {"extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8},
    "compact": {"width": 16, "map_width": 8, "map_stride": 8},
    "ubernet": {"width": 8, "map_stride": 8, "pyramid": 2},
}
"""What makes each student small."""
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
        boxes, seen = soft.tasks["detection"], soft.tasks["segmentation"]
        classes = torch.tensor(there.to)[boxes.classes]
        renamed = SoftBoxes(boxes_xyxy=boxes.boxes_xyxy, classes=classes, probs=there.remap(boxes.probs))
        return SoftLabels.of(soft.size, renamed, SoftMap(map=there.remap(seen.map, dim=0)))


def answers(dataset, folder):
    """What the truthful tutor says, labelled into a store and read back in our label space, by task."""
    store = Store.open(label(Truthful(dataset), dataset, folder / "store"))
    return {name: Remapped(store, ClassMap.by_name(FOREIGN, LABELS), task) for name, task in two_tasks().items()}


def in_memory(dataset):
    """The same without a store and a class map."""
    soft = {image_id: truthful(dataset.ground_truth(image_id)) for image_id in dataset.ids}
    return {"detection": soft, "segmentation": soft}


def training_set(dataset, tasks, soft=None, *, grid=8, size=64, joint=True, **augment):
    augment = Augment(**{"crop_guides": "all", **augment})
    grids = {name: grid if hasattr(task, "channels") else 0 for name, task in tasks.items()}
    return TrainingSet(dataset, tasks, grids, soft, size=size, augment=augment, joint=joint)


def batch(dataset, policy, soft, boxes=None, maps=None, **section):
    """The tasks of a run with this policy, and one batch of all images."""
    both = {"policy": policy, "store": "truthful", **section}
    tasks = two_tasks(detection={**both, **(boxes or {})}, segmentation={**both, **(maps or {})})
    made = training_set(dataset, tasks, soft)
    return tasks, made.collate([made[(0, position)] for position in range(len(dataset.ids))])


def student_of(kind, tasks, **keys):
    shape = {"kind": kind, "backbone": "test_resnet", "weights": "random", "size": 64, **SMALL[kind], **keys}
    torch.manual_seed(0)
    return make_student(section_of(kind, STUDENTS, "student").model_validate(shape), tasks)


def raw_outputs(student, images):
    """Raw outputs that are leaves, of the shapes that the student gives."""
    rng = torch.Generator().manual_seed(0)
    made = {}
    with torch.no_grad():
        for name, raw in student.eval()(images.float() / 255).items():
            tensors = [raw] if isinstance(raw, torch.Tensor) else list(raw)
            drawn = [torch.randn(each.shape, generator=rng, requires_grad=True) for each in tensors]
            made[name] = drawn[0] if isinstance(raw, torch.Tensor) else type(raw)(*drawn)
    return made


def leaves(raw):
    return [each for part in raw.values() for each in ([part] if isinstance(part, torch.Tensor) else part)]


def terms(student, batch, config):
    """By task and term, the divided sum over the sources that teach, and its gradients."""
    raw = raw_outputs(student, batch.images)
    assigned = losses.assign(student.heads, batch, config)
    factors = losses.divide(assigned.weights, student.heads, config)
    found = {}
    for name, value in losses.sums(raw, batch, assigned, student.heads).items():
        term = name.rpartition("/")[0]
        found[term] = found.get(term, 0) + value * factors[name]
    return {
        term: (value, torch.autograd.grad(value, leaves(raw), allow_unused=True, retain_graph=True))
        for term, value in found.items()
    }


@pytest.mark.parametrize("kind", STUDENTS)
@pytest.mark.parametrize(
    ("boxes", "maps", "config", "void"),
    [
        ({}, {}, {}, False),
        ({"class_target": "soft"}, {}, {}, True),
        ({}, {"temperature": 2.0, "overlap": 1.0}, {"joint": False}, False),
        ({"conflicts": "keep", "box_floor": 0.001, "confidence": False}, {}, {}, True),
    ],
)
def test_the_truthful_tutor_teaches_what_ground_truth_does(kind, boxes, maps, config, void, tmp_path):
    dataset = MadeDataset(void=void)
    soft = in_memory(dataset) if void else answers(dataset, tmp_path)
    tasks, by_hand = batch(dataset, "ground_truth", soft, boxes, maps)
    _, by_tutor = batch(dataset, "replace", soft, boxes, maps)
    for targets, source in ((by_hand, "ground_truth"), (by_tutor, "tutor")):
        assert {name: list(each) for name, each in targets.targets.items()} == {name: [source] for name in tasks}
    assert (by_hand.images == by_tutor.images).all()
    student = student_of(kind, tasks)
    drawn, answered = (terms(student, each, Loss(**config)) for each in (by_hand, by_tutor))
    assert drawn.keys() == answered.keys()
    for name in drawn:
        assert drawn[name][0].item() > 0
        assert answered[name][0].item() == pytest.approx(drawn[name][0].item(), rel=1e-6)
        for mine, theirs in zip(answered[name][1], drawn[name][1], strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.allclose(mine, theirs, atol=1e-7)


@pytest.mark.parametrize("kind", STUDENTS)
def test_half_and_half_is_the_ground_truth_too(kind):
    dataset = MadeDataset()
    soft = in_memory(dataset)
    tasks, by_hand = batch(dataset, "ground_truth", soft)
    student = student_of(kind, tasks)
    whole = {name: value.item() for name, (value, _) in terms(student, by_hand, Loss()).items()}
    for policy, extra in (("replace", {"share": 0.5}), ("both", {"weights": [0.5, 0.5]}), ("fill", {"hidden": 0.5})):
        _, mixed = batch(dataset, policy, soft, **extra)
        assert all(set(each) == set(SOURCES) for each in mixed.targets.values())
        for name, (value, _) in terms(student, mixed, Loss()).items():
            assert value.item() == pytest.approx(whole[name], rel=1e-5)


def only_cats(real):
    """The ground truth of a data set that annotates class 1 alone."""

    def truth_of(image_id):
        truth = real(image_id)
        boxes, mask = truth.tasks["detection"], truth.tasks["segmentation"].mask
        cats = chosen(boxes, boxes.classes == 1, annotated=(1,))
        drawn = ClassMask(mask=torch.where(mask == 1, 1, 0).to(torch.uint8), annotated=(1,))
        return type(truth).of(truth.size, cats, drawn)

    return truth_of


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_truthful_tutor_completes_partial_annotation(kind):
    everything, partial = MadeDataset(void=False), MadeDataset(void=False, annotated=(1,))
    soft = in_memory(everything)
    partial.ground_truth = only_cats(partial.ground_truth)
    section = {"policy": "fill", "store": "truthful"}
    filling = two_tasks(detection=section, segmentation=section)
    sets = (training_set(partial, filling, soft, crop=False), training_set(everything, two_tasks(), crop=False))
    completed, drawn = (each.collate([each[(0, position)] for position in range(6)]) for each in sets)
    assert all(list(each) == ["tutor"] for each in completed.targets.values())
    assert completed.targets["detection"]["tutor"].unknown.sum() == 0
    seen = completed.targets["segmentation"]["tutor"].map
    assert torch.allclose(seen, drawn.targets["segmentation"]["ground_truth"].map)
    student = student_of(kind, filling)
    mine, theirs = terms(student, completed, Loss()), terms(student, drawn, Loss())
    for name in theirs:
        assert mine[name][0].item() == pytest.approx(theirs[name][0].item(), rel=1e-5)


def test_unannotated_classes_are_never_called_background():
    partial = MadeDataset(annotated=(1,))
    _, given = batch(partial, "ground_truth", {})
    assert given.targets["detection"]["ground_truth"].unknown.tolist() == [[False, False, True, True]] * 6


def test_an_answer_for_another_size_of_image_is_refused():
    dataset = MadeDataset()
    soft = in_memory(dataset)["detection"]
    soft["made0"] = replace(soft["made0"], size=(500, 375))
    _, error = batch(dataset, "replace", {"detection": soft})
    assert isinstance(error, InputError)
    assert "made0" in str(error)
    assert "375 x 500" in str(error)


def test_the_thesis_head_is_taught_alike(tmp_path):
    dataset = MadeDataset(void=False)
    soft = answers(dataset, tmp_path)
    tasks, by_hand = batch(dataset, "ground_truth", soft)
    _, by_tutor = batch(dataset, "replace", soft)
    student = student_of("blitznet", tasks, normaliser="positives", mining="batch")
    drawn, answered = (terms(student, each, Loss()) for each in (by_hand, by_tutor))
    for name in drawn:
        assert answered[name][0].item() == pytest.approx(drawn[name][0].item(), rel=1e-6)


def test_a_contradicted_box_silences_no_box_of_another_class():
    partial = MadeDataset(annotated=(1,))
    real = partial.ground_truth
    nothing = {"detection": boxed(Boxes, annotated=(1,))}
    partial.ground_truth = lambda image_id: replace(real(image_id), tasks={**real(image_id).tasks, **nothing})
    probs = [[0.1, 0.2, 0.7, 0], [0.1, 0.75, 0.15, 0]]
    said = boxed(SoftBoxes, [[2, 2, 30, 30], [3, 2, 30, 30]], [2, 1], probs=probs)
    soft = {image_id: SoftLabels.of(real(image_id).size, said) for image_id in partial.ids}
    _, made = batch(partial, "fill", {"detection": soft})
    assert {tuple(row) for row in made.targets["detection"]["tutor"].classes.tolist()} == {(2,)}


def test_without_an_answer_unannotated_classes_stay_unknown():
    partial = MadeDataset(annotated=(1,))
    soft = {partial.ids[0]: truthful(partial.ground_truth(partial.ids[0]))}
    _, made = batch(partial, "fill", {"detection": soft})
    boxes = made.targets["detection"]
    assert boxes["tutor"].weight.tolist() == [1, 0, 0, 0, 0, 0]
    assert boxes["ground_truth"].weight.tolist() == [0, 1, 1, 1, 1, 1]
    assert boxes["ground_truth"].unknown[1:, 2:].all()
