"""Soft labels in other tools' formats, read back by those tools' own rules."""

import json
import shutil
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference
from pycocotools.coco import COCO

from made import pictures, refused, write
from tutored.cli import main
from tutored.convert import convert
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import SoftMap
from tutored.tutors.label import label
from tutored.types import SoftLabels

PETS = LabelSpace.of(["cat", "dog"])


class Tutor:
    """Says everywhere: a cat in the left half (.7, or dog .2), a weak dog in the right half; the map agrees."""

    labels = PETS
    identity: ClassVar[dict[str, Any]] = {"kind": "test", "score_floor": 0.01}

    def __call__(self, images, image_ids):
        return [self.answer(image.height, image.width) for image in images]

    def answer(self, height, width):
        probs = torch.tensor([[0.1, 0.7, 0.2], [0.8, 0.0, 0.2]])
        cells = torch.zeros(3, 2, 2)
        cells[:, :, 0], cells[:, :, 1] = torch.tensor([[0.0], [1], [0]]), torch.tensor([[0.4], [0.2], [0.4]])
        boxes = torch.tensor([[0.0, 0, width / 2, height], [width / 2, 0, width, height]])
        found = SoftBoxes(boxes_xyxy=boxes, classes=torch.tensor([1, 2]), probs=probs)
        return SoftLabels.of((height, width), found, SoftMap(map=cells))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A COCO folder (image 7 with a dog on the left half, image 8 with nothing) and the tutor's store for it."""
    root = tmp_path_factory.mktemp("coco")
    pictures(root / "images/a.png", root / "images/b.png", size=(40, 20))
    dog = {"id": 1, "image_id": 7, "category_id": 30, "bbox": [1, 0, 19, 20], "area": 380, "iscrowd": 0}
    dog["segmentation"] = [[1, 0, 20, 0, 20, 20, 1, 20]]
    images = [{"id": n, "file_name": f"{name}.png", "height": 20, "width": 40} for n, name in ((7, "a"), (8, "b"))]
    categories = [{"id": 20, "name": "cat"}, {"id": 30, "name": "dog"}]
    write(root / "instances.json", {"images": images, "categories": categories, "annotations": [dog]})
    label(Tutor(), open_dataset(f"coco:{root}", "val"), root / "store")
    return root, root / "store"


def test_coco_results_have_the_file_s_numbers_and_all_probs(coco, tmp_path):
    root, store = coco
    where = ["--data", f"coco:{root}", "--split", "val", "--out", str(tmp_path / "r.json")]
    assert main(["convert", str(store), "--to", "coco", *where]) == 0
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in entries] == [(7, 20), (7, 30), (8, 20), (8, 30)]
    assert entries[0]["bbox"] == [0, 0, 20, 20]
    assert entries[0]["probs"] == pytest.approx({"background": 0.1, "cat": 0.7, "dog": 0.2}, abs=2e-5)
    loaded = COCO(str(root / "instances.json")).loadRes(str(tmp_path / "r.json"))
    scores = [item["score"] for item in loaded.loadAnns(loaded.getAnnIds(imgIds=[7]))]
    assert scores == pytest.approx([0.7, 0.2], abs=2e-5)


