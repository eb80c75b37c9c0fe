"""COCO instances: boxes, polygons, run lengths, crowds, the semantic mask, folder layouts, and broken files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from made import pictures, refused, write
from tutored.data import open_dataset
from tutored.data.objects import decode_segmentation
from tutored.data.views import relabelled
from tutored.errors import InputError

CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "cat"}]
ZEBRA, CAT = 1, 2
COLUMN_0 = {"size": [8, 10], "counts": [0, 8, 72]}  # run lengths go down the columns and begin with zeros
COLUMN_9 = {"size": [8, 10], "counts": [72, 8]}


def rectangle(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def instance(category, bbox, segmentation=None, **more):
    found = {"id": 50, "image_id": 1, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}
    return found if segmentation is None else {**found, "segmentation": segmentation}


def made(folder, *annotations, **changes):
    """COCO's own layout with two black images of 10 x 8 pixels; the second one has no annotation."""
    images = [{"id": n, "file_name": f"00{n}.jpg", "width": 10, "height": 8} for n in (1, 2)]
    pictures(*(folder / "val" / image["file_name"] for image in images))
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    write(folder / "annotations/instances_val.json", content)
    return folder


def opened(dataset):
    """A folder as a data set, whose images without an object are empty."""
    return open_dataset(f"coco:{dataset}", "val", empty="annotated") if isinstance(dataset, Path) else dataset


def boxes_of(dataset, image_id="001"):
    return opened(dataset).ground_truth(image_id).tasks["detection"]


def mask_of(dataset, image_id="001"):
    """The mask, or None where there is none, as `annotated_tasks` must say too."""
    dataset = opened(dataset)
    tasks = dataset.ground_truth(image_id).tasks
    assert tuple(tasks) == dataset.annotated_tasks(image_id)
    return tasks["segmentation"].mask if "segmentation" in tasks else None


def test_boxes_classes_and_crowds(tmp_path):
    made(tmp_path, instance(3, [2, 1, 4, 3]), instance(7, [-1, 0, 5.5, 99], iscrowd=1))
    dataset = open_dataset(f"coco:{tmp_path}", "val")
    assert [each.names for each in dataset.labels.values()] == [("background", "zebra", "cat")] * 2
    assert dataset.ids == ("001", "002")
    assert dataset.name == f"coco:{tmp_path}/val"
    assert (dataset.source, dataset.split) == (f"coco:{tmp_path.name}", "val")
    truth = boxes_of(dataset)
    assert truth.boxes_xyxy.tolist() == [[2, 1, 6, 4], [0, 0, 4.5, 8]]
    assert truth.classes.tolist() == [CAT, ZEBRA]
    assert truth.difficult.tolist() == [False, True]


def test_small_instances_lie_over_large_ones_over_crowds(tmp_path):
    whole = reference.encode(np.asfortranarray(np.ones((8, 10), np.uint8)))
    crowd = {"size": [8, 10], "counts": whole["counts"].decode()}
    folder = made(
        tmp_path,
        instance(3, [2, 1, 2, 2], rectangle(2, 1, 4, 3)),
        instance(7, [0, 0, 6, 8], rectangle(0, 0, 6, 8)),
        instance(3, [9, 0, 1, 8], COLUMN_9),
        instance(7, [0, 0, 10, 8], crowd, iscrowd=1),
    )
    expected = np.full((8, 10), 255)
    expected[:, :6], expected[1:3, 2:4], expected[:, 9] = ZEBRA, CAT, CAT
    assert mask_of(folder).tolist() == expected.tolist()


def test_an_image_without_annotations_is_empty_where_told(tmp_path):
    spec = f"coco:{made(tmp_path, instance(3, [0, 0, 1, 8], COLUMN_0))}"
    dataset = open_dataset(spec, "val")
    assert dataset.annotated_tasks("001") == ("detection", "segmentation") and dataset.annotated_tasks("002") == ()
    assert dataset.ground_truth("002").tasks == {} and dataset.blank == ("002",)
    told = f"{spec}/val: 1 of 2 images, such as 002, have no object: nothing there, or not labelled yet? They count as"
    assert dataset.notes[0].startswith(told) and dataset.headlines == dataset.notes
    empty = opened(tmp_path)
    assert boxes_of(empty, "002").boxes_xyxy.shape == (0, 4)
    assert mask_of(empty, "002").tolist() == [[0] * 10] * 8 and empty.notes == ()


