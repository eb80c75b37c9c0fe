"""Answers in files: COCO results about a COCO data set, whose ids they have, and what `tutored convert` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tutored.cli import main
from tutored.convert import convert
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.judge import judge
from tutored.labels import COCO
from tutored.softlabels import Store
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor
from tutored.tutors.files_coco_ids import CocoIds
from tutored.tutors.label import label

IDS = {"1": 3, "2": 2, "3": 1}
"""Of the images, by stem: each but one is another's stem."""


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A COCO folder: a cat in 1.jpg, dogs in 2.jpg and 3.jpg; the dog, listed second, is category 1."""
    (tmp_path / "pets" / "all").mkdir(parents=True)
    for stem in IDS:
        Image.new("RGB", (64, 48)).save(tmp_path / "pets" / "all" / f"{stem}.jpg")
    drawn = {"1": (2, [2, 2, 20, 20]), "2": (1, [10, 10, 20, 20]), "3": (1, [40, 20, 20, 20])}
    content = {
        "images": [{"id": number, "file_name": f"{stem}.jpg"} for stem, number in IDS.items()],
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": IDS[stem], "category_id": category, "bbox": box}
            for number, (stem, (category, box)) in enumerate(drawn.items())
        ],
    }
    (tmp_path / "pets" / "all.json").write_text(json.dumps(content))
    return tmp_path / "pets"


def results(folder: Path, path: Path, **change: Any) -> Path:
    """What a perfect detector gives in COCO's format; `change` holds functions of an entry."""
    entries = json.loads((folder / "all.json").read_text())["annotations"]
    entries = [{**entry, "score": 0.99} for entry in entries]
    path.write_text(json.dumps([entry | {key: new(entry) for key, new in change.items()} for entry in entries]))
    return path


def answers(folder: Path, file: Path, **options: Any) -> dict[str, tuple[list[int], list[list[float]]]]:
    """Classes and boxes of each image."""
    dataset = open_dataset(f"coco:{folder}", "all")
    options = {"default_labels": dataset.labels, "own_ids": CocoIds.of(dataset), **options}
    found = open_tutor("files", folders=file, **options)([Image.new("RGB", (64, 48))] * 3, dataset.ids)
    return {
        image_id: (answer.classes.tolist(), answer.boxes_xyxy.tolist())
        for image_id, answer in zip(dataset.ids, found, strict=True)
    }


TRUE = {"1": ([1], [[2, 2, 22, 22]]), "2": ([2], [[10, 10, 30, 30]]), "3": ([2], [[40, 20, 60, 40]])}


def test_numbers_in_coco_results_are_the_data_sets_own_there_and_back(pets: Path, tmp_path: Path) -> None:
    where = ["--data", f"coco:{pets}", "--split", "all"]
    given = results(pets, tmp_path / "given.json")
    assert main(["label", "files", "--from", str(given), *where, "--out", str(tmp_path / "one")]) == 0
    convert(tmp_path / "one", "coco", f"coco:{pets}", "all", tmp_path / "back.json")
    assert main(["label", "files", "--from", str(tmp_path / "back.json"), *where, "--out", str(tmp_path / "two")]) == 0
    for name in ("one", "two"):
        store = Store.open(tmp_path / name)
        found = {image_id: (store[image_id].classes.tolist(), store[image_id].boxes_xyxy.tolist()) for image_id in IDS}
        assert store.labels.classes == ("cat", "dog") and found == TRUE
        assert judge(tmp_path / name, f"coco:{pets}", "all").map_area == 1


def test_texts_are_stems_and_so_are_numbers_where_they_can_not_be_ids(pets: Path, tmp_path: Path) -> None:
    stems = {number: stem for stem, number in IDS.items()}
    text = results(pets, tmp_path / "text.json", image_id=lambda entry: stems[entry["image_id"]])
    assert answers(pets, text) == TRUE
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert answers(pets, text, labels=tmp_path / "names.txt") == TRUE, "the data set's classes have its numbers"
    file = pets / "all.json"
    file.write_text(file.read_text().replace('"id": 3, "file', '"id": 30, "file').replace('_id": 3', '_id": 30'))
    number = results(pets, tmp_path / "n.json", image_id=lambda entry: {30: 1, 2: 2, 1: 3}[entry["image_id"]])
    assert answers(pets, number) == TRUE


