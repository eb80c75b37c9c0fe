"""Tasks of a run in one or several data sets: label spaces of their own, folders of their own, images seen twice."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tutored.config import TaskSection, make_config
from tutored.data import TaskSource, open_dataset
from tutored.data.views import join, relabelled, union
from tutored.engine.data_sets import open_datasets
from tutored.errors import InputError
from tutored.labels import COCO, VOC, LabelSpace
from tutored.tasks import Task
from tutored.tasks.detection import Boxes
from tutored.types import Dataset, GroundTruth

MakeVoc = Callable[..., Path]
BOTH = ("detection", "segmentation")
PARTS = TaskSource("segmentation", "SegmentationPart", Path("parts.txt"))


def write_masks(folder: Path, names: tuple[str, ...], value: int) -> None:
    """Masks of 10 x 8 pixels whose left half is of one class."""
    folder.mkdir(exist_ok=True)
    mask = np.zeros((8, 10), np.uint8)
    mask[:, :5] = value
    for name in names:
        Image.fromarray(mask).save(folder / f"{name}.png")


@pytest.fixture
def pets(make_voc: MakeVoc, tmp_path: Path) -> Path:
    """VOC images of 10 x 8 pixels, `train_000` with a cat's box and a mask of cats, `train_001` without anything.

    Beside them `parts.txt` and a mask of a wing of the second image, in SegmentationPart.
    """
    folder = make_voc(tmp_path / "pets", {"train": ("both", "none")})
    for name in ("train_000", "train_001"):
        Image.new("RGB", (10, 8), (40, 90, 160)).save(folder / f"JPEGImages/{name}.jpg")
    write_masks(folder / "SegmentationClass", ("train_000",), VOC.index("cat"))
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>8</ymax></bndbox>"
    (folder / "Annotations/train_000.xml").write_text(
        f"<annotation><object><name>cat</name>{box}</object></annotation>"
    )
    (folder / "parts.txt").write_text("head\nwing\n")
    write_masks(folder / "SegmentationPart", ("train_001",), 2)
    return folder


def opened(folder: Path, *given: str, split: str = "train", spec: str = "voc", **tasks: TaskSource) -> Any:
    return open_dataset(f"{spec}:{folder}", split, {name: TaskSource(name) for name in given} | tasks)


def classes(dataset: Dataset, image_id: str) -> dict[str, list[int]]:
    """By task the classes that an image shows."""
    truth = dataset.ground_truth(image_id)
    found = {name: getattr(each, "classes", getattr(each, "mask", None)) for name, each in truth.tasks.items()}
    assert tuple(found) == dataset.annotated_tasks(image_id)
    return {name: each.unique().tolist() for name, each in found.items()}


# --- One data set


def test_boxes_of_twenty_classes_beside_masks_of_three(pets: Path) -> None:
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


def test_two_segmentations_side_by_side_from_one_folder(pets: Path) -> None:
    dataset = opened(pets, *BOTH, parts=PARTS)
    assert dataset.labels["parts"].classes == ("head", "wing") and dataset.labels["segmentation"] == VOC
    assert classes(dataset, "train_000") == {"detection": [8], "segmentation": [0, 8]}
    assert classes(dataset, "train_001") == {"parts": [0, 2]} and dataset.notes == ()
    Image.new("L", (4, 4)).save(pets / "SegmentationPart/train_001.png")
    (problem,) = dataset.problems("train_001")
    assert "SegmentationPart/train_001.png: the mask is 4x4 pixels, its image 10x8" in problem


def test_tasks_of_one_kind_see_the_same_annotations(pets: Path) -> None:
    dataset = opened(pets, animals=TaskSource("segmentation"), cats=TaskSource("segmentation"))
    seen = relabelled(dataset, {"cats": ("cat",)})
    assert classes(seen, "train_000") == {"animals": [0, 8], "cats": [0, 1]}


def test_what_no_task_takes_is_not_read(pets: Path) -> None:
    (pets / "Annotations/train_000.xml").write_text("broken")
    dataset = opened(pets, "segmentation")
    assert classes(dataset, "train_000") == {"segmentation": [0, 8]} and dataset.problems("train_000") == ()


def test_boxes_may_come_from_another_folder_of_xml(pets: Path) -> None:
    shutil.copytree(pets / "Annotations", pets / "Checked")
    text = (pets / "Checked/train_000.xml").read_text()
    (pets / "Checked/train_001.xml").write_text(text.replace("cat", "dog"))
    dataset = opened(pets, "detection", checked=TaskSource("detection", "Checked"))
    assert classes(dataset, "train_001") == {"checked": [12]}


def test_masks_may_lie_beside_coco_and_bare_pictures(pets: Path) -> None:
    images = [{"id": n, "file_name": f"train_00{n}.jpg"} for n in (0, 1)]
    categories = [{"id": 1, "name": "cat"}]
    annotations = [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 8]}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (pets / "JPEGImages").rename(pets / "train")
    (pets / "train.json").write_text(json.dumps(content))
    coco = opened(pets, "detection", parts=PARTS, spec="coco")
    assert classes(coco, "train_001") == {"parts": [0, 2]}, "nobody drew a box there yet"
    bare = opened(pets, *BOTH, parts=PARTS, spec="images")
    assert bare.labels["detection"].classes == () and bare.labels["parts"].classes == ("head", "wing")
    assert classes(bare, "train_001") == {"parts": [0, 2]} and classes(bare, "train_000") == {}


@pytest.mark.parametrize("masks", ["SegmentationPart/train", "train/SegmentationPart"])
def test_masks_beside_coco_may_have_a_folder_for_each_split(pets: Path, masks: str) -> None:
    """As COCO-Stuff has them, `stuffthingmaps/train2017`, and as Roboflow's folders are."""
    content = {"images": [{"id": 1, "file_name": "train_001.jpg"}], "categories": [], "annotations": []}
    (pets / "train.json").write_text(json.dumps(content))
    (pets / "SegmentationPart").rename(pets / "kept")
    (pets / masks).parent.mkdir()
    (pets / "kept").rename(pets / masks)
    coco = opened(pets, parts=PARTS, spec="coco")
    assert classes(coco, "train_001") == {"parts": [0, 2]} and coco.notes == ()


