from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import SmallFiles
from tutored.checkpoint import save_checkpoint
from tutored.config import Decode, Student, make_config
from tutored.device import choose_device
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.predict import (
    CocoNumbers,
    Predictor,
    choose_kinds,
    files,
    find_pictures,
    predict_dataset,
    predict_files,
    sort_inputs,
)
from tutored.structures import GroundTruth, Outputs, Prediction
from tutored.student import BlitzNet, preprocess

PETS = LabelSpace.of(["cat", "dog"])
TINY = Student(backbone="mobilenetv3_small_050", size=64, extra_width=32, up_width=16, map_width=8)


class LeftRight(BlitzNet):
    """Says: a dog in the left half, nothing else, and the map's left half is cat."""

    def forward(self, images: Tensor) -> Outputs:
        count = len(images)
        logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(count, 1, 3)
        map_logits = torch.zeros(count, 3, 2, 2)
        map_logits[:, 1, :, 0] = 1
        map_logits[:, 0, :, 1] = 1
        return Outputs(torch.tensor([[0.0, 0, 32, 64]]), torch.zeros(count, 1, 4), logits, map_logits)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(LeftRight(TINY, PETS), Decode(score_floor=0.15), batch=2)


def test_preprocessing_averages_and_scales() -> None:
    image = Image.fromarray(np.array([[[0, 255, 100], [255, 255, 200]] * 4] * 4, dtype=np.uint8))  # 8 x 4
    pixels = preprocess([image, Image.new("L", (3, 5), 51)], 2)
    assert pixels.shape == (2, 3, 2, 2) and pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[1], torch.full((3, 2, 2), 0.2))
    torch.testing.assert_close(pixels[0, 1], torch.ones(2, 2))
    # An even mix of 0 and 255 in every cell: without antialiasing the cell would be one or the other.
    torch.testing.assert_close(pixels[0, 0], torch.full((2, 2), 0.5), atol=0.07, rtol=0)


def test_preprocessing_is_pil_s_bilinear_resize() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    expected = np.asarray(noise.resize((64, 64), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    torch.testing.assert_close(preprocess([noise], 64)[0].permute(1, 2, 0), torch.from_numpy(expected))


def test_pictures_of_any_size_are_answered_in_their_own_pixels(predictor: Predictor) -> None:
    sizes = [(100, 40), (30, 30), (10, 64)]
    found = predictor([Image.new("RGB", size) for size in sizes])
    assert [item.size for item in found] == [(height, width) for width, height in sizes]
    assert found[0].boxes_xyxy is not None and found[0].classes is not None and found[0].scores is not None
    assert found[0].boxes_xyxy.tolist() == [[0, 0, 50, 40], [0, 0, 50, 40]]
    assert found[0].classes.tolist() == [2, 1]
    assert found[0].mask is not None
    assert bool((found[0].mask[:, :50] == 1).all()) and not found[0].mask[:, 50:].any()


def test_batches_do_not_change_the_answer() -> None:
    student = BlitzNet(TINY, PETS)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 30 + i, 3), dtype=np.uint8)) for i in range(5)]
    one = Predictor(student, Decode(score_floor=0.3), batch=1)(images)
    many = Predictor(student, Decode(score_floor=0.3), batch=4)(images)
    for a, b in zip(one, many, strict=True):
        assert a.scores is not None and b.scores is not None and a.boxes_xyxy is not None and b.boxes_xyxy is not None
        assert a.mask is not None and b.mask is not None
        assert len(a.scores) > 0
        torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=1e-4)
        assert float((a.mask == b.mask).float().mean()) > 0.99


class Album:
    name = "album"
    labels = PETS
    ids = ("a", "b", "c")

    def image(self, image_id: str) -> Image.Image:
        return Image.new("RGB", (20 + 10 * self.ids.index(image_id), 10))

    def ground_truth(self, image_id: str) -> GroundTruth:
        raise NotImplementedError