def test_masks_go_to_coco_results_and_back(coco, tmp_path):
    folder, _ = coco

    class Outliner:
        """The upper half of a cat's box and the right half of a dog's; as boxes one cat more."""

        labels = PETS
        identity: ClassVar[dict[str, Any]] = {"kind": "test", "score_floor": 0.01}

        def __init__(self, boxes):
            self.boxes = boxes

        def __call__(self, images, image_ids):
            masks = torch.zeros(2, 4, 4)
            masks[0, :2], masks[1, :, 2:] = 1, 1
            both = torch.tensor([[0.0, 0, 20, 20], [20, 4, 40, 16]])
            classes, scores = torch.tensor([1, 2]), torch.tensor([0.7, 0.6])
            found = Instances(boxes_xyxy=both, classes=classes, scores=scores, masks=masks)
            probs = torch.tensor([[0.3, 0.7, 0.0], [0.4, 0.0, 0.6], [0.9, 0.1, 0.0]])
            three = torch.cat([both, both[:1] + 1])
            boxes = SoftBoxes(boxes_xyxy=three, classes=torch.tensor([1, 2, 1]), probs=probs)
            return [SoftLabels.of((20, 40), boxes if self.boxes else None, found) for _ in images]

    for name, boxes in (("masks", False), ("both", True)):
        label(Outliner(boxes), open_dataset(f"coco:{folder}", "val"), tmp_path / name)
        convert(tmp_path / name, "coco", f"coco:{folder}", "val", tmp_path / f"{name}.json")
        entries = [each for each in json.loads((tmp_path / f"{name}.json").read_text()) if each["image_id"] == 7]
        assert [each["category_id"] for each in entries] == [20, 30, 20][: 2 + boxes]
        assert ["segmentation" in each for each in entries] == [True, True, False][: 2 + boxes]
        areas = [reference.decode(each["segmentation"]).sum() for each in entries[:2]]
        assert areas == [20 * 10, 10 * 12]
        assert entries[0]["probs"] == pytest.approx({"background": 0.3, "cat": 0.7}, abs=2e-5)
    again = ["label", "files", "--from", str(tmp_path / "masks.json"), "--data", f"coco:{folder}", "--split", "val"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    first, second = (Store.open(tmp_path / name)["b"].tasks["instances"].final((20, 40)) for name in ("masks", "again"))
    assert torch.equal(first.masks, second.masks) and torch.equal(first.boxes_xyxy, second.boxes_xyxy)


def test_a_voc_folder_is_a_data_set_again(coco, tmp_path):
    root, store = coco
    told = []
    convert(store, "voc", f"coco:{root}", "val", tmp_path / "voc", tell=told.append)
    convert(store, "voc", f"coco:{root}", "val", tmp_path / "sure", score=0.9, tell=told.append)
    blank = [line for line in told if "no box of score" in line]
    assert len(blank) == 1 and blank[0].startswith("2 of 2 images have no box of score 0.9 or more")
    pictures(*(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg" for name in "ab"), size=(40, 20))
    dataset = open_dataset(f"voc:{tmp_path / 'voc'}", "val")
    truth = dataset.ground_truth("a")
    boxes, mask = truth.tasks["detection"], truth.tasks["segmentation"].mask
    assert set(dataset.labels.values()) == {PETS} and dataset.ids == ("a", "b")
    assert boxes.boxes_xyxy.tolist() == [[0, 0, 20, 20]] and boxes.classes.tolist() == [1]
    assert mask[10, 0] == 1
    assert mask[10, 39] == 255, "of .4 and .4 nothing is said"


def test_cleanlab_gets_probabilities_of_boxes_and_pixels(coco, tmp_path):
    root, store = coco
    convert(store, "cleanlab", f"coco:{root}", "val", tmp_path / "arrays")
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in (tmp_path / "arrays").glob("*.npy")}
    assert arrays["boxes_labels"].tolist() == [2]
    np.testing.assert_allclose(arrays["boxes_pred_probs"], [[0.1, 0.7, 0.2]], atol=2e-5)
    assert (tmp_path / "arrays" / "boxes.csv").read_text() == "image_id,x1,y1,x2,y2\na,1,0,20,20\n"
    labels, probs = arrays["pixels_labels"], arrays["pixels_pred_probs"]
    assert labels.shape == (1, 64, 64) and probs.shape == (1, 3, 64, 64)
    assert labels[0, 32, 10] == 2 and labels[0, 32, 40] == 0
    np.testing.assert_allclose(probs[0, :, 32, 0], [0, 1, 0], atol=0.01)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)

    convert(store, "cleanlab", f"coco:{root}", "val", tmp_path / "sure", score=0.9)
    missed = np.load(tmp_path / "sure" / "boxes_pred_probs.npy", allow_pickle=False)
    assert missed.tolist() == [[1, 0, 0]], "no box is that sure: background"


@pytest.mark.parametrize("kind", ["voc", "cleanlab", "fiftyone"])
def test_a_folder_is_whole_or_not_there(coco, tmp_path, kind):
    root, store = coco

    def full(done, _total):
        if done == 1:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        convert(store, kind, f"coco:{root}", "val", tmp_path / "out", progress=full)
    assert not list(tmp_path.iterdir())
    convert(store, kind, f"coco:{root}", "val", tmp_path / "out")
    convert(store, kind, f"coco:{root}", "val", tmp_path / "undisturbed")
    files = [path.relative_to(tmp_path / "undisturbed") for path in (tmp_path / "undisturbed").rglob("*.*")]
    assert files
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "undisturbed" / file).read_bytes()


def test_fiftyone_gets_relative_boxes_with_distributions(coco, tmp_path):
    root, store = coco
    convert(store, "fiftyone", f"coco:{root}", "val", tmp_path / "fo")
    content = json.loads((tmp_path / "fo" / "labels.json").read_text())
    assert content["classes"] == ["cat", "dog"] and set(content["labels"]) == {"a", "b"}
    first, second = content["labels"]["a"]
    assert first["label"] == "cat" and first["bounding_box"] == [0, 0, 0.5, 1]
    assert second["bounding_box"] == [0.5, 0, 0.5, 1] and second["confidence"] == pytest.approx(0.2, abs=2e-5)
    assert first["attributes"]["p(dog)"] == pytest.approx(0.2, abs=2e-5)
    assert np.array(Image.open(tmp_path / "fo" / "masks" / "a.png"))[10, 0] == 1


def test_what_leaves_nothing_to_write_is_refused(coco, tmp_path):
    root, _ = coco

    class Maps(Tutor):
        def answer(self, height, width):
            return super().answer(height, width).without("detection")

    label(Maps(), open_dataset(f"coco:{root}", "val"), tmp_path / "maps")
    with pytest.raises(InputError, match="answers with segmentation, which coco can't hold"):
        convert(tmp_path / "maps", "coco", f"coco:{root}", "val", tmp_path / "a.json")
    write(tmp_path / "plain" / "labels.txt", "cat\ndog\n")
    shutil.copytree(root / "images", tmp_path / "plain" / "all")
    images = f"images:{tmp_path / 'plain'}"
    label(Tutor(), open_dataset(images, "all"), tmp_path / "boxes")
    with pytest.raises(InputError, match="no image has ground truth of what the store answers"):
        convert(tmp_path / "boxes", "cleanlab", images, "all", tmp_path / "arrays")
    assert not (tmp_path / "a.json").exists() and not (tmp_path / "arrays").exists()


def test_mistakes_are_told(coco, tmp_path):
    root, store = coco
    refused("possible: coco, voc, cleanlab, fiftyone", convert, store, "yolo", f"coco:{root}", "val", tmp_path / "x")
    (tmp_path / "there.json").write_text("")
    refused("is there already", convert, store, "coco", f"coco:{root}", "val", tmp_path / "there.json")
