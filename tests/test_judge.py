"""The figures of stores and checkpoints on a made-up VOC folder."""

import json
from dataclasses import replace

import pytest

from made import PARTS, TINY, coco_file, pictures, truthful, with_parts
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.judge import judge
from tutored.labels import VOC, LabelSpace
from tutored.softlabels.writer import finish, write_part
from tutored.students import make_student
from tutored.tasks import open_task

TASKS = ("detection", "segmentation")


def make_store(folder, data, split, count=None, change=lambda answer: answer):
    """A store that repeats the ground truth of the first images of a split."""
    dataset = open_dataset(data, split)
    ids = dataset.ids[:count]
    answers = [change(truthful(dataset.ground_truth(each), len(VOC))) for each in ids]
    identity = {"labels": list(VOC.names), "images": len(ids)}
    write_part(folder, identity, 0, ids, answers)
    assert finish(folder)
    return folder


def make_checkpoint(folder, classes, taught=TASKS):
    policies = {name: "ground_truth" if name in taught else "none" for name in TASKS}
    sections = {name: {"classes": classes, "policy": policy} for name, policy in policies.items()}
    config = make_config({"data": {"train": "voc:x"}, "tasks": sections, "student": {"kind": "blitznet", **TINY}})
    tasks = {name: open_task(name, LabelSpace.of(classes), config.tasks[name]) for name in TASKS}
    save_checkpoint(folder, make_student(config.student, tasks), config)
    return folder


def test_a_store_that_repeats_the_ground_truth_is_perfect(voc_folder, tmp_path):
    store = make_store(tmp_path / "store", f"voc:{voc_folder}", "val")
    seen = []
    result = judge(store, f"voc:{voc_folder}", "val", progress=lambda done, total: seen.append((done, total)))
    assert result.tasks["detection"].means["mAP_voc_area@.5"] == 1
    assert result.tasks["segmentation"].means["mIoU"] == 1
    assert (result.images, seen[-1]) == (4, (4, 4))
    assert result.notes == (f"{store}: 20 of the tutor's 20 classes map to ours",)


def test_a_store_of_a_second_map_is_judged_by_a_configs_folder(make_voc, tmp_path, capsys):
    """The upper half is head, the lower one tail; the tutor calls all of it head."""
    folder = with_parts(make_voc(tmp_path / "voc", {"val": ("both",) * 2}), "val", tmp_path / "store")
    data = ["--data", f"voc:{folder}", "--split", "val"]
    assert main(["evaluate", str(tmp_path / "store"), *data]) == 2
    assert "have no class in common: the one has head, tail, the other aeroplane, " in capsys.readouterr().err
    tasks = {"segmentation": {}, "parts": PARTS}
    run = {"data": {"train": f"voc:{folder}"}, "tasks": tasks, "student": {"kind": "blitznet"}}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    words = [*data, "--config", str(tmp_path / "run.yaml"), "--json", str(tmp_path / "figures.json")]
    assert main(["evaluate", str(tmp_path / "store"), *words]) == 0
    assert "note: segmentation is not evaluated: the store" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())["tasks"]
    assert list(figures) == ["parts"] and figures["parts"]["per_class"]["IoU"]["head"] == pytest.approx(0.5, abs=0.02)
    assert figures["parts"]["per_class"]["IoU"]["tail"] == 0
    (tmp_path / "run.yaml").write_text(json.dumps(run | {"tasks": {"segmentation": PARTS}}))
    assert main(["evaluate", str(tmp_path / "store"), *words]) == 0
    in_place = json.loads((tmp_path / "figures.json").read_text())["tasks"]
    assert in_place["segmentation"]["per_class"] == figures["parts"]["per_class"], (
        "the format's own task lies elsewhere"
    )
    (tmp_path / "run.yaml").write_text(json.dumps(run | {"tasks": {"depth": {"kind": "regression", "from": "Parts"}}}))
    boxes = make_store(tmp_path / "boxes", f"voc:{folder}", "val", change=lambda each: replace(each, tasks={}))
    assert main(["evaluate", str(boxes), *words]) == 2
    told = capsys.readouterr().err
    assert "answers nothing, voc:" in told and "annotates detection, segmentation; give data of the same tasks" in told
    checkpoint = str(make_checkpoint(tmp_path / "c", ["dog"]))
    assert main(["evaluate", checkpoint, *words]) == 2
    assert "is a checkpoint, which knows its tasks; give a config with stores alone" in capsys.readouterr().err