def test_numbers_that_mean_nothing_in_the_data_set_or_something_else_are_refused(pets: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"image_id": lambda entry: 9}, r"image_id 9 is none of the data set's own \(3: 1, 2: 2, 1: 3\); leave out"),
        ({"category_id": lambda entry: 44}, r"category 44 is none of the data set's own \(2: cat, 1: dog\); say which"),
        ({"category": lambda entry: "cat"}, "entries call category 1 cat, and it was taken for dog"),
    ):
        with pytest.raises(InputError, match=rf"bad\.json: {message}"):
            answers(pets, results(pets, tmp_path / "bad.json", **change))
    bottles = answers(pets, results(pets, tmp_path / "bad.json", category_id=lambda entry: 44), labels="coco")
    assert bottles["1"][0] == [40]


def test_other_numbers_make_another_tutor(pets: Path, tmp_path: Path) -> None:
    file = results(pets, tmp_path / "given.json")
    ids = CocoIds.of(open_dataset(f"coco:{pets}", "all"))
    assert ids is not None
    swapped = ids._replace(images={1: "1", 2: "2", 3: "3"})
    first, second = (open_tutor("files", folders=file, own_ids=each).identity for each in (ids, swapped))
    assert {key for key in first if first[key] != second[key]} == {"own_ids_sha256"}


def test_a_converted_voc_folder_has_the_boxes_of_the_store(pets: Path, tmp_path: Path) -> None:
    class Tutor:
        labels = open_dataset(f"coco:{pets}", "all").labels
        identity = {"kind": "test"}  # noqa: RUF012

        def __call__(self, images: list[Image.Image], image_ids: list[str]) -> list[SoftLabels]:
            box, probs = torch.tensor([[0.0, 5, 64, 20]]), torch.tensor([[0.25, 0.75, 0]])
            return [
                SoftLabels(size=(48, 64), boxes_xyxy=box, classes=torch.tensor([1]), probs=probs) for _ in image_ids
            ]

    label(Tutor(), open_dataset(f"coco:{pets}", "all"), tmp_path / "store")
    convert(tmp_path / "store", "voc", f"coco:{pets}", "all", tmp_path / "voc")
    text = (tmp_path / "voc" / "Annotations" / "1.xml").read_text()
    assert "<xmin>1</xmin>" in text and "<ymax>20</ymax>" in text
    assert answers(pets, tmp_path / "voc" / "Annotations") == dict.fromkeys(IDS, ([1], [[0, 5, 64, 20]]))


def pictures(folder: Path, *entries: dict[str, Any]) -> list[str]:
    """Options for `a.png` and `b.png`, which nobody annotated, and these results."""
    for name in "ab":
        Image.new("RGB", (40, 30)).save(folder / f"{name}.png")
    (folder / "all.txt").write_text("a.png\nb.png\n")
    (folder / "results.json").write_text(json.dumps(entries))
    return ["--data", f"images:{folder}", "--split", "all"]


def entry(image_id: str) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 17, "bbox": [2, 4, 10, 6], "score": 0.75}


def test_pictures_that_nobody_annotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = pictures(tmp_path, entry("a"), entry("b"))
    store, out = tmp_path / "store", tmp_path / "out.json"
    assert main(["label", "files", "--from", str(tmp_path / "results.json"), *where, "--out", str(store)]) == 0
    assert capsys.readouterr().out.endswith(
        "next: tutored train CONFIG.yaml --out RUN, with this store in supervision.TASK.store\n"
    )
    assert main(["convert", str(store), "--to", "coco", *where, "--out", str(out)]) == 0
    assert [(found["image_id"], found["category"]) for found in json.loads(out.read_text())] == [
        ("a", "cat"),
        ("b", "cat"),
    ]
    for classes in ("", "cat\n"):
        (tmp_path / "labels.txt").write_text(classes)
        for command in ("evaluate", "audit"):
            capsys.readouterr()
            assert main([command, str(store), *where]) == 2
            assert capsys.readouterr().err.startswith(f"tutored: images:{tmp_path}/all: no image has ground truth to ")


