"""Data sets in another label space, without some ground truth, for some tasks, or held out to choose settings on."""

import os
from dataclasses import fields

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from made import TINY, MadeDataset, boxed, refused
from tutored.config import TaskSection, make_config
from tutored.data import open_dataset
from tutored.data.packed import Packed
from tutored.data.training import drawn_and_hidden, ranks
from tutored.data.views import Visible, hold_out, relabelled
from tutored.engine.data_sets import open_datasets
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.tasks.detection import Boxes
from tutored.tasks.segmentation import ClassMask
from tutored.types import GroundTruth

DOG, CAT = 1, 2
OWN = ("dog", "cat", "tvmonitor")
WHOLE = MadeDataset(100)


class Drawn:
    """One image of 4 x 1 pixels: a dog, a difficult cat, and the mask dog, cat, background, ignore.

    They are called `objects` and `parts`; `numbers` is a task without classes.
    """

    name, source, split, notes = "drawn", "voc:drawn", "train", ("a note",)
    ids = ("all", "boxes", "mask")

    def __init__(self, *classes, boxes=(DOG, CAT)):
        space = LabelSpace.of(classes or OWN)
        self.labels = {"objects": space, "parts": space, "numbers": LabelSpace.of(())}
        self.boxes = boxes

    def image(self, image_id):
        return Image.new("RGB", (4, 1))

    def problems(self, image_id):
        return (f"{image_id} is broken",)

    def annotated_tasks(self, image_id):
        return {"all": ("objects", "parts", "numbers"), "boxes": ("objects",), "mask": ("parts",)}[image_id]

    def ground_truth(self, image_id):
        objects = boxed(Boxes, [[0, 0, 1, 1], [1, 0, 2, 1]], self.boxes, difficult=[False, True])
        parts = ClassMask(mask=torch.tensor([[DOG, CAT, 0, 255]], dtype=torch.uint8))
        drawn = {"objects": objects, "parts": parts, "numbers": "not touched"}
        return GroundTruth((1, 4), {task: drawn[task] for task in self.annotated_tasks(image_id)})


def seen(classes=None, annotated=None, *own, **drawn):
    """Boxes and mask of the image with all, both tasks seen in the same classes."""
    tasks = ("objects", "parts")
    dataset = relabelled(Drawn(*own, **drawn), dict.fromkeys(tasks, classes), dict.fromkeys(tasks, annotated))
    truth = dataset.ground_truth("all")
    assert truth.tasks["numbers"] == "not touched"
    return truth.tasks["objects"], truth.tasks["parts"]


def test_what_is_not_annotated_is_dropped_and_said():
    boxes, mask = seen(None, ("dog",))
    assert boxes.annotated == mask.annotated == (DOG,)
    assert boxes.classes.tolist() == [DOG] and boxes.boxes_xyxy.tolist() == [[0, 0, 1, 1]]
    assert mask.mask.tolist() == [[DOG, 0, 0, 255]]


def test_classes_are_matched_by_name_and_alias():
    boxes, mask = seen(("tv", "cat"))
    assert boxes.annotated is None and mask.annotated is None
    assert boxes.classes.tolist() == [2] and boxes.difficult.tolist() == [True]
    assert boxes.boxes_xyxy.tolist() == [[1, 0, 2, 1]] and mask.mask.tolist() == [[0, 2, 0, 255]]


def test_classes_that_the_data_set_lacks_are_not_annotated():
    boxes, mask = seen(("zebra", "dog", "cat"))
    assert boxes.annotated == mask.annotated == (2, 3)
    assert boxes.classes.tolist() == [2, 3] and mask.mask.tolist() == [[2, 3, 0, 255]]
    boxes, mask = seen(("zebra", "dog", "cat"), ("cat", "tvmonitor"))
    assert boxes.annotated == mask.annotated == (3,)
    assert boxes.classes.tolist() == [3] and mask.mask.tolist() == [[0, 3, 0, 255]]


def test_unknown_and_repeated_names_are_refused():
    refused("drawn, objects: annotated: unknown class 'dgo'; did you mean dog", seen, None, ("dgo",))
    refused(r"drawn, objects: none of its classes \(dog, .*\) is one of zebra, giraffe", seen, ("zebra", "giraffe"))
    refused(r"classes of objects, cat, cat: .* twice: cat", seen, ("cat", "cat"))


def test_hidden_ground_truth_is_not_seen_task_by_task():
    dataset = Visible(Drawn(), {"objects": {"all", "mask"}, "parts": set()})
    annotated = [dataset.annotated_tasks(image_id) for image_id in Drawn.ids]
    assert annotated == [("parts", "numbers"), ("objects",), ("parts",)]
    assert tuple(dataset.ground_truth("all").tasks) == ("parts", "numbers")


# --- Held out


