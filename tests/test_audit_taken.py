"""What training takes from an audit, and what it must not."""

import json

import pytest
import torch

from made import LABELS, TINY, Repeats
from tutored.audit import as_a_run_sees, audit
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet
from tutored.engine.data_sets import open_visible
from tutored.engine.supervision import open_supervision
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Store
from tutored.softlabels.advice import read_sidecar, write_sidecar
from tutored.students import make_student
from tutored.tasks.audit import Advice
from tutored.tutors.label import label
from tutored.types import SoftLabels


def taught(folder, store, data=None, task=None, **more):
    detection = {"policy": "fill", "store": str(store), **(task or {})}
    tasks = {"detection": detection, "segmentation": {}}
    return make_config({"data": {"train": f"voc:{folder}", **(data or {})}, "tasks": tasks, "student": TINY, **more})


def advise(store, dataset, advice, **more):
    """Audit a store and put this advice for boxes into it."""
    sidecar = audit(store, dataset).sidecar
    part = sidecar.tasks["detection"].model_copy(update={"advice": advice, **more})
    write_sidecar(store, sidecar.model_copy(update={"tasks": {"detection": part}}))


@pytest.fixture
def folder(make_voc, tmp_path):
    return make_voc(tmp_path / "voc", {"train": ("both",) * 6, "val": ("both",) * 2})


@pytest.fixture
def advised(folder, tmp_path):
    """A VOC folder, and a store of its train split whose audit mutes cat, sets a band and a temperature."""
    dataset = open_dataset(f"voc:{folder}", "train")
    store = Store.open(label(Repeats(dataset), dataset, tmp_path / "store"))
    band = {"box_floor": 0.3, "ignore_floor": 0.2}
    advise(store, dataset, Advice(muted={"cat": ("cat",)}, temperature=0.5, band=band))
    return folder, store


def floors(opened):
    section = opened.tasks["detection"].section
    return section.box_floor, section.ignore_floor


def refusals(opened):
    return [note for note in opened.notes if "its audit is not used" in note]


def test_training_takes_the_audit_and_says_so(advised):
    folder, store = advised
    opened = open_supervision(taught(folder, store.path))
    assert floors(opened) == (0.3, 0.2)
    assert VOC.index("cat") in opened.soft_labels["detection"]["train_000"].tasks["detection"].unknown
    band = {"box_floor": 0.3, "ignore_floor": 0.2}
    assert opened.stores["detection"][0]["audit"] == {"muted": [VOC.index("cat")], "temperature": 0.5, **band}
    told = "\n".join(opened.notes)
    assert "by its audit it does not teach cat and is taken at temperature 0.50" in told
    assert "box_floor 0.30, ignore_floor 0.20" in told


def test_the_config_wins_over_the_audit(advised):
    folder, store = advised
    ignoring = open_supervision(taught(folder, store.path, task={"audit": "ignore"}))
    assert floors(ignoring) == (0.5, 0.1)
    assert "audit" not in ignoring.stores["detection"][0]
    assert not any("audit" in note for note in ignoring.notes)
    by_hand = open_supervision(taught(folder, store.path, task={"box_floor": 0.6}))
    assert floors(by_hand) == (0.6, 0.1)
    assert by_hand.stores["detection"][0]["audit"] == {"muted": [VOC.index("cat")]}
    assert "audit" not in open_supervision(taught(folder, store.path, recipe="thesis")).stores["detection"][0]
    renamed = open_supervision(taught(folder, store.path, task={"renamed": {"cat": "dog"}}))
    assert "muted" not in renamed.stores["detection"][0]["audit"]
    runs = [taught(folder, store.path, task={"audit": each}).run_id for each in ("use", "ignore")]
    assert taught(folder, store.path).run_id == runs[0] != runs[1]


@pytest.fixture
def lessons(folder, tmp_path):
    """`lessons(advice, score, task)`: the classes that some anchor learns in a first batch, and by class the score of
    its boxes, from a tutor that is right with this score and whose audit says this."""
    dataset = open_dataset(f"voc:{folder}", "train")

    def learn(advice, score=0.4, task=None):
        def sure(answer, _):
            boxes = answer.tasks["detection"]
            return SoftLabels.of(answer.size, boxes.rescored(torch.full((len(boxes.classes),), score)))

        place = tmp_path / f"store-{score}"
        store = Store.open(place if place.exists() else label(Repeats(dataset, sure), dataset, place))
        advise(store, dataset, advice)
        run = taught(folder, store.path, task={"policy": "replace", **(task or {})}, augment={"crop": False})
        opened = open_supervision(run)
        student = make_student(run.student, opened.tasks)
        how = {"size": run.student.size, "augment": run.augment}
        training = TrainingSet(opened.train, opened.tasks, student.grids, opened.soft_labels, **how)
        boxes = training.collate([training[0, position] for position in range(6)]).targets["detection"]["tutor"]
        anchors = student.heads["detection"].assign(boxes, tutor=True)
        learnt = boxes.classes.gather(1, anchors.box)[anchors.positive]
        scores = zip(boxes.classes.flatten().tolist(), boxes.scores.flatten().tolist(), strict=True)
        return {VOC.names[number] for number in learnt.tolist()}, {VOC.names[each]: score for each, score in scores}

    return learn