def test_without_segmentations_there_is_no_mask(tmp_path):
    folder = made(tmp_path, instance(3, [0, 0, 1, 8], []), instance(3, [0, 0, 1, 8]))
    assert mask_of(folder) is None and mask_of(folder, "002") is None
    partly = made(tmp_path, instance(3, [0, 0, 1, 8], []), instance(3, [0, 0, 1, 8], COLUMN_0, image_id=2))
    assert mask_of(partly) is None and mask_of(partly, "002").sum() == 8 * CAT


def test_images_that_share_a_stem_have_folders_in_their_ids(tmp_path):
    images = [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(("a/0001", "b/0001", "c/0003"), 1)]
    folder = made(tmp_path, instance(3, [0, 0, 1, 1], image_id=2), images=images)
    pictures(*(folder / "val" / each["file_name"] for each in images))
    dataset = open_dataset(f"coco:{folder}", "val")
    assert dataset.ids == ("a/0001", "b/0001", "0003")
    assert [dataset.annotated_tasks(image_id) for image_id in dataset.ids] == [(), ("detection",), ()]
    assert dataset.numbers == {"a/0001": 1, "b/0001": 2, "0003": 3} and dataset.categories == {7: "zebra", 3: "cat"}


def test_masks_of_a_large_file_in_fewer_classes(tmp_path):
    """As of LVIS, whose 1,203 classes no mask holds."""
    places = {300: (0, 0, 4, 8), 5: (6, 0, 10, 8), 255: (8, 0, 10, 8)}
    drawn = (
        instance(n, [x1, y1, x2 - x1, y2 - y1], rectangle(x1, y1, x2, y2)) for n, (x1, y1, x2, y2) in places.items()
    )
    made(tmp_path, *drawn, categories=[{"id": number, "name": f"c{number}"} for number in range(1, 301)])
    whole = opened(tmp_path)
    assert mask_of(whole) is None and boxes_of(whole).classes.tolist() == [300, 5, 255]
    (note,) = whole.notes
    assert "300 classes are more than a mask can tell apart (254): no masks, unless the task's `classes`" in note
    few = relabelled(whole, {"segmentation": ("c300", "c5"), "detection": ("c5", "c300")})
    assert mask_of(few).tolist() == [[1, 1, 1, 1, 0, 0, 2, 2, 0, 0]] * 8, "what another class lies on is background"
    assert boxes_of(few).classes.tolist() == [2, 1]
    assert boxes_of(few).boxes_xyxy.tolist() == [[0, 0, 4, 8], [6, 0, 10, 8]]
    assert boxes_of(few).annotated is None and few.notes == ()
    some = relabelled(whole, {}, {"detection": ("c5",)})
    assert boxes_of(some).classes.tolist() == [5] and boxes_of(some).annotated == (5,)
    masks = relabelled(whole, {"segmentation": ("c5", "zebra")}).ground_truth("001").tasks["segmentation"]
    assert masks.annotated == (1,) and masks.mask.sum() == 16


@pytest.mark.tried("noted", "objects of a COCO file whose polygons have two points", inputs=2)
def test_objects_without_an_outline_are_counted(tmp_path):
    line, area = [2, 2, 4, 4], rectangle(0, 0, 2, 2)[0]
    lines = (instance(3, [0, 0, 2, 2], [line], id=number) for number in (4, 5))
    folder = made(tmp_path, *lines, instance(3, [0, 0, 2, 2], [area, line], id=6, image_id=2))
    file = folder / "annotations/instances_val.json"
    assert open_dataset(f"coco:{folder}", "val").notes == (
        f"{file}: 1 images have no mask, because 2 objects on them have no outline, or one beside "
        "their box, such as annotation 4 of image 1",
        f"{file}: polygons of fewer than three points are left out of 3 objects, such as annotation 4 of image 1",
    )
    assert opened(made(tmp_path, instance(3, [0, 0, 2, 2]))).notes == ()


