"""Two commands from a folder to a student: tutors that a config names are asked, and audited, before training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import tutored
from made import SMALL_STUDENT, TINY, coco_file, pictures, thing, write, xml, yolox
from test_tools import labelme, shape, yolo
from tutored.cli import main
from tutored.config import load_config, make_config
from tutored.config.entries import DEFAULT_TASKS
from tutored.data import open_dataset
from tutored.labels import VOC
from tutored.softlabels import Store
from tutored.tutors import open_tutor
from tutored.tutors.label import label

BOXES, MAPS = DEFAULT_TASKS
QUICK = [*SMALL_STUDENT, "--train.epochs", "1", "--train.val_every", "1"]


def detector(path):
    """Sees a cat and a dog in every picture."""
    rows = {1: [0.5, 0.5, 0, 0, 0.9, 0.9, 0.1], 16: [0.5, 0.5, 0, 0, 0.9, 0.1, 0.8]}
    return yolox(path, rows, names="{0: 'cat', 1: 'dog'}")


def maps(folder, photos, classes):
    """Files that say in every pixel: .3 background, .7 the first class."""
    folder.mkdir()
    for picture in photos.glob("*.jpg"):
        width, height = Image.open(picture).size
        probs = np.zeros((height, width, classes + 1), np.float32)
        probs[..., :2] = 0.3, 0.7
        np.savez(folder / f"{picture.stem}.npz", probs=probs)
    return folder


@pytest.fixture
def here(make_voc, tmp_path, monkeypatch):
    """The working folder, with VOC photos half of which are annotated for each task, and two tutors."""
    monkeypatch.chdir(tmp_path)
    make_voc(tmp_path / "photos")
    detector(tmp_path / "detector.onnx")
    maps(tmp_path / "maps", tmp_path / "photos" / "JPEGImages", len(VOC.classes))
    return tmp_path


def run(*words):
    return main([str(word) for word in words])


def test_two_commands_with_a_voc_folder(here, capsys):
    assert run("init", "photos", "--tutor", "onnx:detector.onnx", "--tutor", "files:maps") == 0
    told = capsys.readouterr().out
    assert f"tutor of {BOXES}: 2 of the tutor's 2 classes map to ours; it knows nothing about aeroplane" in told
    assert f"tutor of {MAPS}: 20 of the tutor's 20 classes map to ours; it is asked before training" in told
    tasks = load_config(Path("tutored.yaml")).tasks
    assert [each.policy for each in tasks.values()] == ["fill", "fill"]
    assert [each.tutor for each in tasks.values()] == ["onnx:detector.onnx", "files:maps"]
    assert run("train", "tutored.yaml", *QUICK, "--json", "figures.json") == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert f"epoch 1: {BOXES} mAP 0." in told and f"{MAPS} mIoU 0." in told
    assert "┃ task         ┃ figure ┃ last  ┃ best  ┃ best epoch ┃" in told
    course = json.loads(Path("figures.json").read_text())["course"]
    assert [(each["task"], each["figure"]) for each in course] == [(BOXES, "mAP"), (MAPS, "mIoU")]
    assert "next: tutored evaluate runs/tutored/checkpoint" in told

    result = json.loads(Path("runs/tutored/result.json").read_text())
    own = result["config"]["tasks"][BOXES]
    assert own | {"tutor": "onnx:detector.onnx", "store": None} == own, "another folder does not make it another run"
    for task, images in ((BOXES, 5), (MAPS, 5)):
        store = Store.open(Path("runs/tutored/stores") / task)
        assert len(store) == 8 and result["stores"][task][0]["ids_sha256"] == store.identity["ids_sha256"]
        assert f"audit of {task}, {images} images with ground truth:" in told
        assert (store.path / "audit.json").is_file() and (store.path / "audit.html").is_file()
    again = tutored.train(load_config(Path("runs/tutored/config.yaml")), "runs/python")
    assert again["figures"] == result["figures"] and Path("runs/python/stores", MAPS).is_dir()
    # As `tutored label` does it, to the byte.
    dataset = open_dataset("voc:photos", "train")
    label(open_tutor("onnx:detector.onnx"), dataset, "by-hand")
    names = ("manifest.json", "part-00000.parquet")
    for name in names:
        assert Path("by-hand", name).read_bytes() == Path("runs/tutored/stores", BOXES, name).read_bytes()


def photos(folder, kind):
    """Six pictures, on four of which a tool's user drew a cat or a dog."""
    pictures(*(folder / ("images/train" if kind == "yolo" else "") / f"p{number}.jpg" for number in range(6)))
    for number, name in enumerate(("cat", "dog", "cat", "dog")):
        if kind == "yolo":
            yolo(folder, f"{number % 2} .35 .5 .5 .75", picture=f"images/train/p{number}.jpg")
        elif kind == "labelme":
            labelme(folder, shape(name, "polygon", [1, 1], [6, 1], [6, 7], [1, 7]), name=f"p{number}")
        elif kind == "XMLs":
            write(folder / f"p{number}.xml", xml(thing(name, (2, 2, 6, 7))))
    if kind == "coco":
        boxes = ({"image_id": 1 + n, "category_id": 1 + n % 2, "bbox": [1, 1, 5, 6]} for n in range(4))
        images = [f"p{number}.jpg" for number in range(6)]
        coco_file(folder / "instances.json", *boxes, images=images, classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("kind", "told", "data", "images", "masks"),
    [
        # a fifth of what is annotated is the split val
        ("XMLs", "pictures with 4 VOC XMLs", ("voc:tutored-data", "train", 0), 5, 0),
        ("coco", "a COCO folder", ("coco:photos", "instances", 0.2), 6, 0),
        ("yolo", "a YOLO folder", ("yolo:photos", "train", 0.2), 6, 0),
        ("labelme", "a folder of Labelme", ("labelme:photos", "all", 0.2), 6, 4),
    ],
)
def test_two_commands_with_folders_of_tools(tmp_path, monkeypatch, capsys, kind, told, data, images, masks):
    """One split, objects on some pictures: a share is held out, and tutors answer for the others."""
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), kind)
    detector(Path("detector.onnx"))
    maps(Path("maps"), next(Path("photos").rglob("p0.jpg")).parent, 2)
    assert run("init", "photos", "--tutor", "onnx:detector.onnx", "--tutor", f"{MAPS}=files:maps") == 0
    printed = capsys.readouterr().out
    assert f"photos: {told}" in printed
    assert ("2 of 6 images, such as p4, have no object" in printed) == (kind != "XMLs")
    found = load_config(Path("tutored.yaml")).data
    assert (found.train, found.split, found.held_out) == data
    assert run("data", "check", "--config", "tutored.yaml") == 0
    assert run("train", "tutored.yaml", "--out", "run", *QUICK) == 0
    printed = capsys.readouterr().out
    assert f"epoch 1: {BOXES} mAP 0." in printed and f"run/stores/{BOXES}/audit.json" in printed
    assert [len(Store.open(f"run/stores/{task}")) for task in (BOXES, MAPS)] == [images, images]
    assert (f"run/stores/{MAPS}: not audited, since nothing that it answers has" in printed) == (not masks)
    figures = json.loads(Path("run/result.json").read_text())["figures"]
    assert list(figures) == [BOXES, MAPS][: 1 + bool(masks)]