@pytest.fixture(scope="module")
def folder(make_voc, tmp_path_factory):
    return make_voc(tmp_path_factory.mktemp("held-out"), {"train": ("both",) * 10, "val": ("both",) * 2})


def config(folder, train_seed=0, **data):
    given = {"train": f"voc:{folder}", "held_out": 0.3, **data}
    return make_config({"data": given, "student": TINY, "train": {"seed": train_seed}})


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_the_two_parts_are_the_whole_in_its_order(share):
    left, out = hold_out(WHOLE, share, seed=0)
    assert len(out.ids) == round(100 * share)
    assert not set(left.ids) & set(out.ids)
    for part in (left, out):
        assert part.ids == tuple(image_id for image_id in WHOLE.ids if image_id in part.ids)
    assert set(left.ids) | set(out.ids) == set(WHOLE.ids)


@pytest.mark.parametrize("data", [{"val_split": None}, {"val_split": "train"}, {"val": "voc:absent"}])
def test_the_held_out_part_takes_the_place_of_val(folder, data):
    held_out = open_datasets(config(folder, **data))[1]
    assert all(image_id.startswith("train") for image_id in held_out.ids)
    assert open_datasets(config(folder, held_out=0.0))[1].ids == ("val_000", "val_001")


def pack(folder, voc, gigabytes=1.0, about=""):
    return Packed(open_dataset(f"voc:{voc}", "train"), folder, gigabytes, about)


def same(one, other, image_id):
    theirs, mine = other.ground_truth(image_id), one.ground_truth(image_id)
    assert one.image(image_id).tobytes() == other.image(image_id).tobytes()
    assert (mine.size, mine.tasks.keys()) == (theirs.size, theirs.tasks.keys())
    for name, annotation in mine.tasks.items():
        for field in fields(annotation):
            found, expected = getattr(annotation, field.name), getattr(theirs.tasks[name], field.name)
            assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


def test_kept_images_equal_the_files_and_need_them_no_more(make_voc, tmp_path):
    voc = make_voc(tmp_path / "voc")
    plain, kept = open_dataset(f"voc:{voc}", "train"), pack(tmp_path / "cache", voc)
    again = pack(tmp_path / "cache", voc)
    for image_id in plain.ids:
        same(kept, plain, image_id)
    again.inner = None
    for image_id in plain.ids:
        same(again, plain, image_id)


