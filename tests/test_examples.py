"""The examples: what they compute, and that a training takes them by their import path."""

import json
import math
import pickle
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
from tutored.cli import main
from tutored.config import Augment, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet
from tutored.engine import train
from tutored.engine.trainer import Trainer
from tutored.geometry import whole
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.students import make_student
from tutored.tutors import open_tutor
from tutored.tutors.label import label

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
    grids = {"detection": 0, "segmentation": 8}
    made = TrainingSet(dataset, tasks, grids, {"segmentation": soft}, size=64, augment=Augment())
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


def config(name, train="voc:unread", **keys):
    student = TINY if name == "Projected" else {**TINY, "kind": f"distillation:{name}"}
    return {"data": {"train": train, "val_split": None}, "student": student, "train": STEPS, **keys}


@pytest.mark.parametrize("name", ["WithLearntWeights", "Projected"])
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
        drawn = Image.fromarray(np.where(pixels == 255, 128, (pixels > 0) * 255).astype(np.uint8))
        drawn.save(folder / "Foreground" / path.name)
    run = {
        "data": {"train": f"voc:{folder}"},
        "tasks": {"foreground": {"kind": "foreground:Foreground", "from": "Foreground"}, "segmentation": {}},
        "student": {"kind": "tiny_student:Tiny", "size": 64},
        "augment": {"zoom_out": "never", "crop": False},
        "train": {**STEPS, "epochs": 60, "lr": 0.01, "val_every": 60},
    }
    result = train(make_config(run), tmp_path / "run")
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


def test_keypoints_are_learnt_beside_boxes_and_two_maps(voc_folder, tmp_path, capsys):
    """Corners of the coloured rectangles; what is near the upper ones is their head. The student is the next one's
    tutor.
    """
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
    run = {"data": {"train": f"voc:{folder}"}, "tasks": tasks, "student": small, "augment": augment, "train": steps}
    figures = train(make_config(run), tmp_path / "run")["figures"]
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
    words = ["--tasks", "keypoints", "--data", f"voc:{folder}", "--split", "train", "--out", str(tmp_path / "points")]
    assert main(["label", f"student:{tmp_path}/run/checkpoint", *words]) == 0
    assert "next: tutored train CONFIG.yaml" in capsys.readouterr().out, "VOC's format has no keypoints to evaluate by"
    points = tasks["keypoints"] | {"policy": "fill", "hidden": 1, "store": str(tmp_path / "points")}
    train(make_config(run | {"tasks": {"keypoints": points}, "train": {**steps, "epochs": 1}}), tmp_path / "next")
    losses = [json.loads(line).get("loss", {}) for line in (tmp_path / "next" / "log.jsonl").read_text().splitlines()]
    assert any(each.get("keypoints/heat/tutor") for each in losses)


def test_a_tutors_sure_keypoints_teach_as_drawn_ones_and_unsure_ones_do_not_count():
    """Places at (2, 3), (6, 3) and (5, 7) of eight cells, of the same keypoint; the tutor is sure of the first."""
    labels = LabelSpace.of(["left_eye", "nose"])
    task = keypoints.Keypoints("keypoints", labels)
    xy = torch.tensor([[2.5, 3.25], [6.5, 3.5], [5.5, 7.5]])
    answer = keypoints.SoftPoints(xy=xy, classes=torch.tensor([2, 2, 2]), scores=torch.tensor([0.4, 0.2, 0.05]))
    row = task.teach_soft(answer, (8, 8), whole((8, 8), 8), 8)
    assert row.there.nonzero().tolist() == [[3, 2]] and row.place[:, 3, 2].tolist() == [0.5, 0.25]
    assert row.heat[1, 3, 2] == 1 and row.heat[1, 3, 3] == pytest.approx(math.exp(-0.5))
    assert row.heat[1, 3, 6] < 1e-3 and row.heat[1, 7, 5] < 1e-3
    assert row.known[0].all() and row.known[1, 3, 2] and row.known[1, 7, 5], "what is weaker than .1 is no answer"
    assert not row.known[1, 3, 6] and not row.known[1, 2, 5], "around an unsure one nothing is said"
    drawn = keypoints.Animals(
        xy=xy[:1], classes=torch.tensor([2]), animals=torch.tensor([0]), boxes_xyxy=torch.zeros(1, 4)
    )
    assert torch.equal(task.teach(drawn, (8, 8), whole((8, 8), 8), 8).heat, row.heat)


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


def test_all_boxes_may_be_missing_and_two_splits_stay_intact(voc_folder, monkeypatch):
    monkeypatch.setattr(defective, "FOLDER", voc_folder)
    monkeypatch.setattr(defective, "MISSING", 1.0)
    data = open_dataset("python:defective:Defective", "train")
    there = [data.ground_truth(image_id).tasks for image_id in data.ids]
    assert [len(tasks["detection"].classes) for tasks in there if "detection" in tasks] == [0] * 5
    monkeypatch.setattr(defective, "INTACT", ("val", "train"))
    whole = open_dataset("python:defective:Defective", "val+train")
    assert all(len(whole.ground_truth(f"val_{number:03d}").tasks["detection"].classes) for number in range(4))
