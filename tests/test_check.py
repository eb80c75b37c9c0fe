"""`data check`: counts on data whose numbers are known, and every broken item named."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from made import coco_file, pictures, thing, turned, write, xml
from tutored.cli import main
from tutored.data import open_dataset
from tutored.data.check import TaskReport, check, first_look
from tutored.errors import InputError


def checked(folder, *splits):
    return check({split: open_dataset(f"voc:{folder}", split) for split in splits})


def annotated(split):
    """Images in all, with boxes, with masks, with both, with neither."""
    return (split.images, *(task.images for task in split.tasks.values()), split.complete, split.none)


def shown(report, **how):
    console = Console(file=io.StringIO(), width=140)
    report.show(console, **how)
    return console.file.getvalue()


def test_images_are_counted_by_what_they_have(voc_folder):
    report = checked(voc_folder, "train", "val")
    train, val = report.splits["train"], report.splits["val"]
    assert annotated(train) == (8, 5, 5, 3, 1) and annotated(val) == (4, 4, 4, 4, 0)
    assert tuple(train.tasks) == ("detection", "segmentation")
    assert report.ok and not train.problems and not report.overlaps


def test_objects_and_pixels_are_counted_by_class(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both", "both")})
    for name, difficult in (("train_000", 0), ("train_001", 1)):
        pictures(folder / f"JPEGImages/{name}.jpg")
        mask = np.zeros((8, 10), np.uint8)
        mask[0, :3] = 8, 8, 255
        Image.fromarray(mask).save(folder / f"SegmentationClass/{name}.png")
        cat = thing("cat", extra=f"<difficult>{difficult}</difficult>")
        write(folder / f"Annotations/{name}.xml", xml(cat))
    report = checked(folder, "train")
    boxes, masks = (task.counts for task in report.splits["train"].tasks.values())
    counts = (boxes["objects"], boxes["difficult"], masks["pixels"])
    found = [{name: count for name, count in each.items() if count} for each in counts]
    assert found == [{"cat": 2}, {"cat": 1}, {"background": 154, "cat": 4, "ignore": 2}]
    assert len(boxes["objects"]) == 20 and len(masks["pixels"]) == 22
    cats = [line.split() for line in shown(report).splitlines() if "│ cat " in line]
    assert cats == ["│ cat │ 2 │ 1 │".split(), "│ cat │ 2.50% │".split()]


@pytest.mark.tried("noted", "boxes drawn on a picture that EXIF turns")
def test_pictures_that_are_to_be_turned_are_told(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both", "both")})
    assert checked(folder, "train").splits["train"].notes == ()
    picture = folder / "JPEGImages/train_001.jpg"
    with Image.open(picture) as image:
        image.load()
    image.save(picture, exif=turned(3))
    (note,) = checked(folder, "train").splits["train"].notes
    assert note.startswith("1 picture(s), such as train_001, say that they are to be turned")


def test_every_broken_item_is_named_once(make_voc, tmp_path):
    folder = make_voc(tmp_path)
    picture = folder / "JPEGImages/train_000.jpg"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2 + 200])
    (folder / "JPEGImages/train_003.jpg").unlink()
    (folder / "Annotations/train_004.xml").write_text("<annotation><object/></annotation>")
    pictures(folder / "SegmentationClass/train_005.png", size=(5, 5), mode="L")
    report = checked(folder, "train")
    train = report.splits["train"]
    assert not report.ok
    files = ("train_000.jpg", "train_003.jpg", "train_004.xml", "train_005.png")
    assert len(train.problems) == 4
    assert all(file in problem for file, problem in zip(files, train.problems, strict=True))
    assert annotated(train) == (8, 3, 4, 3, 1)
    text = shown(report, most=3)
    assert "train: 4 problems" in text and "and 1 more" in text and "train_005.png" not in text


@pytest.mark.tried("noted", "masks of 0 and 255 alone, or of 0 alone")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (255, "; all that is drawn has the number 255, which means"),
        (0, "; number the classes (aeroplane, bicycle, bird, ...) from 1 on"),
    ],
)
def test_masks_that_hold_no_class_are_noted(make_voc, tmp_path, number, told):
    folder = make_voc(tmp_path, {"train": ("masks",) * 3})
    for path in (folder / "SegmentationClass").iterdir():
        with Image.open(path) as picture:
            mask = np.zeros(picture.size[::-1], np.uint8)
        mask[3:9, 3:9] = number
        Image.fromarray(mask).save(path)
    expected = f"segmentation: none of 3 annotations looked at holds a class{told}"
    (note,) = checked(folder, "train").splits["train"].notes
    assert note.startswith(expected) and first_look(open_dataset(f"voc:{folder}", "train")) == (note,)


@pytest.mark.tried("noted", "numbers in masks that are one too high for the list")
def test_classes_of_masks_that_no_box_has_are_noted(make_voc, tmp_path):
    """The list has one class too many at its head, so that each number in masks is that of the class before."""
    folder = make_voc(tmp_path, {"train": ("both",)})
    write(folder / "labels.txt", "other\nleaf\nroot\n")
    pictures(folder / "JPEGImages/train_000.jpg")
    write(folder / "Annotations/train_000.xml", xml(thing("leaf"), thing("root")))
    for numbers, notes in (((1, 2), 1), ((2, 3), 0), ((1, 2, 3), 0), ((2,), 0)):
        mask = Image.fromarray(np.resize(np.array(numbers, np.uint8), (8, 10)))
        mask.save(folder / "SegmentationClass/train_000.png")
        found = checked(folder, "train").splits["train"].notes
        assert len(found) == notes
        assert not found or found[0].startswith("classes occur only for detection: root; only for segmentation: other")


@pytest.mark.tried("noted", "a picture that two splits have under two names")
def test_the_data_of_a_run_is_checked_as_it_reads_it(make_voc, tmp_path, capsys):
    folder = make_voc(tmp_path / "voc", {"train": ("boxes", "masks"), "val": ("both",)})
    (folder / "SegmentationClass").rename(folder / "maps")
    (folder / "Annotations/val_000.xml").write_text("<annotation>")
    config = tmp_path / "run.yaml"
    tasks = "{detection: {}, segmentation: {from: maps}}"
    config.write_text(f"data: {{train: 'voc:{folder}', empty: annotated}}\ntasks: {tasks}\n")
    words = ["data", "check", "--config", str(config)]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 2
    found = json.loads((tmp_path / "found.json").read_text())["splits"]
    counts = {name: [task["images"] for task in each["tasks"].values()] for name, each in found.items()}
    assert counts == {f"voc:{folder}/train": [1, 1], f"voc:{folder}/val": [0, 0]}
    assert main([*words, "--split", "train"]) == 2
    assert "--split is not for --config, which says which data; leave it out" in capsys.readouterr().err


def test_one_picture_under_two_names_is_told(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("none",) * 2, "val": ("none",) * 2})
    (folder / "JPEGImages/val_001.jpg").write_bytes((folder / "JPEGImages/train_000.jpg").read_bytes())
    report = checked(folder, "train", "val")
    assert report.ok and report.twins == {"train & val": ["train_000 = val_001"]}
    assert "train & val: 1 pictures are in both, under two names; remove them from one" in shown(report)


def test_pictures_of_one_name_are_not_one_image_in_two_splits(tmp_path):
    for split, grey in (("train", 0), ("val", 255)):
        pictures(tmp_path / split / "same.png", mode="L")
        pictures(tmp_path / split / "other.png", mode="L", colour=grey)
        coco_file(tmp_path / f"{split}.json", images=("same.png", "other.png"))
    seen = []
    splits = {split: open_dataset(f"coco:{tmp_path}", split) for split in ("train", "val")}
    report = check(splits, lambda done, total: seen.append((done, total)))
    assert report.overlaps == {"train & val": ["same"]} and report.namesakes == {"train & val": ["other"]}
    assert not report.ok and not replace(report, overlaps={}).ok and replace(report, overlaps={}, namesakes={}).ok
    assert "train & val: 1 names are of different pictures; rename those of one split\n  other" in shown(report)
    assert seen[-1] == (4, 4)


def test_ignored_pixels_are_not_of_class_255(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("masks",)})
    (folder / "labels.txt").write_text("".join(f"c{number}\n" for number in range(1, 301)))
    pixels = checked(folder, "train").splits["train"].tasks["segmentation"].counts["pixels"]
    assert pixels["ignore"] > 0 and pixels["c255"] == pixels["c300"] == 0


@pytest.mark.tried("noted", "images without any object: empty, or not labelled yet")
def test_images_without_objects_are_the_first_line(tmp_path):
    names = [f"{number}.png" for number in range(3)]
    pictures(*(tmp_path / name for name in names))
    coco_file(tmp_path / "train.json", {"image_id": 2, "bbox": [1, 1, 3, 3]}, images=names)
    report = check({"train": open_dataset(f"coco:{tmp_path}", "train")})
    assert shown(report).startswith(
        f"coco:{tmp_path}/train: 2 of 3 images, such as 0, have no object: nothing there, or"
    )
    assert annotated(report.splits["train"]) == (3, 1, 0, 0, 2) and report.ok and not report.splits["train"].notes


def test_progress_and_json(voc_folder):
    seen = []
    datasets = {split: open_dataset(f"voc:{voc_folder}", split) for split in ("train", "val")}
    report = check(datasets, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is True and plain["splits"]["train"]["images"] == 8 and plain["overlaps"] == {}


REAL = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[1].parent / "shared"))


def test_every_broken_object_and_mask_is_named(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both", "both")})
    write(folder / "Annotations/train_000.xml", xml(thing("kat"), thing("cat"), thing("cat", (1, 1, 999, 2))))
    pictures(folder / "SegmentationClass/train_000.png", size=(5, 5), mode="L")
    problems = checked(folder, "train").splits["train"].problems
    expected = ("object 1 (kat): unknown class", "train_000.png: the mask is 5x5", "object 3 (cat): the box")
    assert len(problems) == 3 and all(text in problem for text, problem in zip(expected, problems, strict=True))


def test_every_impossible_annotation_of_coco_is_named(tmp_path):
    pictures(tmp_path / "images/1.jpg")
    outlines = ([[10, 0, 12, 0, 12, 2]], [[0, 9, 2, 9, 2, 11]], {"size": [10, 8], "counts": [80]})
    boxes = zip(([10, 0, 2, 2], [0, 9, 2, 2], [0, 0, 2, 2]), outlines, strict=True)
    coco_file(tmp_path / "instances.json", *({"bbox": box, "segmentation": outline} for box, outline in boxes))
    problems = check({"val": open_dataset(f"coco:{tmp_path}", "val")}).splits["val"].problems
    expected = ("annotation 0 of image 1: the box", "annotation 1 of image 1: the box", "annotation 2 of image 1: run")
    assert len(problems) == 3 and all(text in problem for text, problem in zip(expected, problems, strict=True))


def test_eighteen_faults_of_one_file_hide_no_other_file(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("boxes",) * 3})
    for image, boxes in (("train_000", 18), ("train_001", 2), ("train_002", 1)):
        text = "<object><name>kat</name></object>" * boxes
        write(folder / f"Annotations/{image}.xml", xml(text))
    report = checked(folder, "train")
    problems = report.splits["train"].problems
    assert len(problems) == 21 and len({text.partition(": ")[0] for text in problems[:3]}) == 3
    assert "train_002.xml: object 1 (kat)" in shown(report, most=3)


def test_eighteen_faults_of_one_coco_image_hide_no_other(tmp_path):
    pictures(tmp_path / "images/1.jpg")
    boxes = [{"image_id": 1 + n // 18, "category_id": 9, "bbox": [0, 0, 2, 2]} for n in range(60)]
    coco_file(tmp_path / "val.json", *boxes, images=("1.jpg", "2.jpg"))
    with pytest.raises(InputError) as caught:
        open_dataset(f"coco:{tmp_path}", "val")
    lines = str(caught.value).split("\n")
    named = [line.partition(": ")[2].partition(":")[0] for line in lines[:4]]
    assert named == [f"annotation {n} of image {1 + n // 18}" for n in (0, 18, 36, 54)]
    assert lines[-1] == "and 10 more"


def test_broken_files_of_two_splits_are_both_named(tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text('{"images": [')
    assert main(["data", "check", "--data", f"coco:{tmp_path}", "--split", "train", "val"]) == 2
    printed = capsys.readouterr().err
    for split in ("train", "val"):
        assert f"{split}.json: not readable as JSON (Expecting value: line 1 column 13" in printed


def test_annotations_that_are_not_read_are_the_first_line(tmp_path, capsys):
    pictures(tmp_path / "train/a.jpg")
    write(tmp_path / "train/boxes.csv", "a.jpg,1,1,3,3,cat\n")
    assert main(["data", "check", "--data", f"images:{tmp_path}", "--split", "train"]) == 0
    told = f"nothing is annotated: 1 tables, such as {tmp_path}/train/boxes.csv, are not read, should"
    assert capsys.readouterr().out.startswith(told)


def test_classes_that_are_absent_are_one_line(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both",)})
    write(folder / "labels.txt", "cat\ndog\nzebra\n")
    pictures(folder / "JPEGImages/train_000.jpg")
    pictures(folder / "SegmentationClass/train_000.png", mode="L", colour=1)
    write(folder / "Annotations/train_000.xml", xml(thing("dog")))
    printed = shown(checked(folder, "train")).splitlines()
    assert not any("difficult" in line for line in printed), "none is"
    absent = ["detection, absent classes: cat, zebra", "segmentation, absent classes: dog, zebra"]
    assert [line for line in printed if "zebra" in line] == absent


def test_images_in_two_splits_are_reported(make_voc, tmp_path):
    folder = make_voc(tmp_path)
    (folder / "ImageSets/Main/val.txt").write_text("val_000\ntrain_002\n")
    report = checked(folder, "train", "val")
    assert not report.ok
    assert report.overlaps == {"train & val": ["train_002"]} and not report.namesakes
    assert "train & val: 1 images are in both" in shown(report)


def test_classes_beyond_what_a_mask_tells_apart_are_counted(tmp_path):
    pictures(tmp_path / "images/1.jpg")
    classes = [f"c{number}" for number in range(1, 301)]
    coco_file(tmp_path / "instances.json", {"category_id": 300, "bbox": [1, 1, 3, 3]}, classes=classes)
    report = check({"val": open_dataset(f"coco:{tmp_path}", "val")})
    boxes, masks = report.splits["val"].tasks.values()
    assert boxes.counts["objects"]["c300"] == 1 and masks == TaskReport(images=0, counts={})
    assert any("│ c300 " in line and " 1 " in line for line in shown(report).splitlines())


def test_what_the_reader_left_out_is_a_note_and_no_problem(tmp_path):
    pictures(tmp_path / "images/1.jpg")
    coco_file(tmp_path / "instances.json", {"id": 4, "bbox": [1, 1, 3, 0]})
    report = check({"val": open_dataset(f"coco:{tmp_path}", "val")})
    assert report.ok and len(report.splits["val"].notes) == 1
    assert "annotation 4 of image 1: a box of no area" in shown(report)


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "data/voc2012-animals").is_dir(), reason="the real images are absent (TUTORED_REAL)")
def test_the_genuine_validation_split_is_clean():
    report = checked(REAL / "data/voc2012-animals", "val")
    val = report.splits["val"]
    assert report.ok and annotated(val) == (300, 300, 300, 300, 0)
    objects = val.tasks["detection"].counts["objects"]
    assert (objects["cat"], objects["dog"], objects["person"]) == (91, 102, 79)
