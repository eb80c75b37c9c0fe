"""Instances made of a detector's boxes and another tutor's maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from made import truthful
from tutored.cli import main
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Folded, Store
from tutored.softlabels.writer import finish, write_part
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor
from tutored.tutors.instances import SIDE

DETECTOR = LabelSpace.of(["truck", "tv", "cat"])
MAPPER = LabelSpace.of(["sheep", "cat", "tvmonitor"])
SIZE = (16, 48)
RAMP = torch.arange(6) / 5
"""A map's values at the centres 4, 12, ..., 44 of six cells of 8 pixels: (x - 4) / 40 between them."""


def store(folder: Path, labels: LabelSpace, answers: dict[str, SoftLabels], **identity: Any) -> Path:
    facts = {"kind": "made", "tutor": "somebody", "weights_sha256": "ab", "labels": list(labels.names)}
    write_part(folder, {**facts, "images": len(answers), **identity}, 0, list(answers), list(answers.values()))
    finish(folder)
    return folder


def detected(*rows: tuple[list[float], int, float]) -> SoftLabels:
    """Boxes with a class and its probability; the rest is background."""
    probs = torch.zeros(len(rows), len(DETECTOR))
    for row, (_, index, score) in enumerate(rows):
        probs[row, 0], probs[row, index] = 1 - score, score
    return SoftLabels(
        size=SIZE,
        boxes_xyxy=torch.tensor([box for box, _, _ in rows]).reshape(-1, 4).float(),
        classes=torch.tensor([index for _, index, _ in rows], dtype=torch.int64),
        probs=probs,
    )


def ramp() -> SoftLabels:
    """The cat's probability rises from left to right, the monitor's falls."""
    rows = torch.stack([torch.zeros(6), torch.zeros(6), RAMP, 1 - RAMP])
    return SoftLabels(size=SIZE, map=rows[:, None].expand(4, 2, 6).contiguous())


BOXES = detected(
    ([12, 0, 36, 16], 3, 0.8), ([0, 4, 48, 12], 2, 0.5), ([0, 0, 48, 16], 1, 0.9), ([0, 0, 9, 9], 3, 0.4)
)  # fmt: skip


def opened(folder: Path, boxes: SoftLabels = BOXES, maps: SoftLabels | None = None, **options: Any) -> Any:
    return open_tutor(
        "instances",
        boxes=store(folder / "boxes", DETECTOR, {"a": boxes}),
        maps=store(folder / "maps", MAPPER, {"a": maps or ramp()}),
        **options,
    )


def ask(tutor: Any, size: tuple[int, int] = SIZE, image_id: str = "a") -> SoftLabels:
    (answer,) = tutor([Image.new("RGB", size[::-1])], [image_id])
    return answer


def test_a_mask_is_the_map_read_at_the_centres_of_a_grid_over_the_box(tmp_path: Path) -> None:
    tutor = opened(tmp_path)
    assert tutor.labels.classes == ("cat", "tvmonitor"), "what both know, in the maps' order"
    answer = ask(tutor)
    assert answer.boxes_xyxy is None and answer.map is None
    made = answer.instances
    assert made.boxes_xyxy.tolist() == [[12, 0, 36, 16], [0, 4, 48, 12]], "no truck, and no cat under the floor"
    assert made.classes.tolist() == [1, 2]
    assert made.scores.tolist() == pytest.approx([0.8, 0.5])
    assert made.masks.shape == (2, SIDE, SIDE)
    x = 12 + (torch.arange(SIDE) + 0.5) / SIDE * 24
    torch.testing.assert_close(made.masks[0], ((x - 4) / 40).expand(SIDE, SIDE), atol=1e-5, rtol=0)
    x = (torch.arange(SIDE) + 0.5) / SIDE * 48
    falling = 1 - ((x - 4) / 40).clamp(0, 1)  # beyond the outermost centres the map stays as it is
    torch.testing.assert_close(made.masks[1], falling.expand(SIDE, SIDE), atol=1e-5, rtol=0)


def test_rows_of_a_map_are_rows_of_the_mask(tmp_path: Path) -> None:
    halves = torch.zeros(4, 4, 2)  # cells of 4 x 24 pixels
    halves[2, :2] = halves[0, 2:] = 1.0  # the upper two rows of cells are cat
    mask = ask(opened(tmp_path, detected(([0, 0, 48, 16], 3, 1.0)), SoftLabels(size=SIZE, map=halves))).instances.masks
    torch.testing.assert_close(mask[0, :10], torch.ones(10, SIDE))
    torch.testing.assert_close(mask[0, -10:], torch.zeros(10, SIDE))
    assert mask.max() <= 1
    assert mask[0, 13].tolist() == pytest.approx([0.5 + 0.5 * (16 / SIDE) / 4] * SIDE), "half a row above the middle"


