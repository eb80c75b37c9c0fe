"""Data sets and tutors of a run, opened and checked against each other."""

from dataclasses import replace

import pytest
import torch

from tutored.config import make_config
from tutored.data import open_dataset
from tutored.data.joined import union
from tutored.data.training import TrainingSet
from tutored.engine.sources import list_sources
from tutored.engine.supervision import open_supervision
from tutored.errors import InputError
from tutored.labels import COCO, VOC, LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors.label import label


class Silent:
    """A tutor that knows some classes and sees nothing anywhere."""

    def __init__(self, *classes):
        self.labels = LabelSpace.of(classes)
        self.identity = {"kind": "silent"}

    def __call__(self, images, image_ids):
        count = len(self.labels)
        blank = torch.zeros(count, 2, 3)
        blank[0] = 1
        return [
            SoftLabels(
                size=(image.height, image.width),
                boxes_xyxy=torch.zeros(0, 4),
                classes=torch.zeros(0, dtype=torch.int64),
                probs=torch.zeros(0, count),
                map=blank,
            )
            for image in images
        ]


def config(folder, **data):
    return make_config({"data": {"train": f"voc:{folder}", **data}, "student": {"size": 64}})


def test_classes_of_several_data_sets_are_joined_aliases_once():
    assert union([VOC, COCO])[:20] == VOC.classes
    assert len(union([VOC, COCO])) == 80
    assert union([LabelSpace.of(["cat"]), LabelSpace.of(["dog", "cat"])]) == ("cat", "dog")


def test_data_sets_with_different_classes_train_one_student(make_voc, tmp_path):
    """Each claims no background for the other's classes."""
    pets = make_voc(tmp_path / "pets", {"pets": ("both", "both")})
    town = make_voc(tmp_path / "town", {"town": ("both", "both")}, seed=1)
    supervision = open_supervision(
        config(pets, split="pets", annotated=["cat", "dog"], val_split=None, classes=["cat", "dog", "bus"],
               more=[{"train": f"voc:{town}", "split": "town", "annotated": ["bus"]}])
    )  # fmt: skip
    train = supervision.train
    assert train.labels.classes == ("cat", "dog", "bus")
    assert train.ids == ("pets_000", "pets_001", "town_000", "town_001")
    assert train.ground_truth("pets_000").annotated == (1, 2)
    assert train.ground_truth("town_000").annotated == (3,)
    made = TrainingSet(train, config(pets, classes=["cat", "dog", "bus"]), 8)
    assert made[(0, 0)].ground_truth.unknown["detection"].tolist() == [False, False, False, True]
    assert made[(0, 2)].ground_truth.unknown["segmentation"].tolist() == [False, True, True, False]


def test_two_data_sets_with_the_same_image_id_are_refused(voc_folder, make_voc, tmp_path):
    other = make_voc(tmp_path / "other")
    with pytest.raises(InputError, match="both have an image train_000"):
        open_supervision(config(voc_folder, more=[{"train": f"voc:{other}"}], val_split=None))


def test_images_that_training_and_validation_share_are_told_from_pictures_of_one_name(make_voc, tmp_path):
    one, other = (make_voc(tmp_path / str(seed), {"image": ("both", "both")}, seed=seed) for seed in (0, 1))
    with pytest.raises(InputError, match="share 2 images .* choose another data.val_split"):
        open_supervision(config(one, split="image", val_split="image"))
    with pytest.raises(InputError, match=r"2 names in common, of different pictures \(image_000, image_001, .* rename"):
        open_supervision(config(one, split="image", val=f"voc:{other}", val_split="image"))


def filled(folder, store, **more):
    task = {"policy": "fill", "store": store}
    return make_config(
        {"data": {"train": f"voc:{folder}", **more}, "supervision": {"detection": task}, "student": {"size": 64}}
    )


