"""Data sets and tutors of a run, opened and checked against each other."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from made import boxed, coco_file, pictures, refused
from tutored.config import Augment, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet
from tutored.engine.data_sets import open_parts
from tutored.engine.journal import list_sources
from tutored.engine.supervision import open_supervision
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.segmentation import SoftMap
from tutored.tutors.label import label
from tutored.types import SoftLabels

GRIDS = {"detection": 0, "segmentation": 8}


class Silent:
    """A tutor that knows some classes and sees nothing anywhere."""

    def __init__(self, *classes):
        self.labels = LabelSpace.of(classes)
        self.identity = {"kind": "silent"}

    def __call__(self, images, image_ids):
        count = len(self.labels)
        blank = torch.zeros(count, 2, 3)
        blank[0] = 1
        boxes = boxed(SoftBoxes, probs=torch.zeros(0, count))
        return [SoftLabels.of((image.height, image.width), boxes, SoftMap(map=blank)) for image in images]


def opened(folder, changed=None, /, **data):
    """The run on a VOC folder with the usual two tasks, changed, and further ones."""
    tasks = {"detection": {}, "segmentation": {}} | (changed or {})
    return open_supervision(make_config({"data": {"train": f"voc:{folder}", **data}, "tasks": tasks}))


def store_of(tutor, folder, out, split="train"):
    return str(label(tutor, open_dataset(f"voc:{folder}", split), out))


def training_set(run):
    return TrainingSet(run.train, run.tasks, GRIDS, run.soft_labels, size=64, augment=Augment())


# --- Data


def test_what_is_odd_about_the_data_is_told(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("both",) * 2, "val": ("both",)})
    assert opened(folder).notes == ()
    for path in (folder / "SegmentationClass").iterdir():
        with Image.open(path) as picture:
            Image.new("L", picture.size, 255).save(path)
    (folder / "Annotations/val_000.xml").rename(folder / "Annotations/other.xml")
    train, renamed, val = opened(folder).notes
    assert "1 of 3 files, such as other.xml, have the name of no picture" in renamed
    told = f"voc:{folder}/train: segmentation: none of 2 annotations looked at holds a class; all that"
    assert train.startswith(told)
    assert val.startswith(f"voc:{folder}/val: segmentation: none of 1")


def test_boxes_of_one_data_set_and_masks_of_another(make_voc, tmp_path):
    """The same pictures, boxes of twenty classes beside masks of two."""
    boxes = make_voc(tmp_path / "boxes", {"train": ("boxes",) * 3})
    masks = make_voc(tmp_path / "masks", {"train": ("masks",) * 2})
    few = {"segmentation": {"classes": ["dog", "cat"]}}
    run = opened(boxes, few, val_split=None, tasks=["detection"],
                 more=[{"train": f"voc:{masks}", "tasks": ["segmentation"]}])  # fmt: skip
    assert [len(task.labels.classes) for task in run.tasks.values()] == [20, 2]
    assert [run.train.annotated_tasks(each) for each in run.train.ids] == [(*GRIDS,), (*GRIDS,), ("detection",)]
    made = training_set(run)
    targets = made.collate([made[0, position] for position in range(3)]).targets
    assert targets["detection"]["ground_truth"].probs.shape[-1] == 21
    assert targets["segmentation"]["ground_truth"].map.shape[1] == 3
    assert targets["segmentation"]["ground_truth"].weight.tolist() == [1, 1, 0]
    assert [each.teaches["segmentation"] for each in list_sources(made)] == ["ground_truth", "ground_truth", "nobody"]
    with pytest.raises(InputError, match=r"both have an image train_000 and annotate its detection; .* data.tasks"):
        opened(boxes, more=[{"train": f"voc:{make_voc(tmp_path / 'again')}"}], val_split=None)


def test_shared_images_are_told_from_pictures_of_one_name(make_voc, tmp_path):
    one, other = (make_voc(tmp_path / str(seed), {"image": ("both", "both")}, seed=seed) for seed in (0, 1))
    refused("share 2 images .* choose another data.val_split", opened, one, split="image", val_split="image")
    with pytest.raises(InputError, match=r"2 names in common, of different pictures \(image_000, image_001, .* rename"):
        opened(one, split="image", val=f"voc:{other}", val_split="image")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"reported": ["catt"]}, "tasks.detection.reported: unknown class 'catt'; did you mean cat"),
        ({"classes": ["cat", "zebra"]}, "tasks.detection.classes: no data set and no tutor knows .* 'zebra'; poss"),
        ({"from": "Boxes"}, "tasks.detection.from: there is no folder .*; possible: Annotations, ImageSets"),
        ({"labels": "few.txt"}, "tasks.detection.labels: "),
    ],
)  # fmt: skip
def test_what_a_task_can_not_have_is_refused(voc_folder, task, message):
    refused(message, opened, voc_folder, {"detection": task})


# --- Stores


def test_a_tutor_says_what_it_does_not_know_and_answer(voc_folder, tmp_path):
    train, val = (store_of(Silent("cat", "lorry"), voc_folder, tmp_path / each, each) for each in ("train", "val"))

    def filled(*stores):
        return opened(voc_folder, {"detection": {"policy": "fill", "store": list(stores)}})

    refused("answers for none of the 8 images", filled, val)
    run = filled(train)
    assert len(run.soft_labels["detection"]["train_000"].tasks["detection"].unknown) == 19
    assert run.stores["detection"][0]["kind"] == "silent" and run.stores["segmentation"] == []
    assert "1 of the tutor's 2 classes map to ours" in run.notes[0]
    assert len(filled(train, val).soft_labels["detection"]) == 12
    refused("another store of detection answers for train_000 too", filled, train, train)


def test_a_class_or_a_task_may_be_the_tutors_alone(voc_folder, tmp_path):
    task = {"policy": "replace", "store": store_of(Silent("zebra"), voc_folder, tmp_path / "store")}
    run = opened(voc_folder, {"detection": {**task, "classes": ["cat", "airplane", "zebra"]}})
    assert run.tasks["detection"].labels.classes == ("cat", "airplane", "zebra"), "VOC's aeroplane, by its other name"
    assert run.tasks["segmentation"].labels == VOC
    maps = {**task, "classes": ["zebra"]}
    run = opened(voc_folder, {"segmentation": maps}, tasks=["detection"])
    assert run.val.annotated_tasks("val_000") == ("detection",), "validated on what the folder is read for"
    assert run.tasks["segmentation"].labels.classes == ("zebra",)
    assert {each.teaches["segmentation"] for each in list_sources(training_set(run))} == {"tutor"}


def test_a_store_of_another_kind_is_refused(voc_folder, tmp_path):
    class Boxes(Silent):
        def __call__(self, images, image_ids):
            return [answer.without("segmentation") for answer in super().__call__(images, image_ids)]

    task = {"policy": "fill", "store": store_of(Boxes("cat"), voc_folder, tmp_path / "store")}
    opened(voc_folder, {"detection": task})
    with pytest.raises(InputError, match=r"answers detection, tasks\.segmentation needs segmentation; give another"):
        opened(voc_folder, {"segmentation": task})
    with pytest.raises(InputError, match=r"no store of soft labels .*`tutored label` writes one"):
        opened(voc_folder, {"detection": {"policy": "fill", "store": str(tmp_path / "nowhere")}})


def test_half_labelled_coco_teaches_by_boxes_and_tutor(tmp_path):
    """Two images have a box, two have none yet: the boxes teach nothing there, and a tutor fills them."""
    names = [f"p{number}.png" for number in range(4)]
    coco_file(tmp_path / "train.json", *({"image_id": n, "bbox": [9, 9, 30, 30]} for n in (1, 3)), images=names)
    pictures(*(tmp_path / name for name in names), size=(64, 64))
    spec = f"coco:{tmp_path}"
    store = str(label(Silent("cat"), open_dataset(spec, "train"), tmp_path / "store"))

    def weights(task, **data):
        given = {"data": {"train": spec, "val_split": None, **data}, "tasks": {"detection": task}}
        run = open_supervision(make_config(given))
        told = any(each.startswith(f"{spec}/train: 2 of 4 images, such as p1, have no") for each in run.notes)
        assert told != (data.get("empty") == "annotated")
        made = TrainingSet(run.train, run.tasks, {"detection": 0}, run.soft_labels, size=64, augment=Augment())
        return [made[0, place].weights["detection"] for place in range(4)], made.taught()

    truth, nobody, tutor = (1, 0), (0, 0), (0, 1)
    assert weights({"policy": "ground_truth"}) == ([truth, nobody, truth, nobody], [0, 2])
    fill = {"policy": "fill", "store": store}
    assert weights(fill) == ([truth, tutor, truth, tutor], [0, 1, 2, 3])
    assert weights(fill, empty="annotated") == ([truth] * 4, [0, 1, 2, 3])
    two = make_config({"data": {"train": spec, "more": [{"train": spec, "empty": "annotated"}]}})
    assert [len(list(filter(part.annotated_tasks, part.ids))) for part in open_parts(two)] == [2, 4]


def test_what_a_config_asks_for_in_vain_is_told(voc_folder, tmp_path):
    store = store_of(Silent("cat"), voc_folder, tmp_path / "store")

    def notes(task, name="segmentation", annotated=None):
        run = opened(voc_folder, {name: {"store": store, **task}}, annotated=annotated)
        return [note for note in run.notes if "of the tutor's" not in note]

    told = "{}: its tutor teaches nothing, because the policy is '{}'; possible: fill, replace, both"
    assert notes({}, "detection") == [told.format("detection", "ground_truth")]
    assert notes({"policy": "none"}) == [told.format("segmentation", "none")]
    fill, softmax = {"policy": "fill"}, {"policy": "fill", "target": "softmax"}
    assert notes({**fill, "vetted_by": "detection"}) == notes(softmax) == []
    (note,) = notes({**softmax, "vetted_by": "detection", "elsewhere": "ignore", "cell_weight": "margin"})
    assert note.endswith("teaches every cell at full weight, in spite of vetted_by, elsewhere, cell_weight")
    unread = "segmentation: the policy 'fill' does not read share, weights"
    assert notes({**fill, "share": 0.3, "weights": [1, 0]}) == [unread]
    vetted = {**fill, "vetted_by": "segmentation"}
    (note,) = notes({**vetted, "box_floor": 0.3, "ignore_floor": 0.3}, "detection")
    assert note.startswith("detection: no score is ignored") and notes(vetted, "detection") == []
    (note,) = notes(softmax, annotated=["cat"])
    assert "also softens what people drew, and teaches their void" in note


def test_a_first_look_goes_by_the_data_sets_own_classes(make_voc, tmp_path):
    """A student that learns a rare class alone is told nothing, though the first masks hold none of it."""
    folder = make_voc(tmp_path, {"train": ("both",) * 2, "val": ("both",)})
    assert opened(folder, {"segmentation": {"classes": ["sofa"]}}).notes == ()


def test_each_task_has_its_own_annotated_classes(voc_folder):
    run = opened(voc_folder, annotated={"segmentation": ["cat", "dog"]})
    truth = run.train.ground_truth("train_000").tasks
    assert truth["detection"].annotated is None
    assert truth["segmentation"].annotated == (VOC.index("cat"), VOC.index("dog"))
    with pytest.raises(InputError, match=r"segmentation: annotated: unknown class 'catt'; did you mean cat"):
        opened(voc_folder, annotated={"segmentation": ["catt"]})


def test_validation_without_ground_truth_is_told(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 2, "val": ("none",) * 2})
    (note,) = opened(folder).notes
    assert note == f"voc:{folder}/val: no image has ground truth to validate on, so there will be no figures"


def test_a_renamed_class_need_be_known_to_one_tutor(voc_folder, tmp_path):
    """Each store is remapped by the names that it knows; a name that no store knows is refused."""
    stores = [
        store_of(Silent("dog", other), voc_folder, tmp_path / split, split)
        for other, split in (("kitten", "train"), ("cow", "val"))
    ]

    def renamed(**names):
        return opened(voc_folder, {"detection": {"policy": "fill", "store": stores, "renamed": names}})

    assert all("2 of the tutor's 2 classes map to ours" in note for note in renamed(kitten="cat").notes[:2])
    refused("unknown class 'kitty'; did you mean kitten", renamed, kitty="cat")


def test_a_store_that_shares_no_class_is_refused(voc_folder, tmp_path):
    store = store_of(Silent("lorry"), voc_folder, tmp_path / "store")
    with pytest.raises(InputError, match="tasks.detection: store .*: no class of the tutor .* give the pairs"):
        opened(voc_folder, {"detection": {"policy": "fill", "store": store}})


def test_a_row_without_an_answer_is_no_answer(make_voc, tmp_path):
    """Of five images without a mask the tutor answers for two, in a store each: nobody teaches the others."""

    class Some(Silent):
        def __init__(self, answered):
            super().__init__("cat")
            self.answered = answered

        def __call__(self, images, image_ids):
            answers = zip(image_ids, super().__call__(images, image_ids), strict=True)
            return [answer if each == self.answered else answer.without("segmentation") for each, answer in answers]

    folder = make_voc(tmp_path / "voc", {"train": ("none",) * 5})
    stores = [store_of(Some(each), folder, tmp_path / each) for each in ("train_001", "train_003")]
    tasks = {"detection": {"policy": "none"}, "segmentation": {"policy": "fill", "store": stores}}
    run = opened(folder, tasks, val_split=None)
    assert run.notes[-1].endswith("no answer for 3 of 5 images")
    made = training_set(run)
    assert made.taught() == [1, 3]
    found = [each.teaches["segmentation"] for each in list_sources(made)]
    assert found == ["nobody", "tutor", "nobody", "tutor", "nobody"]
    for place in range(5):
        assert made[0, place].weights["segmentation"] == (0, place in (1, 3))


@pytest.mark.parametrize(("elsewhere", "background", "said"), [("background", 0.5, 1.0), ("ignore", 0.0, 0.5)])
def test_where_probability_of_other_classes_goes(make_voc, tmp_path, elsewhere, background, said):
    class Unsure(Silent):
        """Every cell is half cat, half zebra."""

        def __call__(self, images, image_ids):
            halves = SoftMap(map=torch.tensor([0.0, 0.5, 0.5])[:, None, None].repeat(1, 2, 3))
            return [replace(each, tasks={"segmentation": halves}) for each in super().__call__(images, image_ids)]

    folder = make_voc(tmp_path / "voc", {"train": ("both",), "val": ("both",)})
    store = store_of(Unsure("cat", "zebra"), folder, tmp_path / "store")
    task = {"policy": "fill", "store": store, "elsewhere": elsewhere}
    (answer,) = opened(folder, {"segmentation": task}).soft_labels["segmentation"].values()
    seen = answer.tasks["segmentation"].map
    assert seen[0].tolist() == [[pytest.approx(background, abs=0.01)] * 3] * 2
    assert seen.sum(0).tolist() == [[pytest.approx(said, abs=0.01)] * 3] * 2


def test_two_tasks_of_one_kind_read_one_store_in_their_classes(voc_folder, tmp_path):
    store = store_of(Silent("cat", "dog", "lorry"), voc_folder, tmp_path / "store")
    task = {"policy": "replace", "store": store}
    run = opened(voc_folder, {"segmentation": task, "pets": {**task, "kind": "segmentation", "classes": ["dog"]}})
    seen = {name: run.soft_labels[name]["train_000"].tasks["segmentation"] for name in ("segmentation", "pets")}
    assert {name: len(each.map) for name, each in seen.items()} == {"segmentation": 21, "pets": 2}
    assert seen["pets"].unknown == () and len(seen["segmentation"].unknown) == 18