@pytest.mark.parametrize("change", ["picture", "mask", "boxes", "how it is read", "damage", "another tool's file"])
def test_a_kept_image_is_read_anew_where_it_changed(make_voc, tmp_path, change):
    voc = make_voc(tmp_path / "voc")
    before = pack(tmp_path / "cache", voc)
    image_id = before.ids[0]
    before.image(image_id)
    (there,) = (tmp_path / "cache").iterdir()
    if change == "damage":
        there.write_bytes(there.read_bytes()[:-1])
    elif change == "another tool's file":  # without what the package says in it
        save_file({"picture": torch.zeros(4, 4, 3, dtype=torch.uint8)}, there)
    elif change == "boxes":  # of as many bytes as before, so that the time alone tells it
        file = voc / "Annotations" / f"{image_id}.xml"
        file.write_text(file.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    elif change != "how it is read":
        file = voc / {"picture": f"JPEGImages/{image_id}.jpg", "mask": f"SegmentationClass/{image_id}.png"}[change]
        at = file.stat().st_mtime_ns
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
        if change == "picture":  # as old as before, so that the length alone tells it
            os.utime(file, ns=(at, at))
    after = pack(tmp_path / "cache", voc, about="other" if change == "how it is read" else "")
    same(after, open_dataset(f"voc:{voc}", "train"), image_id)
    assert len(list((tmp_path / "cache").iterdir())) == (1 if change in ("damage", "another tool's file") else 2)


def test_kept_images_take_no_more_than_they_may(make_voc, tmp_path):
    voc = make_voc(tmp_path / "voc")
    kept = pack(tmp_path / "cache", voc)
    kept.image(kept.ids[0])
    size = sum(file.stat().st_size for file in (tmp_path / "cache").iterdir())
    few = pack(tmp_path / "few", voc, gigabytes=2.5 * size / 1e9)
    for image_id in few.ids:
        same(few, few.inner, image_id)
    assert 1 <= len(list((tmp_path / "few").iterdir())) <= 3
    assert sum(file.stat().st_size for file in (tmp_path / "few").iterdir()) <= 2.5 * size
    there = {*(tmp_path / "few").iterdir()}
    pack(tmp_path / "few", voc, gigabytes=1.5 * size / 1e9)
    assert {*(tmp_path / "few").iterdir()} == there, "its own files make no room"
    pack(tmp_path / "few", voc, gigabytes=1.5 * size / 1e9, about="others make room")
    assert sum(file.stat().st_size for file in (tmp_path / "few").iterdir()) <= 0.75 * size


def test_with_nothing_asked_the_data_set_stays_what_it_is():
    dataset = Drawn()
    assert relabelled(dataset, {}) is dataset
    assert relabelled(dataset, {"objects": None, "parts": OWN, "elsewhere": ("cow",)}, {"objects": None}) is dataset


def test_views_pass_on_what_they_do_not_change():
    dataset = relabelled(Drawn(), {"objects": ("cat",)})
    assert (dataset.name, dataset.source, dataset.split, dataset.notes) == ("drawn", "voc:drawn", "train", ("a note",))
    assert dataset.problems("all") == ("all is broken",) and dataset.image("all").size == (4, 1)
    assert all(dataset.annotated_tasks(each) == Drawn().annotated_tasks(each) for each in Drawn.ids)
    assert dataset.ids == Drawn.ids
    assert tuple(dataset.ground_truth("mask").tasks) == ("parts",), "missing boxes stay missing"


def test_a_merged_class_is_annotated_if_all_its_parts_are():
    own = ("dog", "tv", "tvmonitor")
    assert seen(("dog", "tv"), ("dog", "tv"), *own)[0].annotated == (1,)
    assert seen(("dog", "tv"), ("tv", "tvmonitor"), *own)[0].annotated == (2,)


def test_each_task_has_a_label_space_and_annotated_classes():
    dataset = relabelled(Drawn(), {"objects": ("cow", "dog", "cat"), "parts": ("cat",)}, {"objects": ("dog",)})
    assert [dataset.labels[task].classes for task in dataset.labels] == [("cow", "dog", "cat"), ("cat",), ()]
    boxes, mask, _ = dataset.ground_truth("all").tasks.values()
    assert (boxes.classes.tolist(), boxes.annotated) == ([2], (2,))
    assert (mask.mask.tolist(), mask.annotated) == ([[0, 1, 0, 255]], None)


def test_a_label_space_may_be_larger_than_a_mask_can_hold():
    many = tuple(f"c{number}" for number in range(1, 301))
    boxes, mask = seen(("c2", "c300"), None, *many, boxes=(255, 300))
    assert boxes.classes.tolist() == [2] and mask.mask.tolist() == [[0, 1, 0, 255]]
    boxes, mask = seen((*many[2:], "c1", "c2"), None, *many, boxes=(1, 3))
    assert boxes.classes.tolist() == [299, 1]
    assert mask.mask.tolist() == [[255, 255, 0, 255]], "what does not fit: ignored"


def test_a_larger_share_holds_out_a_superset():
    held = [set(hold_out(WHOLE, share, seed=0)[1].ids) for share in (0.1, 0.2, 0.5, 0.9)]
    assert held[0] < held[1] < held[2] < held[3]
    assert held[2] != set(hold_out(WHOLE, 0.5, seed=1)[1].ids)


def test_a_subset_shows_what_the_whole_has():
    left, out = hold_out(WHOLE, 0.2, seed=0)
    image_id = out.ids[0]
    assert out.image(image_id).tobytes() == WHOLE.image(image_id).tobytes()
    own, whole = (each.ground_truth(image_id).tasks["detection"].boxes_xyxy for each in (out, WHOLE))
    assert own.equal(whole) and out.annotated_tasks(image_id) == ("detection", "segmentation")
    assert (left.labels, left.source) == (WHOLE.labels, WHOLE.source)
    assert (left.name, out.name) == ("made (without the held-out part)", "made (held out)")
    assert left.split != out.split, "a result says which part it is of"


@pytest.mark.parametrize(("images", "share"), [(1, 0.1), (2, 0.6), (10, 0.95)])
def test_a_share_that_leaves_nothing_is_refused(images, share):
    with pytest.raises(InputError, match=f"made: {share:.0%} of {images} images can't be held out; give another share"):
        hold_out(MadeDataset(images), share, seed=0)


def test_runs_of_all_seeds_validate_on_the_same_images(folder):
    opened = [[part.ids for part in open_datasets(config(folder, train_seed=seed))] for seed in (0, 1, 2)]
    assert opened[0] == opened[1] == opened[2] and [len(ids) for ids in opened[0]] == [7, 3]
    assert len({open_datasets(config(folder, seed=seed))[1].ids for seed in range(5)}) > 1


def test_images_are_hidden_among_those_that_are_left():
    left, out = hold_out(WHOLE, 0.2, seed=0)
    quarter, half = (TaskSection(kind="detection", hidden=share) for share in (0.25, 0.5))
    hidden = [drawn_and_hidden(left, "detection", section, 0) for section in (quarter, half)]
    assert not any(drawn & set(out.ids) for drawn, _ in hidden)
    places = ranks(WHOLE.ids, 0, "detection")
    order = sorted(left.ids, key=lambda image_id: places[image_id])
    assert [away for _, away in hidden] == [set(order[:20]), set(order[:40])]
