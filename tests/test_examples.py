"""The examples: what they compute, and that a training takes them by their import path."""

import json
import pickle
import random
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import tutored
from made import LABELS, TINY, MadeDataset, truthful, two_tasks
from tutored import losses
from tutored.cli import main
from tutored.config import Augment, Loss, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet
from tutored.engine import train
from tutored.engine.trainer import Trainer
from tutored.errors import InputError
from tutored.geometry import Geometry, draw_geometry, whole
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Remapped, Store
from tutored.students import make_student
from tutored.tutors import open_tutor
from tutored.tutors.label import label
from tutored.types import GroundTruth, SoftLabels

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import defective
import distillation
import keypoints
import parts

STEPS = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu", "threads": 1}


def tutored_batch():
    """A batch whose maps the truthful tutor teaches."""
    dataset = MadeDataset(4)
    soft = {image_id: truthful(dataset.ground_truth(image_id)) for image_id in dataset.ids}
    tasks = two_tasks(segmentation={"policy": "replace", "store": "s"})
    made = TrainingSet(
        dataset, tasks, {"detection": 0, "segmentation": 8}, {"segmentation": soft}, size=64, augment=Augment()
    )
    return tasks, made.collate([made[0, position] for position in range(4)])


@pytest.mark.parametrize(("name", "term"), [("WithRelations", "relations"), ("WithChannels", "channels")])
def test_a_map_that_repeats_the_tutors_costs_nothing(name, term):
    tasks, batch = tutored_batch()
    student = make_student(make_config(config(name)).student, tasks)
    head = student.heads["segmentation"]
    targets = batch.targets["segmentation"]["tutor"]
    cells = head.assign(targets, tutor=True)
    alike = (targets.map.clamp(min=1 / 512) + 0.0).log()
    assert head.terms[term].sum(alike, targets, cells).item() == pytest.approx(0, abs=0.05 * cells.normaliser.item())
    assert head.terms[term].sum(-alike, targets, cells).item() > 0.5 * cells.normaliser.item()
    assert head.terms[term].sources == ("tutor",)


def test_learnt_weights_halve_the_loss_at_first_and_learn():
    tasks, batch = tutored_batch()
    student = make_student(make_config(config("WithLearntWeights")).student, tasks)
    assigned = losses.assign(student.heads, batch, Loss())
    factors = losses.divide(assigned.weights, student.heads, Loss())
    sums = losses.sums(student(batch.images.float() / 255), batch, assigned, student.heads)
    terms = dict(zip(sums, losses.weigh(sums, factors), strict=True))
    loss = student.combine(terms, 1.0)
    assert loss.item() == pytest.approx(sum(terms.values()).item() / 2)
    loss.backward()
    own = sum(value.item() for name, value in terms.items() if name.startswith("segmentation/"))
    assert student.doubt["segmentation"].grad.item() == pytest.approx((1 - own) / 2)


def config(name, train="voc:unread", **keys):
    student = TINY if name == "Projected" else {**TINY, "kind": f"distillation:{name}"}
    return {"data": {"train": train, "val_split": None}, "student": student, "train": STEPS, **keys}


@pytest.mark.parametrize("name", ["WithRelations", "WithChannels", "WithLearntWeights", "Projected"])
def test_a_training_takes_each(name, voc_folder, tmp_path):
    data = f"voc:{voc_folder}"
    store = str(label(open_tutor("python", function=silent), open_dataset(data, "train"), tmp_path / "store"))
    tasks = {"detection": {}, "segmentation": {"policy": "fill", "hidden": 1.0, "store": store}}
    trainer = distillation.Projected if name == "Projected" else Trainer
    train(make_config(config(name, data, tasks=tasks)), tmp_path / "run", trainer=trainer)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_task_and_a_student_of_ones_own(voc_folder, tmp_path):
    """Both from their one file, on images that have masks of the task: trained, evaluated, loaded and drawn."""
    folder = shutil.copytree(voc_folder, tmp_path / "voc")
    (folder / "Foreground").mkdir()
    for path in (folder / "SegmentationClass").glob("*.png"):
        pixels = np.array(Image.open(path))
        Image.fromarray(np.where(pixels == 255, 128, (pixels > 0) * 255).astype(np.uint8)).save(
            folder / "Foreground" / path.name
        )
    run = make_config(
        {
            "data": {"train": f"voc:{folder}"},
            "tasks": {"foreground": {"kind": "foreground:Foreground", "from": "Foreground"}, "segmentation": {}},
            "student": {"kind": "tiny_student:Tiny", "size": 64},
            "augment": {"zoom_out": "never", "crop": False},
            "train": {**STEPS, "epochs": 60, "lr": 0.01, "val_every": 60},
        }
    )
    result = train(run, tmp_path / "run")
    assert result["figures"]["foreground"]["F1"] > 0.8
    assert result["figures"]["segmentation"]["mIoU"] > 0
    student = tutored.load(tmp_path / "run" / "checkpoint")
    answer = student(voc_folder / "JPEGImages" / "val_000.jpg")
    assert set(answer.tasks) == {"foreground", "segmentation"}
    task = student.student.tasks["foreground"]
    picture = Image.new("RGB", (64, 48))
    assert np.asarray(task.draw(picture, answer.tasks["foreground"], 1.0)).any()


