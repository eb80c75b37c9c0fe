"""What training takes from an audit, and what it must not."""

import json
from dataclasses import replace

import pytest
import torch

from made import LABELS, TINY, Repeats
from tutored import losses
from tutored.audit import Advice, audit, read_sidecar, write_sidecar
from tutored.cli import main
from tutored.config import Supervision as SupervisionConfig
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.data.sources import drawn_and_hidden
from tutored.data.training import collate
from tutored.engine.datasets import open_visible
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Folded, Store
from tutored.structures import BACKGROUND, Instances, SoftLabels
from tutored.targets import Targets
from tutored.tutors.label import label

CAT, DOG = 1, 2
NO_BOXES = {"classes": None, "probs": None}


def test_muted_classes_teach_nothing_and_nobody_says_that_nothing_is_there():
    answer = SoftLabels(
        size=(8, 8),
        boxes_xyxy=torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]]),
        classes=torch.tensor([CAT, DOG]),
        probs=torch.tensor([[0.1, 0.9, 0.0, 0.0], [0.1, 0.2, 0.7, 0.0]]),
        map=torch.tensor([0.2, 0.5, 0.3, 0.0])[:, None, None].expand(4, 2, 2),
    )
    folded = Folded({"a": answer}, ClassMap.by_name(LABELS, LABELS), muted=[CAT], muted_score=0.4)["a"]
    assert folded.unknown == (CAT,)
    assert folded.scores.tolist() == pytest.approx([0.4, 0.7])
    assert folded.probs[1].tolist() == pytest.approx([0.1, 0.0, 0.7, 0.0])
    assert folded.map[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 0.3, 0.0])

    targets = Targets(
        folded.boxes_xyxy[None],
        folded.classes[None],
        folded.probs[None],
        torch.zeros(1, 2, dtype=torch.bool),
        folded.map[None],
        torch.ones(1, 2, 2, dtype=torch.bool),
        torch.zeros(1, 4, dtype=torch.bool),
        torch.zeros(1, 4, dtype=torch.bool),
        torch.ones(1),
        torch.ones(1),
    )
    loss = make_config({"data": {"train": "x"}}).loss
    anchors = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8], [0, 4, 4, 8]])
    assigned = losses.detection.assign(anchors, targets, loss)
    assert assigned.positive[0].tolist() == [False, True, False]
    assert assigned.negative[0].tolist() == [False, False, True]


def test_a_temperature_of_boxes_and_maps_by_hand():
    answer = SoftLabels(
        size=(4, 4),
        boxes_xyxy=torch.tensor([[0.0, 0, 4, 4]]),
        classes=torch.tensor([CAT]),
        probs=torch.tensor([[0.1, 0.8, 0.1, 0.0]]),
        map=torch.tensor([0.1, 0.4, 0.0, 0.0])[:, None, None].expand(4, 1, 1),
    )
    folded = Folded({"a": answer}, ClassMap.by_name(LABELS, LABELS), temperature=0.5)["a"]
    own = 0.64 / (0.64 + 0.04)
    assert folded.probs[0].tolist() == pytest.approx([(1 - own) / 2, own, (1 - own) / 2, 0.0], rel=1e-5)
    assert folded.map[:, 0, 0].tolist() == pytest.approx([0.5 / 17, 0.5 * 16 / 17, 0, 0], rel=1e-5)


def taught(folder, store, **more):
    task = {"policy": "fill", "store": str(store), **more.pop("task", {})}
    return make_config(
        {"data": {"train": f"voc:{folder}", **more.pop("data", {})}, "supervision": {"detection": task},
         "student": {"size": 64}, **more}
    )  # fmt: skip