def test_the_student_learns_with_the_audits_band(lessons):
    """As with these floors set by hand. By the defaults boxes of .4 teach nothing."""
    band = {"box_floor": 0.3, "ignore_floor": 0.2}
    learnt, scores = lessons(Advice(band=band))
    assert (learnt, scores) == lessons(Advice(), task=band)
    assert {"cat", "dog"} <= learnt
    assert lessons(Advice(band=band), task={"audit": "ignore"}) == (set(), scores)


def test_a_muted_class_teaches_neither_itself_nor_nothing(lessons):
    """Muted boxes get a score within the band: anchors on them are ignored."""
    band = {"box_floor": 0.7, "ignore_floor": 0.2}
    known, _ = lessons(Advice(band=band), score=0.9)
    learnt, scores = lessons(Advice(muted={"cat": ("cat",)}, band=band), score=0.9)
    assert learnt == known - {"cat"} != known
    assert 0.2 < scores["cat"] < 0.7 < scores["dog"]


def test_a_class_is_muted_by_any_of_its_names():
    advice, coco = Advice(muted={"sofa": ("couch",)}), LabelSpace.of(["cat", "couch"])
    assert advice.muted_in(ClassMap.by_name(coco, coco)) == (2,)
    assert advice.muted_in(ClassMap.by_name(coco, VOC)) == (VOC.index("sofa"),)
    assert advice.muted_in(ClassMap.by_name(coco, LABELS)) == ()


def test_an_audit_of_other_settings_is_not_used(advised):
    folder, store = advised
    opened = open_supervision(taught(folder, store.path, task={"elsewhere": "ignore"}))
    assert floors(opened) == (0.5, 0.1)
    assert "made with elsewhere: background" in refusals(opened)[0]
    advise(store, open_dataset(f"voc:{folder}", "train"), Advice(), renamed={"cat": "dog", "cow": None})
    for renamed, used in ({}, False), ({"cat": "dog"}, False), ({"cat": "dog", "cow": None}, True):
        found = refusals(open_supervision(taught(folder, store.path, task={"renamed": renamed})))
        assert bool(found) is not used
        assert used or "made with renamed: " in found[0]


def test_an_audit_that_saw_hidden_truth_is_not_used(advised):
    folder, store = advised
    hiding = taught(folder, store.path, task={"hidden": 0.5})
    assert "saw the ground truth of 3 images whose ground truth this run hides" in refusals(open_supervision(hiding))[0]
    held = open_supervision(taught(folder, store.path, data={"held_out": 0.3, "val_split": None}))
    assert "2 images that are validated on" in refusals(held)[0]

    visible = audit(store, open_visible(hiding), as_a_run_sees(store, hiding.tasks, {})).sidecar
    assert len(visible.tasks["detection"].ids.splitlines()) == 3
    write_sidecar(store, visible)
    assert not refusals(open_supervision(hiding))


def test_the_command_audits_each_task_as_the_run_has_it(advised, tmp_path):
    folder, store = advised
    task = {"policy": "fill", "store": str(store.path)}
    tasks = {
        "detection": {**task, "hidden": 0.5, "renamed": {"cat": "dog"}},
        "parts": {**task, "kind": "segmentation", "elsewhere": "ignore", "classes": ["cat", "dog"]},
        "segmentation": {**task, "renamed": {"cow": "sheep"}},
    }
    config = {"data": {"train": f"voc:{folder}"}, "tasks": tasks}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    words = ["--config", str(tmp_path / "run.yaml"), "--renamed", "horse=ignore", "--worst", "0"]
    assert main(["audit", str(store.path), *words]) == 0
    seen = read_sidecar(store).tasks
    assert {name: (part.renamed, part.settings["elsewhere"]) for name, part in seen.items()} == {
        "detection": ({"cat": "dog", "horse": "ignore"}, "background"),
        "parts": ({"horse": "ignore"}, "ignore"),
        "segmentation": ({"cow": "sheep", "horse": "ignore"}, "background"),
    }
    assert len(seen["detection"].ids.splitlines()) == 3
    assert "contradict each other most" not in (store.path / "audit.html").read_text()
    for name in tasks:
        tasks[name]["renamed"] = {**tasks[name].get("renamed", {}), "horse": "ignore"}
    assert not refusals(open_supervision(make_config(config)))