def test_a_tutor_and_a_data_set_of_ones_own(tmp_path, monkeypatch):
    """Named by import path in the commands and in the config: boxes from a table, maps from a function."""
    (tmp_path / "BOXES" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        picture = np.zeros((32, 48, 3), np.uint8)
        picture[8:16, 16 : 32 + number] = 255
        Image.fromarray(picture).save(f"BOXES/train/{number}.jpg", quality=100)
    Path("BOXES/train.csv").write_text("0,lamp,16,8,32,16\n1,lamp,16,8,33,16\n1,lamp,0,0,4,4\n")
    dataset = open_dataset("python:own_data:CsvBoxes", "train")
    assert dataset.name == "python:own_data:CsvBoxes/train" and dataset.ids == ("0", "1", "2", "3")
    truth = dataset.ground_truth("1").tasks["detection"]
    assert truth.boxes_xyxy.tolist() == [[16, 8, 33, 16], [0, 0, 4, 4]] and dataset.annotated_tasks("2") == ()
    assert pickle.loads(pickle.dumps(dataset)).image("0").size == (48, 32), "other processes read it, too"
    data = ["--data", "python:own_data:CsvBoxes", "--split", "train"]
    assert main(["data", "check", *data]) == 0
    assert main(["label", "python:own_tutor:lamps", *data, "--out", "lamps", "--score-floor", "0.5"]) == 0
    store = Store.open(Path("lamps"))
    assert store.labels.classes == ("lamp",) and store.identity["tutor"] == "own_tutor:lamps"
    assert store["0"].tasks["detection"].boxes_xyxy.tolist() == [[16, 8, 32, 16]]
    assert store["0"].tasks["segmentation"].map[1, 1, 2:4].min() > 0.9
    tasks = {"detection": {}, "segmentation": {"policy": "fill", "store": "lamps", "classes": ["lamp"]}}
    run = {"data": {"train": data[1], "val_split": None}, "tasks": tasks, "student": TINY, "train": STEPS}
    train(make_config(run), tmp_path / "run")
    assert Path("run/result.json").exists()


def silent(image):
    """A segmentation tutor that is sure of its background."""
    sure = np.zeros((len(LABELS), 2, 3), np.float32)
    sure[0], sure[1] = 0.9, 0.1
    return {"names": LABELS.names, "map": sure}


# --- Keypoints, and the parts that are made of them

NAMES = LabelSpace.of(["left_eye", "right_eye", "nose"])
FOX = {"box": [4, 2, 44, 42], "keypoints": {"left_eye": [30, 10], "nose": [10.5, 12.25]}}


def points_of(tmp_path, *animals, size=(48, 64)):
    path = tmp_path / "fox.json"
    path.write_text(json.dumps(animals))
    return keypoints.Keypoints.read(path, size, NAMES)


def certain(truth):
    """The soft answer that says with certainty what was drawn."""
    return keypoints.SoftPoints(xy=truth.xy, classes=truth.classes, scores=torch.ones(len(truth.xy)))


@pytest.mark.parametrize(
    ("animal", "message"),
    [
        ({"keypoints": {"nose": [65, 3]}}, "nose lies at 65, 3, the image has 64x48 pixels"),
        ({"keypoints": {"nose": [1, 2, 1]}}, r"nose: x and y, got \[1, 2, 1\]"),
        ({"keypoints": {"noze": [1, 2]}}, "unknown class 'noze'; did you mean nose"),
        ({"box": [1, 2, 3]}, r"box: x1, y1, x2 and y2, got \[1, 2, 3\]"),
        ({"box": None}, "box: x1, y1, x2 and y2, got None"),
        ([], "give .*'box'"),
    ],
)
def test_broken_keypoints_are_refused_in_one_message(tmp_path, animal, message):
    with pytest.raises(InputError, match=f"fox.json: .*{message}") as caught:
        points_of(tmp_path, {**FOX, **animal} if animal else [])
    assert "\n" not in str(caught.value)


def test_keypoints_become_heat_and_come_back(tmp_path):
    """The nose lies in cell (1, 2) of 8 x 8, a third of a cell from its left side; a mirror swaps the eyes."""
    task, truth = keypoints.Keypoints("keypoints", NAMES), points_of(tmp_path, FOX)
    row = task.teach(truth, (48, 64), whole((48, 64), 64), 8)
    assert row.heat[2, 2, 1] == 1 and row.heat[2, 2, 2].item() == pytest.approx(np.exp(-0.5))
    assert row.place[:, 2, 1].tolist() == pytest.approx([10.5 / 8 - 1, 12.25 / 6 - 2], abs=1e-6)
    raw = torch.cat([torch.logit(row.heat.clamp(1e-4, 1 - 1e-4)) + keypoints.RARE, row.place])[None]
    (found,) = task.decode(raw, [(48, 64)])
    assert found.classes.tolist() == [1, 3]
    torch.testing.assert_close(found.xy, truth.xy, atol=1e-4, rtol=0)
    flipped = task.teach(truth, (48, 64), Geometry((0.0, 0.0, 64.0, 48.0), flip=True, size=64), 8)
    assert flipped.heat[1].max() == 1 and not flipped.heat[0].any()
    assert task.record(truth, found) == [[1, 0, 1], [1, 0, 1]]


def test_pck_counts_what_is_near_by_the_box(tmp_path):
    """A fifth of 40 pixels: 8 are near, 9 are not; answers outside of the box do not count."""
    task, truth = keypoints.Keypoints("keypoints", NAMES), points_of(tmp_path, FOX)
    said = {"classes": torch.tensor([1, 1, 3]), "scores": torch.tensor([0.5, 0.9, 0.4])}
    found = [[38.0, 10], [60, 40], [10.5, 21.25]], [[39.0, 10], [60, 40], [10.5, 20.25]]
    records = [task.record(truth, keypoints.SoftPoints(xy=torch.tensor(xy), **said)) for xy in found]
    assert records == [[[1, 0, 0], [1, 0, 1]], [[0, 0, 1], [1, 0, 1]]]
    figures = task.figures([*records, records[0]])
    assert figures.per_class["PCK@.2"] == {"left_eye": 2 / 3, "right_eye": None, "nose": 1 / 3}
    assert figures.means == {"PCK@.2": 0.5} and figures.counts == {
        "keypoints": {"left_eye": 3, "right_eye": 0, "nose": 3}
    }


class Foxes(MadeDataset):
    """Images with one animal each, somewhere else in each of them."""

    def __init__(self):
        super().__init__(4)
        self.labels = {keypoints.KIND: NAMES}

    def image(self, image_id):
        return Image.new("RGB", self.ground_truth(image_id).size[::-1])

    def ground_truth(self, image_id):
        size, rng = super().ground_truth(image_id).size, random.Random(image_id)
        xy = torch.tensor([[rng.uniform(0, size[1]), rng.uniform(0, size[0])] for _ in range(3)])
        rows = {"classes": torch.tensor([1, 2, 3]), "animals": torch.zeros(3, dtype=torch.int64)}
        return GroundTruth.of(size, keypoints.Animals(xy=xy, boxes_xyxy=torch.tensor([[0.0, 0, 50, 40]]), **rows))


class Guide:
    """The truthful tutor, which counts its keypoints otherwise and knows no right eyes."""

    labels = LabelSpace.of(["nose", "tail", "left_eye"])
    identity = {"kind": "guide"}  # noqa: RUF012

    def __call__(self, images, image_ids):
        answers = []
        for image, image_id in zip(images, image_ids, strict=True):
            truth = Foxes().ground_truth(image_id).tasks[keypoints.KIND].relabelled((0, 3, 0, 1), None)
            answers.append(SoftLabels.of((image.height, image.width), certain(truth)))
        return answers


def test_a_truthful_tutor_of_keypoints_teaches_alike(tmp_path):
    """Through a store, another numbering and any geometry; what it does not know it leaves open."""
    dataset, task = Foxes(), keypoints.Keypoints("keypoints", NAMES)
    store = Store.open(label(Guide(), dataset, tmp_path / "store"))
    answers = Remapped(store, ClassMap.by_name(Guide.labels, NAMES), task)
    for number in range(12):
        image_id = dataset.ids[number % 4]
        truth, size = dataset.ground_truth(image_id).tasks[keypoints.KIND], dataset.ground_truth(image_id).size
        guides, rng = task.guides(truth), random.Random(number)
        geometry = draw_geometry(size, guides, 64, Augment(), rng, zoom_out=number % 2 == 0)
        known = truth.relabelled((0, 1, 0, 3), (1, 3))
        drawn = task.stack([task.teach(known, size, geometry, 8)], torch.ones(1))
        said = task.stack([task.teach_soft(answers[image_id].tasks[keypoints.KIND], size, geometry, 8)], torch.ones(1))
        eyes = [False, True] if geometry.flip else [True, False]
        assert said.known.tolist() == drawn.known.tolist() == [[*eyes, True]]
        raw = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(number), requires_grad=True)
        for term in task.terms.values():
            sums = [term.sum(raw, each, task.assign(each, tutor=False)) for each in (drawn, said)]
            weights = [term.weight(each, task.assign(each, tutor=False)) for each in (drawn, said)]
            assert torch.equal(*weights) and torch.equal(*sums)
            assert torch.equal(*(torch.autograd.grad(each, raw, retain_graph=True)[0] for each in sums))


