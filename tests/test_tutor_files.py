"""Answers in files: COCO results, XML with confidences, arrays of maps; and what the numbers in them mean."""

import json
import os

import numpy as np
import pytest

from made import ask, ask_boxes, ask_map, blank, pictures, refused, write
from tutored.cli import main
from tutored.convert import convert
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.judge import judge
from tutored.labels import COCO, VOC, LabelSpace
from tutored.softlabels import Store
from tutored.tutors import open_tutor


def opened(folders, **options):
    return open_tutor("files", folders=folders, **options)


class Pictures:
    """A data set of blank pictures in some classes, which nobody annotated."""

    name, source, split = "made:pictures/all", "made:pictures", "all"

    def __init__(self, labels, sizes=None):
        self.labels, self.sizes = {"detection": labels, "segmentation": labels}, sizes or {"a": (30, 40)}
        self.ids = tuple(self.sizes)

    def image(self, image_id):
        return blank(*self.sizes[image_id])


def results(folder, entries):
    return write(folder / "results.json", entries).parent


def entry(image_id="a", category_id=17, score=0.75, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": [2, 4, 10, 6], "score": score} | more


def test_coco_results(tmp_path):
    tutor = opened(results(tmp_path, [entry(), entry(category_id=90), entry(139), entry("x")]))
    assert tutor.labels == COCO
    assert set(ask(tutor, blank(30, 40)).tasks) == {"detection"}
    found = ask_boxes(tutor, blank(30, 40))
    assert found.boxes_xyxy.tolist() == [[2, 4, 12, 10]] * 2
    assert [COCO.names[index] for index in found.classes] == ["cat", "toothbrush"]
    assert found.probs[0, [0, 16]].tolist() == [0.25, 0.75]
    assert len(ask_boxes(tutor, blank(30, 40), "000000000139").classes) == 1, "a number is the stem's"
    with pytest.raises(InputError, match='no entry for image b; .*missing="allow"'):
        ask(tutor, blank(30, 40), "b")
    lenient = opened(tmp_path, missing="allow")
    assert ask_boxes(lenient, blank(30, 40), "b").boxes_xyxy.shape == (0, 4), "nothing was found there"


def test_category_numbers_never_mean_two_things(tmp_path):
    ambiguous = results(tmp_path / "ambiguous", [entry(category_id=8)])
    with pytest.raises(InputError, match=r"category 8 may be cat, by position in .* or truck, by COCO's numbering;"):
        opened(ambiguous, dataset=Pictures(VOC))
    eighth = {"voc": "cat", "coco": "truck"}
    for labels, name in eighth.items():
        tutor = opened(ambiguous, labels=labels)
        assert tutor.labels.names[int(ask_boxes(tutor, blank(30, 40)).classes[0])] == name
    assert opened(results(tmp_path / "coco", [entry(category_id=44)]), dataset=Pictures(VOC)).labels == COCO
    assert opened(results(tmp_path / "voc", [entry(category_id=12)]), dataset=Pictures(VOC)).labels == VOC
    with pytest.raises(InputError, match="category 95 .*neither COCO's numbers nor positions"):
        opened(results(tmp_path / "neither", [entry(category_id=95)]), dataset=Pictures(VOC))
    same = LabelSpace.of(["person", "bicycle"])
    agreed = opened(results(tmp_path / "same", [entry(category_id=2)]), dataset=Pictures(same))
    assert agreed.labels == same, "number 2 is the bicycle, whoever counts"
    named = {"categories": [{"id": 3, "name": "cow"}], "images": [{"id": 7, "file_name": "x/a.jpg"}]}
    own = {"annotations": [entry(7, 3)], **named}
    tutor = opened(results(tmp_path / "own", own))
    assert tutor.labels.classes == ("cow",) and ask_boxes(tutor, blank(30, 40)).classes.tolist() == [1]


def test_masks_of_coco_results_are_instances(tmp_path):
    # Uncompressed runs, column by column of a 30 x 40 image: columns 2 to 11, rows 4 to 9.
    runs = [2 * 30 + 4] + [6, 24] * 9 + [6]
    runs.append(30 * 40 - sum(runs))
    segmentation = {"size": [30, 40], "counts": runs}
    tutor = opened(results(tmp_path, [entry(segmentation=segmentation), entry(category_id=1)]))
    found = ask(tutor, blank(30, 40)).tasks
    made = found["instances"]
    assert len(found["detection"].classes) == 2 and made.boxes_xyxy.tolist() == [[2, 4, 12, 10]]
    assert made.masks.shape == (1, 56, 56) and made.masks[0, 8:48, 8:48].min() > 0.999
    only_mask = {key: value for key, value in entry(segmentation=segmentation).items() if key != "bbox"}
    tutor = opened(results(tmp_path, [only_mask]))
    assert ask_boxes(tutor, blank(30, 40)).boxes_xyxy.tolist() == [[2, 4, 12, 10]]
    tutor = opened(results(tmp_path, [entry(segmentation=[[1, 1, 5, 5]])]))
    assert set(ask(tutor, blank(30, 40)).tasks) == {"detection"}, "a polygon of two points is no empty mask"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, "a score is a probability from 0 to 1"),
        ({"bbox": [2, 4, 10]}, "'bbox' must be"),
        ({"bbox": [2, 4, -10, 5]}, "negative side"),
        ({"bbox": [200, 4, 10, 5]}, "40x30"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, "must state the size"),
    ],
)
def test_broken_results_are_refused(tmp_path, change, message):
    tutor = opened(results(tmp_path, [entry("x"), entry(**change)]))
    with pytest.raises(InputError, match=rf"results\.json: entry 1.*{message}"):
        ask(tutor, blank(30, 40))