def test_a_data_set_in_its_order_with_progress(predictor: Predictor) -> None:
    seen: list[tuple[int, int]] = []
    found = list(predict_dataset(predictor, Album(), lambda done, total: seen.append((done, total))))
    assert [(image_id, item.size) for image_id, item in found] == [("a", (10, 20)), ("b", (10, 30)), ("c", (10, 40))]
    assert seen == [(2, 3), (3, 3)]


def test_files_and_folders_become_drawings_masks_and_json(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "album" / "deep").mkdir(parents=True)
    Image.new("RGB", (40, 20), "white").save(tmp_path / "album" / "deep" / "one.PNG")
    Image.new("L", (20, 60), 9).save(tmp_path / "album" / "two.jpg")
    (tmp_path / "album" / "notes.txt").write_text("not a picture")
    Image.new("RGBA", (10, 10), "red").save(tmp_path / "three.webp")
    written = predict_files(predictor, [tmp_path / "album", tmp_path / "three.webp"], tmp_path / "out")

    assert written == tmp_path / "out" / "predictions.json"
    entries = json.loads(written.read_text())
    assert [entry["file_name"] for entry in entries] == ["deep/one.PNG"] * 2 + ["two.jpg"] * 2 + ["three.webp"] * 2
    assert entries[0] == {
        "image_id": "deep/one",
        "file_name": "deep/one.PNG",
        "category_id": 2,
        "category": "dog",
        "bbox": [0, 0, 20, 20],
        "score": 0.7,
    }
    mask = Image.open(tmp_path / "out" / "deep" / "one.mask.png")
    assert mask.mode == "P" and mask.size == (40, 20)
    assert np.array(mask)[0].tolist() == [1] * 20 + [0] * 20
    drawn = np.asarray(Image.open(tmp_path / "out" / "deep" / "one.predicted.jpg"))
    assert not np.allclose(drawn[:, : drawn.shape[1] // 2], 255)
    there = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*")}
    names = ("deep/one", "two", "three")
    assert there == {f"{name}{end}" for name in names for end in (".predicted.jpg", ".mask.png")} | {"predictions.json"}


def test_only_boxes_from_the_score_on_are_drawn(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor | None] = []

    def note(image: Image.Image, prediction: Prediction, labels: LabelSpace, _side: int) -> Image.Image:
        assert labels == PETS
        shown.append(prediction.classes)
        return image

    monkeypatch.setattr(files, "draw_small", note)
    Image.new("RGB", (40, 20)).save(tmp_path / "one.png")
    for score in (0.5, 0.19, 0.8):
        predict_files(predictor, [tmp_path / "one.png"], tmp_path / "out", score)
    assert [classes.tolist() for classes in shown if classes is not None] == [[2], [2, 1], []]
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 2


def test_what_is_written_can_be_chosen(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "one.png")
    names = {"pictures": "one.predicted.jpg", "json": "predictions.json", "masks": "one.mask.png"}
    for kind, name in names.items():
        out = tmp_path / kind
        assert predict_files(predictor, [tmp_path / "one.png"], out, kinds=(kind,)) == (
            out / name if kind == "json" else out
        )
        assert [file.name for file in out.iterdir()] == [name]
    with pytest.raises(InputError, match="results mask: not possible; give some of pictures,json,masks"):
        predict_files(predictor, [tmp_path / "one.png"], tmp_path / "none", kinds=("mask",))
    assert not (tmp_path / "none").exists()


def test_a_student_of_one_task_writes_what_it_can(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "one.png")
    boxes = Predictor(LeftRight(TINY, PETS), tasks=("detection",))
    predict_files(boxes, [tmp_path / "one.png"], tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"one.predicted.jpg", "predictions.json"}
    with pytest.raises(InputError, match="masks: it was not taught segmentation; give some of pictures,json"):
        predict_files(boxes, [tmp_path / "one.png"], tmp_path / "none", kinds=("masks",))
    assert choose_kinds(None, ("pictures", "json"), ("segmentation",)) == ("pictures",)


def test_what_systems_hide_in_a_folder_is_no_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "a.jpg").write_bytes(b"")
    assert list(find_pictures([tmp_path])) == ["a.png"]


def test_linked_folders_are_followed_each_once(tmp_path: Path) -> None:
    album, disk = tmp_path / "album", tmp_path / "disk"
    for folder in (album / "own", disk / "deep", disk / ".thumbs"):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "x.png")
    (album / "linked").symlink_to(disk)
    (album / "again").symlink_to(album / "own")
    (disk / "round").symlink_to(album)
    assert list(find_pictures([album])) == ["linked/deep/x.png", "own/x.png"]


