"""Tasks of a run in one or several data sets: label spaces of their own, folders of their own, images seen twice."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made import boxed, coco_file, pictures, refused, thing, write, xml
from tutored.config import TaskSection, make_config
from tutored.data import TaskSource, open_dataset
from tutored.data.views import join, relabelled
from tutored.engine.data_sets import open_datasets
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.tasks import Task
from tutored.tasks.detection import Boxes
from tutored.types import GroundTruth

BOTH = ("detection", "segmentation")
PARTS = TaskSource("segmentation", "SegmentationPart", Path("parts.txt"))


def write_masks(folder, names, value):
    """Masks of 10 x 8 pixels whose left half is of one class."""
    folder.mkdir(exist_ok=True)
    mask = np.zeros((8, 10), np.uint8)
    mask[:, :5] = value
    for name in names:
        Image.fromarray(mask).save(folder / f"{name}.png")


@pytest.fixture
def pets(make_voc, tmp_path):
    """VOC images of 10 x 8 pixels, `train_000` with a cat's box and a mask of cats, `train_001` without anything.

    Beside them `parts.txt` and a mask of a wing of the second image, in SegmentationPart.
    """
    folder = make_voc(tmp_path / "pets", {"train": ("both", "none")})
    pictures(*(folder / f"JPEGImages/train_00{n}.jpg" for n in (0, 1)), colour=(40, 90, 160))
    write_masks(folder / "SegmentationClass", ("train_000",), VOC.index("cat"))
    write(folder / "Annotations/train_000.xml", xml(thing("cat", (1, 1, 5, 8))))
    write(folder / "parts.txt", "head\nwing\n")
    write_masks(folder / "SegmentationPart", ("train_001",), 2)
    return folder


def opened(folder, *given, split="train", spec="voc", **tasks):
    return open_dataset(f"{spec}:{folder}", split, {name: TaskSource(name) for name in given} | tasks)


def classes(dataset, image_id):
    """By task the classes that an image shows."""
    truth = dataset.ground_truth(image_id)
    found = {name: getattr(each, "classes", getattr(each, "mask", None)) for name, each in truth.tasks.items()}
    assert tuple(found) == dataset.annotated_tasks(image_id)
    return {name: each.unique().tolist() for name, each in found.items()}


# --- One data set


def test_boxes_of_twenty_classes_beside_masks_of_three(pets):
    (pets / "three.txt").write_text("cat\ndog\nperson\n")
    write_masks(pets / "SegmentationClass", ("train_000",), 1)
    numbered = opened(pets, "detection", segmentation=TaskSource("segmentation", labels=Path("three.txt")))
    assert [len(labels.classes) for labels in numbered.labels.values()] == [20, 3]
    assert classes(numbered, "train_000") == {"detection": [8], "segmentation": [0, 1]}
    with pytest.raises(InputError, match=r"train_000\.png: mask values \[8\] are no classes; possible: .* 1 to 3"):
        write_masks(pets / "SegmentationClass", ("train_000",), 8)
        numbered.ground_truth("train_000")
    chosen = relabelled(open_dataset(f"voc:{pets}", "train"), {"segmentation": ("dog", "cat", "wolf")})
    assert [len(labels.classes) for labels in chosen.labels.values()] == [20, 3]
    assert classes(chosen, "train_000") == {"detection": [8], "segmentation": [0, 2]}
    boxes, mask = chosen.ground_truth("train_000").tasks.values()
    assert boxes.annotated is None and mask.annotated == (1, 2), "nobody marks wolves"


def test_two_segmentations_side_by_side_from_one_folder(pets):
    dataset = opened(pets, *BOTH, parts=PARTS)
    assert dataset.labels["parts"].classes == ("head", "wing") and dataset.labels["segmentation"] == VOC
    assert classes(dataset, "train_000") == {"detection": [8], "segmentation": [0, 8]}
    assert classes(dataset, "train_001") == {"parts": [0, 2]} and dataset.notes == ()
    Image.new("L", (4, 4)).save(pets / "SegmentationPart/train_001.png")
    (problem,) = dataset.problems("train_001")
    assert "SegmentationPart/train_001.png: the mask is 4x4 pixels, its image 10x8" in problem


def test_masks_may_lie_beside_coco_and_bare_pictures(pets):
    (pets / "JPEGImages").rename(pets / "train")
    coco_file(pets / "train.json", {"bbox": [0, 0, 5, 8]}, images=("train_000.jpg", "train_001.jpg"))
    coco = opened(pets, "detection", parts=PARTS, spec="coco")
    assert classes(coco, "train_001") == {"parts": [0, 2]}, "nobody drew a box there yet"
    bare = opened(pets, *BOTH, parts=PARTS, spec="images")
    assert bare.labels["detection"].classes == () and bare.labels["parts"].classes == ("head", "wing")
    assert classes(bare, "train_001") == {"parts": [0, 2]} and classes(bare, "train_000") == {}


def test_a_folder_without_a_fitting_file_is_noted(pets):
    (pets / "SegmentationPart/train_001.png").rename(pets / "SegmentationPart/1.png")
    (note,) = opened(pets, "detection", parts=PARTS).notes
    assert note.endswith("SegmentationPart: no annotation of tasks.parts for any of 2 images, such as train_000.png")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskSource("segmentation", "Parts"), r"tasks\.it\.from: there is no folder .*Parts; possible: Annotations, "),
        (TaskSource("segmentation", "SegmentationPart", Path("no.txt")), r"tasks\.it\.labels: there is no file"),
        (TaskSource("segmentation", labels=Path("none.txt")), r"tasks\.it\.labels: .*none\.txt: there is no class in"),
        (TaskSource("segmentation", labels=Path("twice.txt")), r"tasks\.it\.labels: .*twice\.txt: .* twice: head"),
        (TaskSource("segmentaton"), "unknown kind of task 'segmentaton'; did you mean segmentation"),
        (TaskSource("mine:Depth"), "kind of task 'mine:Depth': can't be imported"),
        (TaskSource("test_data_tasks:Depth"), r"tasks\.it: voc:.* has no annotations of kind 'depth'; possible:"),
        (TaskSource("test_data_tasks:Depth", "Annotations"), r"tasks\.it\.from: of kind 'depth' there are no files"),
    ],
)
def test_impossible_tasks_name_key_and_possibilities(pets, task, message):
    (pets / "none.txt").write_text("\n")
    (pets / "twice.txt").write_text("head\nhead\n")
    refused(message, opened, pets, it=task)


class Depth(Task):
    """A user's kind of task without files or classes; the reader needs no more of it."""

    Section = TaskSection
    kind, answers, headline = "depth", (), ("RMSE", "RMSE")