def test_the_thesis_xml(tmp_path):
    horse = "<object><name>horse</name><class_index>13</class_index><bndbox><xmin>0.0</xmin><ymin>1.5</ymin>"
    horse += "<xmax>19.25</xmax><ymax>9</ymax></bndbox><confidence>3.63e-06</confidence></object>"
    (tmp_path / "a.xml").write_text(f"<annotation><folder>VOC2012</folder>{horse}</annotation>")
    (tmp_path / "empty.xml").write_text("<annotation/>")
    tutor = opened([tmp_path])
    found = ask_boxes(tutor, blank(10, 20))
    assert tutor.labels == VOC and found.boxes_xyxy.tolist() == [[0, 1.5, 19.25, 9]] and found.classes.tolist() == [13]
    assert found.scores.tolist() == pytest.approx([3.63e-6]) and found.probs[0, 0] == pytest.approx(1 - 3.63e-6)
    assert ask_boxes(tutor, blank(10, 20), "empty").boxes_xyxy.shape == (0, 4)
    with pytest.raises(InputError, match=r"no b\.xml"):
        ask(tutor, blank(10, 20), "b")
    lenient = opened([tmp_path], missing="allow")
    assert ask(lenient, blank(10, 20), "b").tasks == {}, "not asked"
    for old, new, message in (
        ("confidence>", "certainty>", "object 1: 'confidence' must be a number, got None"),
        (">horse<", ">hors<", "did you mean horse"),
        ("</annotation>", "", "not readable as XML"),
    ):
        (tmp_path / "a.xml").write_text(f"<annotation>{horse}</annotation>".replace(old, new))
        with pytest.raises(InputError, match=rf"a\.xml.*{message}"):
            ask(tutor, blank(10, 20))


def test_probability_maps_of_every_type(tmp_path):
    counts = np.array([[[255, 0, 0], [200, 50, 5]]], np.uint8)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for number, (dtype, scale) in enumerate((("uint8", 1), ("float16", 255), ("float32", 255), ("float64", 255))):
        for suffix in (".npz", ".npy"):
            folder = tmp_path / f"{number}{suffix}"
            folder.mkdir()
            array = (counts / scale).astype(dtype)
            np.savez(folder / "a.npz", probs=array) if suffix == ".npz" else np.save(folder / "a.npy", array)
            found = ask_map(opened(folder, labels=names), blank(8, 16))
            assert found.shape == (3, 1, 2)
            assert np.rint(found.numpy() * 255).tolist() == counts.transpose(2, 0, 1).tolist()


def test_the_thesis_arrays_are_confidences(tmp_path):
    array = np.zeros((2, 3, 21))
    array[0, 0, 8], array[0, 1, [8, 12]] = 0.9, (0.8, 0.5)
    array[1, :, 0] = 1
    np.save(tmp_path / "a.npy", array)
    tutor = opened(tmp_path, stride=1)
    assert tutor.identity["tutor"] == "maps of confidences"
    answer = ask(tutor, blank(2, 3)).tasks["segmentation"]
    found = answer.map
    assert answer.confidences
    assert found[[0, 8], 0, 0].tolist() == pytest.approx([0, 0.9])
    assert found[[0, 8, 12], 0, 1].tolist() == pytest.approx([0, 0.8, 0.5])
    assert found[:, 0, 2].sum() == 0 and found[:, 1].sum() == 0, "channel 0 says nothing"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2, 21), np.nan), "probabilities lie from 0 to 1"),
        (np.zeros((2, 2, 21), np.int64), "expected .* of uint8"),
        (np.eye(22)[None], "22 channels, expected 21"),
        (np.eye(21)[None].repeat(9, 0), "is it another image's"),
        (np.full((2, 2, 21), 0.5), "sum to 10.5 to 10.5, not to one"),
        (np.array([{"a": 1}], dtype=object), "without running code"),
    ],
)
def test_broken_maps_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", probs=np.eye(21, dtype=np.float32)[None, :1])
    np.savez(tmp_path / "b.npz", probs=array)
    with pytest.raises(InputError, match=rf"b\.npz.*{message}"):
        ask(opened(tmp_path), blank(8, 21), "b")


