"""A student on pictures: as a function, and from files to drawings, JSON and masks."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from made import SHAPE, pictures, refused, turned, two_tasks, write
from tutored.checkpoint import save_checkpoint
from tutored.cli import common, main
from tutored.config import make_config
from tutored.errors import InputError
from tutored.inputs import find_pictures, sort_inputs
from tutored.labels import LabelSpace
from tutored.predict import Predictor
from tutored.predict.write import predict_files
from tutored.processes import choose_device
from tutored.students.anchors import BoxOutputs
from tutored.students.blitznet import BlitzNet, BlitzNetSection
from tutored.tasks.detection import Detection
from tutored.tasks.segmentation import Segmentation

PETS = LabelSpace.of(["cat", "dog"])
TINY = BlitzNetSection(**SHAPE)
LIMITS = {"decode": {"score_floor": 0.15}}


class LeftRight(BlitzNet):
    """Says: a dog (.7) or cat (.2) in the left half, nothing else, and the map's left half is cat."""

    def __init__(self, tasks):
        super().__init__(TINY, tasks)
        for head in self.heads.values():
            if hasattr(head, "anchors_xyxy"):
                head.anchors_xyxy = torch.tensor([[0.0, 0, 32, 64]])

    def forward(self, images):
        count = len(images)
        logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(count, 1, 3)
        cells = torch.zeros(count, 3, 2, 2)
        cells[:, 1, :, 0] = cells[:, 0, :, 1] = 1
        boxes = BoxOutputs(torch.zeros(count, 1, 4), logits)
        return {name: cells if task.kind == "segmentation" else boxes for name, task in self.tasks.items()}


@pytest.fixture
def predictor():
    return Predictor(LeftRight(two_tasks(PETS, LIMITS)), batch=2)