Depth.__abstractmethods__ = frozenset()


def test_data_sets_can_be_sent_to_other_processes(pets):
    for spec in ("voc", "images"):
        if spec == "images":
            (pets / "JPEGImages").rename(pets / "train")
        sent = pickle.dumps(relabelled(opened(pets, *BOTH, parts=PARTS, spec=spec), {"parts": ("wing",)}))
        dataset = pickle.loads(sent)
        assert classes(dataset, "train_001") == {"parts": [0, 1]} and dataset.image("train_000").size == (10, 8)


# --- Several data sets


def test_boxes_from_one_folder_and_masks_from_another(pets, make_voc, tmp_path):
    """They share a picture, and each has one of its own."""
    zoo = make_voc(tmp_path / "zoo", {"train": ("masks",)})
    shutil.copy(pets / "JPEGImages/train_000.jpg", zoo / "JPEGImages")
    shutil.copy(pets / "JPEGImages/train_000.jpg", zoo / "JPEGImages/extra.jpg")
    (zoo / "ImageSets/Main/train.txt").write_text("extra\n")
    (zoo / "labels.txt").write_text("tail\npaw\n")
    write_masks(zoo / "SegmentationClass", ("train_000", "extra"), 2)
    whole = join([opened(pets, "detection"), opened(zoo, "segmentation")])
    assert whole.ids == ("train_000", "train_001", "extra")
    known = {name: labels.classes for name, labels in whole.labels.items()}
    assert known == {"detection": VOC.classes, "segmentation": ("tail", "paw")}
    assert classes(whole, "train_000") == {"detection": [8], "segmentation": [0, 2]}
    assert classes(whole, "train_001") == {} and classes(whole, "extra") == {"segmentation": [0, 2]}
    assert whole.name == f"voc:{pets}/train + voc:{zoo}/train" and whole.source == "voc:pets + voc:zoo"
    run = {"train": f"voc:{pets}", "tasks": ["detection"], "val_split": None}
    run["more"] = [{"train": f"voc:{zoo}", "tasks": ["segmentation"], "annotated": {"segmentation": ["paw"]}}]
    train, val = open_datasets(make_config({"data": run, "tasks": {"detection": {}, "segmentation": {}}}))
    assert train.ids == whole.ids and train.labels == whole.labels and val is None
    assert train.ground_truth("train_000").tasks["segmentation"].annotated == (2,)
    assert train.ground_truth("train_000").tasks["detection"].annotated is None