def test_folders_that_are_refused(tmp_path):
    refused(r"no answers of a tutor here; possible files: \.json", opened, tmp_path)
    refused("there is no file or folder", opened, tmp_path / "absent")
    write(tmp_path / "inner" / "Annotations" / "a.xml")
    refused(r"no answers .*; perhaps .*inner/Annotations is meant$", opened, tmp_path / "inner")
    os.mkfifo(tmp_path / "inner" / "pipe.json")
    refused(r"pipe\.json: not readable as JSON \(.*a pipe, no regular file", opened, tmp_path / "inner" / "pipe.json")
    results(tmp_path, [entry()])
    (tmp_path / "a.xml").write_text("<annotation/>")
    refused(r"boxes as \.xml, but .*\.json; choose one", opened, tmp_path)
    (tmp_path / "m").mkdir()
    np.savez(tmp_path / "m" / "a.npz", other=np.zeros(3))
    refused(r"a\.npz: holds no array 'probs'", opened, tmp_path / "m")
    np.savez(tmp_path / "m" / "a.npz", probs=np.full((1, 1, 5), 0.2))
    refused("5 channels, background included, fit no known classes", opened, tmp_path / "m")


# What numbers mean


IDS = {"1": 3, "2": 2, "3": 1}
"""Of the images, by stem: each but one is another's stem."""


@pytest.fixture
def pets(tmp_path):
    """A COCO folder: a cat in 1.jpg, dogs in 2.jpg and 3.jpg; the dog, listed second, is category 1."""
    pictures(*(tmp_path / "pets" / "all" / f"{stem}.jpg" for stem in IDS), size=(64, 48))
    drawn = {"1": (2, [2, 2, 20, 20]), "2": (1, [10, 10, 20, 20]), "3": (1, [40, 20, 20, 20])}
    content = {
        "images": [{"id": number, "file_name": f"{stem}.jpg"} for stem, number in IDS.items()],
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": IDS[stem], "category_id": category, "bbox": box}
            for number, (stem, (category, box)) in enumerate(drawn.items())
        ],
    }
    return write(tmp_path / "pets" / "all.json", content).parent


def perfect(folder, path, **change):
    """What a perfect detector gives in COCO's format; `change` holds functions of an entry."""
    entries = json.loads((folder / "all.json").read_text())["annotations"]
    entries = [{**entry, "score": 0.99} for entry in entries]
    path.write_text(json.dumps([entry | {key: new(entry) for key, new in change.items()} for entry in entries]))
    return path


def answers(folder, file, **options):
    """Classes and boxes of each image."""
    dataset = open_dataset(f"coco:{folder}", "all")
    tutor = opened(file, dataset=dataset, **options)
    return {image_id: seen(ask(tutor, blank(48, 64), image_id)) for image_id in dataset.ids}


def seen(answer):
    """Classes and boxes."""
    boxes = answer.tasks["detection"]
    return boxes.classes.tolist(), boxes.boxes_xyxy.tolist()


TRUE = {"1": ([1], [[2, 2, 22, 22]]), "2": ([2], [[10, 10, 30, 30]]), "3": ([2], [[40, 20, 60, 40]])}


def test_numbers_are_the_coco_data_sets_own(pets, tmp_path):
    where = ["--data", f"coco:{pets}", "--split", "all"]
    given = perfect(pets, tmp_path / "given.json")
    assert main(["label", "files", "--from", str(given), *where, "--out", str(tmp_path / "one")]) == 0
    convert(tmp_path / "one", "coco", f"coco:{pets}", "all", tmp_path / "back.json")
    assert main(["label", "files", "--from", str(tmp_path / "back.json"), *where, "--out", str(tmp_path / "two")]) == 0
    for name in ("one", "two"):
        store = Store.open(tmp_path / name)
        found = {image_id: seen(store[image_id]) for image_id in IDS}
        assert store.labels.classes == ("cat", "dog") and found == TRUE
        (figures,) = judge(tmp_path / name, f"coco:{pets}", "all").tasks.values()
        assert figures.means["mAP_voc_area@.5"] == 1


