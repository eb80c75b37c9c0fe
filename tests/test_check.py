"""`data check`: counts on data whose numbers are known, and every broken item named."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tutored.cli import main
from tutored.data import open_dataset
from tutored.data.check import check, first_look


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
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    for name, difficult in (("train_000", 0), ("train_001", 1)):
        Image.new("RGB", (10, 8)).save(folder / f"JPEGImages/{name}.jpg")
        mask = np.zeros((8, 10), np.uint8)
        mask[0, :3] = 8, 8, 255
        Image.fromarray(mask).save(folder / f"SegmentationClass/{name}.png")
        text = f"<object><name>cat</name><difficult>{difficult}</difficult>{box}</object>"
        (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{text}</annotation>")
    report = checked(folder, "train")
    boxes, masks = (task.counts for task in report.splits["train"].tasks.values())
    assert {name: count for name, count in boxes["objects"].items() if count} == {"cat": 2}
    assert {name: count for name, count in boxes["difficult"].items() if count} == {"cat": 1}
    assert {name: count for name, count in masks["pixels"].items() if count} == {
        "background": 154,
        "cat": 4,
        "ignore": 2,
    }
    assert len(boxes["objects"]) == 20 and len(masks["pixels"]) == 22
    cats = [line.split() for line in shown(report).splitlines() if "│ cat " in line]
    assert cats == ["│ cat │ 2 │ 1 │".split(), "│ cat │ 2.50% │".split()]


@pytest.mark.tried("noted", "boxes drawn on a picture that EXIF turns")
def test_pictures_that_are_to_be_turned_are_told(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both", "both")})
    assert checked(folder, "train").splits["train"].notes == ()
    picture, exif = folder / "JPEGImages/train_001.jpg", Image.Exif()
    exif[0x0112] = 3  # upside down
    with Image.open(picture) as image:
        image.load()
    image.save(picture, exif=exif)
    (note,) = checked(folder, "train").splits["train"].notes
    assert note.startswith("1 picture(s), such as train_001, say that they are to be turned")


def test_every_broken_item_is_named_once(make_voc, tmp_path):
    folder = make_voc(tmp_path)
    picture = folder / "JPEGImages/train_000.jpg"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2 + 200])
    (folder / "JPEGImages/train_003.jpg").unlink()
    (folder / "Annotations/train_004.xml").write_text("<annotation><object/></annotation>")
    Image.new("L", (5, 5)).save(folder / "SegmentationClass/train_005.png")
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
    (folder / "labels.txt").write_text("other\nleaf\nroot\n")
    Image.new("RGB", (10, 8)).save(folder / "JPEGImages/train_000.jpg")
    objects = ""
    for name in ("leaf", "root"):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
        objects += f"<object><name>{name}</name>{box}</object>"
    (folder / "Annotations/train_000.xml").write_text(f"<annotation>{objects}</annotation>")
    for numbers, notes in (((1, 2), 1), ((2, 3), 0), ((1, 2, 3), 0), ((2,), 0)):
        Image.fromarray(np.resize(np.array(numbers, np.uint8), (8, 10))).save(
            folder / "SegmentationClass/train_000.png"
        )
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
    assert {name: [each["tasks"][task]["images"] for task in each["tasks"]] for name, each in found.items()} == {
        f"voc:{folder}/train": [1, 1],
        f"voc:{folder}/val": [0, 0],
    }
    assert main([*words, "--split", "train"]) == 2
    assert "--split is not for --config, which says which data; leave it out" in capsys.readouterr().err


def test_one_picture_under_two_names_is_told(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("none",) * 2, "val": ("none",) * 2})
    (folder / "JPEGImages/val_001.jpg").write_bytes((folder / "JPEGImages/train_000.jpg").read_bytes())
    report = checked(folder, "train", "val")
    assert report.ok and report.twins == {"train & val": ["train_000 = val_001"]}
    assert "train & val: 1 pictures are in both, under two names; remove them from one" in shown(report)


def test_pictures_of_one_name_are_not_one_image_in_two_splits(tmp_path):
    categories = [{"id": 1, "name": "cat"}]
    for split, grey in (("train", 0), ("val", 255)):
        (tmp_path / split).mkdir()
        Image.new("L", (10, 8)).save(tmp_path / split / "same.png")
        Image.new("L", (10, 8), grey).save(tmp_path / split / "other.png")
        images = [{"id": name, "file_name": f"{name}.png"} for name in ("same", "other")]
        content = {"images": images, "annotations": [], "categories": categories}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
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
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(3)]
    box = {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}
    content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    for number in range(3):
        Image.new("RGB", (10, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "train.json").write_text(json.dumps(content))
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
