"""Compact: its size, which points learn which box, and its loss terms, on numbers worked by hand."""

import math

import pytest
import torch
from torch import nn

from made import COMPACT, two_tasks
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.labels import VOC, LabelSpace
from tutored.students import make_student
from tutored.students.backbone import Depthwise
from tutored.students.compact import Compact, CompactSection, PointHead, PointOutputs, assign_points, points
from tutored.tasks.detection import BoxTargets, Detection

TWO = LabelSpace.of(["cat", "dog"])


def section(**keys):
    return CompactSection(kind="compact", **keys)


SMALL = CompactSection(**COMPACT)


def test_its_depthwise_convolutions_are_quick_and_no_other():
    student = make_student(section(size=64, weights="random"), two_tasks(TWO))
    convolutions = [each for each in student.modules() if isinstance(each, nn.Conv2d)]
    quick = [each for each in convolutions if isinstance(each, Depthwise)]
    assert len(quick) == 10 + 4 + 2 + 12, "pyramid, box head, map, the trunk without stride"
    assert all(each.groups == each.out_channels > 1 for each in quick)


def test_points_by_hand():
    squares, strides = points((2, 1), 64)
    assert squares[0].tolist() == [16 - 128, 16 - 128, 16 + 128, 16 + 128]
    assert squares[1].tolist() == [48 - 128, 16 - 128, 48 + 128, 16 + 128], "the next one is to the right"
    assert squares[4].tolist() == [32 - 256, 32 - 256, 32 + 256, 32 + 256]
    assert strides.tolist() == [32, 32, 32, 32, 64]


SQUARES = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20], [0, 0, 20, 20]])
CELLS = (4, 1)
YES = torch.tensor([[True, True]])


def assign(*boxes, teaches=None, count=9):
    made = torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 4)
    return assign_points(SQUARES, CELLS, made, YES[:, : made.shape[1]] if teaches is None else teaches, count)[0]


def test_a_box_takes_the_points_above_mean_and_spread():
    # Overlaps with the five squares: .64, 0, 0, 0, .16; mean .16, spread .28, so only .64 is above.
    assert assign((0, 0, 8, 8)).tolist() == [0, -1, -1, -1, -1]
    # Of the whole image: .25 four times, and 1.
    assert assign((0, 0, 20, 20)).tolist() == [-1, -1, -1, -1, 0]


def test_boxes_that_do_not_teach_take_no_point():
    assert assign((0, 0, 8, 8), (10, 0, 20, 10), teaches=torch.tensor([[True, False]])).tolist() == [0, -1, -1, -1, -1]
    assert assign().tolist() == [-1] * 5


def head(keys=None, **student):
    task = Detection("boxes", TWO, Detection.Section(kind="detection", **(keys or {})))
    made = PointHead(task, (2, 1), section(size=20, width=4, **student))
    made.points_xyxy, made.strides = SQUARES, torch.full((5,), 10.0)
    made.cells = CELLS
    return made