def test_one_folder_named_twice_is_seen_as_a_whole(pets):
    whole = open_dataset(f"voc:{pets}", "train")
    twice = join([opened(pets, "detection"), opened(pets, "segmentation")])
    assert twice.ids == whole.ids and twice.labels == whole.labels
    assert classes(twice, "train_000") == classes(whole, "train_000") == {"detection": [8], "segmentation": [0, 8]}
    (pets / "Annotations/train_000.xml").write_text("broken")
    assert len(twice.problems("train_000")) == 1
    refused("both have an image train_000 and annotate its detection; .* data.more", join, [whole, whole])


def test_other_pictures_of_one_name_are_not_joined(pets, make_voc, tmp_path):
    other = make_voc(tmp_path / "other", {"train": ("masks", "masks")})
    with pytest.raises(InputError, match="have different pictures of the name train_000; .* rename the files"):
        join([opened(pets, "detection"), opened(other, "segmentation")])


class Own:
    """A data set of one's own, in memory."""

    labels = {"detection": LabelSpace.of(["cat"])}  # noqa: RUF012
    ids = ("a", "b")

    def __init__(self, split):
        self.split = {"train": "train"}[split]

    def files(self, image_id):
        return (f"picture {image_id}",)

    def image(self, image_id):
        return Image.new("L", (40, 30), 200)

    def annotated_tasks(self, image_id):
        return ("detection",) if image_id == "a" else ()

    def ground_truth(self, image_id):
        return GroundTruth((30, 40), {"detection": boxed(Boxes, [[1, 2, 30, 20]], [1])} if image_id == "a" else {})


class Short:
    ids = ("a",)

    def __init__(self, split): ...


class Twice(Own):
    ids = ("a", "a")


class Plain(Own):
    labels = {"detection": ["cat"]}  # noqa: RUF012


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("test_data_tasks:Nothing", r"data set 'test_data_tasks:Nothing': can't be imported .*give module:name"),
        ("test_data_tasks:Short", "Short lacks labels, image, ground_truth, annotated_tasks, files; see docs/extend"),
        ("test_data_tasks:Own", r"for the split 'val', fails with KeyError: 'val' \(.*test_data_tasks\.py, line"),
        ("test_data_tasks:Twice", "`ids` must be texts, each once"),
        ("test_data_tasks:Plain", "`labels` must be a LabelSpace for each task, got {'detection': \\['cat'\\]}"),
    ],
)
def test_objects_that_are_no_data_set_are_refused(path, message):
    with pytest.raises(InputError, match=message):
        open_dataset(f"python:{path}", "val" if path.endswith("Own") else "train")
