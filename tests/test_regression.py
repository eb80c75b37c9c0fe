"""Dense regression: numbers are read, taught by ground truth and tutor alike, stored, and measured by hand."""

import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from made import TINY, MadeDataset, refused
from tutored import losses
from tutored.config import Augment, Loss, make_config
from tutored.config.entries import STUDENTS
from tutored.data import TaskSource, open_dataset
from tutored.data.training import TrainingSet
from tutored.engine import train
from tutored.engine.supervision import open_supervision
from tutored.errors import InputError
from tutored.geometry import whole
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Remapped, Store
from tutored.students import make_student
from tutored.tasks.regression import Regression, SoftValues, ValueMap, Values
from tutored.tutors.label import label
from tutored.types import GroundTruth, SoftLabels

NONE = LabelSpace.of(())


def depth(**keys):
    return Regression("depth", NONE, Regression.Section(kind="regression", **keys))


class Ramps(MadeDataset):
    """Numbers that rise to the right, not measured in one column."""

    def __init__(self, count=6):
        super().__init__(count)
        self.labels = {"depth": NONE}

    def ground_truth(self, image_id):
        height, width = super().ground_truth(image_id).size
        values = torch.arange(width).float().expand(height, width).clone()
        values[:, 5] = torch.nan
        return GroundTruth((height, width), {"depth": Values(values=values)})

    def image(self, image_id):
        height, width = self.ground_truth(image_id).size
        return Image.new("RGB", (width, height))


class Repeats:
    """A tutor that repeats the ground truth."""

    labels = LabelSpace.of(["unused"])
    identity = {"kind": "repeats"}  # noqa: RUF012

    def __init__(self, dataset, confidence=None):
        self.dataset, self.confidence = dataset, confidence

    def __call__(self, images, image_ids):
        return [self.answer(image_id) for image_id in image_ids]

    def answer(self, image_id):
        truth = self.dataset.ground_truth(image_id)
        values = truth.tasks["depth"].values
        sure = None if self.confidence is None else torch.full_like(values, self.confidence)
        return SoftLabels.of(truth.size, SoftValues(values=values, confidence=sure))


def batch_of(dataset, soft=None, **keys):
    task = depth(**({"policy": "replace", "store": "s"} if soft else {}), **keys)
    answers = {"depth": soft} if soft else {}
    made = TrainingSet(dataset, {"depth": task}, {"depth": 8}, answers, size=64, augment=Augment())
    return task, made.collate([made[0, position] for position in range(len(dataset.ids))])


def loss_and_gradient(task, batch):
    student = make_student(make_config({"data": {"train": "voc:x"}, "student": TINY}).student, {"depth": task})
    raw = torch.linspace(-1, 1, 6 * 64).reshape(6, 1, 8, 8).requires_grad_()
    assigned = losses.assign(student.heads, batch, Loss())
    factors = losses.divide(assigned.weights, student.heads, Loss())
    loss = losses.weigh(losses.sums({"depth": raw}, batch, assigned, student.heads), factors).sum()
    return loss.item(), torch.autograd.grad(loss, raw)[0]


@pytest.mark.parametrize("confidence", [None, 1.0])
def test_the_truthful_tutor_teaches_what_ground_truth_does(confidence, tmp_path):
    dataset, keys = Ramps(), {"shift": 30.0, "scale": 20.0}
    store = Store.open(label(Repeats(dataset, confidence), dataset, tmp_path / "store"))
    nothing = ClassMap(store.labels, NONE, (0, None))
    task, by_hand = batch_of(dataset, **keys)
    taught, by_tutor = batch_of(dataset, Remapped(store, nothing, depth()), **keys)
    assert list(by_hand.targets["depth"]) == ["ground_truth"] and list(by_tutor.targets["depth"]) == ["tutor"]
    mine, theirs = loss_and_gradient(taught, by_tutor), loss_and_gradient(task, by_hand)
    assert mine[0] == pytest.approx(theirs[0], rel=1e-6) and theirs[0] > 0
    assert torch.allclose(mine[1], theirs[1], atol=1e-7)


def test_the_loss_by_hand():
    task = depth(shift=1.0, scale=2.0)
    targets = task.stack([row_of(task, [[3.0, 5.0], [math.nan, 1.0]])], torch.ones(1))
    assert targets.values[0].tolist() == [[1, 2], [0, 0]] and targets.certainty[0].tolist() == [[1, 1], [0, 1]]
    cells = task.assign(targets, tutor=False)
    term = task.terms["value"]
    # Errors 1, 2 and 0: half a square up to 1, beyond it the distance less one half.
    assert term.sum(torch.zeros(1, 1, 2, 2), targets, cells).item() == pytest.approx(0.5 + 1.5 + 0)
    assert term.weight(targets, cells) == 3


def row_of(task, values):
    truth = Values(values=torch.tensor(values))
    return task.teach(truth, (2, 2), whole((2, 2), 2), 2)


def test_errors_by_hand():
    task = depth(missing=0.0)
    truth = Values(values=torch.tensor([[1.0, 2.0], [0.0, 4.0]]))
    found = task.record(truth, ValueMap(values=torch.tensor([[1.1, 4.0], [9.0, 3.0]])))
    figures = task.figures([found, found])
    assert figures.means["RMSE"] == pytest.approx(math.sqrt((0.01 + 4 + 1) / 3))
    assert figures.means["MAE"] == pytest.approx((0.1 + 2 + 1) / 3)
    assert figures.means["delta<1.25"] == pytest.approx(1 / 3), "4 / 3 is beyond, 1.1 within"
    assert task.resampler([found, None])(np.array([3, 1])) == pytest.approx(figures.means["RMSE"])
    with pytest.raises(InputError, match="NaN or infinite"):
        task.record(truth, ValueMap(values=torch.full((2, 2), math.nan)))