def test_classes_of_pictures_alone_are_the_tutors(here, capsys):
    shutil.copytree(here / "photos" / "JPEGImages", here / "album")
    given = "{kind: onnx, weights: detector.onnx, score-floor: 0.5}"
    assert run("init", "album", "--tutor", given) == 0
    assert f"tutor of {BOXES}: the 2 classes to learn are the tutor's" in capsys.readouterr().out
    task = load_config(Path("tutored.yaml")).tasks[BOXES]
    assert task.classes == ("cat", "dog")
    assert task.tutor == {"kind": "onnx", "weights": "detector.onnx", "score-floor": 0.5}
    assert run("train", "tutored.yaml", *QUICK) == 0
    told = capsys.readouterr().out
    assert "note: no figures: nothing to validate on; set data.held_out (such as 0.2), or data.val_split" in told
    assert Store.open(f"runs/tutored/stores/{BOXES}").identity["score_floor"] == 0.5


def config_of(here, **keys):
    tasks = {BOXES: {"policy": "fill", "tutor": "onnx:detector.onnx"} | keys.pop(BOXES, {}), MAPS: keys.pop(MAPS, {})}
    content = {"data": {"train": "voc:photos", **keys}, "tasks": tasks, "student": TINY}
    content["train"] = {"epochs": 1, "workers": 0, "device": "cpu", "batch": 4}
    (here / "run.yaml").write_text(yaml.safe_dump(content))
    return here / "run.yaml"