def test_numbers_that_are_no_ids_are_stems(pets, tmp_path):
    stems = {number: stem for stem, number in IDS.items()}
    text = perfect(pets, tmp_path / "text.json", image_id=lambda entry: stems[entry["image_id"]])
    assert answers(pets, text) == TRUE
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert answers(pets, text, labels=tmp_path / "names.txt") == TRUE, "the data set's classes have its numbers"
    file = pets / "all.json"
    file.write_text(file.read_text().replace('"id": 3, "file', '"id": 30, "file').replace('_id": 3', '_id": 30'))
    number = perfect(pets, tmp_path / "n.json", image_id=lambda entry: {30: 1, 2: 2, 1: 3}[entry["image_id"]])
    assert answers(pets, number) == TRUE


def test_numbers_that_the_data_set_lacks_are_refused(pets, tmp_path):
    for change, message in (
        ({"image_id": lambda entry: 9}, r"the data set has no image_id 9 \(3: 1, 2: 2, 1: 3\); leave out"),
        ({"category_id": lambda entry: 44}, r"the data set has no category 44 \(2: cat, 1: dog\); say which"),
        ({"category": lambda entry: "cat"}, "entries call category 1 cat, and it was taken for dog"),
    ):
        with pytest.raises(InputError, match=rf"bad\.json: {message}"):
            answers(pets, perfect(pets, tmp_path / "bad.json", **change))
    bottles = answers(pets, perfect(pets, tmp_path / "bad.json", category_id=lambda entry: 44), labels="coco")
    assert bottles["1"][0] == [40]


def listed(folder, *entries):
    """Options for `a.png` and `b.png`, which nobody annotated, and these results."""
    pictures(folder / "a.png", folder / "b.png", size=(40, 30))
    write(folder / "all.txt", "a.png\nb.png\n")
    results(folder, entries)
    return ["--data", f"images:{folder}", "--split", "all"]


def test_pictures_that_nobody_annotated(tmp_path, capsys):
    where = listed(tmp_path, entry("a"), entry("b"))
    store, out = tmp_path / "store", tmp_path / "out.json"
    assert main(["label", "files", "--from", str(tmp_path / "results.json"), *where, "--out", str(store)]) == 0
    assert capsys.readouterr().out.endswith("with this store in tasks.TASK.store\n")
    assert main(["convert", str(store), "--to", "coco", *where, "--out", str(out)]) == 0
    found = [(each["image_id"], each["category"]) for each in json.loads(out.read_text())]
    assert found == [("a", "cat"), ("b", "cat")]


def scored(ids, folder, *paths, **more):
    """How many boxes each of these pictures has by results with one entry an id."""
    pictures(*(folder / "in" / path for path in paths), size=(40, 30))
    file = folder / "results.json"
    entries = [entry("") | {"image_id": image_id} for image_id in ids]
    file.write_text(json.dumps({"annotations": entries, **more} if more else entries))
    where = ["--data", f"images:{folder}", "--split", "in", "--out", str(folder / "store")]
    assert main(["label", "files", "--from", str(file), "--labels", "coco", "--missing", "allow", *where]) == 0
    return {image_id: len(seen(answer)[0]) for image_id, answer in Store.open(folder / "store").items()}


def test_results_about_other_images_are_refused(pets, tmp_path, capsys):
    where = listed(tmp_path, entry("a.png"), entry("b.png"))
    words = ["label", "files", "--from", str(tmp_path / "results.json"), *where, "--missing", "allow"]
    assert main([*words, "--out", str(tmp_path / "store")]) == 2
    told = capsys.readouterr().err
    assert "no entry is about an image of the data set, which has 'a' and not 'a.png'; write" in told
    texts = perfect(pets, tmp_path / "texts.json", image_id=lambda entry: f"0{entry['image_id']}1")
    refused("which has '1' and not '031'", answers, pets, texts, missing="allow")


def test_names_that_differ_by_zeros_are_two_images(tmp_path):
    assert scored(["1", "01", "01"], tmp_path / "texts", "1.png", "01.png") == {"01": 2, "1": 1}
    assert scored([1], tmp_path / "number", "1.png", "01.png") == {"01": 0, "1": 1}
    assert scored([1, 2], tmp_path / "padded", "001.png", "2.png") == {"001": 1, "2": 1}