def test_keypoints_are_learnt_beside_boxes_and_two_maps(voc_folder, tmp_path):
    """Corners of the coloured rectangles; what is near the upper ones is their head."""
    folder = shutil.copytree(voc_folder, tmp_path / "voc")
    instances = []
    for path in (folder / "Annotations").glob("*.xml"):
        for box in ElementTree.parse(path).iter("bndbox"):
            x1, y1, x2, y2 = (float(side.text) - shift for side, shift in zip(box, (1, 1, 0, 0), strict=True))
            places = [[x1, y1, 1], [x2, y1, 1], [(x1 + x2) / 2, (y1 + y2) / 2, 1], [0, 0, 0]]
            instances.append({"image": path.stem, "bbox_xyxy": [x1, y1, x2, y2], "keypoints": places})
    names = ["left_eye", "right_eye", "nose", "left_ear"]
    (folder / "all.json").write_text(json.dumps({"names": names, "instances": instances}))
    assert "left out 0 keypoints" in keypoints.convert(folder / "all.json", folder)
    assert "SegmentationPart" in parts.make(folder)
    tasks = {
        "detection": {},
        "segmentation": {},
        "keypoints": {"kind": "keypoints:Keypoints", "from": "Keypoints", "labels": "keypoints.txt"},
        "parts": {"kind": "segmentation", "from": "SegmentationPart", "labels": "parts.txt"},
    }
    small = {"backbone": "test_resnet", "weights": "random", "size": 64, "width": 16, "map_width": 16, "map_stride": 4}
    augment = {"zoom_out": "never", "crop": False}
    steps = {**STEPS, "epochs": 5, "lr": 0.01, "val_every": 5}
    run = make_config(
        {"data": {"train": f"voc:{folder}"}, "tasks": tasks, "student": small, "augment": augment, "train": steps}
    )
    figures = train(run, tmp_path / "run")["figures"]
    assert set(figures) == set(tasks)
    assert set(figures["parts"]["per_class"]["IoU"]) == {"background", "head", "body"}
    found, there = figures["keypoints"]["per_class"]["PCK@.2"], figures["keypoints"]["keypoints"]
    assert there["nose"] > 0 and found["nose"] is not None and found["left_ear"] is None
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    first, *_, last = (line["loss"] for line in lines if "loss" in line)
    assert {name.split("/")[0] for name in last} == set(tasks)
    assert last["keypoints/heat/ground_truth"] < 0.9 * first["keypoints/heat/ground_truth"]
    student = tutored.load(tmp_path / "run" / "checkpoint")
    answer = student(folder / "JPEGImages" / "val_000.jpg").tasks["keypoints"]
    picture = Image.new("RGB", (64, 48))
    drawn = student.student.tasks["keypoints"].draw(picture, answer, 1.0)
    assert np.asarray(drawn).any() == bool((answer.scores >= 0.3).any())