def test_what_is_labelled_is_not_asked_again(here, capsys):
    config = config_of(here)
    assert run("train", config, "--out", "run", "--student.size", "0") == 2, "nothing is asked for an impossible run"
    assert not Path("run").exists()
    assert run("train", config, "--out", "run", "--train.start", "nowhere") == 2
    part = Path("run/stores", BOXES, "part-00000.parquet")
    written, told = part.stat().st_mtime_ns, capsys.readouterr().out
    assert f"wrote run/stores/{BOXES}: 8 images" in told and f"audit of {BOXES}" in told
    assert run("train", config, "--out", "run") == 0
    told = capsys.readouterr().out
    assert f"wrote run/stores/{BOXES}" not in told and "audit of" not in told
    assert part.stat().st_mtime_ns == written

    shutil.rmtree("run/state")
    Path("run/result.json").unlink()
    assert run("train", config, "--out", "run") == 2
    assert "run holds this run already; add --resume" in capsys.readouterr().err
    yolox(Path("detector.onnx"), {1: [0.5, 0.5, 0, 0, 0.9, 0.9, 0.1]}, names="{0: 'cat', 1: 'dog'}")
    assert run("train", config, "--out", "run", "--resume") == 2
    assert "this store has another identity: 'weights_sha256' is" in capsys.readouterr().err
    detector(Path("detector.onnx"))
    for listed in Path("photos/ImageSets").glob("*/train.txt"):
        listed.write_text("".join(f"{line}\n" for line in listed.read_text().split()[:-1]))
    assert run("train", config, "--out", "run", "--resume") == 2
    assert "'images' is 8 there, 7 is asked for" in capsys.readouterr().err


def test_what_no_tutor_can_teach_is_refused_before_it_labels(here, capsys):
    yolox(here / "boats.onnx", {}, names="{0: 'boat', 1: 'kayak'}")
    for keys, told in (
        ({BOXES: {"tutor": "files:maps"}}, f"files:maps answers {MAPS}, which can't teach {BOXES}"),
        ({BOXES: {"tutor": "onnx:boats.onnx", "classes": ["cat"]}}, "no class of the tutor (boat, kayak) is one of"),
        ({BOXES: {"store": ["a", "b"]}}, "2 folders for the tutor's answers about 1 training data sets"),
        ({"tasks": [BOXES], "more": [{"train": "voc:photos", "tasks": [MAPS]}]}, "an image is in several training"),
        ({BOXES: {"tutor": {"weights": "detector.onnx"}}}, "such as onnx:FILE, or {kind: onnx:FILE, labels: coco}"),
        ({"val_split": "train"}, "share 8 images"),
    ):
        assert run("train", config_of(here, **keys), "--out", "run") == 2
        assert told in capsys.readouterr().err
        assert not Path("run").exists()


def test_each_training_data_set_has_a_store(here, make_voc):
    make_voc(here / "others", {"more": ("boxes", "none")})
    config = config_of(here, more=[{"train": "voc:others", "split": "more"}])
    assert run("train", config, "--out", "run") == 0
    assert [len(Store.open(f"run/stores/{BOXES}/{number}")) for number in (1, 2)] == [8, 2]


def test_tasks_share_the_store_of_one_tutor():
    both = {"policy": "fill", "tutor": "student:other"}
    tasks = {BOXES: both, MAPS: both, "parts": {"kind": MAPS, "policy": "replace", "tutor": "hf:x", "store": "given"}}
    placed = make_config({"data": {"train": "voc:x"}, "tasks": tasks}).placed(Path("run"))
    shared = (Path("run/stores") / f"{BOXES}-{MAPS}",)
    assert [task.stores for task in placed.tasks.values()] == [shared, shared, (Path("given"),)]
