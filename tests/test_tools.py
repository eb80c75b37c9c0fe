"""Folders as annotation tools write them: YOLO, Labelme, CVAT, Label Studio; what is read, told and refused."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made import pictures, refused, write
from tutored.cli import main
from tutored.data import FORMATS, TOOLS, TaskSource, open_dataset
from tutored.errors import InputError
from tutored.init import init

SIZE = (10, 8)
"""Width and height of all pictures here."""


def boxes(dataset, image_id):
    """Class and box of each object."""
    found = dataset.ground_truth(image_id).tasks["detection"]
    names = [dataset.classes.names[number] for number in found.classes]
    return list(zip(names, [[round(each, 2) for each in box] for box in found.boxes_xyxy.tolist()], strict=True))


def pixels(dataset, image_id):
    """By class of the mask that is not 0, the rectangle around its pixels and how many there are."""
    mask = dataset.ground_truth(image_id).tasks["segmentation"].mask.numpy()
    places = {number: np.nonzero(mask == number) for number in sorted(set(mask.ravel().tolist()) - {0})}
    return {
        number: [*map(int, (x.min(), y.min(), x.max() + 1, y.max() + 1, len(x)))] for number, (y, x) in places.items()
    }


# --- YOLO

BOX, SQUARE = "1 0.5 0.5 0.4 0.5", "0 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"
LEFT_HALF = "1 0 0 0.5 0 0.5 0.5 0.5 1 0 1"


def yolo(folder, lines=BOX, names="names: [cat, dog]", picture="images/train/a.jpg"):
    """A folder with one picture and, unless there is another, a `data.yaml` for it."""
    pictures(folder / picture)
    write(folder / Path(picture.replace("images", "labels")).with_suffix(".txt"), lines)
    if not (folder / "data.yaml").exists():
        write(folder / "data.yaml", f"path: .\ntrain: images/train\n{names}\n")
    return open_dataset(f"yolo:{folder}", "train")


def test_boxes_of_yolo(tmp_path):
    dataset = yolo(tmp_path, f"{BOX}\n\n0.0 0.05 0.5 0.2 1\n")
    assert (dataset.ids, dataset.classes.classes, dataset.source) == (("a",), ("cat", "dog"), f"yolo:{tmp_path.name}")
    assert boxes(dataset, "a") == [("dog", [3, 2, 7, 6]), ("cat", [0, 0, 1.5, 8])]
    assert dataset.annotated_tasks("a") == ("detection",)
    assert dataset.files("a")[1] == tmp_path / "labels" / "train" / "a.txt"


def test_polygons_of_yolo_are_boxes_and_masks(tmp_path):
    dataset = yolo(tmp_path, f"{LEFT_HALF}\n{SQUARE}\n")
    assert boxes(dataset, "a") == [("dog", [0, 0, 5, 8]), ("cat", [1, 2, 5, 6])]
    assert pixels(dataset, "a") == {1: [1, 2, 5, 6, 16], 2: [0, 0, 5, 8, 24]}  # the smaller one lies above
    mixed = yolo(tmp_path, f"{LEFT_HALF}\n{BOX}\n", picture="images/train/b.jpg")
    assert mixed.annotated_tasks("b") == ("detection",)  # an object without an outline


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions")
def test_four_points_everywhere_are_oriented_boxes(tmp_path):
    dataset = yolo(tmp_path, "0 0.3 0.25 0.5 0.5 0.3 0.75 0.1 0.5\n")
    assert boxes(dataset, "a") == [("cat", [1, 2, 5, 6])] and dataset.annotated_tasks("a") == ("detection",)
    assert "boxes that are turned, read as the upright boxes around them" in dataset.notes[0]
    assert dataset.notes[0].startswith("1 objects, such as") and "labels/train/a.txt: line 1" in dataset.notes[0]
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\ntask: segment\n")
    assert open_dataset(f"yolo:{tmp_path}", "train").annotated_tasks("a") == ("detection", "segmentation")


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions")
def test_of_poses_the_boxes_are_read(tmp_path):
    dataset = yolo(tmp_path, f"{BOX} 0.4 0.4 2 0.6 0.6 1\n", "names: [cat, dog]\nkpt_shape: [2, 3]")
    assert boxes(dataset, "a") == [("dog", [3, 2, 7, 6])]
    assert dataset.notes == (f"1 objects, such as {tmp_path}/labels/train/a.txt: line 1: keypoints are not read",)


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
@pytest.mark.parametrize(
    ("text", "picture"),
    [
        ("train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\nroboflow: {project: x}", "train/images/a.jpg"),
        ("path: /content/datasets/mine\ntrain: images/train\nnames: {0: cat, 1: dog}", "images/train/a.jpg"),
        ("train: /home/me/mine/images/train\nnames:\n  0: cat\n  1: dog", "images/train/a.jpg"),
        ("path: ./\ntrain: ./images/train/\nval: ./images/val/\nnames: {0: cat, 1: dog}", "images/train/a.jpg"),
        ("train: [images/train]\nnames: [cat, dog]", "images/train/a.jpg"),
        ("train: train.txt\nnames: [cat, dog]", "images/a.jpg"),
        ("names: [cat, dog]\nauthor: me", "train/images/a.jpg"),
        ("names: [cat, dog]", "images/train/a.jpg"),
    ],
    ids=["roboflow", "ultralytics", "absolute", "fiftyone", "list", "file", "splits outside", "splits inside"],
)  # fmt: skip
def test_paths_of_data_yaml(tmp_path, text, picture):
    write(tmp_path / "data.yaml", text)
    write(tmp_path / "train.txt", f"/elsewhere/mine/{picture}\n")
    assert boxes(yolo(tmp_path, picture=picture), "a") == [("dog", [3, 2, 7, 6])]


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them", inputs=3)
def test_yolo_of_darknet_and_of_one_folder(tmp_path):
    """As CVAT's format "YOLO 1.1" and FiftyOne's YOLOv4 have it; and as labelImg writes it beside the pictures."""
    pictures(tmp_path / "cvat/obj_train_data/a.jpg", tmp_path / "fiftyone/data/a.jpg", tmp_path / "mine/a.jpg")
    for path in ("cvat/obj_train_data/a.txt", "fiftyone/data/a.txt", "mine/a.txt"):
        write(tmp_path / path, BOX)
    for path in ("cvat/obj.names", "fiftyone/obj.names", "mine/classes.txt"):
        write(tmp_path / path, "cat\ndog\n")
    write(tmp_path / "cvat/obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(tmp_path / "cvat/train.txt", "data/obj_train_data/a.jpg\n")
    write(tmp_path / "fiftyone/images.txt", "data/a.jpg\n")
    for folder, split in (("cvat", "train"), ("fiftyone", "all"), ("mine", "all")):
        assert boxes(open_dataset(f"yolo:{tmp_path / folder}", split), "a") == [("dog", [3, 2, 7, 6])]


@pytest.mark.tried("refused by name", "files of YOLO with a wrong class, number, column or list of names")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2 0.5 0.5 0.4 0.5", "class 2 has no name; {yaml} names 2, from 0 on"),
        ("0 1.5 0.5 0.4 0.5", "1.5 is no share of the picture, 0 to 1"),
        ("0 320 240 64 64", "320 is no share of the picture"),
        ("0 0.5 0.5 0.4", "4 columns; a line is class x y width height (a box), or class x y x y x y ... (a polygon)"),
        ("0 0.5 0.5 0.4 0.5 0.9", "6 columns"),
        ("cat 0.5 0.5 0.4 0.5", "'cat 0.5 0.5 0.4 0.5' are no numbers"),
    ],
)
def test_faults_of_a_label_file_name_file_and_line(tmp_path, line, told):
    dataset = yolo(tmp_path, f"{BOX}\n{line}\n{line}\n")
    problems = dataset.problems("a")
    lines = (f"{tmp_path}/labels/train/a.txt: line {number}: " for number in (2, 3))
    assert len(problems) == 2 and all(map(str.startswith, problems, lines))
    assert all(told.format(yaml=tmp_path / "data.yaml") in each for each in problems)
    pictures(tmp_path / "images/train/b.jpg")
    write(tmp_path / "labels/train/b.txt", BOX)
    assert boxes(open_dataset(f"yolo:{tmp_path}", "train"), "b")


@pytest.mark.tried("refused by name", "files of YOLO with a wrong class, number, column or list of names")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("names: [cat, dog]\nnc: 3", "`nc` says 3 classes, `names` has 2"),
        ("names: {0: cat, 2: dog}", "`names` numbers the classes from 0 on, none left out"),
        ("names: cat", "`names` lists the names of the classes, number 0 first, got 'cat'"),
        ("names: [cat, cat]", "a label space names each class once; twice: cat"),
        ("names: [cat, dog", "not valid YAML"),
        ("train: [1]\nnames: [cat]\nkpt_shape: 17", "`kpt_shape` is the number of keypoints and of their columns"),
    ],
)
def test_faults_of_data_yaml(tmp_path, text, told):
    write(tmp_path / "data.yaml", text)
    assert told in refused("data.yaml", yolo, tmp_path)


def test_what_is_left_out_of_a_yolo_folder_is_counted(tmp_path):
    write(tmp_path / "labels/train/lost.txt", BOX)
    write(tmp_path / "images/train/a.txt", BOX)
    dataset = yolo(tmp_path, f"0 0.5 0.5 0 0.5\n{BOX}\n1 0.9 0.5 0.4 0.5\n")
    line = f"{tmp_path}/labels/train/a.txt: line"
    assert dataset.notes == (
        f"1 label files, such as {tmp_path}/images/train/a.txt, lie beside pictures that have one in `labels`, and are "
        "not used",
        f"1 label files, such as {tmp_path}/labels/train/lost.txt, belong to no picture and are not used",
        f"1 objects, such as {line} 1: boxes of no area, left out",
        f"1 objects, such as {line} 3: boxes that reach out of their picture, cut",
    )
    assert boxes(dataset, "a") == [("dog", [3, 2, 7, 6]), ("dog", [7, 2, 10, 6])]


# --- Labelme


def shape(label, kind, *points, **more):
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}, **more}


def labelme(folder, *shapes, name="a", **more):
    pictures(folder / f"{name}.jpg")
    size = {"imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": "A" * 99}
    write(folder / f"{name}.json", content | size | more)
    return open_dataset(f"labelme:{folder}", "all")


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions")
def test_shapes_of_labelme(tmp_path):
    mask = io.BytesIO()
    Image.fromarray(np.full((2, 3), 255, np.uint8)).save(mask, "PNG")
    dataset = labelme(
        tmp_path,
        shape("dog", "polygon", [0, 0], [6, 0], [6, 8], [0, 8]),
        shape("cat", "circle", [3, 4], [3, 6]),
        shape("cat", "mask", [7, 5], [9, 6], mask=base64.b64encode(mask.getvalue()).decode()),
        shape("__ignore__", "polygon", [6, 0], [10, 0], [10, 2], [6, 2]),
        shape("cat", "point", [3, 3]),
    )
    assert dataset.classes.classes == ("cat", "dog")
    assert boxes(dataset, "a") == [("dog", [0, 0, 6, 8]), ("cat", [1, 2, 5, 6]), ("cat", [7, 5, 10, 7])]
    drawn = pixels(dataset, "a")
    assert drawn[255] == [6, 0, 10, 2, 8] and drawn[1][:4] == [1, 2, 10, 7]
    assert sum(each[4] for each in drawn.values()) == 62
    assert dataset.notes == (
        f"1 objects, such as {tmp_path}/a.json: shape 5 (cat): shapes of the kind point, which are not read",
    )


def test_polygons_of_one_group_are_one_object(tmp_path):
    parts = [shape("cat", "polygon", [x, 0], [x + 2, 0], [x + 2, 8], [x, 8], group_id=1) for x in (0, 8)]
    other = shape("cat", "polygon", [4, 0], [5, 0], [5, 8], [4, 8], group_id=2)
    dataset = labelme(tmp_path, *parts, other)
    assert boxes(dataset, "a") == [("cat", [0, 0, 10, 8]), ("cat", [4, 0, 5, 8])]
    assert pixels(dataset, "a") == {1: [0, 0, 10, 8, 40]}


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them", inputs=2)
def test_pictures_of_labelme_by_path_name_and_folder(tmp_path):
    pictures(tmp_path / "img/a.jpg", tmp_path / "img/b.jpg", tmp_path / "img/c.jpg")
    box = [shape("cat", "rectangle", [1, 1], [4, 4])]
    write(tmp_path / "ann/a.json", {"shapes": box, "imagePath": "..\\img\\a.jpg"})
    write(tmp_path / "ann/x.json", {"shapes": box, "imagePath": "/home/me/b.jpg"})
    write(tmp_path / "ann/y.json", {"shapes": box, "imagePath": "d.jpg"})
    write(tmp_path / "ann/z.json", {"info": "another tool's"})
    dataset = open_dataset(f"labelme:{tmp_path}", "all")
    assert dataset.ids == ("a", "b", "c") and [len(boxes(dataset, each)) for each in "ab"] == [1, 1]
    assert dataset.notes[:2] == (
        f"1 JSON files, such as {tmp_path}/ann/y.json, belong to no picture and are not used",
        f"1 JSON files, such as {tmp_path}/ann/z.json, are not Labelme's and are not read",
    )


def test_folders_are_splits_of_labelme(tmp_path):
    for split, label in (("train", "dog"), ("val", "cat")):
        labelme(tmp_path / split, shape(label, "rectangle", [1, 1], [4, 4]))
    val = open_dataset(f"labelme:{tmp_path}", "val")
    assert val.classes.classes == ("cat", "dog") and boxes(val, "a") == [("cat", [1, 1, 4, 4])]
    refused("there is no folder test; possible: train, val, all", open_dataset, f"labelme:{tmp_path}", "test")


@pytest.mark.tried("refused by name", "shapes without points, class or pixels; two files for one picture")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (shape("cat", "polygon", [0, 0], [1, 1]), "needs at least 3 points, has 2"),
        (shape("cat", "polygon", [0, 0], [1, 1], [None, 2]), "points are pairs of numbers x, y, got"),
        (shape("", "rectangle", [0, 0], [1, 1]), "its class must be a name, got ''"),
        (shape("cat", "mask", [0, 0], [1, 1], mask="?"), "its mask can't be read"),
        (shape("cat", "rectangle", [20, 20], [30, 30]), "has no area in its image of 10x8 pixels"),
        ("cat", "its class must be a name, got None"),
    ],
)
def test_faults_of_a_shape_name_file_and_shape(tmp_path, given, told):
    good = shape("cat", "polygon", [0, 0], [6, 0], [6, 8])
    (problem,) = labelme(tmp_path, good, given).problems("a")
    assert problem.startswith(f"{tmp_path}/a.json: shape 2 (") and told in problem


@pytest.mark.tried("refused by name", "shapes without points, class or pixels; two files for one picture", inputs=3)
def test_faults_of_a_file_of_labelme(tmp_path, capsys):
    labelme(tmp_path, shape("cat", "rectangle", [1, 1], [4, 4]))
    pictures(tmp_path / "b.jpg")
    write(tmp_path / "b.json", '{"shapes": [{"label"')
    labelme(tmp_path, name="c", imageWidth=99)
    write(tmp_path / "labels.txt", "dog\n")
    write(tmp_path / "z.json", {"shapes": [], "imagePath": "c.jpg"})
    dataset = open_dataset(f"labelme:{tmp_path}", "all")
    problems = {image_id: dataset.problems(image_id) for image_id in dataset.ids}
    assert [len(each) for each in problems.values()] == [1, 1, 1]
    assert "a.json: shape 1 (cat): unknown class 'cat'; possible: dog" in problems["a"][0]
    assert "b.json: not readable as JSON" in problems["b"][0]
    assert problems["c"] == (
        f"{tmp_path}/c.json and {tmp_path}/z.json both annotate {tmp_path}/c.jpg; keep one of them",
    )
    assert main(["data", "check", "--data", f"labelme:{tmp_path}", "--split", "all"]) == 2
    assert "nothing is annotated" not in (told := capsys.readouterr().out) and "all: 3 problems" in told


# --- CVAT

META = "<meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>"


def cvat(folder, *shapes, name="a.jpg", more="", width=10):
    pictures(folder / "images" / name)
    image = f'<image id="0" name="{name}" width="{width}" height="8">{"".join(shapes)}</image>'
    write(folder / "annotations.xml", f"<annotations><version>1.1</version>{META}{image}{more}</annotations>")
    return open_dataset(f"cvat:{folder}", "all")


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions", inputs=2)
def test_shapes_of_cvat(tmp_path):
    dataset = cvat(
        tmp_path,
        '<polygon label="dog" occluded="1" points="0,0;6,0;6,8;0,8" z_order="1"/>',
        '<mask label="cat" occluded="0" rle="1, 2, 3" left="7" top="5" width="3" height="2" z_order="0"/>',
        '<ellipse label="cat" cx="3" cy="4" rx="2" ry="1" rotation="90" z_order="2"/>',
        '<polyline label="cat" points="0,0;6,0"/>',
        '<tag label="cat"/>',
    )
    assert dataset.classes.classes == ("cat", "dog")
    assert boxes(dataset, "a") == [("dog", [0, 0, 6, 8]), ("cat", [7, 5, 10, 7]), ("cat", [2, 2, 4, 6])]
    drawn = pixels(dataset, "a")
    assert drawn[1][:4] == [2, 2, 10, 6] and drawn[1][4] + drawn[2][4] == 50  # the mask is two pixels of its first row
    kinds = [each.partition("shapes of the kind ")[2] for each in dataset.notes]
    assert kinds == ["polyline, which are not read", "tag, which are not read"]


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
def test_subsets_of_a_project_of_cvat(tmp_path):
    pictures(tmp_path / "images/Train/a.jpg", tmp_path / "images/Validation/a.jpg")
    box = '<box label="cat" xtl="{}" ytl="1" xbr="9" ybr="9"/>'
    image = f'<image id="{{}}" name="a.jpg" subset="{{}}" width="10" height="8">{box}</image>'
    meta = META.replace("task", "project")
    images = image.format(0, "Train", 2) + image.format(1, "Validation", 5)
    write(tmp_path / "annotations.xml", f"<annotations>{meta}{images}</annotations>")
    val = open_dataset(f"cvat:{tmp_path}", "Validation")
    assert boxes(val, "a") == [("cat", [5, 1, 9, 8])] and val.place("a") == tmp_path / "images/Validation/a.jpg"
    with pytest.raises(InputError, match="there is no subset 'val' in XML files of CVAT; possible: Train, Validation,"):
        open_dataset(f"cvat:{tmp_path}", "val")


@pytest.mark.tried("refused by name", "shapes without points, class or pixels; two files for one picture")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('<polygon label="cat" points="0,0;6,0"/>', "needs at least 3 points, has 2"),
        ('<polygon label="cat" points="0,0;6;1,2"/>', "points are pairs of numbers x, y, got"),
        ('<box label="cot" xtl="2" ytl="3" xbr="8" ybr="5"/>', "unknown class 'cot'; did you mean cat?"),
        ('<box label="cat" xtl="2" ytl="3" xbr="8"/>', "xtl, ytl, xbr, ybr: points are pairs of numbers"),
        ('<mask label="cat" rle="1, 2" left="7" top="5" width="3" height="2"/>', "its run lengths are not those of"),
        ('<mask label="cat" rle="6" left="8" top="5" width="3" height="2"/>', "its pixels lie outside its image of"),
    ],
)
def test_faults_of_cvat_name_file_picture_and_shape(tmp_path, given, told):
    (problem,) = cvat(tmp_path, '<polygon label="dog" points="0,0;6,0;6,8"/>', given).problems("a")
    assert problem.startswith(f"{tmp_path}/annotations.xml: image a.jpg: {given[1:].split()[0]} 2 (c")
    assert told in problem


@pytest.mark.tried("refused by name", "shapes without points, class or pixels; two files for one picture", inputs=6)
def test_faults_of_a_file_of_cvat(tmp_path):
    image = '<image id="1" name="{}" width="10" height="8"/>'
    refused("tracks of a video; export as `CVAT for images 1.1`", cvat, tmp_path, more="<track/>")
    with pytest.raises(
        InputError, match="a.jpg of .*annotations.xml have one name up to the suffix; list a picture once"
    ):
        cvat(tmp_path, more=image.format("a.jpg"))
    with pytest.raises(InputError, match="leads out of the data set's folder"):
        cvat(tmp_path, more=image.format("../../b.jpg"))
    write(tmp_path / "other/a.xml", f"<annotations>{image.format('z.jpg')}</annotations>")
    refused("none of 1 pictures is there, such as .*z.jpg", open_dataset, f"cvat:{tmp_path / 'other'}", "all")
    box = '<box label="cat" xtl="2" ytl="3" xbr="8" ybr="5"/>'
    assert "the image is 10x8 pixels" in cvat(tmp_path, box, width=11).problems("a")[0]
    write(tmp_path / "annotations.xml", "<annotations><image")
    refused("annotations.xml: not readable as XML", open_dataset, f"cvat:{tmp_path}", "all")


# --- Label Studio


def region(kind, labels, **value):
    value = {**value, kind: labels}
    return {"type": kind, "value": value, "original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}


def task(image, *results, number=1, **more):
    annotation = {"result": list(results), "was_cancelled": False, **more}
    return {"id": number, "data": {"image": image}, "annotations": [annotation], "predictions": []}


def label_studio(folder, *tasks):
    pictures(folder / "a.jpg")
    write(folder / "export.json", list(tasks))
    return open_dataset(f"labelstudio:{folder}", "all")


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions", inputs=2)
def test_regions_of_label_studio(tmp_path):
    dataset = label_studio(
        tmp_path,
        task(
            "/data/upload/1/0a1b2c3d-a.jpg",
            region("rectanglelabels", ["dog"], x=20, y=25, width=40, height=50, rotation=0),
            region("rectanglelabels", ["cat"], x=50, y=25, width=20, height=50, rotation=90),
            region("keypointlabels", ["cat"], x=50, y=25, width=1),
        ),
    )
    assert dataset.ids == ("a",) and dataset.classes.classes == ("cat", "dog")
    assert boxes(dataset, "a") == [("dog", [2, 2, 6, 6]), ("cat", [1, 2, 5, 4])]
    assert [each.partition(f"{tmp_path}/export.json: task 1: ")[2] for each in dataset.notes] == [
        "rectanglelabels 2: boxes that are turned, read as the upright boxes around them, without an outline",
        "keypointlabels 3: regions of the kind keypointlabels, which are not read",
    ]


def test_strokes_of_label_studio(tmp_path):
    """A picture of 10 x 8 pixels, 320 values: 88 of 0, then 8 that are written out, 24 of 255, and 200 of 0."""

    def repeated(value, length):
        return f"1{1:02b}{length - 1:08b}{value:08b}"

    head = f"{320:032b}{8 - 1:05b}{3 - 1:04b}{8 - 1:04b}{8 - 1:04b}{16 - 1:04b}"
    written = f"0{0:02b}{8 - 1:03b}" + f"{0:08b}" * 7 + f"{9:08b}"
    bits = head + repeated(0, 88) + written + repeated(255, 24) + repeated(0, 200)
    rle = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    stroke = region("brushlabels", ["cat"], rle=rle, format="rle")
    dataset = label_studio(tmp_path, task("a.jpg", stroke))
    assert boxes(dataset, "a") == [("cat", [3, 2, 10, 3])] and pixels(dataset, "a") == {1: [3, 2, 10, 3, 7]}
    for wrong in (rle[:-6], [*rle[:3], 0, *rle[4:]], [256], "x", None):
        (problem,) = label_studio(tmp_path, task("a.jpg", region("brushlabels", ["cat"], rle=wrong))).problems("a")
        assert "brushlabels 1: its run lengths are not those of a stroke on 10x8 pixels; draw it again" in problem


def test_regions_of_the_control_labels_are_told_by_their_form(tmp_path):
    values = {"x": 20, "y": 25, "width": 40, "height": 50}
    alone = region("labels", ["dog"], **values) | {"type": "rectangle"}
    dataset = label_studio(tmp_path, task("a.jpg", alone, region("labels", ["dog"], **values)))
    assert boxes(dataset, "a") == [("dog", [2, 2, 6, 6])]


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them", inputs=3)
def test_pictures_of_label_studio_in_folders(tmp_path):
    pictures(tmp_path / "one/a.jpg", tmp_path / "two/a.jpg")
    names = ("/data/local-files/?d=one%2Fa.jpg", "s3://bucket/two/a.jpg", "https://example.org/z/b.jpg?sig=1")
    dataset = label_studio(tmp_path, *(task(name, number=number) for number, name in enumerate(names)))
    assert dataset.ids == ("one/a", "two/a", "b")
    places = [dataset.place(image_id) for image_id in dataset.ids]
    assert places == [tmp_path / "one/a.jpg", tmp_path / "two/a.jpg", names[2]]


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions", inputs=2)
def test_tasks_of_label_studio_that_nobody_finished(tmp_path):
    box = region("rectanglelabels", ["dog"], x=20, y=25, width=40, height=50)
    points = region("keypointlabels", ["cat"], x=1, y=2, width=1)
    pictures(*(tmp_path / f"{name}.jpg" for name in "bcdef"))
    open_task = {"id": 5, "data": {"image": "e.jpg"}, "annotations": [], "predictions": [{"result": [box]}]}
    dataset = label_studio(
        tmp_path,
        task("a.jpg", box),
        task("b.jpg"),
        task("c.jpg", was_cancelled=True),
        task("d.jpg", points, number=4),
        open_task,
    )
    assert {image_id: dataset.annotated_tasks(image_id) for image_id in dataset.ids} == {
        "a": ("detection",), "b": ("detection",), "c": (), "d": ("detection",), "e": ()
    }  # fmt: skip
    assert boxes(dataset, "b") == []
    assert dataset.notes == (
        f"1 pictures, such as {tmp_path}/f.jpg, are in no task and are not used",
        "1 pictures, such as e.jpg, have predictions of a model, which are not read",
        f"1 objects, such as {tmp_path}/export.json: task 4: keypointlabels 1: regions of the kind keypointlabels, "
        "which are not read",
    )


@pytest.mark.tried("refused by name", "shapes without points, class or pixels; two files for one picture", inputs=8)
def test_faults_of_label_studio_name_file_and_task(tmp_path):
    def problem(*results, **more):
        (found,) = label_studio(tmp_path, {**task("a.jpg", *results), **more}).problems("a")
        assert found.startswith(f"{tmp_path}/export.json: task 1: ")
        return found

    whole = {"x": 0, "y": 0, "width": 50, "height": 50}
    assert "a region has one label" in problem(region("rectanglelabels", ["a", "b"], **whole))
    assert "points are pairs of numbers" in problem(region("rectanglelabels", ["a"], x=0, y=0, width="?", height=1))
    assert "needs at least 3 points, has 2" in problem(region("polygonlabels", ["a"], points=[[0, 0], [1, 1]]))
    assert "turned by 90 degrees" in problem({**region("rectanglelabels", ["a"], **whole), "image_rotation": 90})
    assert "2 annotations for one picture; mark one" in problem(annotations=[{"result": []}, {"result": []}])
    with pytest.raises(InputError, match="none of 1 pictures is there, such as .*z.jpg"):
        label_studio(tmp_path, task("z.jpg"))
    with pytest.raises(InputError, match="export.json: task 2 has no picture in `data`, or no `annotations`"):
        label_studio(tmp_path, task("a.jpg"), {"data": {}})
    refused("no export of Label Studio in it; export as JSON", label_studio, tmp_path, {"image": "a.jpg", "label": []})


# --- All tools


def test_outlines_of_all_tools_are_instances(tmp_path):
    corners = [[0, 0], [5, 0], [5, 8], [0, 8], [0, 4]]
    yolo(tmp_path / "yolo", "0 0 0 .5 0 .5 1 0 1 0 .5")
    labelme(tmp_path / "labelme", shape("cat", "polygon", *corners))
    cvat(tmp_path / "cvat", '<polygon label="cat" points="0,0;5,0;5,8;0,8;0,4"/>')
    shares = [[10 * x, 12.5 * y] for x, y in corners]
    label_studio(tmp_path / "labelstudio", task("a.jpg", region("polygonlabels", ["cat"], points=shares)))
    for kind in TOOLS:
        split = "train" if kind == "yolo" else "all"
        dataset = open_dataset(f"{kind}:{tmp_path / kind}", split, {"things": TaskSource("instances")})
        things = dataset.ground_truth("a").tasks["things"]
        assert things.masks[0, :, :5].sum() == things.masks.sum() == 40 and things.classes.tolist() == [1]


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them", inputs=4)
def test_init_knows_each_layout_and_its_splits(tmp_path):
    box = '<box label="cat" xtl="2" ytl="3" xbr="8" ybr="5"/>'
    rectangle = shape("cat", "rectangle", [1, 1], [4, 4])
    cvat(tmp_path / "cvat", box)
    label_studio(
        tmp_path / "labelstudio", task("a.jpg", region("rectanglelabels", ["a"], x=0, y=0, width=50, height=50))
    )
    for split in ("train", "val", "test"):
        labelme(tmp_path / "labelme" / split, rectangle, name=split)
        yolo(
            tmp_path / "yolo",
            picture=f"images/{split}/{split}.jpg",
            names="val: images/val\ntest: images/test\nnames: [cat, dog]",
        )
    found = {kind: init(tmp_path / kind, tmp_path / f"{kind}.yaml").layout for kind in TOOLS}
    assert {kind: (each.data, each.train, each.val) for kind, each in found.items()} == {
        "yolo": (f"yolo:{tmp_path}/yolo", "train", "val"),
        "cvat": (f"cvat:{tmp_path}/cvat", "all", None),
        "labelstudio": (f"labelstudio:{tmp_path}/labelstudio", "all", None),
        "labelme": (f"labelme:{tmp_path}/labelme", "train", "val"),
    }
    assert all(
        "further splits, which the config does not name: test" in found[kind].notes for kind in ("yolo", "labelme")
    )
    assert TOOLS.keys() < FORMATS.keys()


@pytest.mark.parametrize("kind", ["yolo", "cvat", "labelme"])
def test_a_picture_without_objects_is_empty_where_told(tmp_path, kind):
    if kind == "cvat":
        cvat(tmp_path, more='<image id="1" name="b.jpg" width="10" height="8"/>')
        pictures(tmp_path / "images/b.jpg")
    elif kind == "labelme":
        labelme(tmp_path)
        pictures(tmp_path / "b.jpg")
    else:
        yolo(tmp_path, "\n")
        pictures(tmp_path / "images/train/b.jpg")
    split = "train" if kind == "yolo" else "all"
    dataset = open_dataset(f"{kind}:{tmp_path}", split)
    assert dataset.blank == dataset.ids == ("a", "b") and dataset.annotated_tasks("b") == ()
    told = open_dataset(f"{kind}:{tmp_path}", split, empty="annotated")
    assert told.annotated_tasks("a") == told.annotated_tasks("b") == ("detection",) and boxes(told, "b") == []


@pytest.mark.tried("refused by name", "classes called background, ignore, void, unlabeled or the like", inputs=3)
@pytest.mark.tried("refused by name", "boxes in shares of the image's sides", inputs=2)
def test_what_is_no_class_or_no_pixels_is_refused(tmp_path):
    assert "class 1 is 'void', which is no class" in yolo(tmp_path / "y", names="names: [cat, void]").problems("a")[0]
    box = shape("ignore", "rectangle", [1, 1], [4, 4])
    assert "'ignore' is no class; give it a class" in labelme(tmp_path / "l", box).problems("a")[0]
    box = '<box label="{}" xtl="{}" ytl="0.1" xbr="0.9" ybr="0.9"/>'
    assert "'unlabeled' is no class" in cvat(tmp_path / "c", box.format("unlabeled", 1)).problems("a")[0]
    assert "is in shares of the image's sides" in cvat(tmp_path / "c", box.format("cat", 0.1)).problems("a")[0]
    shares = shape("cat", "polygon", [0.1, 0.1], [0.9, 0.1], [0.9, 0.9])
    assert "is in shares of the image's sides" in labelme(tmp_path / "l", shares).problems("a")[0]


# --- CVAT's masks, and Labelme's folder


def colours(folder, mask, text="root:51,221,255::\nbackground:0,0,0::\nleaf:250,50,83::\n"):
    """CVAT's "Segmentation mask 1.1" with one picture."""
    pictures(folder / "JPEGImages/a.jpg")
    write(folder / "ImageSets/Segmentation/default.txt", "a\n")
    write(folder / "labelmap.txt", f"# label:color_rgb:parts:actions\n{text}")
    (folder / "SegmentationClass").mkdir(exist_ok=True)
    Image.fromarray(mask).save(folder / "SegmentationClass/a.png")
    return open_dataset(f"voc:{folder}", "default")


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
def test_colours_of_cvat_are_the_classes_of_its_labelmap(tmp_path):
    mask = np.zeros((8, 10, 3), np.uint8)
    mask[:, :2], mask[:, 9] = (250, 50, 83), (51, 221, 255)
    dataset = colours(tmp_path, mask)
    assert dataset.labels["segmentation"].names == ("background", "root", "leaf")
    assert pixels(dataset, "a") == {1: [9, 0, 10, 8, 8], 2: [0, 0, 2, 8, 16]} and not dataset.notes
    layout = init(tmp_path, tmp_path / "t.yaml").layout
    assert (layout.what, layout.train, layout.val) == ("a VOC folder", "default", None)