@pytest.fixture
def advised(make_voc, tmp_path):
    """A VOC folder, and a store of its train split whose audit mutes cat, sets a band and a temperature."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 6, "val": ("both",) * 2})
    dataset = open_dataset(f"voc:{folder}", "train")
    store = Store.open(label(Repeats(dataset), dataset, tmp_path / "store"))
    sidecar = audit(store, dataset).sidecar
    part = sidecar.tasks["detection"]
    advice = Advice(muted={"cat": ("cat",)}, temperature=0.5, box_floor=0.3, ignore_floor=0.2)
    changed = sidecar.model_copy(update={"tasks": {"detection": part.model_copy(update={"advice": advice})}})
    write_sidecar(store, changed)
    return folder, store


def test_training_takes_the_audit_and_says_so(advised):
    folder, store = advised
    opened = open_supervision(taught(folder, store.path))
    assert (opened.loss.box_floor, opened.loss.ignore_floor) == (0.3, 0.2)
    assert VOC.index("cat") in opened.soft_labels["detection"]["train_000"].unknown
    band = {"box_floor": 0.3, "ignore_floor": 0.2}
    assert opened.stores["detection"][0]["audit"] == {"muted": [VOC.index("cat")], "temperature": 0.5, **band}
    told = "\n".join(opened.notes)
    assert "by its audit it does not teach cat and is taken at temperature 0.50" in told
    assert "boxes teach from score 0.30 on and are ignored from 0.20 on" in told


@pytest.fixture
def lessons(make_voc, tmp_path):
    """`lessons(advice, score, **more)`: the terms of a first step, and the classes that some anchor learns, of a tutor
    that is right with this score, and whose audit says this."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 6, "val": ("both",) * 2})
    dataset = open_dataset(f"voc:{folder}", "train")

    def step(advice, score=0.4, task=None, **more):
        def sure(answer, _):
            probs = score * answer.probs
            probs[:, BACKGROUND] = 1 - score
            return replace(answer, probs=probs)

        place = tmp_path / f"store-{score}"
        store = Store.open(place if place.exists() else label(Repeats(dataset, sure), dataset, place))
        sidecar = audit(store, dataset).sidecar
        part = sidecar.tasks["detection"].model_copy(update={"advice": advice})
        write_sidecar(store, sidecar.model_copy(update={"tasks": {"detection": part}}))
        train = {"epochs": 1, "batch": 6, "workers": 0, "device": "cpu"}
        task = {"policy": "replace", **(task or {})}
        config = taught(folder, store.path, task=task, student=TINY, train=train, augment={"crop": False}, **more)
        trainer = Trainer(config, open_supervision(config), tmp_path / "run")
        batch = collate([trainer.training[0, position] for position in range(6)])
        kept = []
        trainer.losses["assign"] = lambda *given: kept.append(losses.assign(*given)) or kept[-1]
        terms = {name: float(value) for name, value in trainer.step(batch).items()}
        found = kept[0].anchors["tutor"]
        learnt = batch.tutor.classes.gather(1, found.box)[found.positive]
        return terms, {VOC.names[number] for number in learnt.tolist()}

    return step


def test_the_students_lessons_have_the_audits_band(lessons):
    """The same step as with these floors set by hand. By the defaults boxes of .4 teach nothing."""
    audited, learnt = lessons(Advice(box_floor=0.3, ignore_floor=0.2))
    by_hand, _ = lessons(Advice(), loss={"box_floor": 0.3, "ignore_floor": 0.2})
    ignored, nothing = lessons(Advice(box_floor=0.3, ignore_floor=0.2), task={"audit": "ignore"})
    assert audited == by_hand
    assert {"cat", "dog"} <= learnt
    assert ignored["box/tutor"] == 0 < audited["box/tutor"]
    assert nothing == set()


def test_a_muted_class_does_not_teach_above_a_high_band(lessons):
    """Muted boxes get a score just below the band's upper end; with .7 it is above the default."""
    audit_says = Advice(muted={"cat": ("cat",)}, box_floor=0.7, ignore_floor=0.2)
    _, learnt = lessons(audit_says, score=0.9)
    _, known = lessons(Advice(box_floor=0.7, ignore_floor=0.2), score=0.9)
    assert learnt == known - {"cat"} != known