@pytest.mark.parametrize("nothing", [[], [[]], [[2, 2, 4, 4]], [[7, 0, 9, 0, 9, 2]]])
def test_an_object_with_no_polygon_at_its_box_is_not_background(tmp_path, nothing):
    drawn = {**instance(3, [0, 0, 2, 2], rectangle(0, 0, 2, 2)), "image_id": 2}
    folder = made(tmp_path, instance(3, [2, 1, 4, 3]) | {"segmentation": nothing}, drawn)
    dataset = open_dataset(f"coco:{folder}", "val")
    assert mask_of(dataset) is None and int((mask_of(dataset, "002") == CAT).sum()) == 4


def test_a_polygon_that_is_none_is_refused_where_it_is_read(tmp_path):
    dataset = open_dataset(f"coco:{made(tmp_path, instance(3, [2, 1, 4, 3]) | {'segmentation': ['']})}", "val")
    assert "annotation 50 of image 1: a polygon is a list x, y" in dataset.problems("001")[0]


def test_what_other_tools_write(tmp_path):
    images = [{"id": 1, "file_name": "001.jpg", "width": "10", "height": "8"}]
    images += [{"id": 2, "file_name": "002.jpg", "width": 0, "height": 0}]
    categories = [{"id": 0, "name": "background"}, *CATEGORIES]
    nothing = instance(0, [0, 0, 9, 7], rectangle(0, 0, 9, 7))
    cat = instance(3, [2, 1, 4, 3], rectangle(2, 1, 6, 4), iscrowd="0")
    dataset = open_dataset(f"coco:{made(tmp_path, nothing, cat, images=images, categories=categories)}", "val")
    assert dataset.labels["detection"].classes == ("zebra", "cat")
    truth, mask = boxes_of(dataset), mask_of(dataset)
    assert (truth.boxes_xyxy.tolist(), truth.classes.tolist()) == ([[2, 1, 6, 4]], [CAT])
    assert truth.difficult.tolist() == [False]
    assert int((mask == CAT).sum()) == 12 and int((mask == 0).sum()) == 68
    assert dataset.ground_truth("002").size == (8, 10)


def test_boxes_of_no_area_are_left_out_and_noted(tmp_path):
    dataset = opened(made(tmp_path, instance(3, [2, 1, 0, 3]), instance(7, [2, 1, 4, 3])))
    assert boxes_of(dataset).classes.tolist() == [ZEBRA]
    assert len(dataset.notes) == 1 and "annotation 50 of image 1: a box of no area" in dataset.notes[0]


def test_boxes_that_reach_out_of_the_image_are_cut_and_noted(tmp_path):
    folder = made(tmp_path, instance(3, [-1, 0, 12, 9]), instance(7, [-1.5, 0, 4, 3]), instance(7, [8, 6, 2, 4]))
    notes = opened(folder).notes
    assert ["reaches 1.5 pixels out" in notes[0], "reaches 2 pixels out" in notes[1], len(notes)] == [True, True, 2]
    unsized = [{"id": number, "file_name": f"00{number}.jpg"} for number in (1, 2)]
    folder = made(tmp_path, instance(3, [-1, 0, 12, 9]), instance(7, [8, 6, 2, 4]), images=unsized)
    (note,) = opened(folder).notes
    assert note.endswith("annotation 50 of image 1: the box (8, 6, 10, 10) reaches 2 pixels out of its image, cut")


@pytest.mark.tried("read as meant", "folders as Label Studio, FiftyOne, Roboflow and labelme2voc write them")
@pytest.mark.parametrize(
    ("json_file", "place"),
    [
        ("annotations/instances_val.json", "val"),
        ("val.json", "images"),
        ("annotations/val.json", "images/val"),
        ("instances.json", "images"),
        ("instances.json", "."),
        ("val/_annotations.coco.json", "val"),
        ("val/labels.json", "val/data"),
        ("val.json", "data"),
    ],
)
def test_layouts(tmp_path, json_file, place):
    folder = tmp_path / "data"
    official = made(tmp_path)
    write(folder / json_file, (official / "annotations/instances_val.json").read_text())
    pictures(*(folder / place / path.name for path in (official / "val").iterdir()))
    dataset = open_dataset(f"coco:{folder}", "val")
    assert dataset.ids == ("001", "002") and dataset.image("002").size == (10, 8)