@pytest.mark.tried("refused by name", "masks of colours", inputs=6)
def test_colours_that_no_labelmap_names_are_refused(tmp_path):
    mask = np.zeros((8, 10, 3), np.uint8)
    mask[3, 4] = 1, 2, 3
    (problem,) = colours(tmp_path, mask).problems("a")
    assert problem.startswith(
        f"{tmp_path}/SegmentationClass/a.png: labelmap.txt has no class of the colour 1,2,3; add it"
    )
    assert "the mask is 9x8 pixels, its image 10x8" in colours(tmp_path, mask[:, :9]).problems("a")[0]
    for text, told in (
        ("leaf:0,0,300::", "'leaf:0,0,300::' is not name:red,green,blue:parts:actions"),
        ("leaf:0,0::", "is not name:red"),
        ("leaf:1,1,1::\nroot:1,1,1::", "'root:1,1,1::' is not name:red,green,blue:parts:actions, each colour once"),
        ("leaf:1,1,1::\nleaf:1,1,2::", "a label space names each class once; twice: leaf"),
    ):
        assert told in refused("labelmap.txt", colours, tmp_path, mask, text)


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassPNG"])
def test_the_folder_of_labelme2voc(tmp_path, masks):
    folder = tmp_path / "voc"
    for number in range(4):
        pictures(folder / f"JPEGImages/p{number}.jpg", folder / f"SegmentationClassVisualization/p{number}.jpg")
        mask = Image.fromarray(np.full((8, 10), 1 + number % 2, np.uint8))
        (folder / masks).mkdir(exist_ok=True)
        mask.save(folder / masks / f"p{number}.png")
    write(folder / "class_names.txt", "_background_\nleaf\nroot\n")
    start = init(folder, tmp_path / "t.yaml")
    assert start.report.ok and start.annotated == {"detection": 0, "segmentation": 3}
    assert any("drawings and masks of single objects, such as" in note for note in start.layout.notes)
    whole = [split.tasks["segmentation"].counts["pixels"] for split in start.report.splits.values()]
    assert {name: sum(each[name] for each in whole) for name in whole[0]} == {"leaf": 160, "root": 160, "ignore": 0}


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    yolo(tmp_path)
    refused(r"there is no split 'test'; possible: train$", open_dataset, f"yolo:{tmp_path}", "test")
    write(tmp_path / "data.yaml", "train: images/train\nval: ../valid/images\nnames: [cat, dog]\n")
    with pytest.raises(InputError, match=r"val: '../valid/images' is neither there nor, without its first parts, in"):
        open_dataset(f"yolo:{tmp_path}", "val")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(InputError, match=r"no file names the classes.*write .*data.yaml with `names: \[cat, dog\]`"):
        open_dataset(f"yolo:{tmp_path}", "train")