def test_the_config_wins_over_the_audit(advised):
    folder, store = advised
    plain = make_config({"data": {"train": "x"}}).loss
    ignoring = open_supervision(taught(folder, store.path, task={"audit": "ignore"}))
    assert ignoring.loss == plain
    assert "audit" not in ignoring.stores["detection"][0]
    assert not any("audit" in note for note in ignoring.notes)
    by_hand = open_supervision(taught(folder, store.path, loss={"box_floor": 0.6}))
    assert by_hand.loss.box_floor == 0.6
    assert by_hand.stores["detection"][0]["audit"] == {"muted": [VOC.index("cat")]}
    thesis = open_supervision(taught(folder, store.path, recipe="thesis"))
    assert "audit" not in thesis.stores["detection"][0]
    renamed = open_supervision(taught(folder, store.path, task={"renamed": {"cat": "dog"}}))
    assert "muted" not in renamed.stores["detection"][0]["audit"]


def test_an_audit_made_with_another_elsewhere_is_not_used(advised):
    folder, store = advised
    opened = open_supervision(taught(folder, store.path, task={"elsewhere": "ignore"}))
    assert opened.loss == make_config({"data": {"train": "x"}}).loss
    assert any("is not used, for it was made with elsewhere: background" in note for note in opened.notes)


def test_an_audit_that_tried_other_names_is_used_with_these_alone(advised):
    folder, store = advised
    sidecar = read_sidecar(store)
    told = sidecar.tasks["detection"].model_copy(update={"renamed": {"cat": "dog", "cow": None}})
    write_sidecar(store, sidecar.model_copy(update={"tasks": {"detection": told}}))
    for renamed, used in ({}, False), ({"cat": "dog"}, False), ({"cat": "dog", "cow": None}, True):
        opened = open_supervision(taught(folder, store.path, task={"renamed": renamed}))
        assert any("not used, for it was made with renamed: " in note for note in opened.notes) is not used
        assert ("audit" in opened.stores["detection"][0]) is used