def test_keypoints_of_another_number_are_not_converted(voc_folder, tmp_path):
    given = {"names": ["nose", "tail"], "instances": [{"image": "train_000", "keypoints": [[1, 2, 1]]}]}
    (tmp_path / "all.json").write_text(json.dumps(given))
    with pytest.raises(InputError, match=r"all\.json: train_000 has an animal of 1 keypoints, not of 2"):
        keypoints.convert(tmp_path / "all.json", voc_folder)


def test_a_head_is_what_lies_around_its_keypoints():
    """Discs of 3 pixels around three keypoints in a row of 10, in an animal of 40 x 20 beside a chair."""
    classes = np.zeros((30, 60), np.uint8)
    classes[5:25, 10:50], classes[5:25, 45:50], classes[0:3, 55:60] = 3, 9, 3
    eyes = {"left_eye": [15, 12], "right_eye": [20, 12], "nose": [25, 12]}
    mask = parts.mask_of(classes, [{"box": [10, 5, 50, 25], "keypoints": eyes}])
    assert mask[12, 13] == mask[14, 20] == mask[12, 27] == 1 and mask[12, 29] == mask[17, 20] == 2
    assert mask[10, 47] == mask[1, 57] == 255 and mask[28, 30] == 0
    del eyes["nose"]
    unknown = parts.mask_of(classes, [{"box": [10, 5, 50, 25], "keypoints": eyes}])
    assert set(np.unique(unknown)) == {0, 255}