def test_rectangles_of_labelme_are_boxes_without_an_outline(tmp_path):
    labelme(tmp_path, shape("cat", "polygon", [0, 0], [6, 0], [6, 8]), name="b")
    dataset = labelme(tmp_path, shape("cat", "rectangle", [6, 7], [2, 1]))
    assert boxes(dataset, "a") == [("cat", [2, 1, 6, 7])]
    assert [dataset.annotated_tasks(each) for each in dataset.ids] == [("detection",), ("detection", "segmentation")]


def test_what_is_drawn_later_lies_above_in_labelme(tmp_path):
    small, large = [[2, 2], [4, 2], [4, 4], [2, 4]], [[0, 0], [10, 0], [10, 8], [0, 8]]
    dataset = labelme(tmp_path, shape("cat", "polygon", *small), shape("dog", "polygon", *large))
    assert pixels(dataset, "a") == {2: [0, 0, 10, 8, 80]}


def test_a_picture_that_may_be_two_is_refused(tmp_path):
    pictures(tmp_path / "one/a.jpg", tmp_path / "two/a.jpg")
    write(tmp_path / "ann/a.json", {"shapes": [], "imagePath": "a.jpg"})
    with pytest.raises(InputError, match=r"'a.jpg' may be .*one/a.jpg or .*two/a.jpg; name it as seen from"):
        open_dataset(f"labelme:{tmp_path}", "all")
    write(tmp_path / "ann/a.json", {"shapes": [], "imagePath": "C:\\\\mine\\\\two\\\\a.jpg"})
    assert open_dataset(f"labelme:{tmp_path}", "all").place("a") == tmp_path / "two/a.jpg"