@pytest.mark.parametrize("drawn", [True, False])
def test_an_audit_of_maps_drawn_otherwise_is_not_used(make_voc, tmp_path, drawn):
    """Which rule draws instances matters where there are any."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 6, "val": ("both",) * 2})
    dataset = open_dataset(f"voc:{folder}", "train")

    def answers(answer, _):
        masks = {"scores": torch.ones(len(answer.classes)), "masks": torch.ones(len(answer.classes), 8, 8)}
        found = Instances(boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, **masks)
        return SoftLabels(size=answer.size, instances=found) if drawn else replace(answer, boxes_xyxy=None, **NO_BOXES)

    store = Store.open(label(Repeats(dataset, answers), dataset, tmp_path / "store"))
    assert store.is_drawn is drawn and store.tasks == ("segmentation",)
    task = {"policy": "fill", "store": str(store.path)}
    config = {"data": {"train": f"voc:{folder}"}, "supervision": {"segmentation": task}, "loss": {"background": "one"}}
    write_sidecar(store, audit(store, dataset).sidecar)
    refused = "its audit is not used, for it was made with loss.background: noisy_or"
    assert any(refused in note for note in open_supervision(make_config(config)).notes) is drawn
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main(["audit", str(store.path), "--config", str(tmp_path / "run.yaml")]) == 0
    assert read_sidecar(store).tasks["segmentation"].background == "one"
    assert not any("is not used" in note for note in open_supervision(make_config(config)).notes)


def test_a_class_is_muted_by_any_of_its_names():
    advice, coco = Advice(muted={"sofa": ("couch",)}), LabelSpace.of(["cat", "couch"])
    assert advice.muted_in(ClassMap.by_name(coco, coco)) == (2,)
    assert advice.muted_in(ClassMap.by_name(coco, VOC)) == (VOC.index("sofa"),)
    assert advice.muted_in(ClassMap.by_name(coco, LABELS)) == ()


def test_an_audit_that_took_a_class_for_annotated_is_not_used(advised, tmp_path):
    """The data has no dogs drawn, and says so: where the audit found dogs, it called them wrong."""
    folder, store = advised
    data = {"train": f"voc:{folder}", "annotated": [name for name in VOC.classes if name != "dog"]}
    config = {"data": data, "supervision": {"detection": {"policy": "fill", "store": str(store.path)}}}
    opened = open_supervision(make_config(config))
    assert any("is not used, for it was made with dog as annotated; tutored audit" in note for note in opened.notes)
    assert "audit" not in opened.stores["detection"][0]
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main(["audit", str(store.path), "--config", str(tmp_path / "run.yaml"), "--worst", "0"]) == 0
    assert read_sidecar(store).tasks["detection"].unannotated == ("dog",)
    assert not any("is not used" in note for note in open_supervision(make_config(config)).notes)


def test_the_key_changes_no_run_id():
    plain = {"data": {"train": "x"}}
    used = {**plain, "supervision": {"detection": {"audit": "use"}}}
    ignored = {**plain, "supervision": {"detection": {"audit": "ignore"}}}
    assert make_config(plain).run_id == make_config(used).run_id != make_config(ignored).run_id


def test_an_audit_that_saw_what_the_run_may_not_is_not_used(advised):
    folder, store = advised
    hiding = taught(folder, store.path, task={"hidden": 0.5})
    opened = open_supervision(hiding)
    assert opened.loss == hiding.loss
    assert any("saw the ground truth of 3 images whose ground truth this run hides" in note for note in opened.notes)
    held = open_supervision(taught(folder, store.path, data={"held_out": 0.3, "val_split": None}))
    assert any("2 images that are validated on" in note for note in held.notes)

    seen = audit(store, open_visible(hiding)).sidecar
    _, unseen = drawn_and_hidden(open_dataset(f"voc:{folder}", "train"), hiding.supervision, "detection")
    assert len(unseen) == 3
    assert not unseen & set(seen.tasks["detection"].ids.splitlines())
    write_sidecar(store, seen)
    assert not any("is not used" in note for note in open_supervision(hiding).notes)


def test_the_command_sees_the_store_as_the_run_does(advised, tmp_path, capsys):
    """Its renamed classes, `elsewhere`, and no ground truth that the run hides."""
    folder, store = advised
    task = {"policy": "fill", "store": str(store.path), "hidden": 0.5, "elsewhere": "ignore"}
    config = {"data": {"train": f"voc:{folder}"}, "supervision": {"detection": {**task, "renamed": {"cat": "dog"}}}}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    words = ["--config", str(tmp_path / "run.yaml"), "--renamed", "cow=ignore", "--worst", "0"]
    assert main(["audit", str(store.path), *words]) == 0
    assert "detection, 3 images:" in capsys.readouterr().out
    seen = read_sidecar(store).tasks["detection"]
    assert (seen.renamed, seen.elsewhere) == ({"cat": "dog", "cow": "ignore"}, "ignore")
    assert "contradict each other most" not in (store.path / "audit.html").read_text()


def test_the_command_audits_each_task_as_the_run_has_it(advised, tmp_path):
    folder, store = advised
    task = {"policy": "fill", "store": str(store.path)}
    tasks = {"detection": task, "segmentation": {**task, "elsewhere": "ignore", "renamed": {"cow": "sheep"}}}
    config = {"data": {"train": f"voc:{folder}"}, "supervision": tasks}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    words = ["--config", str(tmp_path / "run.yaml"), "--worst", "0", "--json", str(tmp_path / "a.json")]
    assert main(["audit", str(store.path), *words]) == 0
    assert not any("is not used" in note for note in open_supervision(make_config(config)).notes)
    seen = read_sidecar(store).tasks
    assert {name: (part.renamed, part.elsewhere) for name, part in seen.items()} == {
        "detection": ({}, "background"), "segmentation": ({"cow": "sheep"}, "ignore")
    }  # fmt: skip
    assert json.loads((tmp_path / "a.json").read_text())["tasks"].keys() == seen.keys()
    assert {each.name for each in store.path.glob("*.html")} == {"audit-detection.html", "audit-segmentation.html"}


def test_hidden_images_are_those_that_training_hides(advised):
    from tutored.data.training import TrainingSet

    folder, store = advised
    config = taught(folder, store.path, task={"hidden": 0.5})
    train = open_dataset(f"voc:{folder}", "train")
    drawn = TrainingSet(train, config, 8).drawn["detection"]
    assert set(train.ids) - drawn == drawn_and_hidden(train, config.supervision, "detection")[1]
    assert drawn_and_hidden(train, SupervisionConfig(), "detection")[1] == frozenset()