def test_one_certain_instance_over_the_image_draws_the_map_again(tmp_path: Path) -> None:
    tutor = opened(tmp_path, detected(([0, 0, 48, 16], 3, 1.0)))
    again = Folded({"a": ask(tutor)}, ClassMap.by_name(tutor.labels, MAPPER))["a"]
    torch.testing.assert_close(again.map[2], RAMP.expand(2, 6), atol=0.01, rtol=0)
    assert again.unknown == (1,), "the detector knows no sheep, so there may be some"


@pytest.mark.parametrize(("floor", "classes"), [(0.0, [1, 2, 1]), (0.4, [1, 2, 1]), (0.6, [1]), (0.81, [])])
def test_the_score_floor(tmp_path: Path, floor: float, classes: list[int]) -> None:
    made = ask(opened(tmp_path, score_floor=floor)).instances
    assert made.classes.tolist() == classes
    assert made.masks.shape == (len(classes), SIDE, SIDE)


def test_without_an_answer_of_both_there_is_none(tmp_path: Path) -> None:
    unasked = SoftLabels(size=SIZE)
    tutor = open_tutor(
        "instances",
        boxes=store(tmp_path / "b", DETECTOR, {"a": unasked, "b": BOXES, "c": detected()}),
        maps=store(tmp_path / "m", MAPPER, {"a": ramp(), "b": unasked, "c": ramp()}),
    )
    assert ask(tutor, image_id="a").instances is None
    assert ask(tutor, image_id="b").instances is None
    assert len(ask(tutor, image_id="c").instances.scores) == 0, "nothing found is an answer"
    with pytest.raises(InputError, match="b has no answer for d; label this split"):
        ask(tutor, image_id="d")
    with pytest.raises(InputError, match="saw c with 48 x 16 pixels, here it has 16 x 48"):
        ask(tutor, size=SIZE[::-1], image_id="c")


def test_stores_that_are_refused(tmp_path: Path) -> None:
    boxes, maps = store(tmp_path / "b", DETECTOR, {"a": BOXES}), store(tmp_path / "m", MAPPER, {"a": ramp()})
    foreign = store(tmp_path / "f", LabelSpace.of(["lamp", "door", "window"]), {"a": ramp()})
    with pytest.raises(InputError, match="m answers segmentation, not detection"):
        open_tutor("instances", boxes=maps, maps=maps)
    with pytest.raises(InputError, match="b answers detection, not segmentation"):
        open_tutor("instances", boxes=boxes, maps=boxes)
    with pytest.raises(InputError, match=r"no class in common: truck, tv, cat, \.\.\. and lamp, door, window"):
        open_tutor("instances", boxes=boxes, maps=foreign)


@pytest.fixture
def truth(voc_folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The ground truth of val as two stores, and the command that makes instances of them."""
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    given = {image_id: truthful(dataset.ground_truth(image_id), len(VOC)) for image_id in dataset.ids}

    def command(**weights: str) -> list[str]:
        boxes, maps = (
            str(store(tmp_path / f"{name}-{weights.get(name)}", VOC, given, weights_sha256=weights.get(name, "ab")))
            for name in ("boxes", "maps")
        )
        data = ["--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "out")]
        return ["label", "instances", "--boxes", boxes, "--maps", maps, *data]

    return command


def test_truthful_tutors_give_truthful_instances(
    truth: Callable[..., list[str]], voc_folder: Path, tmp_path: Path
) -> None:
    assert main(truth()) == 0
    made = Store.open(tmp_path / "out")
    assert made.tasks == ("segmentation",)
    expected = open_dataset(f"voc:{voc_folder}", "val").ground_truth("val_000")
    assert torch.equal(made["val_000"].instances.boxes_xyxy, expected.boxes_xyxy)
    judged = ["evaluate", str(tmp_path / "out"), "--data", f"voc:{voc_folder}", "--split", "val", "--json"]
    assert main([*judged, str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["mIoU"] > 0.85, "drawn on cells of 8 pixels"


@pytest.mark.parametrize("changed", ["boxes", "maps"])
def test_a_changed_tutor_is_refused_by_its_field(
    truth: Callable[..., list[str]], changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(truth()) == 0
    assert main([*truth(**{changed: "cd"}), "--resume"]) == 2
    assert f"'{changed}.weights_sha256' is 'ab' there, 'cd' is asked for" in capsys.readouterr().err