def test_files_of_numbers(tmp_path):
    deep = np.array([[0, 1], [300, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.array([[np.nan, 1.5], [2, 3]]))
    assert Regression.read(tmp_path / "a.png", (2, 2), NONE).values.tolist() == deep.tolist()
    assert Regression.read(tmp_path / "a.npy", (2, 2), NONE).values[0, 1] == 1.5
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    np.save(tmp_path / "infinite.npy", np.full((2, 2), np.inf))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    for name, message in (
        ("a.png", r"its image has 3 x 2 pixels"),
        ("colour.png", "PNG of mode RGB"),
        ("infinite.npy", "infinite numbers; write NaN"),
        ("broken.npy", "no numbers can be read"),
    ):
        refused(message, Regression.read, tmp_path / name, (3, 2) if name == "a.png" else (2, 2), NONE)


NARROW = {"blitznet": {"extra": 2, "extra_width": 64, "up_width": 64, "map_width": 32}}


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_student_learns_depth_beside_boxes_and_masks(kind, voc_folder, tmp_path):
    """A ramp over the picture, from 16-bit files in a folder of the data set, 0 where nothing was measured."""
    folder, narrow = tmp_path / "voc", NARROW.get(kind, {})
    shutil.copytree(voc_folder, folder)
    (folder / "Depth").mkdir()
    for picture in (folder / "JPEGImages").glob("*.jpg"):
        with Image.open(picture) as image:
            ramp = np.tile(np.linspace(1000, 3000, image.width, dtype=np.uint16), (image.height, 1))
        ramp[:2] = 0
        Image.fromarray(ramp).save(folder / "Depth" / f"{picture.stem}.png")
    section = {"kind": "regression", "from": "Depth", "missing": 0, "shift": 2000, "scale": 600}
    training = {"epochs": 30 if kind == "compact" else 1, "batch": 4, "lr": 0.005, "val_every": 30}
    run = {
        "data": {"train": f"voc:{folder}"},
        "tasks": {"detection": {}, "segmentation": {}, "depth": section},
        "student": {"kind": kind, "backbone": "test_resnet", "weights": "random", "size": 64, **narrow},
        "augment": {"zoom_out": "never", "crop": False, "colour": False, "flip_share": 0},
        "train": training | {"workers": 0, "device": "cpu", "threads": 1},
    }
    result = train(make_config(run), tmp_path / "run")
    assert kind != "compact" or result["figures"]["depth"]["RMSE"] < 500, "the ramp's own spread is 577"
    assert set(result["figures"]) == {"detection", "segmentation", "depth"}


@pytest.mark.parametrize(
    ("values", "confidence"),
    [([[1.0, math.inf]], None), ([[1.0, 2.0]], [[0.5, 1.5]]), ([[1.0, 2.0]], [[math.nan, 1.0]])],
)
def test_impossible_numbers_of_a_tutor_are_not_stored(values, confidence):
    given = None if confidence is None else torch.tensor(confidence)
    with pytest.raises(ValueError, match=r"infinite.*0\.\.1"):
        SoftValues(values=torch.tensor(values), confidence=given).encode()


def test_a_tutors_confidence_weighs_its_cells():
    task = depth()
    answer = SoftValues(values=torch.tensor([[2.0, 8.0]]), confidence=torch.tensor([[1.0, 0.5]]))
    row = task.teach_soft(answer, (2, 4), whole((2, 4), 4), 4)
    # Cells at 0, 1/4, 3/4 and 1 between the two numbers.
    assert row.certainty[0].tolist() == pytest.approx([1, 0.875, 0.625, 0.5])
    inner = [(0.75 * 2 + 0.125 * 8) / 0.875, (0.25 * 2 + 0.375 * 8) / 0.625]
    assert row.values[0].tolist() == pytest.approx([2, *inner, 8])


def test_a_store_keeps_numbers_and_confidences(tmp_path):
    dataset = Ramps(3)
    store = Store.open(label(Repeats(dataset, 0.4), dataset, tmp_path / "store"))
    assert store.kinds == ("regression",)
    values, given = store["made1"].tasks["regression"], dataset.ground_truth("made1").tasks["depth"].values
    assert torch.equal(values.values.nan_to_num(-1), given.nan_to_num(-1))
    assert values.weights[given.isfinite()].tolist() == pytest.approx([0.4] * int(given.isfinite().sum()))


def test_a_heat_map_leaves_unmeasured_pixels_as_they_are():
    grey = Image.new("RGB", (4, 2), (90, 90, 90))
    drawn = np.asarray(depth(missing=0.0).draw(grey, Values(values=torch.tensor([[0.0, 1, 2, 3]] * 2)), 1.0))
    assert drawn[0, 0].tolist() == [90, 90, 90]
    assert drawn[0, 3].sum() > drawn[0, 1].sum()


def test_a_missing_depth_folder_is_named(voc_folder):
    with pytest.raises(InputError, match="Depth"):
        open_dataset(f"voc:{voc_folder}", "train", {"depth": TaskSource("regression", "Depth")})


def test_a_store_of_boxes_does_not_teach_depth(voc_folder, tmp_path):
    dataset = Ramps(2)
    store = label(Repeats(dataset), dataset, tmp_path / "store")
    section = {"policy": "replace", "store": str(store)}
    run = make_config({"data": {"train": f"voc:{voc_folder}"}, "tasks": {"segmentation": section}})
    refused("answers regression, tasks.segmentation needs segmentation", open_supervision, run)
