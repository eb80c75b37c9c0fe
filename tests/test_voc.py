"""VOC folders: boxes, masks, splits, own classes, and every way in which a file can be wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from made import pictures, refused, thing, turned, xml
from tutored.data import open_dataset
from tutored.data.voc import VocBoxes
from tutored.errors import InputError
from tutored.labels import VOC

BOTH = ("detection", "segmentation")


@pytest.fixture
def one(make_voc, tmp_path):
    """A data set of one black image of 10 x 8 pixels, `train_000`, with an empty XML and an empty mask."""
    folder = make_voc(tmp_path / "VOC2012", {"train": ("both",)})
    Image.new("RGB", (10, 8)).save(folder / "JPEGImages/train_000.jpg")
    Image.new("L", (10, 8)).save(folder / "SegmentationClass/train_000.png")
    (folder / "Annotations/train_000.xml").write_text(xml())
    return folder


def opened(folder):
    return open_dataset(f"voc:{folder}", "train", empty="annotated")


def truth_of(folder):
    return opened(folder).ground_truth("train_000")


def boxes_of(folder):
    return truth_of(folder).tasks["detection"]


def mask_of(folder):
    return truth_of(folder).tasks["segmentation"].mask


def test_boxes_become_continuous_edges_and_keep_their_flags(one):
    # Pixels 1..10 by 1..8 are the whole image; pixel 3, 4 alone is the unit square at (2, 3).
    person = thing("person", (3, 4, 3, 4), "<difficult>1</difficult>")
    (one / "Annotations/train_000.xml").write_text(xml(thing("cat", (1, 1, 10, 8)), person))
    assert truth_of(one).size == (8, 10)
    boxes = boxes_of(one)
    assert boxes.boxes_xyxy.tolist() == [[0, 0, 10, 8], [2, 3, 3, 4]]
    assert boxes.classes.tolist() == [8, 15]
    assert boxes.difficult.tolist() == [False, True]
    assert boxes.annotated is None


def test_nothing_there_is_not_the_same_as_not_annotated(voc_folder, one):
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    assert {name: labels.names for name, labels in dataset.labels.items()} == dict.fromkeys(BOTH, VOC.names)
    annotated = [BOTH] * 3 + [BOTH[:1]] * 2 + [BOTH[1:]] * 2 + [()]
    assert [dataset.annotated_tasks(image_id) for image_id in dataset.ids] == annotated
    assert [tuple(dataset.ground_truth(image_id).tasks) for image_id in dataset.ids] == annotated
    empty = boxes_of(one)
    assert empty.boxes_xyxy.shape == (0, 4) and empty.classes.shape == (0,) and mask_of(one).sum() == 0


def test_an_xml_without_objects_is_not_labelled_unless_told(one):
    dataset = open_dataset(f"voc:{one}", "train")
    assert dataset.annotated_tasks("train_000") == ("segmentation",) and dataset.blank == ("train_000",)
    assert "1 of 1 images, such as train_000, have no object: nothing there, or not labelled yet?" in dataset.notes[0]
    for cut_short in ("<annotation><object", "<annotation><size>"):
        (one / "Annotations/train_000.xml").write_text(cut_short)
        assert not open_dataset(f"voc:{one}", "train").blank
        assert "not readable as XML" in dataset.problems("train_000")[0]


def test_sbds_masks_fill_the_gaps_and_official_ones_win(one):
    (one / "SegmentationClassAug").mkdir()
    Image.new("L", (10, 8), 3).save(one / "SegmentationClassAug/train_000.png")
    assert mask_of(one).unique().tolist() == [0]
    (one / "SegmentationClass/train_000.png").unlink()
    assert mask_of(one).unique().tolist() == [3]
    (one / "SegmentationClassAug/train_000.png").unlink()
    assert tuple(truth_of(one).tasks) == BOTH[:1]


def test_a_bare_split_is_every_image_on_either_list(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both",) * 3, "val": ("both",)})
    (folder / "ImageSets/Main/train.txt").write_text("train_001\r\ntrain_000\r\n")
    (folder / "ImageSets/Segmentation/train.txt").write_text("train_000\ntrain_002\n\n")
    ids = {split: open_dataset(f"voc:{folder}", split).ids for split in ("train", "Main/train", "Segmentation/train")}
    assert ids["train"] == ("train_001", "train_000", "train_002")
    assert ids["Main/train"] == ("train_001", "train_000")
    assert ids["Segmentation/train"] == ("train_000", "train_002")
    joined = open_dataset(f"voc:{folder}", "val+Segmentation/train+Main/train")
    assert joined.ids == ("val_000", "train_000", "train_002", "train_001")
    assert joined.name == f"voc:{folder}/val+Segmentation/train+Main/train"
    assert (joined.source, joined.split) == (f"voc:{folder.name}", "val+Segmentation/train+Main/train")


def test_lists_that_are_no_splits_are_refused_by_name(make_voc, tmp_path):
    folder = make_voc(tmp_path)
    lists = folder / "ImageSets/Main"
    (lists / "cat_train.txt").write_text("train_000  1\ntrain_001 -1\n")
    (lists / "empty.txt").write_text("\n")
    (lists / "twice.txt").write_text("train_000\ntrain_001\ntrain_000\n")
    for split, message in {
        "cat_train": r"cat_train\.txt: a list of one class",
        "empty": r"empty\.txt: the split 'empty' lists no image; possible: train, twice, val;",
        "twice": r"twice\.txt: listed twice: train_000;",
        "../Main/train": "no split",
    }.items():
        refused(message, open_dataset, f"voc:{folder}", split)


@pytest.mark.tried("refused by name", "lists of splits that name files instead of pictures")
@pytest.mark.parametrize("line", ["train_000.jpg", "JPEGImages\\train_000.JPG", "JPEGImages/0.jpg Segmentation/0.png"])
def test_a_list_of_files_instead_of_names_is_refused(one, line):
    (one / "ImageSets/Main/own.txt").write_text(f"{line}\n")
    told = refused(r"own\.txt: ", open_dataset, f"voc:{one}", "own")
    assert told.endswith(f"{line!r} names files; write the picture's name alone, without folder or suffix")


def test_an_id_is_a_whole_line_whatever_it_ends_in(one):
    for names in (("IMG (1)", "cat on mat"), ("IMG 0", "IMG 1", "IMG -1")):
        (one / "ImageSets/Main/own.txt").write_text("".join(f"{name}\n" for name in names))
        pictures(*(one / f"JPEGImages/{name}.jpg" for name in names))
        dataset = open_dataset(f"voc:{one}", "own")
        assert dataset.ids == names and dataset.image(names[-1]).size == (10, 8)
    refused("no split 'none'; possible: own, train", open_dataset, f"voc:{one}", "none")
    (one / "ImageSets/Main/own.txt").write_text("train_000 1\n")
    refused(r"own\.txt: a list of one class", open_dataset, f"voc:{one}", "own")


def test_the_folder_may_be_the_devkit_around_one_data_set(one):
    assert open_dataset(f"voc:{one.parent}", "train").ids == ("train_000",)
    (one.parent / "VOC2007/JPEGImages").mkdir(parents=True)
    refused(r"several data sets; give one: voc:.*VOC2007, voc:.*VOC2012", open_dataset, f"voc:{one.parent}", "train")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("voc", "possible: voc:FOLDER, coco:FOLDER"),
        ("zip:/tmp", "possible: voc:FOLDER, coco:FOLDER"),
        ("voc:/no/such/folder", "there is no folder /no/such/folder"),
        ("voc:{tmp_path}", "not a VOC folder; it must hold JPEGImages"),
    ],
)
def test_an_impossible_data_set_says_what_is_possible(tmp_path, spec, message):
    with pytest.raises(InputError, match=message):
        open_dataset(spec.format(tmp_path=tmp_path), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not readable as XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "not readable as XML"),
        ("<html/>", "begins with <annotation>, got <html>"),
        (xml("<object/>"), "object 1: <name> is missing"),
        (xml("<object><name>cat</name></object>"), r"object 1 \(cat\): there is no <bndbox>"),
        (xml(thing("cat", (1, 1, 2, 2)), thing("dog", (1, "", 2, 2))), r"object 2 \(dog\): <ymin> is missing"),
        (xml(thing("cat", (1, 1, "two", 2))), "<xmax> must be a number of pixels, got 'two'"),
        (xml(thing("kat", (1, 1, 2, 2))), "unknown class 'kat'; did you mean cat"),
        (xml(thing("background", (1, 1, 2, 2))), "background is no object"),
        (xml(thing("cat", (1, 1, 2, 2), "<difficult>maybe</difficult>")), "<difficult> is 0 or 1, got 'maybe'"),
        (xml(thing("cat", (5, 1, 12, 2))), r"\(4.0, 0.0, 12.0, 2.0\) lies outside its image of 10x8"),
        (xml(thing("cat", (5, 3, 4, 6))), "has no area"),
    ],
)
def test_wrong_xml_is_refused_by_file_object_and_field(one, text, message):
    (one / "Annotations/train_000.xml").write_text(text)
    assert str(one / "Annotations/train_000.xml") in refused(message, truth_of, one)


@pytest.mark.tried("refused by name", "boxes in shares of the image's sides")
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 1), (0, 0, 1, 0.25)])
def test_boxes_in_shares_of_the_sides_are_refused(one, box):
    (one / "Annotations/train_000.xml").write_text(xml(thing("cat", box)))
    refused(r"_000\.xml: object 1 \(cat\): the box .* is in shares .*; write pixels", boxes_of, one)


@pytest.mark.tried("refused by name", "boxes drawn on a picture that EXIF turns")
@pytest.mark.parametrize("stated", [True, False])
def test_boxes_of_the_turned_picture_are_told_so(one, stated):
    Image.new("RGB", (10, 8)).save(one / "JPEGImages/train_000.jpg", exif=turned(6))
    text = "<size><width>8</width><height>10</height></size>" if stated else thing("cat", (2, 9, 4, 10))
    (one / "Annotations/train_000.xml").write_text(f"<annotation>{text}</annotation>")
    refused(r"10x8\b.*train_000\.jpg is turned by its EXIF, .* turn the pixels, such as", truth_of, one)
    (one / "Annotations/train_000.xml").write_text(f"<annotation>{thing('kat', (1, 1, 2, 2))}</annotation>")
    assert "EXIF" not in refused("unknown class 'kat'", truth_of, one), "another fault than the size"


@pytest.mark.tried("noted", "masks and XMLs whose names are no picture's; JSON among XMLs", inputs=2)
def test_files_that_have_the_name_of_no_picture_are_noted(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both",) * 3, "val": ("both",)})
    assert open_dataset(f"voc:{folder}", "train").notes == (), "those of another split have pictures"
    (folder / "SegmentationClass/.hidden.png").touch()
    for path in (folder / "SegmentationClass").glob("train*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    (note,) = open_dataset(f"voc:{folder}", "train").notes
    assert note.startswith(f"{folder}/SegmentationClass: 3 of 4 files, such as train_000_mask.png, have the name of no")
    (folder / "Annotations/val_000.xml").rename(folder / "Annotations/val_000.json")
    (folder / "Annotations/train_000.json").touch()
    (other, _) = open_dataset(f"voc:{folder}", "train").notes
    there = f"{folder}/Annotations: 1 files, such as val_000.json, have the name of a picture and are not read; "
    assert other == f"{there}possible: .xml"


@pytest.mark.tried("noted", "GIF, HEIC, raw or JPEG 2000 among pictures")
def test_pictures_of_other_formats_are_named(one):
    (one / "JPEGImages/train_000.jpg").rename(one / "JPEGImages/train_000.gif")
    dataset = opened(one)
    assert dataset.notes[0].startswith("1 pictures of other formats, such as") and len(dataset.notes) == 1
    with pytest.raises(InputError, match=r"train_000\.gif: not a picture; possible: JPEG"):
        Image.new("RGB", (10, 8)).save(one / "JPEGImages/train_000.gif")
        dataset.image("train_000")
    Image.new("RGB", (10, 8)).save(one / "JPEGImages/train_000.webp")
    assert dataset.image("train_000").size == (10, 8)


@pytest.mark.tried("noted", "masks without a list, taken to be of VOC's classes")
def test_a_list_of_another_tool_is_not_passed_over(one):
    (one / "obj.names").write_text("leaf\n")
    (note,) = opened(one).notes
    assert note.startswith(f"{one}/obj.names: is not read, so that the numbers in masks are taken to be VOC's; if")
    (one / "labels.txt").write_text("leaf\n")
    assert opened(one).notes == ()


def test_own_classes_come_from_labels_txt(one):
    (one / "labels.txt").write_text("whale\n\nseal\n")
    (one / "Annotations/train_000.xml").write_text(xml(thing("seal", (1, 1, 2, 2))))
    labels = open_dataset(f"voc:{one}", "train").labels
    assert labels["detection"].names == labels["segmentation"].names == ("background", "whale", "seal")
    assert boxes_of(one).classes.tolist() == [2]
    (one / "labels.txt").write_text("background\nwhale\nseal\n")
    assert boxes_of(one).classes.tolist() == [2]
    (one / "labels.txt").write_text("whale\nwhale\n")
    refused(r"labels\.txt: a label space names each class once; twice: whale", truth_of, one)


def test_fractions_are_accepted_and_a_pixel_too_far_is_cut(one):
    objects = thing("cat", ("2.5", 1, "4.25", 2)), thing("dog", (0, 0, 11, 9))
    (one / "Annotations/train_000.xml").write_text(xml(*objects))
    assert boxes_of(one).boxes_xyxy.tolist() == [[1.5, 0, 4.25, 2], [0, 0, 10, 8]]


def test_parts_of_an_object_are_not_objects(one):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    (one / "Annotations/train_000.xml").write_text(xml(thing("cat", (2, 2, 5, 5), part)))
    assert boxes_of(one).boxes_xyxy.tolist() == [[1, 1, 5, 5]]


def test_boxes_and_mask_agree_to_the_pixel_with_the_picture(voc_folder):
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    colours = {8: (220, 40, 40), 12: (40, 200, 60), 15: (50, 80, 230), 6: (230, 210, 30)}
    for image_id in dataset.ids:
        boxes, drawn = (dataset.ground_truth(image_id).tasks[task] for task in BOTH)
        pixels = np.asarray(dataset.image(image_id)).astype(int)
        inside = torch.zeros_like(drawn.mask)
        for box, label in zip(boxes.boxes_xyxy.long().tolist(), boxes.classes.tolist(), strict=True):
            x1, y1, x2, y2 = box
            inside[y1:y2, x1:x2] = label
            assert np.abs(pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] - colours[label]).max() < 12
        assert torch.equal(inside[:-1], drawn.mask[:-1]) and (drawn.mask[-1] == 255).all()


def test_suffixes_may_be_capitals(one):
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (path,) = (one / folder).iterdir()
        path.rename(path.with_suffix(path.suffix.upper()))
    assert tuple(truth_of(one).tasks) == BOTH
    assert open_dataset(f"voc:{one}", "train").image("train_000").size == (10, 8)


def test_xml_of_another_version_of_the_image_is_refused(one):
    file = one / "Annotations/train_000.xml"
    size = "<size><width>{}</width><height>{}</height></size>"
    for width, height in ((10, 8), (0, 0), ("", "")):
        file.write_text(f"<annotation>{size.format(width, height)}</annotation>")
        assert boxes_of(one).boxes_xyxy.shape == (0, 4)
    for width, height in ((8, 10), (10, 9), (20, 0)):
        file.write_text(f"<annotation>{size.format(width, height)}</annotation>")
        refused(rf"_000\.xml: <size> says {width}x{height} pixels, the image is 10x8", truth_of, one)


tags = st.sampled_from("annotation object name difficult bndbox xmin ymin xmax ymax cat".split())  # no field: cat
texts = st.sampled_from(["", " ", "cat", "dog", "0", "1", "5", "8", "-3", "1e308", "inf", "nan", "9" * 400, "é"])
trees = st.recursive(
    st.builds("<{0}>{1}</{0}>".format, tags, texts),
    lambda inner: st.builds(lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>", tags, st.lists(inner, max_size=5)),
    max_leaves=20,
)
numbers = st.sampled_from(["", "1", "2", "5.5", "8", "10", "11", "0", "-3", "1e308", "inf", "nan", "9" * 400])
things = st.builds(thing, st.sampled_from(["cat", "dog", "background", "kat", ""]), st.tuples(*[numbers] * 4))
documents = st.lists(trees | things, max_size=4).map(lambda parts: xml(*parts)) | trees


@given(documents.map(str.encode) | st.binary(max_size=80))
@settings(max_examples=400, deadline=None)
def test_any_file_is_read_as_valid_boxes_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "fuzz.xml").write_bytes(content)
    reader = VocBoxes(kind="detection", folders=(folder,), suffixes=(".xml",), labels=VOC)
    try:
        found = reader.read("fuzz", (8, 10))
    except InputError:
        return
    boxes = found.boxes_xyxy
    assert len(boxes) == len(found.classes) == len(found.difficult)
    assert (boxes >= 0).all() and (boxes[:, 2] <= 10).all() and (boxes[:, 3] <= 8).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all() and (found.classes > 0).all()
