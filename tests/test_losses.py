"""Matching, loss terms and their division, on numbers worked by hand."""

import math

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms

from tutored import boxes, losses
from tutored.config import Loss
from tutored.labels import LabelSpace
from tutored.losses import merge_unknown
from tutored.students.anchors import AnchorHead, AnchorRows, BoxOutputs, match
from tutored.students.blitznet import BlitzNetSection
from tutored.students.heads import DenseHead
from tutored.tasks.detection import BoxTargets, Detection
from tutored.tasks.segmentation import MapTargets, Segmentation
from tutored.tasks.segmentation import types as maps
from tutored.types import Batch

ANCHORS = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]], dtype=torch.float32)
YES = torch.tensor([[True, True]])
LN3 = math.log(3)
TWO = LabelSpace.of(["cat", "dog"])
DEFAULT = Loss()
THESIS_HEAD = BlitzNetSection.RECIPES["thesis"]
THESIS_BOXES = Detection.Section.RECIPES["thesis"]
THESIS_MAP = Segmentation.Section.RECIPES["thesis"]


def box_head(keys=None, **head):
    """An anchor head on four anchors, with keys of the task and of the head."""
    section = Detection.Section(kind="detection", **(keys or {}))
    student = BlitzNetSection(kind="blitznet", size=20, **head)
    return AnchorHead(Detection("boxes", TWO, section), AnchorRows((), 4), AnchorRows((), 3), ANCHORS, student)


def map_task(**keys):
    return Segmentation("map", TWO, Segmentation.Section(kind="segmentation", **keys))


def both_heads(keys=None, **head):
    return {"boxes": box_head(keys, **head), "map": DenseHead(map_task(), nn.Identity(), 2)}


