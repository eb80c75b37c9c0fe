"""Tutors made of stores: instances of boxes and maps, boxes rescored by maps, and several tutors joined."""

import json
from dataclasses import replace

import pytest
import torch

from made import ask, ask_boxes, ask_map, blank, boxed, certain_boxes, certain_map, refused, truthful
from tutored.cli import main
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Remapped, Store
from tutored.softlabels.advice import Sidecar, TaskAudit, fingerprint, tutor_of, write_sidecar
from tutored.softlabels.writer import finish, write_part
from tutored.tasks.audit import Advice
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import Segmentation, SoftMap
from tutored.tutors import open_tutor
from tutored.tutors.outputs import MASK_SIDE
from tutored.types import SoftLabels

DETECTOR = LabelSpace.of(["truck", "tv", "cat"])
MAPPER = LabelSpace.of(["sheep", "cat", "tvmonitor"])
PETS = LabelSpace.of(["cat", "dog"])
SIZE = (16, 48)
IMAGE = blank(*SIZE)
RAMP = torch.arange(6) / 5
"""A map's values at the centres 4, 12, ..., 44 of six cells of 8 pixels: (x - 4) / 40 between them."""


def store(folder, labels, answers, **identity):
    facts = {"kind": "made", "tutor": folder.name, "weights_sha256": "ab", "labels": list(labels.names)}
    write_part(folder, {**facts, "images": len(answers), **identity}, 0, list(answers), list(answers.values()))
    finish(folder)
    return folder


def detected(*rows, classes=4):
    """Boxes with a class and its probability; the rest is background."""
    probs = torch.zeros(len(rows), classes)
    for row, (_, index, score) in enumerate(rows):
        probs[row, 0], probs[row, index] = 1 - score, score
    return boxed(SoftBoxes, [box for box, _, _ in rows], [index for _, index, _ in rows], probs=probs)


WHOLE = ([0, 0, 48, 16], 1, 0.9)
BOXES = detected(([12, 0, 36, 16], 3, 0.8), ([0, 4, 48, 12], 2, 0.5), WHOLE, ([0, 0, 9, 9], 3, 0.4))
CATS = SoftMap(map=torch.stack([torch.zeros(6), torch.zeros(6), RAMP, 1 - RAMP])[:, None].repeat(1, 2, 1))
"""The cat's probability rises from left to right, the monitor's falls."""
NOTHING = SoftLabels(SIZE)


def opened(kind, folder, boxes=BOXES, maps=CATS, **options):
    one, other = (SoftLabels.of(SIZE, each) for each in (boxes, maps))
    stores = store(folder / "boxes", DETECTOR, {"a": one}), store(folder / "maps", MAPPER, {"a": other})
    return open_tutor(kind, boxes=stores[0], maps=stores[1], **options)


@pytest.mark.parametrize("kind", ["instances", "rescored"])
def test_without_an_answer_of_both_there_is_none(kind, tmp_path):
    boxes, maps = SoftLabels.of(SIZE, BOXES), SoftLabels.of(SIZE, CATS)
    of_boxes = store(tmp_path / "b", DETECTOR, {"a": NOTHING, "b": boxes, "c": SoftLabels.of(SIZE, detected())})
    of_maps = store(tmp_path / "m", MAPPER, {"a": maps, "b": NOTHING, "c": maps})
    tutor = open_tutor(kind, boxes=of_boxes, maps=of_maps)
    assert ask(tutor, IMAGE, "a").tasks == ask(tutor, IMAGE, "b").tasks == {}
    (answer,) = ask(tutor, IMAGE, "c").tasks.values()
    assert len(answer.scores) == 0, "nothing found is an answer"
    refused("b has no answer for d; label this split", ask, tutor, IMAGE, "d")
    with pytest.raises(InputError, match="saw c with 48 x 16 pixels, here it has 16 x 48"):
        ask(tutor, blank(*SIZE[::-1]), "c")