@pytest.mark.tried("noted", "GIF, HEIC, raw or JPEG 2000 among pictures")
def test_what_is_left_out_and_what_has_no_letters_is_told(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for name in ("b.heic", "c.gif"):
        (tmp_path / name).touch()
    told = []
    student = LeftRight(two_tasks(LabelSpace.of(["cat", "猫"]), LIMITS))
    predict_files(Predictor(student), [tmp_path], tmp_path / "out", kinds=("pictures",), tell=told.append)
    about = ["2 pictures of other formats", "the font of drawings lacks letters of class names"]
    assert [note.partition(",")[0] for note in told] == about
    (tmp_path / "a.png").unlink()
    refused("no picture in this folder; possible: .*; 2 pictures of other formats, such", find_pictures, [tmp_path])


def boxes_in(written):
    return [entry for entry in json.loads(written.read_text()) if "bbox" in entry]


def test_pictures_are_answered_in_their_own_pixels(predictor):
    sizes = [(100, 40), (30, 30), (10, 64)]
    found = predictor([Image.new("RGB", size) for size in sizes])
    assert [item.size for item in found] == [(height, width) for width, height in sizes]
    boxes, mask = found[0].tasks["detection"], found[0].tasks["segmentation"].mask
    assert boxes.boxes_xyxy.tolist() == [[0, 0, 50, 40], [0, 0, 50, 40]]
    assert boxes.classes.tolist() == [2, 1]
    assert bool((mask[:, :50] == 1).all()) and not mask[:, 50:].any()


def test_files_become_drawings_masks_and_json(predictor, tmp_path):
    pictures(tmp_path / "album" / "deep" / "one.PNG", size=(40, 20), colour="white")
    pictures(tmp_path / "album" / "two.jpg", size=(20, 60), mode="L", colour=9)
    write(tmp_path / "album" / "notes.txt", "not a picture")
    pictures(tmp_path / "three.webp", mode="RGBA", colour="red")
    out, seen = tmp_path / "out", []
    paths = [tmp_path / "album", str(tmp_path / "three.webp")]
    written = predict_files(predictor, paths, str(out), progress=lambda done, count: seen.append((done, count)))

    assert written == out / "predictions.json" and seen == [(2, 3), (3, 3)]
    entries = boxes_in(written)
    assert [entry["file_name"] for entry in entries] == ["deep/one.PNG"] * 2 + ["two.jpg"] * 2 + ["three.webp"] * 2
    dog = {"category_id": 2, "category": "dog", "bbox": [0, 0, 20, 20], "score": 0.7}
    assert entries[0] == {"image_id": "deep/one", "file_name": "deep/one.PNG", "task": "detection", **dog}
    mask = Image.open(out / "deep" / "one.segmentation.predicted.png")
    assert mask.mode == "P" and mask.size == (40, 20)
    assert np.array(mask)[0].tolist() == [1] * 20 + [0] * 20
    drawn = np.asarray(Image.open(out / "deep" / "one.predicted.jpg"))
    assert not np.allclose(drawn[:, : drawn.shape[1] // 2], 255)
    there = {file.relative_to(out).as_posix() for file in out.rglob("*.*")}
    endings = (".predicted.jpg", ".segmentation.predicted.png")
    assert there == {f"{name}{end}" for name in ("deep/one", "two", "three") for end in endings} | {"predictions.json"}


def test_several_tasks_of_a_kind_have_their_own_results(tmp_path):
    parts = LabelSpace.of(["ear", "tail"])
    section = Detection.Section(kind="detection")
    tasks = {"pets": Detection("pets", PETS, section), "ears": Detection("ears", parts, section)}
    tasks |= {"whole": Segmentation("whole", PETS), "parts": Segmentation("parts", parts)}
    Image.new("RGB", (500, 20)).save(tmp_path / "one.png")
    predictor = Predictor(LeftRight(tasks), tasks=("pets", "ears", "whole", "parts"))
    written = predict_files(predictor, [tmp_path / "one.png"], tmp_path / "out")
    best = {entry["task"]: entry["category"] for entry in boxes_in(written) if entry["score"] == 0.7}
    assert best == {"pets": "dog", "ears": "tail"}
    masks = {file.name for file in (tmp_path / "out").glob("*.png")}
    assert masks == {"one.whole.predicted.png", "one.parts.predicted.png"}
    assert Image.open(tmp_path / "out" / "one.predicted.jpg").size == (1000, 20), "a panel for each map"


def test_what_is_written_can_be_chosen(predictor, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "one.png")
    names = {"pictures": "one.predicted.jpg", "json": "predictions.json", "files": "one.segmentation.predicted.png"}
    for kind, name in names.items():
        out = tmp_path / kind
        written = predict_files(predictor, [tmp_path / "one.png"], out, kinds=(kind,))
        assert written == (out / name if kind == "json" else out)
        assert [file.name for file in out.iterdir()] == [name]
    with pytest.raises(InputError, match="results masks: not possible; give some of pictures,json,files"):
        predict_files(predictor, [tmp_path / "one.png"], tmp_path / "none", kinds=("masks",))
    assert not (tmp_path / "none").exists()


def test_a_list_of_paths_is_sorted_and_keeps_its_folders(tmp_path):
    pictures(tmp_path / "a/one.png", tmp_path / "b/one.png")
    lines = [f"{tmp_path}/a/one.png\n", "\n", f"{tmp_path}/a/../b/one.png\r\n", f"{tmp_path}/b/film.MP4"]
    inputs = sort_inputs(["-"], lines)
    assert inputs.videos == [tmp_path / "b" / "film.MP4"] and inputs.cameras == []
    assert list(find_pictures(inputs.pictures, inputs.under)) == ["a/one.png", "b/one.png"]
    assert sort_inputs(["x.jpg", "camera:0"], []).cameras == ["camera:0"]
    assert sort_inputs(["x.jpg", "camera:0"], []).under is None
    refused("standard input is empty", sort_inputs, ["-"], ["\n"])
    refused("stands alone", sort_inputs, ["-", "x.jpg"], lines)


def test_coco_s_own_tools_take_the_json(predictor, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    Image.new("RGB", (40, 20)).save(tmp_path / "000000000139.jpg")
    dog = {"id": 1, "image_id": 139, "category_id": 18, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}
    truth = {"images": [{"id": 139, "file_name": "000000000139.jpg", "width": 40, "height": 20}], "annotations": [dog]}
    classes = [{"id": 18, "name": "dog"}, {"id": 99, "name": "kite"}]
    coco = write(tmp_path / "coco.json", truth | {"categories": classes})
    written = predict_files(predictor, [tmp_path / "000000000139.jpg"], tmp_path / "out", coco=coco)
    assert [(entry["image_id"], entry["category_id"]) for entry in json.loads(written.read_text())] == [(139, 18)]
    annotated = COCO(str(coco))
    evaluation = COCOeval(annotated, annotated.loadRes(str(written)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)

    Image.new("RGB", (40, 20)).save(tmp_path / "other.jpg")
    with pytest.raises(InputError, match=r"other\.jpg: is not among the images of .*coco\.json"):
        predict_files(predictor, [tmp_path / "other.jpg"], tmp_path / "out", coco=coco)
    write(coco, truth | {"categories": classes[1:]})
    with pytest.raises(InputError, match="has none of the classes cat, dog"):
        predict_files(predictor, [tmp_path / "000000000139.jpg"], tmp_path / "out", coco=coco)


def test_results_are_not_taken_for_pictures(predictor, tmp_path):
    Image.new("RGB", (40, 20), "white").save(tmp_path / "one.png")
    before = (tmp_path / "one.png").read_bytes()
    pictures(tmp_path / "clip.segmentation.predicted" / "000000.png", mode="L")
    for _ in range(2):
        predict_files(predictor, [tmp_path], tmp_path)
    assert (tmp_path / "one.png").read_bytes() == before
    results = ["one.predicted.jpg", "one.segmentation.predicted.png", "predictions.json"]
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["one.png", *results]


def test_lying_pictures_are_turned_and_very_long_ones_shrunk(predictor, tmp_path):
    exif = turned(6)  # turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "phone.jpg", exif=exif)
    Image.new("RGB", (131_000, 2)).save(tmp_path / "strip.png")  # no JPEG is so long
    written = predict_files(predictor, [tmp_path], tmp_path / "out")
    assert Image.open(tmp_path / "out" / "phone.segmentation.predicted.png").size == (20, 40)
    assert Image.open(tmp_path / "out" / "strip.predicted.jpg").size == (65_500, 1)
    assert Image.open(tmp_path / "out" / "strip.segmentation.predicted.png").size == (131_000, 2)
    assert boxes_in(written)[-1]["bbox"] == [0, 0, 65_500, 2]


def test_no_picture_is_named_before_any_work(predictor, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_text("text")
    for paths, message in (
        ([tmp_path / "good.png", tmp_path / "bad.jpg"], r"bad\.jpg: not a picture"),
        ([tmp_path / "good.png", tmp_path / "gone.jpg"], r"gone\.jpg: there is no such picture"),
        ([tmp_path], r"bad\.jpg: not a picture"),
    ):
        refused(message, predict_files, predictor, paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    refused("empty: no picture in this folder", find_pictures, [tmp_path / "empty"])


def test_the_device_is_the_one_asked_for_or_the_best(monkeypatch):
    for cards, apple, best in ((2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cards=cards: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda apple=apple: apple)
        assert choose_device() == torch.device(best) and choose_device("cpu") == torch.device("cpu")
        if cards:
            assert choose_device("cuda:1") == torch.device("cuda", 1)
            refused(r"device cuda:2: not here; possible: cuda:0, cuda:1, cpu$", choose_device, "cuda:2")
    refused("device gpu: not here; possible: cpu$", choose_device, "gpu")


def test_a_checkpoint_is_a_function_of_three_lines(tmp_path):
    import tutored

    torch.manual_seed(0)
    limits = {"tasks": {"detection": {"decode": {"score_floor": 0.0}}, "segmentation": {}}}
    run = make_config({"data": {"train": "voc:x"}, "student": SHAPE, **limits})
    student = BlitzNet(TINY, two_tasks(PETS, limits["tasks"]["detection"])).eval()
    save_checkpoint(tmp_path / "checkpoint", student, run)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")

    model = tutored.load(tmp_path / "checkpoint", device="cpu")
    assert {name: task.labels for name, task in model.tasks.items()} == {"detection": PETS, "segmentation": PETS}
    expected = Predictor(student)(Image.fromarray(pixels))
    assert expected.size == (40, 30) and len(expected.tasks["detection"].scores) > 0
    for given in (tmp_path / "x.png", str(tmp_path / "x.png"), pixels):
        found = model(given)
        boxes = [each.tasks["detection"].boxes_xyxy for each in (found, expected)]
        torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)
        assert torch.equal(found.tasks["segmentation"].mask, expected.tasks["segmentation"].mask)
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in model.student.modules()), "folded"
    images = torch.rand(2, 3, model.student.size, model.student.size)
    quick = tutored.load(tmp_path / "checkpoint", device="cpu", precision="bf16").student
    with torch.no_grad():
        exact, rounded = (each(images)["segmentation"] for each in (model.student, quick))
    assert rounded.dtype == torch.bfloat16 and all(each.dtype == torch.float32 for each in quick.parameters())
    assert 0 < float((rounded - exact).abs().max()) < 0.05 * float(exact.abs().max()), "three digits a layer"
    deep, grey = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), np.repeat(pixels[:, :, :1], 3, axis=2)
    first, second = model([deep, grey])
    assert torch.equal(first.tasks["segmentation"].mask, second.tasks["segmentation"].mask)
    with pytest.raises(InputError, match=r"array of float64 \[2, 2\]; give uint8"):
        model(np.zeros((2, 2)))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tutored.lod  # noqa: B018


def test_a_result_is_drawn_saved_and_listed(predictor, tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "dog.png")
    found = predictor(tmp_path / "dog.png")
    assert str(found) == "detection: 1 x dog; segmentation: cat 50 %"
    assert found.told(0.9) == "detection: nothing from score 0.90 on, the best has 0.70; segmentation: cat 50 %"
    frame = [found.plot(score).getpixel((198, 100)) for score in (0.9, None)]
    assert frame == [(70, 0, 0), (0, 128, 0)], "the cat's map over black, and the dog's frame over it"
    first, *_, last = found.to_coco()
    box = {"category_id": 2, "category": "dog", "bbox": [0, 0, 200, 200], "score": 0.7}
    assert first == {"image_id": "dog", "task": "detection", **box}
    assert last == {"image_id": "dog", "task": "segmentation", "category_id": 1, "category": "cat", "share": 0.5}
    assert [entry["image_id"] for entry in found.above(0.5).to_coco(7)] == [7, 7]
    written = found.save(tmp_path / "seen" / "dog.jpg")
    assert [path.name for path in written] == ["dog.jpg", "dog.segmentation.png"] and all(map(Path.is_file, written))
    refused("its suffix names no format of pictures", found.save, tmp_path / "seen")


def test_boxes_become_those_of_supervision(predictor, monkeypatch):
    found = predictor(Image.new("RGB", (40, 20)))
    monkeypatch.setitem(sys.modules, "supervision", None)
    refused("run `pip install supervision`", found.to_supervision)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    dog, both = found.to_supervision(), found.to_supervision(0.1)
    assert dog.xyxy.tolist() == [[0, 0, 20, 20]] and dog.data["class_name"].tolist() == ["dog"]
    assert both.class_id.tolist() == [2, 1] and both.confidence.round(2).tolist() == pytest.approx([0.7, 0.2])
    none = found.to_supervision(0.9)
    assert none.xyxy.shape == (0, 4) and none.data["task"].shape == (0,)


def test_predict_says_what_it_found_and_what_shows_more(predictor, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Predictor, "load", lambda *given: predictor)
    monkeypatch.setattr(common.Made, "convert", lambda _, value, *context: Path(value))
    Image.new("RGB", (40, 20)).save(tmp_path / "one.png")
    command = ["predict", "run/checkpoint", str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]
    assert main(command) == 0 and main([*command, "--score", "0.8"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "one.png: detection: 1 x dog; segmentation: cat 50 %"
    assert told[2].startswith("one.png: detection: nothing from score 0.80 on, the best has 0.70; segmentation")
    assert told[4] == "note: where nothing scored enough, --score 0.70 shows the best that was found"