def test_coco_s_numbers_go_by_the_path_where_names_repeat(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "day/1.png"},
        {"id": 2, "file_name": "night/1.png"},
        {"id": 3, "file_name": "2.png"},
    ]
    content = {"images": images, "categories": [{"id": 18, "name": "dog"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    numbers = CocoNumbers.read(tmp_path / "coco.json", PETS)
    found = [{"file_name": name, "category_id": 2} for name in ("day/1.jpg", "night/1.png", "2.png", "elsewhere/2.png")]
    numbers.refuse_unlisted([entry["file_name"] for entry in found])
    assert [entry["image_id"] for entry in numbers.renumbered(found)] == [1, 2, 3, 3]
    with pytest.raises(InputError, match=r"^1.png: is not among the images .* or one of several"):
        numbers.refuse_unlisted(["1.png"])


def test_a_list_of_paths_is_sorted_and_keeps_its_folders(tmp_path: Path) -> None:
    for name in ("a/one.png", "b/one.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    lines = [f"{tmp_path}/a/one.png\n", "\n", f"{tmp_path}/a/../b/one.png\r\n", f"{tmp_path}/b/film.MP4", "camera:0\n"]
    inputs = sort_inputs(["-"], lines[:-1])
    assert inputs.videos == [tmp_path / "b" / "film.MP4"] and inputs.cameras == []
    assert list(find_pictures(inputs.pictures, inputs.under)) == ["a/one.png", "b/one.png"]
    assert sort_inputs(["x.jpg", "camera:0"], []).cameras == ["camera:0"]
    assert sort_inputs(["x.jpg", "camera:0"], []).under is None
    with pytest.raises(InputError, match="standard input is empty"):
        sort_inputs(["-"], ["\n"])
    with pytest.raises(InputError, match="stands alone"):
        sort_inputs(["-", "x.jpg"], lines)


def test_coco_s_own_tools_take_the_json(predictor: Predictor, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    Image.new("RGB", (40, 20)).save(tmp_path / "000000000139.jpg")
    dog = {"id": 1, "image_id": 139, "category_id": 18, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}
    truth = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 40, "height": 20}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 99, "name": "kite"}],
        "annotations": [dog],
    }
    (tmp_path / "coco.json").write_text(json.dumps(truth))
    coco = tmp_path / "coco.json"
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
    coco.write_text(json.dumps(truth | {"categories": [{"id": 99, "name": "kite"}]}))
    with pytest.raises(InputError, match="has none of the classes cat, dog"):
        predict_files(predictor, [tmp_path / "000000000139.jpg"], tmp_path / "out", coco=coco)


def test_results_are_not_taken_for_pictures(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "white").save(tmp_path / "one.png")
    before = (tmp_path / "one.png").read_bytes()
    for _ in range(2):
        predict_files(predictor, [tmp_path], tmp_path)
    assert (tmp_path / "one.png").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "one.mask.png",
        "one.png",
        "one.predicted.jpg",
        "predictions.json",
    ]