@pytest.mark.parametrize("kind", ["instances", "rescored"])
def test_stores_that_are_refused(kind, tmp_path):
    boxes = store(tmp_path / "b", DETECTOR, {"a": SoftLabels.of(SIZE, BOXES)})
    maps = store(tmp_path / "m", MAPPER, {"a": SoftLabels.of(SIZE, CATS)})
    foreign = store(tmp_path / "f", LabelSpace.of(["lamp", "door", "window"]), {"a": SoftLabels.of(SIZE, CATS)})
    refused("m answers segmentation, not detection", open_tutor, kind, boxes=maps, maps=maps)
    refused("b answers detection, not segmentation", open_tutor, kind, boxes=boxes, maps=boxes)
    with pytest.raises(InputError, match=r"no class in common: truck, tv, cat, \.\.\. and lamp, door, window"):
        open_tutor(kind, boxes=boxes, maps=foreign)


# Instances


def ask_instances(tutor):
    (found,) = ask(tutor, IMAGE).tasks.values()
    assert isinstance(found, Instances)
    return found


def test_a_mask_is_the_map_read_over_the_box(tmp_path):
    tutor = opened("instances", tmp_path)
    assert tutor.labels.classes == ("cat", "tvmonitor"), "what both know, in the maps' order"
    made = ask_instances(tutor)
    assert made.boxes_xyxy.tolist() == [[12, 0, 36, 16], [0, 4, 48, 12]], "no truck, and no cat under the floor"
    assert made.classes.tolist() == [1, 2] and made.scores.tolist() == pytest.approx([0.8, 0.5])
    x = 12 + (torch.arange(MASK_SIDE) + 0.5) / MASK_SIDE * 24
    shape = (MASK_SIDE, MASK_SIDE)
    torch.testing.assert_close(made.masks[0], ((x - 4) / 40).expand(shape), atol=1e-5, rtol=0)
    x = (torch.arange(MASK_SIDE) + 0.5) / MASK_SIDE * 48
    falling = 1 - ((x - 4) / 40).clamp(0, 1)  # beyond the outermost centres the map stays as it is
    torch.testing.assert_close(made.masks[1], falling.expand(shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("floor", "classes"), [(0.0, [1, 2, 1]), (0.4, [1, 2, 1]), (0.6, [1]), (0.81, [])])
def test_the_score_floor_of_instances(tmp_path, floor, classes):
    made = ask_instances(opened("instances", tmp_path, score_floor=floor))
    assert made.classes.tolist() == classes and len(made.masks) == len(classes)


@pytest.fixture
def truth(voc_folder, tmp_path):
    """The ground truth of val as two stores, and the command that makes instances of them."""
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    given = {image_id: truthful(dataset.ground_truth(image_id), len(VOC)) for image_id in dataset.ids}

    def command(**weights):
        boxes, maps = (
            str(store(tmp_path / f"{name}-{weights.get(name)}", VOC, given, weights_sha256=weights.get(name, "ab")))
            for name in ("boxes", "maps")
        )
        data = ["--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "out")]
        return ["label", "instances", "--boxes", boxes, "--maps", maps, *data]

    return command


def test_truthful_tutors_give_truthful_instances(truth, voc_folder, tmp_path):
    assert main(truth()) == 0
    made = Store.open(tmp_path / "out")
    assert made.kinds == ("instances",)
    expected = open_dataset(f"voc:{voc_folder}", "val").ground_truth("val_000").tasks["detection"]
    assert torch.equal(made["val_000"].tasks["instances"].boxes_xyxy, expected.boxes_xyxy)
    judged = ["evaluate", str(tmp_path / "out"), "--data", f"voc:{voc_folder}", "--split", "val", "--json"]
    assert main([*judged, str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["tasks"]["segmentation"]
    assert figures["mIoU"] > 0.85, "rasterized on cells of 8 pixels"


@pytest.mark.parametrize("changed", ["boxes", "maps"])
def test_a_changed_tutor_is_refused_by_its_field(truth, changed, capsys):
    assert main(truth()) == 0
    assert main([*truth(**{changed: "cd"}), "--resume"]) == 2
    assert f"'{changed}.weights_sha256' is 'ab' there, 'cd' is asked for" in capsys.readouterr().err


# Rescored boxes


def test_scores_are_the_geometric_mean_of_both(tmp_path):
    tutor = opened("rescored", tmp_path)
    assert tutor.labels == DETECTOR and set(ask(tutor, IMAGE).tasks) == {"detection"}
    answer = ask_boxes(tutor, IMAGE)
    assert torch.equal(answer.boxes_xyxy, BOXES.boxes_xyxy) and torch.equal(answer.classes, BOXES.classes)
    # Inside the first cat's box the map says .5 in the mean, as it does of the monitor: in full from .3 on. Inside the
    # last one it rises from 0 at x = 4 to 5/40 at the right edge, 25/80 over 9 pixels. It knows no trucks.
    expected = [0.8**0.5, 0.5**0.5, 0.9, (0.4 * 25 / 80 / 9 / 0.3) ** 0.5]
    assert answer.scores.tolist() == pytest.approx(expected, abs=2e-3)
    assert answer.probs.sum(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-4)


# Joined stores


def pets(folder, *answers, labels=PETS):
    return store(folder, labels, {"a": SoftLabels.of((100, 100), *answers)})


def test_stores_are_joined_in_the_classes_that_all_know(tmp_path):
    other = LabelSpace.of(["dog", "bird", "cat"])
    first = pets(tmp_path / "first", detected(([0, 0, 10, 10], 1, 0.9), ([40, 40, 60, 60], 2, 0.8), classes=3))
    second = detected(([0, 0, 10, 10], 3, 0.5), ([0, 0, 90, 90], 2, 0.9))
    tutor = open_tutor("joined", join=[first, pets(tmp_path / "second", second, labels=other)], shares=[3, 1])
    assert tutor.labels == PETS and tutor.identity["shares"] == [3, 1]
    assert tutor.identity["tutor"] == "first and second" and tutor.identity["2.labels"] == list(other.names)
    found = ask_boxes(tutor, blank(100, 100))
    assert found.boxes_xyxy.tolist() == [[0, 0, 10, 10], [40, 40, 60, 60]] and found.classes.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6], abs=1e-4)


def test_maps_of_stores_are_averaged(tmp_path):
    cat = torch.zeros(3, 1, 2)
    cat[1, 0, 0] = cat[0, 0, 1] = 1
    paths = [pets(tmp_path / "a", SoftMap(map=cat)), pets(tmp_path / "b", SoftMap(map=cat[[0, 2, 1]]))]
    mean = ask_map(open_tutor("joined", join=paths), blank(100, 100))
    assert mean[:, 0].T.tolist() == [[0, 0.5, 0.5], [1, 0, 0]]
    bus = pets(tmp_path / "d", SoftMap(map=cat[:2]), labels=LabelSpace.of(["bus"]))
    boxes = pets(tmp_path / "c", detected(classes=3))
    for join, message in (
        (paths[:1], "give two stores or more"),
        ([paths[0], boxes], "answer no task in common"),
        ([paths[0], bus], "no class in common"),
    ):
        refused(message, open_tutor, "joined", join=join)
    for shares in ([1.0], [1, 0], [1e308, 1e308]):
        refused("one positive number for each of the 2 stores", open_tutor, "joined", join=paths, shares=shares)


def test_stores_are_joined_by_what_their_audits_found(tmp_path):
    paths = [pets(tmp_path / name, detected(([0, 0, 10, 10], 1, 0.9), classes=3)) for name in "ab"]
    found = [{"mAP": 0.8}, {"mAP": 0.5}]

    def shares(*ids):
        for path, figures, own in zip(paths, found, ids, strict=True):
            told = {"data": "voc:x", "split": "val", "ids": own, "figures": figures}
            part = TaskAudit(kind="detection", findings=(), advice=Advice(), **told)
            kept = Store.open(path)
            write_sidecar(kept, Sidecar(store=fingerprint(kept), tutor=tutor_of(kept), tasks={"detection": part}))
        return open_tutor("joined", join=paths).identity["shares"]

    assert open_tutor("joined", join=paths).identity["shares"] == [1, 1]
    assert shares("a\nb", "a\nb") == pytest.approx([4, 1])
    assert shares("a\nb", "a") == [1, 1], "audits on other images can't be compared"
    found[1] = {}
    assert shares("a\nb", "a\nb") == [1, 1]


def test_the_command_joins_stores(voc_folder, tmp_path):
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    answers = {image_id: truthful(dataset.ground_truth(image_id), len(VOC)) for image_id in dataset.ids}
    first, second = (str(store(tmp_path / name, VOC, answers)) for name in "ab")
    words = ["label", "joined", "--join", first, "--join", second, "--shares", "1,2", "--out", str(tmp_path / "out")]
    assert main([*words, "--data", f"voc:{voc_folder}", "--split", "val"]) == 0
    one, both = answers["val_000"].tasks, Store.open(tmp_path / "out")["val_000"].tasks
    assert torch.equal(both["detection"].boxes_xyxy, one["detection"].boxes_xyxy)
    assert torch.equal(both["detection"].classes, one["detection"].classes)
    assert torch.allclose(both["segmentation"].map, one["segmentation"].map, atol=1 / 255)


def test_rows_of_a_map_are_rows_of_the_mask(tmp_path):
    halves = torch.zeros(4, 4, 2)  # cells of 4 x 24 pixels
    halves[2, :2] = halves[0, 2:] = 1.0  # the upper two rows of cells are cat
    mask = ask_instances(opened("instances", tmp_path, detected(([0, 0, 48, 16], 3, 1.0)), SoftMap(map=halves))).masks
    torch.testing.assert_close(mask[0, :10], torch.ones(10, MASK_SIDE))
    torch.testing.assert_close(mask[0, -10:], torch.zeros(10, MASK_SIDE))
    assert mask.max() <= 1
    middle = [0.5 + 0.5 * (16 / MASK_SIDE) / 4] * MASK_SIDE
    assert mask[0, 13].tolist() == pytest.approx(middle), "half a row above the middle"


def test_one_certain_instance_gives_the_map_again(tmp_path):
    tutor = opened("instances", tmp_path, detected(([0, 0, 48, 16], 3, 1.0)))
    made = Store.open(store(tmp_path / "made", tutor.labels, {"a": ask(tutor, IMAGE)}))
    again = Remapped(made, ClassMap.by_name(tutor.labels, MAPPER), Segmentation("x", MAPPER))["a"].tasks["segmentation"]
    torch.testing.assert_close(again.map[2], RAMP.expand(2, 6), atol=0.01, rtol=0)
    assert again.unknown == (1,), "the detector knows no sheep, so there may be some"


def test_what_the_map_denies_goes_to_other_classes(tmp_path):
    whole = {"boxes_xyxy": torch.tensor([[0.0, 0.0, 48.0, 16.0]]), "classes": torch.tensor([3])}
    torn = SoftBoxes(**whole, probs=torch.tensor([[0.1, 0.0, 0.4, 0.5]]))
    monitor = torch.zeros(4, 2, 6)
    monitor[3] = 1.0
    answer = ask_boxes(opened("rescored", tmp_path / "torn", torn, SoftMap(map=monitor)), IMAGE)
    torch.testing.assert_close(answer.probs, torch.tensor([[0.2, 0.0, 0.8, 0.0]]), atol=1e-3, rtol=0)
    sure = SoftBoxes(**whole, probs=torch.tensor([[0.0, 0.0, 1e-4, 1.0]]))  # sigmoids may exceed one a little
    answer = ask_boxes(opened("rescored", tmp_path / "sure", sure, SoftMap(map=torch.zeros(4, 2, 6))), IMAGE)
    assert answer.scores.tolist() == [0] and answer.probs.sum(dim=1).max() <= 1.001


def test_of_two_names_for_one_class_the_map_has_one(tmp_path):
    twice = LabelSpace.of(["tv", "tvmonitor", "cat"])
    both = detected(([0, 0, 12, 16], 1, 0.5), ([0, 0, 12, 16], 2, 0.5))
    boxes = store(tmp_path / "boxes", twice, {"a": SoftLabels.of(SIZE, both)})
    maps = store(tmp_path / "maps", MAPPER, {"a": SoftLabels.of(SIZE, CATS)})  # tvmonitor, almost 1 at the left
    tutor = open_tutor("rescored", boxes=boxes, maps=maps)
    assert ask_boxes(tutor, IMAGE).scores.tolist() == pytest.approx([0.5, 0.5**0.5], abs=1e-3)


def test_where_agreement_is_full(tmp_path):
    tutor = opened("rescored", tmp_path, detected(([12, 0, 36, 16], 3, 0.8)), full=1.0)
    assert tutor.identity["full"] == 1 and tutor.identity["maps.weights_sha256"] == "ab"
    assert ask_boxes(tutor, IMAGE).scores.item() == pytest.approx((0.8 * 0.5) ** 0.5, abs=2e-3)
    for full in (0.0, 1.1):
        with pytest.raises(InputError, match=f"tutor rescored: full: Input should be .* got {full}"):
            open_tutor("rescored", boxes=tmp_path / "boxes", maps=tmp_path / "maps", full=full)


def test_maps_correct_a_detector_that_mistakes_classes(voc_folder, tmp_path):
    """A detector that is sure of a wrong class everywhere, and half as sure of the right one."""
    dataset = open_dataset(f"voc:{voc_folder}", "val")
    truths = {image_id: dataset.ground_truth(image_id) for image_id in dataset.ids}
    drawn = {image_id: certain_boxes(truth.tasks["detection"], len(VOC)) for image_id, truth in truths.items()}
    present = sorted({int(number) for each in drawn.values() for number in each.classes})
    after = dict(zip(present, present[1:] + present[:1], strict=True))
    mistaken, right = {}, {}
    for image_id, each in drawn.items():
        wrong = torch.tensor([after[number] for number in each.classes.tolist()], dtype=torch.int64)
        halved = each.probs * 0.5
        halved[:, 0] = 0.5
        twice, numbers = torch.cat([each.boxes_xyxy] * 2), torch.cat([each.classes, wrong])
        probs = torch.cat([halved, torch.eye(len(VOC))[wrong] * 0.9])
        guess = replace(each, boxes_xyxy=twice, classes=numbers, probs=probs)
        size = truths[image_id].size
        mistaken[image_id] = SoftLabels.of(size, guess)
        right[image_id] = SoftLabels.of(size, certain_map(truths[image_id].tasks["segmentation"], len(VOC)))
    boxes, maps = store(tmp_path / "boxes", VOC, mistaken), store(tmp_path / "maps", VOC, right)
    data = ["--data", f"voc:{voc_folder}", "--split", "val"]
    command = ["label", "rescored", "--boxes", str(boxes), "--maps", str(maps), *data, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert Store.open(tmp_path / "out").kinds == ("detection",)

    def judged(subject):
        assert main(["evaluate", str(subject), *data, "--json", str(tmp_path / "figures.json")]) == 0
        figures = json.loads((tmp_path / "figures.json").read_text())["tasks"]["detection"]
        return float(figures["mAP_voc_area@.5"])

    assert judged(boxes) < 0.9
    assert judged(tmp_path / "out") > 0.99