@pytest.mark.tried("refused by name", "lists and JSON whose pictures are elsewhere, or named as on Windows")
def test_where_no_picture_was_found_is_told_once(tmp_path):
    folder = made(tmp_path)
    for path in (folder / "val").iterdir():
        path.rename(folder / path.name.replace("00", "p"))
    with pytest.raises(InputError) as caught:
        open_dataset(f"coco:{folder}", "val")
    assert str(caught.value).startswith(
        f"{folder}/annotations/instances_val.json: none of its 2 pictures is there, such as '001.jpg', looked for in "
        f"and under {folder}; put them there, or correct `file_name`"
    )


@pytest.mark.tried("read as meant", "classes called background, ignore, void, unlabeled or the like")
@pytest.mark.parametrize("name", ["_background_", "Background", "__background__"])
def test_a_category_of_the_background_is_no_class(tmp_path, name):
    categories = [{"id": 0, "name": name}, {"id": 1, "name": " cat "}]
    folder = made(tmp_path, instance(0, [0, 0, 1, 1]), instance(1, [0, 0, 2, 2]), categories=categories)
    assert open_dataset(f"coco:{folder}", "val").labels["detection"].classes == ("cat",)
    assert boxes_of(folder).classes.tolist() == [1]


@pytest.mark.tried("refused by name", "classes called background, ignore, void, unlabeled or the like")
@pytest.mark.parametrize("name", ["ignore", "_Ignored_", "ignored regions", "DontCare", "unlabeled", "void"])
def test_a_category_of_no_class_is_left_out_or_refused(tmp_path, name):
    categories = [{"id": 0, "name": name}, {"id": 1, "name": "cat"}]
    unused = made(tmp_path, instance(1, [0, 0, 2, 2]), categories=categories)
    assert open_dataset(f"coco:{unused}", "val").labels["detection"].classes == ("cat",)
    used = made(tmp_path, *[instance(0, [0, 0, 1, 1])] * 2, instance(1, [0, 0, 2, 2]), categories=categories)
    with pytest.raises(InputError, match=rf"category '{name}' is no class, and 2 annotations have it; .* `iscrowd` 1"):
        open_dataset(f"coco:{used}", "val")


@pytest.mark.tried("refused by name", "boxes in shares of the image's sides")
def test_a_box_in_shares_of_the_sides_is_refused(tmp_path):
    folder = made(tmp_path, instance(3, [0.1, 0.2, 0.5, 0.5]))
    with pytest.raises(InputError, match=r"annotation 50 of image 1: the box \(0\.1, .*\) is in shares of .*; write"):
        open_dataset(f"coco:{folder}", "val")
    assert len(boxes_of(made(tmp_path, instance(3, [0, 0, 1, 1]))).classes) == 1, "a box of one pixel"


@pytest.mark.tried("refused by name", "lists and JSON whose pictures are elsewhere, or named as on Windows")
def test_backslashes_between_folders_are_told(tmp_path):
    (tmp_path / "own.txt").write_text("val\\001.jpg\n")
    listed = open_dataset(f"images:{tmp_path}", "own")
    refused(r"there is no such picture; .*; folders in a path are divided by /$", listed.image, *listed.ids)


def test_an_unknown_split_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"must hold annotations/instances_val\.json, val\.json, val/_ann.* or ins"):
        open_dataset(f"coco:{tmp_path}", "val")
    with pytest.raises(InputError, match=r"no split 'train'; possible: val$"):
        open_dataset(f"coco:{made(tmp_path)}", "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "lists no image"),
        ({"images": [{"id": 1, "file_name": "\udcfc.jpg"}]}, "can't be an image's name, which has no control"),
        (
            {"images": [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "x/a.png"}]},
            r"images\[1\] \(2, x/a.png\) has the name, up to its suffix, of images\[0\] \(1, x/a.jpg\); list",
        ),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]}, "the id of images"),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]}, "two categories share an id"),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]}, "twice: cat"),
        ({"annotations": [{"image_id": 1, "category_id": 3}]}, r"annotations\[0\] lacks `bbox`"),
        ({"annotations": [instance(5, [0, 0, 1, 1])]}, r"annotation 50 of image 1: category 5 is not one of \[3, 7\]"),
        ({"annotations": [instance(3, [0, 0, 1, 1], image_id=9)]}, "of image 9: there is no such image"),
        ({"annotations": [instance(3, [0, 0, 1, 1], image_id="1")]}, "there is 1: write both as numbers"),
        ({"annotations": [instance(3, [0, 0, 1, float("nan")])]}, "bbox must be four numbers"),
    ],
)
def test_a_broken_file_is_refused_when_opened(tmp_path, changes, message):
    folder = made(tmp_path, **changes)
    assert "instances_val.json" in refused(message, open_dataset, f"coco:{folder}", "val")