def test_a_folder_without_a_fitting_file_is_noted(pets: Path) -> None:
    (pets / "SegmentationPart/train_001.png").rename(pets / "SegmentationPart/1.png")
    (note,) = opened(pets, "detection", parts=PARTS).notes
    assert note.endswith("SegmentationPart: no annotation of tasks.parts for any of 2 images, such as train_000.png")


def test_a_task_that_a_tutor_teaches_need_not_be_annotated(pets: Path) -> None:
    (pets / "JPEGImages").rename(pets / "train")
    (pets / "train.json").write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    bare = opened(pets, other=TaskSource("segmentation", required=False), spec="images")
    assert classes(bare, "train_000") == {}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskSource("segmentation", "Parts"), r"tasks\.it\.from: there is no folder .*Parts; possible: Annotations, "),
        (
            TaskSource("segmentation", "SegmentationPart", Path("no.txt")),
            r"tasks\.it\.labels: there is no file no\.txt",
        ),
        (
            TaskSource("segmentation", labels=Path("none.txt")),
            r"tasks\.it\.labels: .*none\.txt: there is no class in it; write one name a line",
        ),
        (TaskSource("segmentation", labels=Path("twice.txt")), r"tasks\.it\.labels: .*twice\.txt: .* twice: head"),
        (TaskSource("segmentaton"), "unknown kind of task 'segmentaton'; did you mean segmentation"),
        (TaskSource("mine:Depth"), "kind of task 'mine:Depth': can't be imported"),
        (
            TaskSource("test_data_tasks:Depth"),
            r"tasks\.it: voc:.* has no annotations of kind 'depth'; possible: detection",
        ),
        (TaskSource("test_data_tasks:Depth", "Annotations"), r"tasks\.it\.from: of kind 'depth' there are no files"),
    ],
)
def test_impossible_tasks_name_key_and_possibilities(pets: Path, task: TaskSource, message: str) -> None:
    (pets / "none.txt").write_text("\n")
    (pets / "twice.txt").write_text("head\nhead\n")
    with pytest.raises(InputError, match=message):
        opened(pets, it=task)


class Depth(Task):
    """A user's kind of task without files or classes; the reader needs no more of it."""

    Section = TaskSection
    kind, answers, headline = "depth", (), ("RMSE", "RMSE")


Depth.__abstractmethods__ = frozenset()