def test_a_lying_picture_is_turned_upright(predictor: Predictor, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "phone.jpg", exif=exif)
    predict_files(predictor, [tmp_path / "phone.jpg"], tmp_path / "out")
    assert Image.open(tmp_path / "out" / "phone.mask.png").size == (20, 40)


def test_a_picture_too_long_for_jpeg_is_drawn_smaller(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (131_000, 2)).save(tmp_path / "strip.png")
    written = predict_files(predictor, [tmp_path / "strip.png"], tmp_path / "out")
    assert Image.open(tmp_path / "out" / "strip.predicted.jpg").size == (65_500, 1)
    assert Image.open(tmp_path / "out" / "strip.mask.png").size == (131_000, 2)
    assert json.loads(written.read_text())[0]["bbox"] == [0, 0, 65_500, 2]


def test_what_is_no_picture_is_named_before_any_work(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_text("text")
    for paths, message in (
        ([tmp_path / "good.png", tmp_path / "bad.jpg"], r"bad\.jpg: not a picture"),
        ([tmp_path / "good.png", tmp_path / "gone.jpg"], r"gone\.jpg: there is no such picture"),
        ([tmp_path], r"bad\.jpg: not a picture"),
    ):
        with pytest.raises(InputError, match=message):
            predict_files(predictor, paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no picture in this folder"):
        find_pictures([tmp_path / "empty"])


def test_a_picture_cut_short_leaves_no_json(predictor: Predictor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg"):
        predict_files(predictor, [tmp_path / "cut.jpg"], tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_a_full_disk_leaves_no_cut_picture(predictor: Predictor, tmp_path: Path, small_files: SmallFiles) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    named = r"/a\.predicted\.jpg: can't be written \(File too large\)"
    with pytest.raises(OSError, match=named), small_files():
        predict_files(predictor, [tmp_path / "a.png"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "same.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "same.jpg")
    with pytest.raises(InputError, match=r"same\.jpg and .*same\.png: their results would have the same name"):
        find_pictures([tmp_path])
    assert list(find_pictures([tmp_path / "same.png", tmp_path / "same.png"])) == ["same.png"]


def test_the_device_is_the_one_asked_for_or_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for graphics_cards, apple, best in ((2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cards=graphics_cards: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=graphics_cards: cards)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=apple: there)
        assert choose_device() == torch.device(best)
        assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
        if graphics_cards:
            assert choose_device("cuda:1") == torch.device("cuda", 1)
            with pytest.raises(InputError, match=r"device cuda:2: not here; possible: cuda:0, cuda:1, cpu$"):
                choose_device("cuda:2")
    with pytest.raises(InputError, match="device cuda: not here; possible: cpu$"):
        choose_device("cuda")
    with pytest.raises(InputError, match="device gpu: not here; possible: cpu$"):
        choose_device("gpu")


def test_a_checkpoint_is_a_function_of_three_lines(tmp_path: Path) -> None:
    import tutored

    torch.manual_seed(0)
    student = BlitzNet(TINY, PETS).eval()
    run = make_config({"data": {"train": "voc:x"}, "student": TINY.model_dump(), "decode": {"score_floor": 0.0}})
    save_checkpoint(tmp_path / "checkpoint", student, run)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")

    model = tutored.load(tmp_path / "checkpoint", device="cpu")
    found = model(tmp_path / "x.png")
    (expected,) = Predictor(student, run.decode)([Image.fromarray(pixels)])
    assert model.labels == PETS and found.size == (40, 30)
    for name in ("boxes_xyxy", "classes", "scores", "mask"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(model(pixels).mask, found.mask)  # type: ignore[arg-type]
    assert torch.equal(model(str(tmp_path / "x.png")).mask, found.mask)  # type: ignore[arg-type]
    deep = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    assert torch.equal(model(deep).mask, model(np.repeat(pixels[:, :, :1], 3, axis=2)).mask)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"array of float64 \[2, 2\]; give uint8"):
        model(np.zeros((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tutored.lod  # noqa: B018