# --- Ground truth with faults


def test_a_disc_becomes_a_polygon_of_ten_corners():
    rows, columns = np.mgrid[:101, :101]
    disc = ((rows - 50) ** 2 + (columns - 50) ** 2 <= 40**2).astype(np.uint8)
    disc[0, 0] = 255
    found = defective.coarsened(disc)
    assert found[0, 0] == 255 and (found == 1)[disc == 0].mean() < 0.01
    # A regular decagon has 5 sin(36°) / pi = .935 of its circle; the farthest pixels are not quite regular.
    assert 0.85 < (found == 1).sum() / (disc == 1).sum() < 0.96


def test_faulty_ground_truth_is_the_same_each_time(voc_folder, monkeypatch):
    monkeypatch.setattr(defective, "FOLDER", voc_folder)
    data, intact = (open_dataset("python:defective:Defective", split) for split in ("train", "val"))
    whole = open_dataset(f"voc:{voc_folder}", "train")
    read = [{image_id: each.ground_truth(image_id).tasks for image_id in whole.ids} for each in (whole, data, data)]
    boxes = [sum(len(tasks["detection"].classes) for tasks in each.values() if "detection" in tasks) for each in read]
    assert 0 < boxes[1] == boxes[2] < boxes[0]
    for before, after, again in zip(*(each.values() for each in read), strict=True):
        assert before.keys() == after.keys() == again.keys()
        if "segmentation" in before:
            masks = [tasks["segmentation"].mask for tasks in (before, after, again)]
            assert torch.equal(masks[1], masks[2]), "a polygon of ten corners draws these rectangles nearly whole"
            assert (masks[0] == masks[1]).float().mean() > 0.9
    for image_id in intact.ids:
        truth = open_dataset(f"voc:{voc_folder}", "val").ground_truth(image_id).tasks
        assert torch.equal(intact.ground_truth(image_id).tasks["segmentation"].mask, truth["segmentation"].mask)