def test_a_kind_without_classes_has_none(pets: Path) -> None:
    dataset = opened(pets, "detection", depth=TaskSource("test_data_tasks:Depth", required=False))
    assert dataset.labels["depth"].classes == () and classes(dataset, "train_000") == {"detection": [8]}
    assert relabelled(dataset, {"depth": ()}, dict.fromkeys(dataset.labels, ("cat",))).labels["depth"].classes == ()


def test_coco_states_its_classes_itself(pets: Path) -> None:
    images = [{"id": 1, "file_name": "JPEGImages/train_000.jpg"}]
    (pets / "train.json").write_text(json.dumps({"images": images, "categories": [], "annotations": []}))
    with pytest.raises(InputError, match=r"tasks\.it\.labels: coco:.* states its classes itself; leave the key out"):
        opened(pets, it=TaskSource("detection", labels=Path("parts.txt")), spec="coco")


def test_data_sets_can_be_sent_to_other_processes(pets: Path) -> None:
    for spec in ("voc", "images"):
        if spec == "images":
            (pets / "JPEGImages").rename(pets / "train")
        dataset = pickle.loads(
            pickle.dumps(relabelled(opened(pets, *BOTH, parts=PARTS, spec=spec), {"parts": ("wing",)}))
        )
        assert classes(dataset, "train_001") == {"parts": [0, 1]} and dataset.image("train_000").size == (10, 8)


# --- Several data sets


def test_classes_of_several_data_sets_are_joined_aliases_once() -> None:
    assert union([VOC, COCO])[:20] == VOC.classes
    assert len(union([VOC, COCO])) == 80
    assert union([LabelSpace.of(["cat"]), LabelSpace.of(["dog", "cat"])]) == ("cat", "dog")


def test_boxes_from_one_folder_and_masks_from_another(pets: Path, make_voc: MakeVoc, tmp_path: Path) -> None:
    """They share a picture, and each has one of its own."""
    zoo = make_voc(tmp_path / "zoo", {"train": ("masks",)})
    shutil.copy(pets / "JPEGImages/train_000.jpg", zoo / "JPEGImages")
    shutil.copy(pets / "JPEGImages/train_000.jpg", zoo / "JPEGImages/extra.jpg")
    (zoo / "ImageSets/Main/train.txt").write_text("extra\n")
    (zoo / "labels.txt").write_text("tail\npaw\n")
    write_masks(zoo / "SegmentationClass", ("train_000", "extra"), 2)
    whole = join([opened(pets, "detection"), opened(zoo, "segmentation")])
    assert whole.ids == ("train_000", "train_001", "extra")
    assert {name: labels.classes for name, labels in whole.labels.items()} == {
        "detection": VOC.classes,
        "segmentation": ("tail", "paw"),
    }
    assert classes(whole, "train_000") == {"detection": [8], "segmentation": [0, 2]}
    assert classes(whole, "train_001") == {} and classes(whole, "extra") == {"segmentation": [0, 2]}
    assert whole.name == f"voc:{pets}/train + voc:{zoo}/train" and whole.source == "voc:pets + voc:zoo"
    run = {"train": f"voc:{pets}", "tasks": ["detection"], "val_split": None}
    run["more"] = [{"train": f"voc:{zoo}", "tasks": ["segmentation"], "annotated": {"segmentation": ["paw"]}}]
    train, val = open_datasets(make_config({"data": run, "tasks": {"detection": {}, "segmentation": {}}}))
    assert train.ids == whole.ids and train.labels == whole.labels and val is None
    assert train.ground_truth("train_000").tasks["segmentation"].annotated == (2,)
    assert train.ground_truth("train_000").tasks["detection"].annotated is None


def test_one_folder_named_twice_is_seen_as_a_whole(pets: Path) -> None:
    whole = open_dataset(f"voc:{pets}", "train")
    twice = join([opened(pets, "detection"), opened(pets, "segmentation")])
    assert twice.ids == whole.ids and twice.labels == whole.labels
    assert classes(twice, "train_000") == classes(whole, "train_000") == {"detection": [8], "segmentation": [0, 8]}
    (pets / "Annotations/train_000.xml").write_text("broken")
    assert len(twice.problems("train_000")) == 1
    with pytest.raises(InputError, match="both have an image train_000 and annotate its detection; .* data.more"):
        join([whole, whole])