@pytest.mark.tried("noted", "turned boxes, keypoints, points, lines, tags, brushes, predictions")
def test_boxes_of_cvat_upright_and_turned(tmp_path):
    box = '<box label="cat" xtl="2" ytl="3" xbr="8" ybr="5"{}/>'
    dataset = cvat(tmp_path, box.format(""), box.format(' rotation="90.0"'))
    assert boxes(dataset, "a") == [("cat", [2, 3, 8, 5]), ("cat", [4, 1, 6, 7])]
    assert "boxes that are turned, read as the upright boxes around them, without an outline" in dataset.notes[0]


def test_outlines_of_label_studio(tmp_path):
    half = region("polygonlabels", ["dog"], points=[[0, 0], [50, 0], [50, 100], [0, 100]], closed=True)
    disc = region("ellipselabels", ["cat"], x=80, y=50, radiusX=10, radiusY=25, rotation=0)
    dataset = label_studio(tmp_path, task("/data/local-files/?d=some/where/a.jpg", half, disc))
    assert boxes(dataset, "a") == [("dog", [0, 0, 5, 8]), ("cat", [7, 2, 9, 6])]
    assert pixels(dataset, "a")[2] == [0, 0, 5, 8, 40] and pixels(dataset, "a")[1][:4] == [7, 2, 9, 6]