def test_a_data_set_without_classes_is_told(pets: Path, tmp_path: Path) -> None:
    where = pictures(tmp_path, entry("1"), entry("2"), entry("3"))
    for stem in IDS:
        Image.new("RGB", (40, 30)).save(tmp_path / f"{stem}.png")
    (tmp_path / "all.txt").write_text("1.png\n2.png\n3.png\n")
    assert main(["label", "files", "--from", str(tmp_path / "results.json"), *where, "--out", str(tmp_path / "s")]) == 0
    content = json.loads((pets / "all.json").read_text())
    (pets / "all.json").write_text(json.dumps(content | {"categories": [], "annotations": []}))
    with pytest.raises(InputError, match=r"no class in common: .* 60 more, the other none; give"):
        judge(tmp_path / "s", f"coco:{pets}", "all")


def test_a_try_without_missing_leaves_room_for_one_that_allows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["label", "files", "--from", str(tmp_path / "results.json"), *pictures(tmp_path, entry("a"))]
    words += ["--out", str(tmp_path / "store")]
    assert main(words) == 2
    assert 'give --missing allow (missing="allow") if the tutor has no answer' in capsys.readouterr().err
    assert main([*words, "--missing", "allow"]) == 0
    assert [len(answer.scores) for answer in Store.open(tmp_path / "store").values()] == [1, 0]


def test_no_results_about_pictures_alone_are_in_cocos_classes(tmp_path: Path) -> None:
    where = pictures(tmp_path)
    words = ["label", "files", "--from", str(tmp_path / "results.json"), *where, "--missing", "allow"]
    assert main([*words, "--out", str(tmp_path / "store")]) == 0
    assert Store.open(tmp_path / "store").labels == COCO


def scored(ids: list[Any], folder: Path, *paths: str, **more: Any) -> dict[str, int]:
    """How many boxes each of these pictures has by results with one entry an id."""
    for path in paths:
        (folder / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / "in" / path)
    file = folder / "results.json"
    entries = [entry("") | {"image_id": image_id} for image_id in ids]
    file.write_text(json.dumps({"annotations": entries, **more} if more else entries))
    where = ["--data", f"images:{folder}", "--split", "in", "--out", str(folder / "store")]
    assert main(["label", "files", "--from", str(file), "--labels", "coco", "--missing", "allow", *where]) == 0
    return {image_id: len(answer.scores) for image_id, answer in Store.open(folder / "store").items()}


def test_results_about_no_image_of_the_data_set_are_refused(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = pictures(tmp_path, entry("a.png"), entry("b.png"))
    words = ["label", "files", "--from", str(tmp_path / "results.json"), *where, "--missing", "allow"]
    assert main([*words, "--out", str(tmp_path / "store")]) == 2
    told = capsys.readouterr().err
    assert "no entry is about an image of the data set: image_id 'a.png' is none, 'a' is one; write" in told
    texts = results(pets, tmp_path / "texts.json", image_id=lambda entry: f"0{entry['image_id']}1")
    with pytest.raises(InputError, match="image_id '031' is none, '1' is one"):
        answers(pets, texts, missing="allow", image_ids=IDS)


def test_names_that_differ_by_zeros_are_two_images(tmp_path: Path) -> None:
    assert scored(["1", "01", "01"], tmp_path / "texts", "1.png", "01.png") == {"01": 2, "1": 1}
    assert scored([1], tmp_path / "number", "1.png", "01.png") == {"01": 0, "1": 1}
    assert scored([1, 2], tmp_path / "padded", "001.png", "2.png") == {"001": 1, "2": 1}


def test_names_with_folders_there_and_back(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{folder}/a.png"} for number, folder in ((1, "x"), (2, "y"))]
    found = scored([1, 1, 2], tmp_path, "x/a.png", "y/a.png", images=images)
    assert found == {"x/a": 2, "y/a": 1}
    where = ["--data", f"images:{tmp_path}", "--split", "in"]
    assert main(["convert", str(tmp_path / "store"), "--to", "voc", *where, "--out", str(tmp_path / "voc")]) == 0
    words = ["label", "files", "--from", str(tmp_path / "voc" / "Annotations"), "--labels", "coco", *where]
    assert main([*words, "--out", str(tmp_path / "back")]) == 0
    back, first = Store.open(tmp_path / "back"), Store.open(tmp_path / "store")
    assert all(torch.equal(back[name].boxes_xyxy, first[name].boxes_xyxy) for name in found)
    before = back.identity["weights_sha256"]
    path = tmp_path / "voc" / "Annotations" / "x" / "a.xml"
    path.write_text(path.read_text() + " ")
    assert main([*words, "--out", str(tmp_path / "third")]) == 0
    assert Store.open(tmp_path / "third").identity["weights_sha256"] != before
