"""A detector's boxes, vouched for by another tutor's maps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from made import truthful
from test_tutor_instances import BOXES, DETECTOR, MAPPER, SIZE, ask, detected, ramp, store
from tutored.cli import main
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.softlabels import Store
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor


def opened(folder: Path, boxes: SoftLabels = BOXES, maps: SoftLabels | None = None, **options: Any) -> Any:
    return open_tutor(
        "vouched",
        boxes=store(folder / "boxes", DETECTOR, {"a": boxes}),
        maps=store(folder / "maps", MAPPER, {"a": maps or ramp()}),
        **options,
    )


def test_scores_are_the_geometric_mean_of_detector_and_map(tmp_path: Path) -> None:
    tutor = opened(tmp_path)
    assert tutor.labels == DETECTOR
    answer = ask(tutor)
    assert answer.map is None and answer.instances is None
    assert torch.equal(answer.boxes_xyxy, BOXES.boxes_xyxy) and torch.equal(answer.classes, BOXES.classes)
    # Inside the first cat's box the map says .5 in the mean, as it does of the monitor: in full from .3 on. Inside the
    # last one it rises from 0 at x = 4 to 5/40 at the right edge, 25/80 over 9 pixels. It knows no trucks.
    expected = [0.8**0.5, 0.5**0.5, 0.9, (0.4 * 25 / 80 / 9 / 0.3) ** 0.5]
    assert answer.scores.tolist() == pytest.approx(expected, abs=2e-3)
    assert answer.probs.sum(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-4)


def test_what_the_map_denies_goes_to_the_box_other_classes(tmp_path: Path) -> None:
    probs = torch.tensor([[0.1, 0.0, 0.4, 0.5]])
    torn = SoftLabels(
        size=SIZE, boxes_xyxy=torch.tensor([[0.0, 0.0, 48.0, 16.0]]), classes=torch.tensor([3]), probs=probs
    )
    monitor = torch.zeros(4, 2, 6)
    monitor[3] = 1.0
    answer = ask(opened(tmp_path, torn, SoftLabels(size=SIZE, map=monitor)))
    torch.testing.assert_close(answer.probs, torch.tensor([[0.2, 0.0, 0.8, 0.0]]), atol=1e-3, rtol=0)


def test_a_box_of_probability_one_that_the_map_denies_keeps_its_sum(tmp_path: Path) -> None:
    probs = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1e-4, 1.0]])  # independent sigmoids may exceed one a little
    boxes = torch.tensor([[0.0, 0.0, 48.0, 16.0]]).repeat(2, 1)
    sure = SoftLabels(size=SIZE, boxes_xyxy=boxes, classes=torch.tensor([3, 3]), probs=probs)
    rescored = sure.rescored(torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(rescored, torch.tensor([[0.0, 0.0, 0.0, 0.25], [0.0, 0.0, 0.75, 0.25]]))
    answer = ask(opened(tmp_path, sure, SoftLabels(size=SIZE, map=torch.zeros(4, 2, 6))))
    assert answer.scores.tolist() == [0, 0] and answer.probs.sum(dim=1).max() <= 1.001


def test_of_two_names_for_one_class_the_map_speaks_for_the_one_it_is_folded_into(tmp_path: Path) -> None:
    twice = LabelSpace.of(["tv", "tvmonitor", "cat"])
    boxes = store(tmp_path / "boxes", twice, {"a": detected(([0, 0, 12, 16], 1, 0.5), ([0, 0, 12, 16], 2, 0.5))})
    maps = store(tmp_path / "maps", MAPPER, {"a": ramp()})  # it says tvmonitor, almost 1 at the left
    assert ask(open_tutor("vouched", boxes=boxes, maps=maps)).scores.tolist() == pytest.approx(
        [0.5, 0.5**0.5], abs=1e-3
    )


def test_a_box_between_two_cells_reads_both(tmp_path: Path) -> None:
    columns = torch.zeros(4, 1, 2)
    columns[2, 0, 1] = 0.4  # cat on the right half; between the cells' centres, at x = 12 and 36, it rises evenly
    answer = ask(opened(tmp_path, detected(([18, 0, 30, 16], 3, 0.6)), SoftLabels(size=SIZE, map=columns)))
    assert answer.scores.item() == pytest.approx((0.6 * 0.2 / 0.3) ** 0.5, abs=2e-3)


def test_where_agreement_is_full(tmp_path: Path) -> None:
    tutor = opened(tmp_path, detected(([12, 0, 36, 16], 3, 0.8)), full=1.0)
    assert tutor.identity["full"] == 1 and tutor.identity["maps.weights_sha256"] == "ab"
    answer = ask(tutor)
    assert answer.scores.item() == pytest.approx((0.8 * 0.5) ** 0.5, abs=2e-3)
    for full in (0.0, 1.1):
        with pytest.raises(InputError, match=f"full: {full}; possible: above 0"):
            open_tutor("vouched", boxes=tmp_path / "boxes", maps=tmp_path / "maps", full=full)


def test_without_an_answer_of_both_there_is_none(tmp_path: Path) -> None:
    unasked = SoftLabels(size=SIZE)
    tutor = open_tutor(
        "vouched",
        boxes=store(tmp_path / "b", DETECTOR, {"a": unasked, "b": BOXES, "c": detected()}),
        maps=store(tmp_path / "m", MAPPER, {"a": ramp(), "b": unasked, "c": ramp()}),
    )
    assert ask(tutor, image_id="a").boxes_xyxy is None
    assert ask(tutor, image_id="b").boxes_xyxy is None
    assert len(ask(tutor, image_id="c").boxes_xyxy) == 0, "nothing found is an answer"
    with pytest.raises(InputError, match="b has no answer for d; label this split"):
        ask(tutor, image_id="d")


def test_stores_that_are_refused(tmp_path: Path) -> None:
    boxes, maps = store(tmp_path / "b", DETECTOR, {"a": BOXES}), store(tmp_path / "m", MAPPER, {"a": ramp()})
    foreign = store(tmp_path / "f", LabelSpace.of(["lamp", "door", "window"]), {"a": ramp()})
    with pytest.raises(InputError, match="m answers segmentation, not detection"):
        open_tutor("vouched", boxes=maps, maps=maps)
    with pytest.raises(InputError, match=r"no class in common: truck, tv, cat, \.\.\. and lamp, door, window"):
        open_tutor("vouched", boxes=boxes, maps=foreign)


def test_maps_correct_a_detector_that_mistakes_classes(voc_folder: Path, tmp_path: Path) -> None:
    """A detector that is sure of a wrong class everywhere, and half as sure of the right one."""
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    truths = {image_id: truthful(dataset.ground_truth(image_id), len(VOC)) for image_id in dataset.ids}
    present = sorted({int(number) for truth in truths.values() for number in truth.classes})
    after = dict(zip(present, present[1:] + present[:1], strict=True))
    mistaken = {}
    for image_id, truth in truths.items():
        wrong = torch.tensor([after[number] for number in truth.classes.tolist()], dtype=torch.int64)
        halved = truth.probs * 0.5
        halved[:, 0] = 0.5
        mistaken[image_id] = replace(
            truth,
            boxes_xyxy=torch.cat([truth.boxes_xyxy, truth.boxes_xyxy]),
            classes=torch.cat([truth.classes, wrong]),
            probs=torch.cat([halved, torch.eye(len(VOC))[wrong] * 0.9]),
            map=None,
        )
    boxes, maps = store(tmp_path / "boxes", VOC, mistaken), store(tmp_path / "maps", VOC, truths)
    data = ["--data", f"voc:{voc_folder}", "--split", "val"]
    command = ["label", "vouched", "--boxes", str(boxes), "--maps", str(maps), *data, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert Store.open(tmp_path / "out").tasks == ("detection",)

    def judged(subject: Path) -> float:
        assert main(["evaluate", str(subject), *data, "--json", str(tmp_path / "figures.json")]) == 0
        return float(json.loads((tmp_path / "figures.json").read_text())["mAP_voc_area@.5"])

    assert judged(boxes) < 0.9
    assert judged(tmp_path / "out") > 0.99