def test_a_tutor_says_what_it_does_not_know_and_whom_it_does_not_answer_for(voc_folder, tmp_path):
    val = label(Silent("cat", "lorry"), open_dataset(f"voc:{voc_folder}", "val"), tmp_path / "val")
    with pytest.raises(InputError, match="answers for none of the 8 images"):
        open_supervision(filled(voc_folder, str(val)))
    train = label(Silent("cat", "lorry"), open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "train")
    opened = open_supervision(filled(voc_folder, [str(train)]))
    assert len(opened.soft_labels["detection"]["train_000"].unknown) == 19
    assert opened.stores["detection"][0]["kind"] == "silent"
    assert "1 of the tutor's 2 classes map to ours" in opened.notes[0]
    both = open_supervision(filled(voc_folder, [str(train), str(val)]))
    assert len(both.soft_labels["detection"]) == 12
    with pytest.raises(InputError, match="another store of detection answers for train_000 too"):
        open_supervision(filled(voc_folder, [str(train), str(train)]))


def test_what_a_config_asks_for_in_vain_is_told(voc_folder, tmp_path):
    store = str(label(Silent("cat"), open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store"))

    def notes(task, name="segmentation", annotated=None, **loss):
        data = {"train": f"voc:{voc_folder}", "annotated": annotated}
        plain = {"data": data, "supervision": {name: {"store": store, **task}}, "loss": loss}
        return [note for note in open_supervision(make_config(plain)).notes if "of the tutor's" not in note]

    told = "{}: the store is not asked, for the policy is '{}'"
    assert notes({}, "detection") == [told.format("detection", "ground_truth")]
    assert notes({"policy": "none"}) == [told.format("segmentation", "none")]
    assert notes({"policy": "fill", "vetted": True}) == notes({"policy": "fill"}, map_target="softmax") == []
    (note,) = notes(
        {"policy": "fill", "vetted": True, "elsewhere": "ignore"}, map_target="softmax", map_weight="margin"
    )
    assert note.endswith("teaches every cell at full weight, in spite of vetted, elsewhere, map_weight")
    assert notes({"policy": "fill", "share": 0.3, "weights": [1, 0]}) == [
        "segmentation: the policy 'fill' does not read share, weights"
    ]
    (note,) = notes({"policy": "fill", "vetted": True}, "detection", box_floor=0.3, ignore_floor=0.3)
    assert note.startswith("detection: no score is ignored") and notes({"policy": "fill", "vetted": True}) == []
    (note,) = notes({"policy": "fill"}, annotated=["cat"], map_target="softmax")
    assert "also softens what people drew, and teaches their void" in note


def test_validation_without_ground_truth_is_told(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 2, "val": ("none",) * 2})
    (note,) = open_supervision(config(folder)).notes
    assert note == f"voc:{folder}/val: no image has ground truth to validate on, so there will be no figures"


def test_a_class_to_report_that_is_none_is_refused_before_training(voc_folder):
    with pytest.raises(InputError, match="unknown class 'catt'; did you mean cat"):
        open_supervision(config(voc_folder, reported=["catt"]))


def test_a_class_that_neither_data_nor_tutor_has_is_refused(voc_folder, tmp_path):
    with pytest.raises(
        InputError, match="no data set and no tutor knows one of them: unknown class 'zebra'; possible: "
    ):
        open_supervision(config(voc_folder, classes=["cat", "zebra"]))
    store = str(label(Silent("zebra"), open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store"))
    data = {"train": f"voc:{voc_folder}", "classes": ["cat", "airplane", "zebra"]}
    tutored = {"detection": {"policy": "fill", "store": store}}
    opened = open_supervision(make_config({"data": data, "supervision": tutored}))
    assert opened.train.labels.classes == ("cat", "airplane", "zebra"), "VOC's aeroplane, by its other name"


def test_a_renamed_class_need_be_known_to_one_of_several_tutors(voc_folder, tmp_path):
    """Each store is folded by the names that it knows; a name that none knows is refused."""
    stores = [
        str(label(Silent("dog", other), open_dataset(f"voc:{voc_folder}", split), tmp_path / split))
        for other, split in (("kitten", "train"), ("cow", "val"))
    ]

    def opened(**renamed):
        task = {"policy": "fill", "store": stores, "renamed": renamed}
        data = {"train": f"voc:{voc_folder}"}
        return open_supervision(make_config({"data": data, "supervision": {"detection": task}}))

    notes = opened(kitten="cat").notes
    assert all("2 of the tutor's 2 classes map to ours" in note for note in notes[:2])
    with pytest.raises(InputError, match="unknown class 'kitty'; did you mean kitten"):
        opened(kitty="cat")


def test_a_store_that_shares_no_class_is_refused(voc_folder, tmp_path):
    store = label(Silent("lorry"), open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store")
    with pytest.raises(InputError, match="no class of the tutor"):
        open_supervision(filled(voc_folder, str(store)))


def test_a_store_that_does_not_answer_the_task_is_refused(voc_folder, tmp_path):
    class Boxes(Silent):
        def __call__(self, images, image_ids):
            return [replace(answer, map=None) for answer in super().__call__(images, image_ids)]

    store = label(Boxes("cat"), open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store")
    open_supervision(filled(voc_folder, str(store)))
    task = {"policy": "fill", "store": str(store)}
    wrong = make_config({"data": {"train": f"voc:{voc_folder}"}, "supervision": {"segmentation": task}})
    with pytest.raises(InputError, match="answers detection, not segmentation"):
        open_supervision(wrong)


def test_a_row_without_an_answer_is_no_answer(make_voc, tmp_path):
    """Of five images without a mask the tutor answers for two, in a store each: the others have nobody."""

    class Some(Silent):
        def __init__(self, answered):
            super().__init__("cat")
            self.answered = answered

        def __call__(self, images, image_ids):
            answers = zip(image_ids, super().__call__(images, image_ids), strict=True)
            return [answer if each == self.answered else replace(answer, map=None) for each, answer in answers]

    folder = make_voc(tmp_path / "voc", {"train": ("none",) * 5})
    dataset = open_dataset(f"voc:{folder}", "train")
    stores = [str(label(Some(each), dataset, tmp_path / each)) for each in ("train_001", "train_003")]
    supervision = {"detection": {"policy": "none"}, "segmentation": {"policy": "fill", "store": stores}}
    run = make_config({"data": {"train": f"voc:{folder}", "val_split": None}, "supervision": supervision})
    opened = open_supervision(run)
    assert opened.notes[-1].endswith("no answer for 3 of 5 images")
    made = TrainingSet(opened.train, run, 8, opened.soft_labels)
    assert made.taught() == [1, 3]
    assert [row[3] for row in list_sources(made)] == ["none", "tutor", "none", "tutor", "none"]
    assert [made[0, place].weights["segmentation"] for place in range(5)] == [
        (0, place in (1, 3)) for place in range(5)
    ]


@pytest.mark.parametrize(("elsewhere", "background", "said"), [("background", 0.5, 1.0), ("ignore", 0.0, 0.5)])
def test_probability_of_classes_that_are_none_of_ours(make_voc, tmp_path, elsewhere, background, said):
    class Unsure(Silent):
        """Every cell is half cat, half zebra."""

        def __call__(self, images, image_ids):
            halves = torch.tensor([0.0, 0.5, 0.5])[:, None, None].expand(3, 2, 3)
            return [replace(answer, map=halves.contiguous()) for answer in super().__call__(images, image_ids)]

    folder = make_voc(tmp_path / "voc", {"train": ("both",), "val": ("both",)})
    store = label(Unsure("cat", "zebra"), open_dataset(f"voc:{folder}", "train"), tmp_path / "store")
    task = {"policy": "fill", "store": str(store), "elsewhere": elsewhere}
    run = make_config({"data": {"train": f"voc:{folder}"}, "supervision": {"segmentation": task}})
    (answer,) = open_supervision(run).soft_labels["segmentation"].values()
    assert answer.map is not None
    assert answer.map[0].tolist() == [[pytest.approx(background, abs=0.01)] * 3] * 2
    assert answer.map.sum(0).tolist() == [[pytest.approx(said, abs=0.01)] * 3] * 2