def test_images_without_objects_count_where_told(tmp_path):
    """Of two images one has a box; a false alarm on the other counts where it is known to be empty."""
    coco_file(tmp_path / "val.json", {"bbox": [9, 9, 20, 20]}, images=("1.png", "2.png"))
    pictures(tmp_path / "1.png", tmp_path / "2.png", size=(64, 64))
    data, checkpoint = f"coco:{tmp_path}", str(make_checkpoint(tmp_path / "c", ["cat"]))
    for told, count in (("unannotated", 1), ("annotated", 2)):
        options = ["--data", data, "--split", "val", "--empty", told, "--json", str(tmp_path / f"{told}.json")]
        assert main(["evaluate", checkpoint, *options]) == 0
        written = json.loads((tmp_path / f"{told}.json").read_text())
        assert written["empty"] == told and written["tasks"]["detection"]["images"] == count
        assert any("1 of 2 images, such as 2, have no object" in note for note in written["notes"]) == (count == 1)


def test_a_checkpoint_is_judged_in_its_own_classes(voc_folder, tmp_path):
    checkpoint, data = make_checkpoint(tmp_path / "c", ["dog", "cat", "unicorn"]), f"voc:{voc_folder}"
    result = judge(checkpoint, data, "val", classes={"segmentation": ["cat"]}, device="cpu")
    assert [each.classes for each in result.tasks.values()] == [("dog", "cat", "unicorn"), ("cat",)]
    assert result.tasks["segmentation"].per_class["IoU"]["unicorn"] is None
    unknown, absent = result.notes
    assert "does not know aeroplane, bicycle" in unknown and "does not have unicorn" in absent


def test_a_task_that_nobody_teaches_is_not_judged(voc_folder, tmp_path):
    boxes, nothing = (make_checkpoint(tmp_path / str(i), ["dog", "cat"], TASKS[:i]) for i in (1, 0))
    assert list(judge(boxes, f"voc:{voc_folder}", "val").tasks) == ["detection"]
    with pytest.raises(InputError, match="nobody taught it any task"):
        judge(nothing, f"voc:{voc_folder}", "val")


def test_what_can_not_be_judged(make_voc, tmp_path):
    data = f"voc:{make_voc(tmp_path / 'voc', {'val': ('both', 'both'), 'bare': ('none', 'none')})}"
    store = make_store(tmp_path / "store", data, "val")
    sky = make_checkpoint(tmp_path / "c", ["sky"])

    def refused(message, subject=store, split="val", **options):
        with pytest.raises(InputError, match=message):
            judge(subject, data, split, **options)

    refused("no checkpoint or store of soft labels", subject=tmp_path / "nowhere")
    refused("no image has ground truth of detection, segmentation", split="bare")
    refused("have no class in common: the one has aeroplane, .* the other sky", subject=sky)
    refused("did you mean cat", classes=["kat"])
    refused("the task 'parts' is not evaluated; possible: detection, segmentation", classes={"parts": ["cat"]})
    refused("annotated: .*did you mean cat", annotated={"detection": ["kat"]})
    silent = make_store(tmp_path / "silent", data, "val", change=lambda each: replace(each, tasks={}))
    refused("answers nothing", subject=silent)
    refused("has no answer for val_001 .*; label this split", subject=make_store(tmp_path / "one", data, "val", 1))
