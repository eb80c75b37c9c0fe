import math

import pytest
import torch

from tutored import losses
from tutored.config import THESIS, Loss
from tutored.losses import detection, segmentation
from tutored.losses.background import merge_unknown
from tutored.structures import Outputs
from tutored.targets import Batch, Targets

ANCHORS = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]], dtype=torch.float32)
LN3 = math.log(3)
DEFAULT = Loss()


def targets(boxes, probs, *, map_probs=None, weight=1.0, unknown=(), difficult=None):
    """One image's targets: boxes [K, 4] and class distributions [K, 3] as lists, two object classes."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    probs = torch.tensor(probs, dtype=torch.float32).reshape(1, -1, 3)
    marks = torch.zeros(1, 3, dtype=torch.bool)
    marks[0, list(unknown)] = True
    cells = torch.zeros(1, 3, 2, 2) if map_probs is None else torch.tensor(map_probs, dtype=torch.float32)[None]
    flags = torch.zeros(probs.shape[:2], dtype=torch.bool) if difficult is None else torch.tensor([difficult])
    return Targets(
        boxes,
        probs[..., 1:].argmax(-1) + 1,
        probs,
        flags,
        cells,
        torch.ones(1, 2, 2, dtype=torch.bool),
        marks,
        marks,
        torch.tensor([weight]),
        torch.tensor([weight]),
    )


def outputs(images=1, seed=None):
    if seed is None:
        return Outputs(ANCHORS, torch.zeros(images, 4, 4), torch.zeros(images, 4, 3), torch.zeros(images, 3, 2, 2))
    rng = torch.Generator().manual_seed(seed)
    shapes = [(images, 4, 4), (images, 4, 3), (images, 3, 2, 2)]
    return Outputs(ANCHORS, *[torch.randn(shape, generator=rng, requires_grad=True) for shape in shapes])


def stacked(parts):
    """A batch's targets from single images', boxes padded."""
    rows = max(part.classes.shape[1] for part in parts)

    def pad(tensor):
        return torch.cat([tensor, tensor.new_zeros(1, rows - tensor.shape[1], *tensor.shape[2:])], 1)

    columns = list(zip(*parts, strict=True))
    return Targets(*[torch.cat([pad(t) for t in c]) for c in columns[:4]], *[torch.cat(c) for c in columns[4:]])


def loss_of(out, batch, config=DEFAULT):
    assigned = losses.assign(out.anchors_xyxy, batch, config)
    return losses.mix(losses.sums(out, batch, assigned, config), losses.divide(assigned.weights, config))


def one(truth=None, tutor=None):
    count = len((truth or tutor).classes)
    return Batch(("a",) * count, torch.zeros(count, 3, 20, 20, dtype=torch.uint8), truth, tutor)


def test_uniform_logits_cost_one_positive_and_three_negatives_each_ln3():
    batch = one(targets([0, 0, 10, 10], [0, 1, 0]))
    assert loss_of(outputs(), batch).item() == pytest.approx(4 * LN3)


def test_box_term_by_hand():
    truth = targets([1, 0, 11, 10], [0, 1, 0])
    anchors = detection.assign(ANCHORS, truth, Loss())
    assert anchors.positive.tolist() == [[True, False, False, False]]
    error = detection.box_sum(torch.zeros(1, 4, 4), ANCHORS, truth, anchors)
    assert error.item() == pytest.approx(0.5)
    assert anchors.normaliser == 1


def test_only_the_hardest_negatives_count():
    logits = torch.zeros(1, 4, 3)
    logits[0, 1:, 0] = torch.tensor([5.0, 0.0, -5.0])
    truth = targets([0, 0, 10, 10], [0, 1, 0])
    anchors = detection.assign(ANCHORS, truth, Loss(negatives=1))
    easy_to_hard = [math.log(1 + 2 * math.exp(-x)) for x in (5.0, 0.0, -5.0)]
    value = detection.class_sum(logits, truth, anchors, Loss(negatives=1))
    assert value.item() == pytest.approx(LN3 + easy_to_hard[2], rel=1e-5)


def test_confidence_weighs_sum_and_normaliser_in_the_corrected_recipe_only_the_sum_in_the_thesis():
    tutor = targets([[0, 0, 10, 10]], [[0.4, 0.6, 0.0]])
    corrected, thesis = Loss(), Loss(**THESIS["loss"])
    anchors = detection.assign(ANCHORS, tutor, corrected)
    assert anchors.normaliser.item() == pytest.approx(0.6)
    value = detection.class_sum(torch.zeros(1, 4, 3), tutor, anchors, corrected)
    assert value.item() == pytest.approx(0.6 * LN3 + 2 * LN3)
    anchors = detection.assign(ANCHORS, tutor, thesis)
    assert anchors.normaliser.item() == 1
    value = detection.class_sum(torch.zeros(1, 4, 3), tutor, anchors, thesis)
    assert value.item() == pytest.approx(0.6 * LN3 + 3 * LN3)


def test_the_thesis_caps_negatives_by_anchors_per_image_minus_positives_per_batch():
    truth = stacked([targets([0, 0, 10, 10], [0, 1, 0])] * 3)
    config = Loss(**THESIS["loss"])
    anchors = detection.assign(ANCHORS, truth, config)
    value = detection.class_sum(torch.zeros(3, 4, 3), truth, anchors, config)
    assert value.item() == pytest.approx((3 + 1) * LN3)


def test_the_ignore_band_and_difficult_objects_are_neither_positive_nor_negative():
    tutor = targets([[0, 0, 10, 10]], [[0.7, 0.3, 0.0]])
    anchors = detection.assign(ANCHORS, tutor, Loss())
    assert anchors.positive.sum() == 0
    assert anchors.negative.tolist() == [[False, True, True, True]]
    hard = targets([[0, 0, 10, 10]], [[0, 1, 0]], difficult=[True])
    assert detection.assign(ANCHORS, hard, Loss()).negative.tolist() == [[False, True, True, True]]
    assert detection.assign(ANCHORS, hard, Loss(difficult="train")).positive.tolist() == [[True, False, False, False]]


def test_soft_class_target_is_the_whole_distribution():
    logits = torch.tensor([0.1, 0.7, -0.4]).repeat(1, 4, 1)
    tutor = targets([[0, 0, 10, 10]], [[0.2, 0.5, 0.3]])
    config = Loss(class_target="soft", confidence=False, negatives=0)
    anchors = detection.assign(ANCHORS, tutor, config)
    log_p = logits[0, 0].log_softmax(0)
    expected = -(0.2 * log_p[0] + 0.5 * log_p[1] + 0.3 * log_p[2]) - log_p[0]
    assert detection.class_sum(logits, tutor, anchors, config).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_image_without_positives_keeps_three_negatives():
    empty = targets([], [])
    config = Loss()
    anchors = detection.assign(ANCHORS, empty, config)
    assert detection.class_sum(torch.zeros(1, 4, 3), empty, anchors, config).item() == pytest.approx(3 * LN3)
    assert losses.divide(losses.assign(ANCHORS, one(empty), config).weights, config)["class/ground_truth"] == 1


@pytest.mark.parametrize(
    ("temperature", "peak"), [(0.1, 0.9991), (0.25, 0.7319), (0.4, 0.3786), (0.5, 0.2698), (1.0, 0.1197)]
)
def test_the_thesis_softmax_of_a_certain_pixel(temperature, peak):
    certain = torch.zeros(1, 21, 1, 1)
    certain[0, 5] = 1
    made = targets([], [])._replace(map=certain, inside=torch.ones(1, 1, 1, dtype=torch.bool))
    probs = segmentation.assign(made, Loss(map_target="softmax", temperature=temperature), tutor=True).probs[0, :, 0, 0]
    assert probs[5].item() == pytest.approx(peak, abs=1e-3)
    assert probs[0].item() == pytest.approx((1 - peak) / 20, abs=1e-3)


def test_a_cell_weighs_the_lead_of_its_likeliest_class():
    cells = torch.zeros(3, 1, 3)
    cells[:, 0, 0] = torch.tensor([0.1, 0.7, 0.2])
    cells[:, 0, 1] = torch.tensor([0.0, 0.4, 0.1])
    made = segmentation.assign(targets([], [], map_probs=cells.tolist()), Loss(map_weight="margin"), tutor=True)
    torch.testing.assert_close(made.probs[0, :, 0, 0], torch.tensor([0.05, 0.35, 0.1]))
    torch.testing.assert_close(made.probs[0, :, 0, 1], torch.tensor([0.0, 0.24, 0.06]))
    assert made.probs[0, :, 0, 2].sum() == 0
    assert made.normaliser.item() == pytest.approx(0.8)
    truth = segmentation.assign(targets([], [], map_probs=cells.tolist()), Loss(map_weight="margin"), tutor=False)
    assert torch.equal(truth.probs[0], cells)


def test_power_temperature_by_hand_and_a_cell_keeps_its_weight():
    cells = [[[0.32, 0.0], [0.0, 0.0]], [[0.48, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    made = segmentation.assign(targets([], [], map_probs=cells), Loss(temperature=0.5), tutor=True)
    expected = [0.8 * 0.32**2 / (0.32**2 + 0.48**2), 0.8 * 0.48**2 / (0.32**2 + 0.48**2), 0.0]
    assert made.probs[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert made.probs[0, :, 0, 1].tolist() == [0, 1, 0]
    assert made.normaliser.item() == pytest.approx(1.8)
    sharp = segmentation.assign(targets([], [], map_probs=cells), Loss(temperature=0.005), tutor=True)
    assert sharp.probs[0, :, 0, 0].tolist() == pytest.approx([0, 0.8, 0]), "0.48^200 is nothing in float32"


def test_padding_is_ignored_or_background_and_uniform():
    made = targets([], [], map_probs=torch.zeros(3, 2, 2).tolist())
    inside = torch.tensor([[[True, False], [False, False]]])
    made = made._replace(inside=inside)
    assert segmentation.assign(made, Loss(), tutor=False).normaliser == 0
    assert segmentation.assign(made, Loss(map_target="softmax"), tutor=True).normaliser == 1
    thesis = Loss(**THESIS["loss"])
    assert segmentation.assign(made, thesis, tutor=False).probs[0, :, 1, 1].tolist() == [1, 0, 0]
    assert segmentation.assign(made, thesis, tutor=True).probs[0, :, 1, 1].tolist() == pytest.approx([1 / 3] * 3)


def test_unknown_classes_are_no_mistake_where_the_source_says_background():
    log_p = torch.tensor([[0.2, 0.5, 0.3]]).log()
    merged = merge_unknown(log_p, torch.tensor([[False, True, False]]), dim=1)
    assert merged.exp()[0].tolist() == pytest.approx([0.7, 0.5, 0.3])
    unchanged = merge_unknown(log_p, torch.zeros(1, 3, dtype=torch.bool), dim=1)
    assert torch.allclose(unchanged, log_p)

    assert merge_unknown(log_p, torch.zeros(1, 0, dtype=torch.bool), dim=1) is log_p, "known beforehand"

    map_logits = torch.zeros(1, 3, 2, 2)
    background = torch.zeros(3, 2, 2)
    background[0] = 1
    partial = targets([], [], map_probs=background.tolist(), unknown=[2])
    cells = segmentation.assign(partial, Loss(), tutor=False)
    assert segmentation.map_sum(map_logits, partial, cells).item() == pytest.approx(-4 * math.log(2 / 3), rel=1e-5)


MIXED = [
    (targets([0, 0, 10, 10], [0, 1, 0], map_probs=[[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]), None),
    (
        None,
        targets([[1, 1, 11, 10], [10, 10, 20, 20]], [[0.1, 0.9, 0], [0.4, 0, 0.6]], map_probs=[[[0.5] * 2] * 2] * 3),
    ),
    (targets([10, 0, 20, 10], [0, 0, 1], weight=0.5), targets([10, 0, 19, 10], [0.2, 0, 0.8], weight=0.5)),
    (None, None),
    (targets([], []), None),
]


def mixed_batch(pairs):
    silent = targets([], [], weight=0.0)
    truth = [pair[0] or silent for pair in pairs]
    tutor = [pair[1] or silent for pair in pairs]
    return Batch(
        tuple("abcde"[: len(pairs)]),
        torch.zeros(len(pairs), 3, 20, 20, dtype=torch.uint8),
        stacked(truth) if any(pair[0] for pair in pairs) else None,
        stacked(tutor) if any(pair[1] for pair in pairs) else None,
    )


@pytest.mark.parametrize("split", [[[0], [1], [2], [3], [4]], [[0, 1], [2, 3, 4]], [[3], [0, 1, 2, 4]]])
@pytest.mark.parametrize(
    "config",
    [Loss(), Loss(joint=False), Loss(class_target="soft", normaliser="positives"), Loss(untaught="skipped")],
)
def test_a_mixed_batch_is_the_weighted_sum_of_its_parts_however_it_is_split(split, config):
    out = outputs(5, seed=1)
    whole = loss_of(out, mixed_batch(MIXED), config)
    gradient = torch.autograd.grad(whole, out[1:])

    parts = [mixed_batch([MIXED[index] for index in part]) for part in split]
    assigned = [losses.assign(ANCHORS, batch, config) for batch in parts]
    weights = {name: sum(each.weights[name] for each in assigned) for name in assigned[0].weights}
    factors = losses.divide(weights, config)
    total = torch.zeros(())
    for part, batch, targets_of_part in zip(split, parts, assigned, strict=True):
        sliced = Outputs(ANCHORS, *[tensor[part] for tensor in out[1:]])
        total = total + losses.mix(losses.sums(sliced, batch, targets_of_part, config), factors)
    assert total.item() == pytest.approx(whole.item(), rel=1e-5)
    for mine, theirs in zip(torch.autograd.grad(total, out[1:]), gradient, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_formula_18_is_half_of_each_sources_own_loss_however_few_images_ground_truth_teaches():
    quarters = [[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2]
    truth = targets([[0, 0, 10, 10], [10, 10, 20, 20]], [[0, 1, 0], [0, 0, 1]], map_probs=quarters)
    tutor = targets([[10, 0, 20, 10], [0, 10, 10, 20]], [[0, 1, 0], [0, 0, 1]], map_probs=quarters)
    pairs = [(truth, tutor), (None, tutor), (None, tutor)]
    config, out = Loss(joint=False, untaught="skipped"), outputs(3, seed=2)
    batch = mixed_batch(pairs)
    assigned = losses.assign(ANCHORS, batch, config)
    halves = dict.fromkeys(("detection", "segmentation"), (0.5, 0.5))
    found = losses.mix(
        losses.sums(out, batch, assigned, config), losses.divide(assigned.weights, config, mixture=halves)
    )
    drawn = loss_of(out, mixed_batch([(truth, None), (None, None), (None, None)]), config)
    answered = loss_of(out, mixed_batch([(None, tutor)] * 3), config)
    assert found.item() == pytest.approx(0.5 * drawn.item() + 0.5 * answered.item(), rel=1e-5)
    assert loss_of(out, batch, config).item() == pytest.approx(0.25 * drawn.item() + 0.75 * answered.item(), rel=1e-5)


def test_an_image_that_nobody_teaches_has_no_gradient():
    out = outputs(5, seed=3)
    gradient = torch.autograd.grad(loss_of(out, mixed_batch(MIXED)), out[1:])
    for tensor in gradient:
        assert (tensor[3] == 0).all()
        assert (tensor[0] != 0).any()


def test_where_the_untaught_count_the_one_taught_image_of_four_weighs_a_quarter():
    taught = targets([[0, 0, 10, 10]], [[0, 1, 0]], map_probs=[[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2])
    alone = loss_of(outputs(), one(taught))
    pairs = [(None, None), (taught, None), (None, None), (None, None)]
    for untaught, share in (("counted", 1 / 4), ("skipped", 1)):
        found = loss_of(outputs(4), mixed_batch(pairs), Loss(untaught=untaught))
        assert found.item() == pytest.approx(share * alone.item())


def test_the_untaught_count_for_their_task_alone_and_once_for_both_sources():
    taught = targets([[0, 0, 10, 10]], [[0, 1, 0]], map_probs=[[[0.5, 0.5]] * 2] * 2 + [[[0.0, 0.0]] * 2])
    boxes_only = taught._replace(segmentation_weight=torch.zeros(1))
    weights = losses.assign(
        ANCHORS, mixed_batch([(taught, taught), (boxes_only, None)]), Loss(untaught="counted")
    ).weights
    assert {name: weights[name].item() for name in ("taught/detection", "taught/segmentation", "images")} == {
        "taught/detection": 2.0,
        "taught/segmentation": 1.0,
        "images": 2.0,
    }


@pytest.mark.parametrize("untaught", ["skipped", "counted"])
def test_no_labels_at_all_is_zero_and_finite(untaught):
    silent = targets([], [], weight=0.0)
    for batch in (one(silent, silent), one(silent)._replace(ground_truth=None)):
        value = loss_of(outputs(seed=0), batch, Loss(untaught=untaught))
        assert value.item() == 0