def targets(boxes, probs, *, map_probs=None, weight=1.0, unknown=(), difficult=None):
    """One image's targets of both tasks: boxes [K, 4] and class distributions [K, 3] as lists, two object classes."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    probs = torch.tensor(probs, dtype=torch.float32).reshape(1, -1, 3)
    marks = torch.zeros(1, 3, dtype=torch.bool)
    marks[0, list(unknown)] = True
    cells = torch.zeros(1, 3, 2, 2) if map_probs is None else torch.tensor(map_probs, dtype=torch.float32)[None]
    flags = torch.zeros(probs.shape[:2], dtype=torch.bool) if difficult is None else torch.tensor([difficult])
    weights = torch.tensor([weight])
    return {
        "boxes": BoxTargets(boxes, probs[..., 1:].argmax(-1) + 1, probs, flags, marks, weights),
        "map": MapTargets(cells, torch.ones(1, 2, 2, dtype=torch.bool), marks, weights),
    }


def outputs(images=1, seed=None):
    shapes = [(images, 4, 4), (images, 4, 3), (images, 3, 2, 2)]
    if seed is None:
        deltas, logits, cells = (torch.zeros(shape) for shape in shapes)
    else:
        rng = torch.Generator().manual_seed(seed)
        deltas, logits, cells = (torch.randn(shape, generator=rng, requires_grad=True) for shape in shapes)
    return {"boxes": BoxOutputs(deltas, logits), "map": cells}


def leaves(out):
    return [*out["boxes"], out["map"]]


def rows_of(out, rows):
    return {"boxes": BoxOutputs(*(each[rows] for each in out["boxes"])), "map": out["map"][rows]}


def stacked(parts):
    """A batch's targets from single images', boxes padded."""
    rows = max(part["boxes"].classes.shape[1] for part in parts)

    def pad(tensor):
        return torch.cat([tensor, tensor.new_zeros(1, rows - tensor.shape[1], *tensor.shape[2:])], 1)

    boxes = list(zip(*(part["boxes"] for part in parts), strict=True))
    padded = [torch.cat([pad(t) for t in column]) for column in boxes[:4]]
    return {
        "boxes": BoxTargets(*padded, *(torch.cat(column) for column in boxes[4:])),
        "map": MapTargets(*(torch.cat(column) for column in zip(*(part["map"] for part in parts), strict=True))),
    }


def one(truth=None, tutor=None):
    """A batch of what ground truth and tutor teach."""
    count = len((truth or tutor)["map"].weight)
    by_source = {name: each for name, each in (("ground_truth", truth), ("tutor", tutor)) if each is not None}
    by_task = {task: {name: each[task] for name, each in by_source.items()} for task in ("boxes", "map")}
    return Batch(("a",) * count, torch.zeros(count, 3, 20, 20, dtype=torch.uint8), by_task)


def loss_of(out, batch, config=DEFAULT, heads=None, mixture=None):
    heads = heads or both_heads()
    assigned = losses.assign(heads, batch, config)
    factors = losses.divide(assigned.weights, heads, config, mixture=mixture)
    return losses.weigh(losses.sums(out, batch, assigned, heads), factors).sum()


def class_sum(head, logits, made):
    return head.class_sum(BoxOutputs(torch.zeros(*logits.shape[:2], 4), logits), made, head.assign(made, tutor=True))


def test_an_anchor_takes_the_box_it_overlaps_by_half():
    box = torch.tensor([[[0, 0, 10, 8]]], dtype=torch.float32)
    matches = match(ANCHORS, box, YES[:, :1])
    assert matches.box.tolist() == [[0, -1, -1, -1]]
    assert not matches.ignored.any()


def test_a_small_box_claims_its_best_anchor():
    small = torch.tensor([[[12, 12, 14, 14]]], dtype=torch.float32)
    assert match(ANCHORS, small, YES[:, :1]).box.tolist() == [[-1, -1, -1, 0]]
    assert match(ANCHORS, small, YES[:, :1], forced_floor=0.05).box.tolist() == [[-1, -1, -1, -1]]


def test_uncertain_boxes_only_silence_anchors():
    two = torch.tensor([[[0, 0, 10, 10], [10, 0, 20, 10]]], dtype=torch.float32)
    matches = match(ANCHORS, two, torch.tensor([[True, False]]))
    assert matches.box.tolist() == [[0, -1, -1, -1]]
    assert matches.ignored.tolist() == [[False, True, False, False]]


def test_offsets_by_hand():
    anchor = torch.tensor([[0.0, 0, 10, 20]])
    box = torch.tensor([[1.0, 2, 11, 22]])
    assert torch.allclose(boxes.encode(box, anchor), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    wide = torch.tensor([[-5.0, 0, 15, 20]])
    assert torch.allclose(boxes.encode(wide, anchor), torch.tensor([[0.0, 0.0, 3.4657359, 0.0]]))
    assert torch.allclose(boxes.decode(boxes.encode(wide, anchor), anchor), wide, atol=1e-5)


@pytest.mark.parametrize("count", [900, 3000])
def test_suppression_within_groups_equals_torchvisions(count):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 100
    made = torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    groups = torch.randint(0, 5, (count,), generator=generator) * 2
    kept = boxes.nms(made, scores, groups, 0.5)
    assert count / 10 < len(kept) < count * 2 / 3
    assert torch.equal(kept, batched_nms(made, scores, groups, 0.5))


def test_only_the_hardest_negatives_count():
    logits = torch.zeros(1, 4, 3)
    logits[0, 1:, 0] = torch.tensor([5.0, 0.0, -5.0])
    easy_to_hard = [math.log(1 + 2 * math.exp(-x)) for x in (5.0, 0.0, -5.0)]
    value = class_sum(box_head(negatives=1), logits, targets([0, 0, 10, 10], [0, 1, 0])["boxes"])
    assert value.item() == pytest.approx(LN3 + easy_to_hard[2], rel=1e-5)


def test_the_ignore_band_and_difficult_objects():
    tutor = targets([[0, 0, 10, 10]], [[0.7, 0.3, 0.0]])["boxes"]
    anchors = box_head().assign(tutor, tutor=True)
    assert anchors.positive.sum() == 0
    assert anchors.negative.tolist() == [[False, True, True, True]]
    hard = targets([[0, 0, 10, 10]], [[0, 1, 0]], difficult=[True])["boxes"]
    assert box_head().assign(hard, tutor=False).negative.tolist() == [[False, True, True, True]]
    trained = box_head({"difficult": "train"}).assign(hard, tutor=False)
    assert trained.positive.tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("temperature", "peak"), [(0.1, 0.9991), (0.25, 0.7319), (0.4, 0.3786), (0.5, 0.2698), (1.0, 0.1197)]
)
def test_the_thesis_softmax_of_a_certain_pixel(temperature, peak):
    certain = torch.zeros(1, 21, 1, 1)
    certain[0, 5] = 1
    inside, nothing = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 0, dtype=torch.bool)
    section = map_task(target="softmax", temperature=temperature).section
    probs = maps.assign(MapTargets(certain, inside, nothing, torch.ones(1)), section, tutor=True).probs[0, :, 0, 0]
    assert probs[5].item() == pytest.approx(peak, abs=1e-3)
    assert probs[0].item() == pytest.approx((1 - peak) / 20, abs=1e-3)


def test_power_temperature_by_hand_and_a_cell_keeps_its_weight():
    cells = [[[0.32, 0.0], [0.0, 0.0]], [[0.48, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    given = targets([], [], map_probs=cells)["map"]
    made = map_task(temperature=0.5).assign(given, tutor=True)
    expected = [0.8 * 0.32**2 / (0.32**2 + 0.48**2), 0.8 * 0.48**2 / (0.32**2 + 0.48**2), 0.0]
    assert made.probs[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert made.probs[0, :, 0, 1].tolist() == [0, 1, 0]
    assert made.normaliser.item() == pytest.approx(1.8)
    sharp = map_task(temperature=0.005).assign(given, tutor=True)
    assert sharp.probs[0, :, 0, 0].tolist() == pytest.approx([0, 0.8, 0]), "0.48^200 underflows in float32"


def test_padding_is_ignored_or_background_and_uniform():
    made = targets([], [], map_probs=torch.zeros(3, 2, 2).tolist())["map"]
    made = made._replace(inside=torch.tensor([[[True, False], [False, False]]]))
    assert map_task().assign(made, tutor=False).normaliser == 0
    assert map_task(target="softmax").assign(made, tutor=True).normaliser == 1
    thesis = map_task(**THESIS_MAP)
    assert thesis.assign(made, tutor=False).probs[0, :, 1, 1].tolist() == [1, 0, 0]
    assert thesis.assign(made, tutor=True).probs[0, :, 1, 1].tolist() == pytest.approx([1 / 3] * 3)


def test_background_may_be_any_class_the_source_does_not_know():
    log_p = torch.tensor([[0.2, 0.5, 0.3]]).log()
    merged = merge_unknown(log_p, torch.tensor([[False, True, False]]), dim=1)
    assert merged.exp()[0].tolist() == pytest.approx([0.7, 0.5, 0.3])
    unchanged = merge_unknown(log_p, torch.zeros(1, 3, dtype=torch.bool), dim=1)
    assert torch.allclose(unchanged, log_p)

    background = torch.zeros(3, 2, 2)
    background[0] = 1
    partial = targets([], [], map_probs=background.tolist(), unknown=[2])["map"]
    cells = map_task().assign(partial, tutor=False)
    assert maps.map_sum(torch.zeros(1, 3, 2, 2), partial, cells).item() == pytest.approx(-4 * math.log(2 / 3), rel=1e-5)


def test_overlap_of_each_class_by_hand():
    """One row of two cells: background, then class 2; the student says .5, 0, .5 and .25, 0, .75."""
    given = targets([], [], map_probs=[[[1, 0]], [[0, 0]], [[0, 1]]], weight=0.5)["map"]
    cells = map_task(overlap=2.0).assign(given, tutor=False)
    assert cells.presence.tolist() == [[0.5, 0, 0.5]]
    said = torch.tensor([[[0.5, 0.25]], [[0, 0]], [[0.5, 0.75]]])[None]
    # Background: .5 of 1.25 cells; class 2: .75 of 1.5.
    wrong = 0.5 * (1 - 0.5 / 1.25) + 0.5 * (1 - 0.75 / 1.5)
    term = map_task(overlap=2.0).terms["overlap"]
    assert term.sum(said.log(), given, cells).item() == pytest.approx(2 * wrong)
    assert term.weight(given, cells).item() == 1.0
    assert "overlap" not in map_task().terms

    soft = targets([], [], map_probs=said[0].tolist())["map"]
    cells = map_task(overlap=1.0).assign(soft, tutor=True)
    assert term.sum(said.log(), soft, cells).item() == pytest.approx(0, abs=1e-6), "the tutor's own answer"


ANSWERED = [[1, 1, 11, 10], [10, 10, 20, 20]], [[0.1, 0.9, 0], [0.4, 0, 0.6]]
MIXED = [
    (targets([0, 0, 10, 10], [0, 1, 0], map_probs=[[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]), None),
    (None, targets(*ANSWERED, map_probs=[[[0.5] * 2] * 2] * 3)),
    (targets([10, 0, 20, 10], [0, 0, 1], weight=0.5), targets([10, 0, 19, 10], [0.2, 0, 0.8], weight=0.5)),
    (None, None),
    (targets([], []), None),
]


def mixed_batch(pairs):
    silent = targets([], [], weight=0.0)
    sides = [stacked([each or silent for each in side]) if any(side) else None for side in zip(*pairs, strict=True)]
    return one(*sides) if any(sides) else one(stacked([silent] * len(pairs)))._replace(targets={})


@pytest.mark.parametrize("split", [[[0], [1], [2], [3], [4]], [[0, 1], [2, 3, 4]], [[3], [0, 1, 2, 4]]])
@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (Loss(), both_heads()),
        (Loss(joint=False), both_heads()),
        (Loss(), both_heads({"class_target": "soft"}, normaliser="positives")),
        (Loss(untaught="skipped"), both_heads()),
    ],
)
def test_a_batch_may_be_split_in_any_way(split, config, heads):
    out = outputs(5, seed=1)
    whole = loss_of(out, mixed_batch(MIXED), config, heads)
    gradient = torch.autograd.grad(whole, leaves(out))

    parts = [mixed_batch([MIXED[index] for index in part]) for part in split]
    assigned = [losses.assign(heads, batch, config) for batch in parts]
    weights = {name: sum(each.weights[name] for each in assigned) for name in assigned[0].weights}
    factors = losses.divide(weights, heads, config)
    total = torch.zeros(())
    for part, batch, learned in zip(split, parts, assigned, strict=True):
        total = total + losses.weigh(losses.sums(rows_of(out, part), batch, learned, heads), factors).sum()
    assert total.item() == pytest.approx(whole.item(), rel=1e-5)
    for mine, theirs in zip(torch.autograd.grad(total, leaves(out)), gradient, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_formula_18_is_half_of_each_sources_own_loss():
    quarters = [[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2]
    truth = targets([[0, 0, 10, 10], [10, 10, 20, 20]], [[0, 1, 0], [0, 0, 1]], map_probs=quarters)
    tutor = targets([[10, 0, 20, 10], [0, 10, 10, 20]], [[0, 1, 0], [0, 0, 1]], map_probs=quarters)
    batch = mixed_batch([(truth, tutor), (None, tutor), (None, tutor)])
    config, out = Loss(joint=False, untaught="skipped"), outputs(3, seed=2)
    found = loss_of(out, batch, config, mixture=dict.fromkeys(("boxes", "map"), (0.5, 0.5)))
    drawn = loss_of(out, mixed_batch([(truth, None), (None, None), (None, None)]), config)
    answered = loss_of(out, mixed_batch([(None, tutor)] * 3), config)
    assert found.item() == pytest.approx(0.5 * drawn.item() + 0.5 * answered.item(), rel=1e-5)
    assert loss_of(out, batch, config).item() == pytest.approx(0.25 * drawn.item() + 0.75 * answered.item(), rel=1e-5)


def test_the_one_taught_image_of_four_weighs_a_quarter():
    taught = targets([[0, 0, 10, 10]], [[0, 1, 0]], map_probs=[[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2])
    alone = loss_of(outputs(), one(taught))
    pairs = [(None, None), (taught, None), (None, None), (None, None)]
    for untaught, share in (("counted", 1 / 4), ("skipped", 1)):
        found = loss_of(outputs(4), mixed_batch(pairs), Loss(untaught=untaught))
        assert found.item() == pytest.approx(share * alone.item())


@pytest.mark.parametrize("untaught", ["skipped", "counted"])
def test_no_labels_at_all_is_zero_with_a_gradient(untaught):
    silent = targets([], [], weight=0.0)
    for batch in (one(silent, silent), one(silent)._replace(targets={})):
        out = outputs(seed=0)
        value = loss_of(out, batch, Loss(untaught=untaught))
        assert value.item() == 0
        assert all((each == 0).all() for each in torch.autograd.grad(value, leaves(out)))


def test_a_further_term_is_one_entry():
    heads, batch = both_heads(), one(targets([0, 0, 10, 10], [0, 1, 0]))
    before = loss_of(outputs(), batch, heads=heads)
    heads["map"].terms["doubled"] = losses.Term(lambda _, cells: cells.normaliser + 2, lambda raw, *_: raw.sum() + 6)
    assert loss_of(outputs(), batch, heads=heads).item() == pytest.approx(before.item() + 3)
    heads["map"].terms["doubled"] = heads["map"].terms["doubled"]._replace(sources=("tutor",))
    assert loss_of(outputs(), batch, heads=heads).item() == pytest.approx(before.item())


def test_iou_of_exactly_half_is_enough():
    box = torch.tensor([[[0, 0, 10, 20]]], dtype=torch.float32)
    assert boxes.iou(ANCHORS, box)[0, :, 0].tolist() == [0.5, 0, 0.5, 0]
    assert match(ANCHORS, box, YES[:, :1]).box.tolist() == [[0, -1, 0, -1]]


def test_a_claim_overrides_and_the_lowest_index_wins():
    two = torch.tensor([[[1, 1, 3, 3], [0, 0, 10, 10]]], dtype=torch.float32)
    assert match(ANCHORS, two, YES).box[0, 0] == 0
    assert match(ANCHORS, two.flip(1), YES).box[0, 0] == 0


def test_padding_and_no_boxes_leave_every_anchor_negative():
    for padding in (torch.zeros(1, 2, 4), torch.zeros(1, 0, 4)):
        matches = match(ANCHORS, padding, torch.ones(padding.shape[:2], dtype=torch.bool))
        assert (matches.box == -1).all()
        assert not matches.ignored.any()


def test_uniform_logits_cost_ln3_each_at_one_to_three():
    batch = one(targets([0, 0, 10, 10], [0, 1, 0]))
    assert loss_of(outputs(), batch).item() == pytest.approx(4 * LN3)


def test_box_term_by_hand():
    truth, head = targets([1, 0, 11, 10], [0, 1, 0])["boxes"], box_head()
    anchors = head.assign(truth, tutor=False)
    assert anchors.positive.tolist() == [[True, False, False, False]]
    error = head.box_sum(outputs()["boxes"], truth, anchors)
    assert error.item() == pytest.approx(0.5)
    assert anchors.normaliser == 1


def test_confidence_weighs_sum_and_normaliser():
    tutor = targets([[0, 0, 10, 10]], [[0.4, 0.6, 0.0]])["boxes"]
    corrected, thesis = box_head(), box_head(THESIS_BOXES, **THESIS_HEAD)
    assert corrected.assign(tutor, tutor=True).normaliser.item() == pytest.approx(0.6)
    assert class_sum(corrected, torch.zeros(1, 4, 3), tutor).item() == pytest.approx(0.6 * LN3 + 2 * LN3)
    assert thesis.assign(tutor, tutor=True).normaliser.item() == 1, "the thesis divides by the number of positives"
    assert class_sum(thesis, torch.zeros(1, 4, 3), tutor).item() == pytest.approx(0.6 * LN3 + 3 * LN3)


def test_the_thesis_cap_of_negatives():
    truth = stacked([targets([0, 0, 10, 10], [0, 1, 0])] * 3)["boxes"]
    value = class_sum(box_head(THESIS_BOXES, **THESIS_HEAD), torch.zeros(3, 4, 3), truth)
    assert value.item() == pytest.approx((3 + 1) * LN3), "anchors of an image minus positives of the batch"


def test_soft_class_target_is_the_whole_distribution():
    logits = torch.tensor([0.1, 0.7, -0.4]).repeat(1, 4, 1)
    tutor = targets([[0, 0, 10, 10]], [[0.2, 0.5, 0.3]])["boxes"]
    head = box_head({"class_target": "soft", "confidence": False}, negatives=0)
    log_p = logits[0, 0].log_softmax(0)
    expected = -(0.2 * log_p[0] + 0.5 * log_p[1] + 0.3 * log_p[2]) - log_p[0]
    assert class_sum(head, logits, tutor).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_image_without_positives_keeps_three_negatives():
    empty, heads = targets([], []), both_heads()
    assert class_sum(box_head(), torch.zeros(1, 4, 3), empty["boxes"]).item() == pytest.approx(3 * LN3)
    weights = losses.assign(heads, one(empty), DEFAULT).weights
    assert losses.divide(weights, heads, DEFAULT)["boxes/class/ground_truth"] == 1


def test_a_cell_weighs_the_lead_of_its_likeliest_class():
    cells = torch.zeros(3, 1, 3)
    cells[:, 0, 0] = torch.tensor([0.1, 0.7, 0.2])
    cells[:, 0, 1] = torch.tensor([0.0, 0.4, 0.1])
    given, task = targets([], [], map_probs=cells.tolist())["map"], map_task(cell_weight="margin")
    made = task.assign(given, tutor=True)
    torch.testing.assert_close(made.probs[0, :, 0, 0], torch.tensor([0.05, 0.35, 0.1]))
    torch.testing.assert_close(made.probs[0, :, 0, 1], torch.tensor([0.0, 0.24, 0.06]))
    assert made.probs[0, :, 0, 2].sum() == 0
    assert made.normaliser.item() == pytest.approx(0.8)
    assert torch.equal(task.assign(given, tutor=False).probs[0], cells)


def test_an_image_that_nobody_teaches_has_no_gradient():
    out = outputs(5, seed=3)
    for tensor in torch.autograd.grad(loss_of(out, mixed_batch(MIXED)), leaves(out)):
        assert (tensor[3] == 0).all()
        assert (tensor[0] != 0).any()


def test_the_untaught_count_for_their_task_alone():
    taught = targets([[0, 0, 10, 10]], [[0, 1, 0]], map_probs=[[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2])
    boxes_only = {**taught, "map": taught["map"]._replace(weight=torch.zeros(1))}
    weights = losses.assign(both_heads(), mixed_batch([(taught, taught), (boxes_only, None)]), DEFAULT).weights
    counted = {name: weights[name].item() for name in ("taught/boxes", "taught/map", "images")}
    assert counted == {"taught/boxes": 2.0, "taught/map": 1.0, "images": 2.0}
