"""Several answers made one: joined stores, and test-time augmentation."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import get_model
from torchvision.ops import box_iou

from tutored.cli import main
from tutored.cli.label_options import SHORT, spelled_out
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.softlabels.writer import finish, write_part
from tutored.structures import Instances, SoftLabels
from tutored.tutors import KINDS, open_tutor
from tutored.tutors.augmented import Augmented, mirrored
from tutored.tutors.fuse import fuse
from tutored.tutors.torchvision import Detector, Segmenter

PETS = LabelSpace.of(["cat", "dog"])
SIZE = (100, 100)


def detected(*rows: tuple[list[float], int, float], classes: int = 3) -> SoftLabels:
    """Boxes with a class and its probability; the rest is background."""
    probs = torch.zeros(len(rows), classes)
    for row, (_, index, score) in enumerate(rows):
        probs[row, 0], probs[row, index] = 1 - score, score
    boxes = torch.tensor([box for box, _, _ in rows]).reshape(-1, 4).float()
    kinds = torch.tensor([index for _, index, _ in rows], dtype=torch.int64)
    return SoftLabels(size=SIZE, boxes_xyxy=boxes, classes=kinds, probs=probs)


def store(folder: Path, answer: SoftLabels, labels: LabelSpace = PETS, **identity: Any) -> Path:
    facts = {"kind": "made", "tutor": folder.name, "labels": list(labels.names), "images": 1}
    write_part(folder, facts | identity, 0, ["a"], [answer])
    finish(folder)
    return folder


def ask(tutor: Any, image: Image.Image | None = None) -> SoftLabels:
    (found,) = tutor([image or Image.new("RGB", SIZE)], ["a"])
    return found


# Fusion


def test_fusion_by_hand() -> None:
    first = detected(([0, 0, 10, 10], 1, 0.9), ([50, 50, 60, 60], 2, 0.4))
    second = detected(([0, 0, 10, 12], 1, 0.6), ([0, 0, 10, 10], 2, 0.2))
    found = fuse([first, second], [1, 1], limit=10, floor=0)
    # IoU 10 / 12; the mean of 10 and 12, weighted by .9 and .6, is 10.8.
    assert found.boxes_xyxy.tolist() == pytest.approx(np.array([[0, 0, 10, 10.8], [50, 50, 60, 60], [0, 0, 10, 10]]))
    assert found.classes.tolist() == [1, 2, 2]
    assert found.scores.tolist() == pytest.approx([0.75, 0.2, 0.1]), "who did not find it says background"
    assert found.probs[1].tolist() == pytest.approx([0.8, 0, 0.2])
    heavy = fuse([first, second], [3, 1], limit=1, floor=0)
    assert heavy.scores.tolist() == pytest.approx([(3 * 0.9 + 0.6) / 4])
    assert len(fuse([first, second], [1, 1], limit=10, floor=0.15).scores) == 2


ROW = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(5, 40)] * 2, st.integers(1, 2), st.integers(1, 99))


TIED = [[(0, 2, 5, 5, 1, 65)], [(1, 0, 5, 5, 1, 32)], [(2, 0, 5, 5, 1, 32)]]
"""The mean of the last two scores is a third of the first one, as the first alone has."""


@given(st.lists(st.lists(ROW, max_size=6), min_size=2, max_size=3))
@example(TIED)
def test_boxes_and_scores_are_those_of_ensemble_boxes(rows: list[list[tuple[int, ...]]]) -> None:
    taken: set[int] = set()
    answers = []
    for number, view in enumerate(rows):
        made = []
        for x, y, width, height, index, score in view:
            distinct = score * 3 + number  # no ties, whose order is anybody's
            box = [x, y, x + width, y + height]
            # Of an answer's boxes on one object they make one; see the next test.
            apart = [other for other, kind, _ in made if kind == index and box_iou(*map(as_rows, (box, other))) > 0]
            if distinct not in taken and not apart:
                taken.add(distinct)
                made.append((box, index, distinct / 301))
        answers.append(detected(*made))
    found = fuse(answers, [1.0] * len(answers), limit=100, floor=0)
    theirs = weighted_boxes_fusion(
        [(answer.boxes_xyxy / 100).numpy() for answer in answers],
        [answer.scores.numpy() for answer in answers],
        [answer.classes.numpy() for answer in answers],
    )
    ours = torch.cat([found.classes[:, None], found.scores[:, None], found.boxes_xyxy / 100], dim=1)
    expected = np.concatenate([theirs[2][:, None], theirs[1][:, None], theirs[0]], axis=1).astype(np.float32)
    left = list(torch.from_numpy(expected))
    for row in ours:  # one by one: fused scores may tie
        same = [number for number, other in enumerate(left) if torch.allclose(row, other, rtol=0, atol=1e-4)]
        assert same, f"{row.tolist()} is none of {[other.tolist() for other in left]}"
        left.pop(same[0])
    assert not left


def as_rows(box: list[int]) -> torch.Tensor:
    return torch.tensor([box], dtype=torch.float32)


@given(st.lists(ROW, max_size=8), st.integers(1, 3))
def test_an_answer_fused_with_itself_stays_what_it_is(rows: list[tuple[int, ...]], times: int) -> None:
    boxes = [([x, y, x + width, y + height], index, score / 100) for x, y, width, height, index, score in rows]
    answer = detected(*sorted(boxes, key=lambda row: -row[2]))
    found = fuse([answer] * times, [1.0] * times, limit=100, floor=0)
    assert found.classes.tolist() == answer.classes.tolist()
    assert torch.allclose(found.boxes_xyxy, answer.boxes_xyxy) and torch.allclose(found.probs, answer.probs)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_who_are_all_sure_are_together_no_surer_than_sure(weights: list[int]) -> None:
    sure = detected(([0, 0, 40, 40], 1, 1.0))
    masks = {"classes": torch.tensor([1]), "scores": torch.tensor([1.0]), "masks": torch.ones(1, 28, 28)}
    answer = dataclasses.replace(sure, instances=Instances(boxes_xyxy=sure.boxes_xyxy, **masks))
    found = fuse([answer] * len(weights), [float(weight) for weight in weights], limit=9, floor=0)
    assert 1 - 1e-6 < float(found.scores) <= 1 and 1 - 1e-6 < float(found.instances.scores) <= 1


def test_a_double_of_one_answer_is_no_second_vote() -> None:
    sure, double = ([0, 0, 40, 40], 1, 0.9), ([2, 0, 42, 40], 1, 0.8)
    found = fuse([detected(sure, double), detected()], [1, 1], limit=10, floor=0)
    assert found.scores.tolist() == pytest.approx([0.45, 0.4]), "the other answer found neither"
    found = fuse([detected(sure, double), detected(sure)], [1, 1], limit=10, floor=0)
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert found.boxes_xyxy.tolist() == [[0, 0, 40, 40], [2, 0, 42, 40]]


def test_maps_are_averaged_on_the_finest_grid() -> None:
    fine, coarse = torch.zeros(2, 2, 4), torch.zeros(2, 1, 1)
    fine[0], coarse[1] = 1, 1
    found = fuse([SoftLabels(size=SIZE, map=fine), SoftLabels(size=SIZE, map=coarse)], [3, 1], limit=1, floor=0)
    assert found.map.shape == (2, 2, 4) and found.map[:, 1, 3].tolist() == [0.75, 0.25]
    assert found.boxes_xyxy is None and found.instances is None


def test_masks_are_averaged_in_the_place_where_they_lie() -> None:
    def seen(box: list[float], mask: torch.Tensor, score: float) -> SoftLabels:
        parts = {"boxes_xyxy": torch.tensor([box]), "classes": torch.tensor([1]), "scores": torch.tensor([score])}
        return SoftLabels(size=SIZE, instances=Instances(masks=mask[None], **parts))

    left = torch.zeros(28, 28)
    left[:, :14] = 1
    same = fuse([seen([0.0, 0, 28, 28], left, 0.8)] * 2, [1, 1], limit=9, floor=0).instances
    assert torch.allclose(same.masks[0], left, atol=1e-5) and same.scores.tolist() == pytest.approx([0.8])
    moved = fuse(
        [seen([0.0, 0, 28, 28], left, 0.8), seen([8.0, 0, 36, 28], left, 0.8)], [1, 1], limit=9, floor=0
    ).instances
    assert moved.boxes_xyxy.tolist() == [[4, 0, 32, 28]]
    # In the frame from 4 to 32: the first covers 4 to 14, the second 8 to 22.
    assert moved.masks[0, 14, [2, 7, 13, 20]].tolist() == pytest.approx([0.5, 1, 0.5, 0], abs=1e-4)


# Joined stores


def test_stores_are_joined_in_the_classes_that_all_know(tmp_path: Path) -> None:
    other = LabelSpace.of(["dog", "bird", "cat"])
    first = store(tmp_path / "first", detected(([0, 0, 10, 10], 1, 0.9), ([40, 40, 60, 60], 2, 0.8)))
    second = store(tmp_path / "second", detected(([0, 0, 10, 10], 3, 0.5), ([0, 0, 90, 90], 2, 0.9), classes=4), other)
    tutor = open_tutor("joined", join=[first, second], shares=[3, 1])
    assert tutor.labels == PETS and tutor.identity["shares"] == [3, 1]
    assert tutor.identity["tutor"] == "first and second" and tutor.identity["2.labels"] == list(other.names)
    found = ask(tutor)
    assert found.boxes_xyxy.tolist() == [[0, 0, 10, 10], [40, 40, 60, 60]] and found.classes.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6], abs=1e-4)


def test_maps_of_stores_are_joined_and_a_missing_answer_is_no_answer(tmp_path: Path) -> None:
    cat = torch.zeros(3, 1, 2)
    cat[1, 0, 0] = cat[0, 0, 1] = 1
    dog = cat[[0, 2, 1]]
    paths = [store(tmp_path / name, SoftLabels(size=SIZE, map=drawn)) for name, drawn in (("a", cat), ("b", dog))]
    bus = store(tmp_path / "d", SoftLabels(size=SIZE, map=cat[:2]), LabelSpace.of(["bus"]))
    unasked = store(tmp_path / "c", replace(detected(), map=None))
    assert ask(open_tutor("joined", join=paths)).map[:, 0].T.tolist() == [[0, 0.5, 0.5], [1, 0, 0]]
    for join, message in (
        (paths[:1], "give two stores or more"),
        ([paths[0], unasked], "answer no task in common"),
        ([paths[0], bus], "no class in common"),
    ):
        with pytest.raises(InputError, match=message):
            open_tutor("joined", join=join)
    for shares in ([1.0], [1, 0], [1, float("inf")], [1, float("nan")], [1e308, 1e308]):
        with pytest.raises(InputError, match="one positive number for each of the 2 stores, none of them infinite"):
            open_tutor("joined", join=paths, shares=shares)
    with pytest.raises(InputError, match="does not look at the images"):
        open_tutor("joined", join=paths, flip=True)


def test_the_command_joins_stores(voc_folder: Path, tmp_path: Path) -> None:
    from made import truthful
    from tutored.data import open_dataset
    from tutored.labels import VOC
    from tutored.softlabels import Store
    from tutored.tutors.label import label

    dataset = open_dataset(f"voc:{voc_folder}", "val")

    class Truth:
        labels = VOC
        identity = {"kind": "made", "tutor": "truth"}  # noqa: RUF012

        def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
            return [truthful(dataset.ground_truth(image_id), len(VOC)) for image_id in image_ids]

    for name in ("a", "b"):
        label(Truth(), dataset, tmp_path / name)
    words = ["label", "joined", "--join", str(tmp_path / "a"), str(tmp_path / "b"), "--shares", "1,2"]
    assert main([*words, "--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "out")]) == 0
    one, both = Store.open(tmp_path / "a")["val_000"], Store.open(tmp_path / "out")["val_000"]
    assert torch.equal(both.boxes_xyxy, one.boxes_xyxy) and torch.equal(both.classes, one.classes)
    assert torch.allclose(both.map, one.map, atol=1 / 255)


# Test-time augmentation


class Left:
    """A tutor that sees a cat in the left half, four pixels from the border, and asks for no scale."""

    labels = PETS
    identity = {"tutor": "left", "max_boxes": 5, "score_floor": 0.01}  # noqa: RUF012

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        drawn = torch.zeros(3, 1, 4)
        drawn[1, 0, :2] = drawn[0, 0, 2:] = 1
        return [replace(detected(([4, 10, 44, 90], 1, 0.8)), map=drawn) for _ in images]


@pytest.mark.parametrize("name", ["max_boxes", "total"])
def test_a_mean_over_views_keeps_as_many_boxes_as_the_tutor_may(name: str) -> None:
    tutor = Left()
    tutor.identity = {"tutor": "left", name: 1}
    assert len(ask(Augmented(tutor, flip=True)).scores) == 1, "of a cat on the left and one on the right"


def test_mirrored_answers_are_mirrored_back() -> None:
    found = ask(Augmented(Left(), flip=True))
    assert found.boxes_xyxy.tolist() == [[4, 10, 44, 90], [56, 10, 96, 90]]
    assert found.scores.tolist() == pytest.approx([0.4, 0.4]) and found.map[1, 0].tolist() == [0.5] * 4
    twice = mirrored(mirrored(Left()([Image.new("RGB", SIZE)], ["a"])[0]))
    assert twice.boxes_xyxy.tolist() == [[4, 10, 44, 90]]
    assert Augmented(Left(), flip=True).identity == Left.identity | {"flip": True, "scales": [1.0]}
    with pytest.raises(InputError, match="left takes pictures of one size only"):
        Augmented(Left(), scales=(0.5, 1))
    for scales in ((1, 1), (1, 0), (1, float("inf"))):
        with pytest.raises(InputError, match="different positive numbers"):
            Augmented(Left(), scales=scales)


def test_a_sliver_that_has_no_width_when_mirrored_is_left_out() -> None:
    """Between 100 and 100 - 1e-6 float32 knows no number."""
    boxes = torch.tensor([[0, 10, 1e-6, 50], [4, 10, 44, 90]])
    found = {"boxes_xyxy": boxes, "classes": torch.tensor([1, 2])}
    masks = torch.arange(8.0).reshape(2, 2, 2) / 8
    seen = Instances(**found, scores=torch.tensor([0.9, 0.8]), masks=masks)
    probs = torch.tensor([[0.1, 0.9, 0], [0.2, 0, 0.8]])
    turned = mirrored(SoftLabels(size=SIZE, **found, probs=probs, instances=seen))
    assert turned.boxes_xyxy.tolist() == turned.instances.boxes_xyxy.tolist() == [[56, 10, 96, 90]]
    assert turned.classes.tolist() == turned.instances.classes.tolist() == [2]
    assert torch.equal(turned.probs, probs[1:]) and turned.instances.scores.tolist() == pytest.approx([0.8])
    assert turned.instances.masks.tolist() == [[[0.625, 0.5], [0.875, 0.75]]]


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


def test_a_segmenters_scales_are_those_of_its_input() -> None:
    torch.manual_seed(0)
    network = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3).eval()
    seen: list[tuple[int, ...]] = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    tutor = Segmenter(network, PETS.names, {"tutor": "lraspp"}, 8)
    found = ask(Augmented(tutor, flip=True, scales=(0.5, 1.0)), picture())
    assert seen == [(260, 346), (520, 693)] * 2
    views = [ask(tutor, picture()).map, ask(tutor.at_scale(0.5), picture()).map]
    flipped = picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    views += [ask(view, flipped).map.flip(-1) for view in (tutor, tutor.at_scale(0.5))]
    assert torch.allclose(found.map, torch.stack(views).mean(0), atol=1e-5)


def test_a_detectors_scales_are_those_of_its_input_and_ssd_has_none() -> None:
    small = {"weights": None, "weights_backbone": None, "num_classes": 3}
    network = get_model("fasterrcnn_mobilenet_v3_large_320_fpn", min_size=64, max_size=96, **small).eval()
    tutor = Detector(network, PETS.names, {"tutor": "faster"}, 0.01, None, 10, 0.05)
    scaled = tutor.at_scale(1.5)
    assert scaled.model.transform.min_size == (96,) and scaled.model.transform.max_size == 144
    assert tutor.model.transform.min_size == (64,), "the tutor itself stays"
    assert scaled.model.backbone is tutor.model.backbone, "the weights are shared"
    ssd = get_model("ssdlite320_mobilenet_v3_large", **small).eval()
    with pytest.raises(InputError, match="ssd takes pictures of one size only"):
        open_scaled(Detector(ssd, PETS.names, {"tutor": "ssd"}, 0.01, None, 10, 0.05))


def open_scaled(tutor: Any) -> Augmented:
    return Augmented(tutor, scales=(0.75, 1.0))


# One name


def test_a_tutor_has_one_name() -> None:
    assert spelled_out(["label", "hf:a:b", "--flip"]) == ["label", "hf", "--model=a:b", "--flip"]
    assert spelled_out(["label", "onnx", "--weights", "x"]) == ["label", "onnx", "--weights", "x"]
    assert spelled_out(["train", "onnx:x"]) == ["train", "onnx:x"]
    assert {kind: f"--{known.first}" for kind, known in KINDS.items() if known.first} == SHORT
    with pytest.raises(InputError, match="unknown torchvision model 'yolo'"):
        open_tutor("torchvision:yolo")
    with pytest.raises(InputError, match="the tutor `files` is not named like this"):
        open_tutor("files:folder")


def test_the_command_takes_the_short_name(
    voc_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *given: (_ for _ in ()).throw(AssertionError("no network")))
    data = ["--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "out")]
    assert main(["label", f"hf:{tmp_path}", *data]) == 2
    assert "no config.json" in capsys.readouterr().err
    for number in ("x", "inf", "0", "nan", "-1"):
        assert main(["label", "hf:nobody/nothing", "--scales", f"0.5,{number}", *data]) == 2
        assert f"{number} is not possible; give positive numbers" in capsys.readouterr().err