def test_a_box_outside_and_an_image_of_another_size_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"annotation 50 of image 1: the box \(10, 0, 14, 3\) has no area in its"):
        boxes_of(made(tmp_path, instance(3, [10, 0, 4, 3])))
    folder = made(tmp_path)
    pictures(folder / "val/001.jpg", size=(20, 16))
    refused(r"001\.jpg: the image is 20x16 pixels, .*instances_val\.json says 10x8", boxes_of, folder)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([1.0, 2.0, 3.0], "a polygon is a list x, y"),
        ([[1, 2, 3, 4, 5]], "a polygon is a list x, y"),
        ("abc", r"must state the size \[8, 10\]"),
        ({"size": [10, 8], "counts": [80]}, r"must state the size \[8, 10\]"),
        ({"size": [8, 10], "counts": [70]}, "can't be decoded"),
        ({"size": [8, 10], "counts": [8, 800]}, "can't be decoded"),
        ({"size": [8, 10], "counts": "zzzz"}, "can't be decoded"),
        ({"size": [8, 10]}, "can't be decoded"),
    ],
)
def test_a_broken_segmentation_is_refused(segmentation, message):
    refused(f"^here: .*{message}", decode_segmentation, segmentation, (8, 10), "here")


points = st.floats(-3, 14).map(lambda value: round(value, 2))
polygon = st.integers(3, 7).flatmap(lambda count: st.lists(points, min_size=2 * count, max_size=2 * count))


@given(st.lists(polygon, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_polygons_decode_as_pycocotools_has_them(polygons):
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, 8, 10)))
    assert decode_segmentation(polygons, (8, 10), "here").tolist() == expected.astype(bool).tolist()


@given(st.lists(st.booleans(), min_size=80, max_size=80))
@settings(max_examples=50, deadline=None)
def test_both_kinds_of_run_lengths_give_the_mask_back(flags):
    mask = np.array(flags).reshape(8, 10)
    compressed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    column_major = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(np.diff(column_major.astype(int)))
    plain = np.diff([0, *edges, 80]).tolist()
    for counts in (compressed["counts"].decode(), compressed["counts"], plain):
        assert (decode_segmentation({"size": [8, 10], "counts": counts}, (8, 10), "here") == mask).all()


def test_all_broken_annotations_are_named_at_once(tmp_path):
    folder = made(tmp_path, instance(5, [0, 0, 1, 1], id=1), instance(3, [0, 0, 1], id=2), instance(3, [0, 0, 1, 1]))
    with pytest.raises(InputError, match="annotation 1 of image 1: category 5.*\n.*annotation 2 of image 1: bbox"):
        open_dataset(f"coco:{folder}", "val")
    with pytest.raises(InputError, match="and 10 more$"):
        open_dataset(f"coco:{made(tmp_path, *(instance(5, [0, 0, 1, 1], id=n) for n in range(60)))}", "val")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"images": 1e999}', "[" * 100_000, "\xff"])
def test_text_that_is_no_instances_file_is_refused(tmp_path, text):
    made(tmp_path)
    (tmp_path / "annotations/instances_val.json").write_bytes(text.encode("latin-1"))
    refused(r"instances_val\.json", open_dataset, f"coco:{tmp_path}", "val")


def test_polygons_of_two_points_cover_nothing():
    for few in ([], [1, 1], [1, 1, 5, 5]):
        assert decode_segmentation([few], (8, 10), "here").sum() == 0
    assert decode_segmentation([[1, 1, 5, 5], *rectangle(2, 1, 4, 3)], (8, 10), "here").sum() == 4