def test_other_pictures_of_one_name_are_not_joined(pets: Path, make_voc: MakeVoc, tmp_path: Path) -> None:
    other = make_voc(tmp_path / "other", {"train": ("masks", "masks")})
    with pytest.raises(InputError, match="have different pictures of the name train_000; .* rename the files"):
        join([opened(pets, "detection"), opened(other, "segmentation")])


def test_data_sets_with_different_classes_are_one(make_voc: MakeVoc, tmp_path: Path) -> None:
    """Each claims no background for the other's classes."""
    animals = make_voc(tmp_path / "animals", {"animals": ("both",)})
    town = make_voc(tmp_path / "town", {"town": ("both",)}, seed=1)
    chosen = dict.fromkeys(BOTH, ("cat", "dog", "bus"))
    parts = [
        relabelled(open_dataset(f"voc:{folder}", folder.name), chosen, dict.fromkeys(BOTH, annotated))
        for folder, annotated in ((animals, ("cat", "dog")), (town, ("bus",)))
    ]
    whole = join(parts)
    assert join(parts[:1]) is parts[0] and whole.ids == ("animals_000", "town_000")
    marks = [[each.annotated for each in whole.ground_truth(each).tasks.values()] for each in whole.ids]
    assert marks == [[(1, 2)] * 2, [(3,)] * 2]
    assert torch.equal(whole.ground_truth("town_000").tasks["segmentation"].mask,
                       parts[1].ground_truth("town_000").tasks["segmentation"].mask)  # fmt: skip


class Own:
    """A data set of one's own, in memory."""

    labels = {"detection": LabelSpace.of(["cat"])}  # noqa: RUF012
    ids = ("a", "b")

    def __init__(self, split: str) -> None:
        self.split = {"train": "train"}[split]

    def files(self, image_id: str) -> tuple[str, ...]:
        return (f"picture {image_id}",)

    def image(self, image_id: str) -> Image.Image:
        return Image.new("L", (40, 30), 200)

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return ("detection",) if image_id == "a" else ()

    def ground_truth(self, image_id: str) -> GroundTruth:
        boxes = Boxes(
            boxes_xyxy=torch.tensor([[1.0, 2, 30, 20]]), classes=torch.tensor([1]), difficult=torch.tensor([False])
        )
        return GroundTruth((30, 40), {"detection": boxes} if image_id == "a" else {})


class Torn(Own):
    def image(self, image_id: str) -> Image.Image:
        raise RuntimeError("no disk")


class Short:
    ids = ("a",)

    def __init__(self, split: str) -> None: ...


class Twice(Own):
    ids = ("a", "a")


class Plain(Own):
    labels = {"detection": ["cat"]}  # noqa: RUF012


def test_a_data_set_of_ones_own_under_a_runs_tasks() -> None:
    sources = {"boxes": TaskSource("detection"), "maps": TaskSource("segmentation", required=False)}
    dataset = open_dataset("python:test_data_tasks:Own", "train", sources)
    assert dataset.image("b").mode == "RGB" and dataset.annotated_tasks("a") == ("boxes",)
    assert dataset.ground_truth("a").tasks["boxes"].boxes_xyxy.tolist() == [[1, 2, 30, 20]]
    assert dataset.ground_truth("b") == GroundTruth((30, 40), {}) and dataset.source == "python:test_data_tasks:Own"
    with pytest.raises(
        InputError, match=r"tasks\.it: python:.* has no annotations of kind 'segmentation'; possible: det"
    ):
        open_dataset("python:test_data_tasks:Own", "train", {"it": TaskSource("segmentation")})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("test_data_tasks:Nothing", r"data set 'test_data_tasks:Nothing': can't be imported .*give module:name"),
        ("test_data_tasks:Short", "Short lacks labels, image, ground_truth, annotated_tasks, files; see docs/extend"),
        (
            "test_data_tasks:Own",
            r"for the split 'val', fails with KeyError: 'val' \(.*test_data_tasks\.py, line \d+\); cor",
        ),
        ("test_data_tasks:Twice", "`ids` must be texts, each once"),
        ("test_data_tasks:Plain", "`labels` must be a LabelSpace for each task, got {'detection': \\['cat'\\]}"),
    ],
)
def test_objects_that_are_no_data_set_are_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_dataset(f"python:{path}", "val" if path.endswith("Own") else "train")