def targets(boxes, probs, *, weight=1.0, unknown=(), difficult=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    probs = torch.tensor(probs, dtype=torch.float32).reshape(1, -1, 3)
    marks = torch.zeros(1, 3, dtype=torch.bool)
    marks[0, list(unknown)] = True
    flags = torch.zeros(probs.shape[:2], dtype=torch.bool) if difficult is None else torch.tensor([difficult])
    return BoxTargets(boxes, probs[..., 1:].argmax(-1) + 1, probs, flags, marks, torch.tensor([weight]))


def raw(distances=5.0, logits=0.0):
    """Every point answers with a box of this half side, and with one probability for all classes."""
    return PointOutputs(torch.full((1, 5, 4), distances), torch.full((1, 5, 2), logits))


LN2 = math.log(2)


def test_a_perfect_box_costs_nothing_and_its_class_is_sure():
    made, truth = head(), targets([0, 0, 10, 10], [0, 1, 0])
    learned = made.assign(truth, tutor=False)
    assert learned.positive.tolist() == [[True, False, False, False, False]]
    assert learned.normaliser == 1
    assert made.box_sum(raw(), truth, learned).item() == pytest.approx(0, abs=1e-6)
    # At probability .5 each of ten answers costs ln 2, whatever is wanted.
    assert made.class_sum(raw(), truth, learned).item() == pytest.approx(10 * LN2, rel=1e-5)
    sure = raw()
    sure.logits[0, 0, 0] = 20.0
    assert made.class_sum(sure, truth, learned).item() == pytest.approx(9 * LN2, rel=1e-4)


def test_a_tutors_score_weighs_its_box_and_the_normaliser():
    tutor = targets([[0, 0, 10, 10]], [[0.4, 0.6, 0.0]])
    learned = head().assign(tutor, tutor=True)
    assert learned.normaliser.item() == pytest.approx(0.6)
    assert learned.counts[0, :, 0].tolist() == pytest.approx([0.6, 1, 1, 1, 1])
    soft = head({"class_target": "soft", "confidence": False})
    whole = soft.assign(tutor, tutor=True)
    answer = raw(logits=2.0)
    # The first point wants .6 and 0 of its two classes: the others want nothing.
    each = math.log(1 + math.e**2)
    assert soft.class_sum(answer, tutor, whole).item() == pytest.approx(10 * each - 2 * 0.6, rel=1e-5)


def test_the_ignore_band_difficult_objects_and_unknown_classes():
    band = head().assign(targets([[0, 0, 10, 10]], [[0.7, 0.3, 0.0]]), tutor=True)
    assert not band.positive.any()
    assert band.counts[0, :, 0].tolist() == [0, 1, 1, 1, 1], "the point inside the box is ignored"
    hard = targets([[0, 0, 10, 10]], [[0, 1, 0]], difficult=[True])
    assert head().assign(hard, tutor=False).counts[0, :, 0].tolist() == [0, 1, 1, 1, 1]
    assert head({"difficult": "train"}).assign(hard, tutor=False).positive[0, 0]
    partly = head().assign(targets([], [], unknown=[2]), tutor=False)
    assert partly.counts[0, 0].tolist() == [1, 0], "nobody says that class 2 is not there"


def test_each_level_is_normalised_by_its_own_statistics():
    """What training sees of a level, evaluation sees too, however different the levels are."""
    student = Compact(SMALL, two_tasks(TWO))
    block = student.heads["detection"].logits.spatial[0]
    fine, coarse = torch.randn(8, 16, 8, 8), 5 + 3 * torch.randn(8, 16, 2, 2)
    for _ in range(200):
        for index, level in enumerate((fine, coarse)):
            block.train()(level, index)
    for index, level in enumerate((fine, coarse)):
        trained, evaluated = block.train()(level, index), block.eval()(level, index)
        assert (trained - evaluated).abs().mean() < 0.05


@pytest.mark.parametrize("stride", [4, 8])
def test_maps_have_the_stride_asked_for(stride):
    student = Compact(SMALL.model_copy(update={"map_stride": stride}), two_tasks(TWO))
    assert student(torch.rand(2, 3, 64, 64))["segmentation"].shape == (2, 3, 64 // stride, 64 // stride)
    assert student.grids == {"detection": 0, "segmentation": 64 // stride}


def test_soft_answers_sum_to_one_at_most():
    student = Compact(SMALL, two_tasks(TWO)).eval()
    crowded = PointOutputs(torch.full((1, 85, 4), 5.0), torch.full((1, 85, 2), 2.0))
    (found,) = student.heads["detection"].soften(crowded, [(64, 64)])
    assert float(found.probs.sum(1).max()) <= 1 + 1e-6
    (final,) = student.heads["detection"].decode(crowded, [(64, 64)])
    assert final.scores[0].item() == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5), "final scores stay as they are"


@pytest.mark.parametrize("words", [("--nms", "--mask"), ("--to", "torch")])
def test_its_exported_file_answers_as_it_does(tmp_path, words):
    """It is compared with the student, by ONNX Runtime or as torch's program, before it is written."""
    pytest.importorskip("onnxruntime")
    tasks = two_tasks(TWO)
    config = make_config({"data": {"train": "voc:unread"}, "student": SMALL.model_dump()})
    torch.manual_seed(0)
    student = make_student(config.student, tasks)
    torch.nn.init.normal_(student.heads["detection"].logits.last.weight, std=0.3)
    torch.nn.init.zeros_(student.heads["detection"].logits.last.bias)
    save_checkpoint(tmp_path / "checkpoint", student, config)
    file = tmp_path / ("student.pt2" if "torch" in words else "student.onnx")
    assert main(["export", str(tmp_path / "checkpoint"), "--out", str(file), *words]) == 0
    assert file.exists()


@pytest.mark.parametrize("freeze_norm", [False, True])
def test_uneven_padding_is_its_convolutions_own_in_a_file(tmp_path, freeze_norm):
    """A node that pads copies the input; the usual trunk's five convolutions of stride 2 have one row and column more
    behind than in front.
    """
    onnx = pytest.importorskip("onnx")
    shape = {"kind": "compact", "weights": "random", "size": 64, "width": 16, "freeze_norm": freeze_norm}
    config = make_config({"data": {"train": "voc:unread"}, "student": shape})
    save_checkpoint(tmp_path / "checkpoint", make_student(config.student, two_tasks(TWO)), config)
    assert main(["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "student.onnx")]) == 0
    nodes = onnx.load(tmp_path / "student.onnx").graph.node
    pads = [tuple(each.ints) for node in nodes for each in node.attribute if each.name == "pads"]
    assert [*map(pads.count, [(0, 0, 1, 1), (1, 1, 2, 2)])] == [3, 2] and "Pad" not in {node.op_type for node in nodes}


def test_its_size_on_the_usual_trunk():
    with torch.device("meta"):
        student = Compact(section(size=160, weights="random"), two_tasks(VOC))
    assert student.sides == (20, 10, 5, 3)
    assert sum(each.numel() for each in student.parameters()) == 3_276_557
    assert sum(each.numel() for each in student.backbone.parameters()) == 2_958_848


def test_only_the_nearest_points_of_each_level_are_considered():
    # The box overlaps all five; with one point a level, only the first and the coarse one are considered.
    assert (assign((4, 4, 15, 15), count=1)[1:4] == -1).all()


def test_no_box_is_lost_and_the_larger_overlap_wins():
    # A box whose best square's centre lies outside it takes that point all the same.
    assert assign((0, 0, 4, 4)).tolist() == [0, -1, -1, -1, -1]
    found = assign((0, 0, 9, 9), (0, 0, 7, 7))
    assert found[0] == 0, "both want the first point, and the first box overlaps it more"


def test_the_wanted_score_is_the_overlap_of_the_points_own_box():
    made, truth = head(), targets([0, 0, 10, 10], [0, 1, 0])
    learned = made.assign(truth, tutor=False)
    # Half the side: IoU 25 / 100. At logit 2 the cross-entropy with .25 is ln(1 + e^2) - .25 * 2.
    half = raw(2.5)
    half.logits[0, 0, 0] = 2.0
    expected = math.log(1 + math.e**2) - 0.5
    assert made.class_sum(half, truth, learned).item() == pytest.approx(9 * LN2 + expected, rel=1e-5)
    assert made.box_sum(half, truth, learned).item() == pytest.approx(2 * 0.75, rel=1e-5), "same centre, same aspect"


def test_a_shifted_box_costs_overlap_and_distance():
    made, truth = head(box_weight=1.0), targets([0, 0, 10, 10], [0, 1, 0])
    learned = made.assign(truth, tutor=False)
    moved = raw()
    moved.distances[0, 0] = torch.tensor([0.0, 5, 10, 5])
    # From 5 to 15: IoU 50 / 150, centres 5 apart, hull 15 x 10.
    assert made.box_sum(moved, truth, learned).item() == pytest.approx(1 - 1 / 3 + 25 / (225 + 100), rel=1e-5)


def test_a_batch_answers_as_its_images_alone():
    student = Compact(SMALL, two_tasks(TWO)).eval()
    images = torch.rand(3, 3, 64, 64)
    together = student(images)
    for index in range(3):
        alone = student(images[index : index + 1])
        torch.testing.assert_close(
            together["segmentation"][index : index + 1], alone["segmentation"], atol=1e-5, rtol=1e-4
        )
        for whole, part in zip(together["detection"], alone["detection"], strict=True):
            torch.testing.assert_close(whole[index : index + 1], part, atol=1e-4, rtol=1e-4)


def test_every_parameter_has_a_gradient():
    student = Compact(SMALL, two_tasks(TWO)).train()
    out = student(torch.rand(2, 3, 64, 64))
    (sum(each.sum() for each in (*out["detection"], out["segmentation"]))).backward()
    assert [name for name, each in student.named_parameters() if each.grad is None] == []
