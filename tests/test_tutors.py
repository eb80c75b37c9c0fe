"""Foreign networks and files as tutors: their answers on numbers, and what they refuse."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tutored.errors import InputError
from tutored.labels import COCO, COCO_NAMES, VOC, LabelSpace
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor, read_labels
from tutored.tutors.detections import answer, distribution, select, with_masks
from tutored.tutors.onnx import letterbox
from tutored.tutors.torchvision import Detector
from tutored.tutors.torchvision_weights import MODELS, categories

REAL = Path(os.environ.get("TUTORED_REAL", Path(__file__).parents[1].parent / "shared"))
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL}; set TUTORED_REAL")


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def ask(tutor: Any, image: Image.Image, image_id: str = "a") -> SoftLabels:
    (found,) = tutor([image], [image_id])
    return found


# What all detectors share


def test_selection_by_hand() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60.0]])
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.4], [0.2, 0.005]])
    # Box 1 loses to box 0 in class 0 (IoU 9 / 11) and wins in class 1, so both stand, one class each.
    rows, columns = select(boxes, scores, score_floor=0.01, nms_iou=0.5, max_boxes=10)
    assert rows.tolist() == [0, 1, 2] and columns.tolist() == [0, 1, 0]
    rows, columns = select(boxes, scores, score_floor=0.01, nms_iou=0.5, max_boxes=2)
    assert rows.tolist() == [0, 1]
    levels = torch.tensor([[0], [0], [1]])
    rows, _ = select(boxes, scores, score_floor=0.01, nms_iou=0.5, max_boxes=9, groups=levels, group_limit=1)
    assert rows.tolist() == [0, 2], "one candidate of each level"
    rows, _ = select(boxes, scores, score_floor=1, nms_iou=0.5, max_boxes=9, groups=levels, group_limit=1)
    assert rows.tolist() == []


def test_the_kept_class_keeps_its_score_when_independent_scores_exceed_one() -> None:
    scores = torch.tensor([[0.5, 0.2, 0.1], [0.8, 0.6, 0.2]])
    probs = distribution(scores, torch.tensor([0, 1]))
    assert torch.allclose(probs[0], torch.tensor([0.2, 0.5, 0.2, 0.1]))
    # .8 and .2 share the .4 that .6 leaves.
    assert torch.allclose(probs[1], torch.tensor([0, 0.32, 0.6, 0.08]))
    assert probs[1, 2] == scores[1, 1], "to the bit"


def test_boxes_are_cut_at_the_image_and_dropped_outside() -> None:
    boxes = torch.tensor([[-5, -5, 5, 5], [30, 0, 40, 10.0]])
    found = answer(boxes, torch.tensor([[0.7], [0.6]]), torch.tensor([0, 0]), (20, 30))
    assert found.boxes_xyxy.tolist() == [[0, 0, 5, 5]] and found.scores.tolist() == pytest.approx([0.7])


def test_what_is_not_finite_is_refused_but_for_boxes_below_the_floor() -> None:
    boxes, scores = torch.tensor([[0, 0, 10, 10.0], [0, 0, 10, math.inf]]), torch.tensor([[0.9], [0.001]])
    how = {"score_floor": 0.01, "nms_iou": 0.5, "max_boxes": 9}
    assert select(boxes, scores, **how)[0].tolist() == [0]
    with pytest.raises(InputError, match="1 of the network's 4 box sides are NaN or infinite"):
        select(boxes[1:], scores[:1], **how)
    with pytest.raises(InputError, match="1 of the network's 2 scores are NaN or infinite; take other weights"):
        select(boxes, torch.tensor([[0.9], [math.nan]]), **how)
    with pytest.raises(InputError, match="4 of the network's 4 mask values are NaN"):
        with_masks(answer(boxes[:1], scores[:1], torch.tensor([0]), (20, 20)), torch.full((1, 2, 2), math.nan))


# ONNX


def yolox(
    path: Path,
    rows: dict[int, list[float]],
    classes: int = 2,
    side: int = 32,
    batch: int = 1,
    half: bool = False,
    more: tuple[str, ...] = (),
    **metadata: str,
) -> Path:
    """A model that answers with these rows of its output, whatever it sees.

    Args:
        batch, half: of its input.
        more: names of further inputs.
    """
    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((1, cells, 5 + classes), np.float32)
    for row, values in rows.items():
        output[0, row] = values
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["fixed"], ["output"])],
        "yolox",
        [helper.make_tensor_value_info(name, kind, [batch, 3, side, side]) for name in ("images", *more)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output.shape)],
        [helper.make_tensor("fixed", TensorProto.FLOAT, output.shape, output.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_a_yolox_head_by_hand(tmp_path: Path) -> None:
    # Row 1: stride 8, cell (1, 0), centre (12, 4), side 8. Row 16: stride 16, cell (0, 0), centre (8, 8), 16 x 8.
    rows = {1: [0.5, 0.5, 0, 0, 0.8, 0.5, 0.25], 16: [0.5, 0.5, 0, -math.log(2), 1, 0.9, 0.9]}
    tutor = open_tutor("onnx", weights=yolox(tmp_path / "m.onnx", rows, names="{0: 'cat', 1: 'dog'}"))
    assert tutor.labels.classes == ("cat", "dog")
    # An image of 64 x 32 pixels is halved: boxes double, and come as (box, class) pairs by falling score.
    found = ask(tutor, Image.new("RGB", (64, 32)))
    assert found.size == (32, 64)
    assert found.boxes_xyxy.tolist() == [[0, 8, 32, 24], [0, 8, 32, 24], [16, 0, 32, 16], [16, 0, 32, 16]]
    assert found.classes.tolist() == [1, 2, 1, 2]
    assert torch.allclose(found.scores, torch.tensor([0.9, 0.9, 0.4, 0.2]))
    assert torch.allclose(found.probs[0], torch.tensor([0, 0.9, 0.1]), atol=1e-6), "the other class shrinks"
    assert torch.allclose(found.probs[3], torch.tensor([0.4, 0.4, 0.2]))


def test_letterbox_is_bgr_top_left_on_114() -> None:
    picture, scale = letterbox(Image.new("RGB", (64, 32), (10, 20, 30)), (32, 32))
    assert scale == 0.5 and picture.shape == (1, 3, 32, 32)
    assert picture[0, :, 15, 31].tolist() == [30, 20, 10] and picture[0, :, 16, 0].tolist() == [114, 114, 114]
    assert letterbox(Image.new("RGB", (400, 1)), (32, 32))[0].shape == (1, 3, 32, 32)


def test_onnx_models_that_are_refused(tmp_path: Path) -> None:
    two = yolox(tmp_path / "two.onnx", {})
    with pytest.raises(InputError, match="2 classes, but no names are known; give labels=FILE"):
        open_tutor("onnx", weights=two)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert open_tutor("onnx", weights=two, labels=tmp_path / "names.txt").labels.classes == ("cat", "dog")
    with pytest.raises(InputError, match="2 classes, but 20 names are given"):
        open_tutor("onnx", weights=two, labels="voc")
    assert open_tutor("onnx", weights=yolox(tmp_path / "coco.onnx", {}, classes=80)).labels == COCO
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx: not an ONNX model"):
        open_tutor("onnx", weights=tmp_path / "broken.onnx")
    with pytest.raises(InputError, match=r"absent\.onnx: the model can't be read"):
        open_tutor("onnx", weights=tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="device tpu"):
        open_tutor("onnx", weights=two, device="tpu", labels=tmp_path / "names.txt")
    with pytest.raises(InputError, match="possible: onnx, torchvision, hf, student, files"):
        open_tutor("keras")


def test_a_yolox_of_another_input(tmp_path: Path) -> None:
    rows, names = {0: [0.5, 0.5, 0, 0, 0.8, 0.5, 0.25]}, {"names": "['cat', 'dog']"}
    tutor = open_tutor("onnx", weights=yolox(tmp_path / "half.onnx", rows, half=True, **names))
    found = ask(tutor, Image.new("RGB", (32, 32)))
    assert found.boxes_xyxy[0].tolist() == [0, 0, 8, 8] and found.scores.tolist() == pytest.approx([0.4, 0.2])
    for changes in ({"batch": 4}, {"more": ("sizes",)}):
        file = yolox(tmp_path / "m.onnx", rows, **changes, **names)
        with pytest.raises(
            InputError, match=r"m\.onnx: does not take \[1, 3, 32, 32\] as images alone .*with one input"
        ):
            open_tutor("onnx", weights=file)


def test_a_yolox_of_pixels_or_logits_or_nothing_finite_is_refused(tmp_path: Path) -> None:
    # The 21 cells of 32 x 32 pixels by their centres: 16 of stride 8, 4 of 16, 1 of 32.
    centres = [(stride * (x + 0.5), stride * (y + 0.5)) for stride in (8, 16, 32)
               for y in range(32 // stride) for x in range(32 // stride)]  # fmt: skip
    decoded = {row: [*centre, 8, 8, 0.9, 0.9, 0.1] for row, centre in enumerate(centres)}
    names = {"names": "['cat', 'dog']"}
    with pytest.raises(InputError, match="half of its boxes are 16 strides or more .* without --decode_in_inference"):
        open_tutor("onnx", weights=yolox(tmp_path / "m.onnx", decoded, **names))
    with pytest.raises(InputError, match="scores from 0 to 2 are no probabilities; export the head with its sigmoids"):
        open_tutor("onnx", weights=yolox(tmp_path / "m.onnx", {0: [0, 0, 0, 0, 2, 0.1, 0.1]}, **names))
    with pytest.raises(InputError, match="1 of the network's 63 scores are NaN"):
        open_tutor("onnx", weights=yolox(tmp_path / "m.onnx", {0: [0, 0, 0, 0, math.nan, 0, 0]}, **names))
    tutor = open_tutor("onnx", weights=yolox(tmp_path / "m.onnx", {0: [math.nan, 0, 0, 0, 1, 0.5, 0]}, **names))
    with pytest.raises(InputError, match="image a: 2 of the network's 4 box sides are NaN"):
        ask(tutor, Image.new("RGB", (32, 32)))


def test_label_files(tmp_path: Path) -> None:
    assert read_labels("voc") is VOC and read_labels(COCO) is COCO
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    with pytest.raises(InputError, match="twice: cat"):
        read_labels(tmp_path / "twice.txt")
    with pytest.raises(InputError, match="give voc, coco, .*or a text file"):
        read_labels(tmp_path / "absent.txt")


@pytest.mark.real
@real
def test_yolox_nano_sees_the_animals() -> None:
    tutor = open_tutor("onnx", weights=REAL / "weights" / "yolox_nano.onnx")
    folder = REAL / "data" / "voc2012-animals"
    assert tutor.labels.classes[14:19] == ("bird", "cat", "dog", "horse", "sheep")
    sure, right = 0, 0
    for image_id in (folder / "ImageSets" / "Main" / "val.txt").read_text().split()[:40]:
        annotation = (folder / "Annotations" / f"{image_id}.xml").read_text()
        found = ask(tutor, Image.open(folder / "JPEGImages" / f"{image_id}.jpg"))
        names = {tutor.labels.names[index] for index in found.classes[found.scores > 0.7]} & set(VOC.names)
        sure += len(names)
        right += sum(f"<name>{name}</name>" in annotation for name in names)
    assert sure >= 20 and right >= 0.9 * sure, (right, sure)


@pytest.mark.slow
@pytest.mark.real
@real
def test_the_tutors_own_quality_is_that_of_an_independent_evaluator(tmp_path: Path) -> None:
    from tutored.data import open_dataset
    from tutored.judge import judge
    from tutored.tutors.label import label

    data, six = f"voc:{REAL}/data/voc2012-animals", ("cat", "cow", "dog", "horse", "person", "sheep")
    yolox = open_tutor("onnx", weights=REAL / "weights" / "yolox_nano.onnx")
    deeplab = open_tutor("files", folders=REAL / "data" / "voc2012-animals-deeplab")
    boxes = label(yolox, open_dataset(data, "val"), tmp_path / "boxes")
    maps = label(deeplab, open_dataset(data, "val"), tmp_path / "maps")
    assert judge(boxes, data, "val", six).map_area == pytest.approx(0.805, abs=0.01)
    assert judge(maps, data, "val", six).miou == pytest.approx(0.833, abs=0.01)
    size = sum(path.stat().st_size for folder in (boxes, maps) for path in folder.iterdir())
    assert size / 300 <= 10_000, "bytes an image, boxes and map together"


# torchvision


def network(name: str, seed: int = 0, outputs: int = 5) -> Any:
    """A small-input model with random weights whose scores differ enough to be told apart."""
    torch.manual_seed(seed)
    small = {} if "ssd" in name else {"min_size": 96, "max_size": 128}
    model = get_model(name, weights=None, weights_backbone=None, num_classes=outputs, **small)
    for part, parameter in model.named_parameters():
        if parameter.dim() > 1 and ("cls" in part or "classification" in part):
            torch.nn.init.normal_(parameter, std=0.02)
        if "bbox_reg.bias" in part:
            torch.nn.init.ones_(parameter)
    return normalised(model, model.backbone, 320) if "ssdlite" in name else model.eval()


def normalised(model: Any, part: Any, side: int) -> Any:
    """The deepest random networks give the same for every image, unless their normalisation knows its data."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    part.train()(torch.rand(2, 3, side, side))
    return model.eval()


NAMES = ["background", "cat", "N/A", "dog", "horse"]


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 0.05),
        ("keypointrcnn_resnet50_fpn", 0.05),
        ("retinanet_resnet50_fpn", 0.02),
        ("fcos_resnet50_fpn", 0.02),
        ("ssdlite320_mobilenet_v3_large", 0.05),
    ],
)
def test_torchvision_detectors_answer_as_torchvision_does(name: str, floor: float) -> None:
    outputs, most = (2, 8) if "keypoint" in name else (5, 50)
    names = ["no person", "person"] if outputs == 2 else NAMES
    model, image = network(name, outputs=outputs), noise(90, 120)
    heads = getattr(model, "roi_heads", model)
    # Theirs counts outputs that we drop, so no bound may bind; keypoints cost seconds, but drop none.
    heads.score_thresh, heads.topk_candidates = floor, 100_000
    heads.detections_per_img = most if outputs == 2 else 100_000
    found = ask(Detector(model, names, {}, floor, None, most, 0.05), image)
    with torch.inference_mode():
        (theirs,) = model([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
    wanted = torch.tensor([names[label] in ("cat", "dog", "horse", "person") for label in theirs["labels"]])
    wanted &= (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(1)
    boxes, labels, scores = (theirs[key][wanted][:most] for key in ("boxes", "labels", "scores"))
    assert len(boxes) >= 5, "the test tests something"
    assert torch.allclose(found.boxes_xyxy, boxes, atol=1e-4) and torch.allclose(found.scores, scores, atol=1e-4)
    space = LabelSpace.of([name for name in names[1:] if name != "N/A"])
    assert [space.names[index] for index in found.classes] == [names[label] for label in labels]
    assert torch.allclose(found.probs.sum(1), torch.ones(len(boxes)), atol=1e-5)
    assert found.probs.shape[1] == len(space)


def test_faster_rcnn_keeps_the_softmax_of_each_proposal() -> None:
    model = network("fasterrcnn_mobilenet_v3_large_320_fpn")
    rows: list[torch.Tensor] = []
    model.roi_heads.box_predictor.register_forward_hook(lambda *call: rows.append(call[-1][0].softmax(-1)))
    found = ask(Detector(model, NAMES, {}, 0.05, None, 50, 0.05), noise(90, 120))
    softmax = rows[0]
    for probs in found.probs:
        distance = (softmax[:, [1, 3, 4]] - probs[1:]).abs().sum(1)
        assert distance.min() < 1e-6
        assert probs[0] == pytest.approx(float(softmax[distance.argmin(), [0, 2]].sum()), abs=1e-5), (
            "N/A counts as none"
        )


def test_mask_rcnn_keeps_its_soft_masks() -> None:
    model, image = network("maskrcnn_resnet50_fpn", outputs=3), noise(90, 120)
    found = ask(Detector(model, ["background", "cat", "dog"], {}, 0.05, None, 9, 0.1), image)
    model.roi_heads.detections_per_img = 9
    with torch.inference_mode():
        (theirs,) = model([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
    made = found.instances
    assert made.masks.shape[1:] == (28, 28) and len(made.masks) >= 3
    count = len(made.masks)
    assert torch.allclose(made.boxes_xyxy, theirs["boxes"][:count], atol=1e-4) and (made.scores >= 0.1).all()
    pasted = paste_masks_in_image(made.masks[:, None], made.boxes_xyxy, (90, 120))
    assert torch.allclose(pasted, theirs["masks"][:count], atol=1e-4)


def test_segmentation_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_model("deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, aux_loss=True)
    normalised(model, model.backbone, 128)
    torch.nn.init.normal_(model.classifier[-1].weight)
    torch.save(model.state_dict(), tmp_path / "deeplab.pth")
    tutor = open_tutor("torchvision", weights=tmp_path / "deeplab.pth", model="deeplabv3_mobilenet_v3_large")
    assert tutor.labels == VOC
    image = noise(41, 65)
    found = ask(tutor, image)
    assert found.boxes_xyxy is None and found.map.shape == (21, 6, 9), "cells of eight pixels, the last ones smaller"
    assert torch.allclose(found.map.sum(0), torch.ones(6, 9), atol=1e-5)
    preprocess = get_model_weights("deeplabv3_mobilenet_v3_large").DEFAULT.transforms()
    with torch.inference_mode():
        probs = model(preprocess(image)[None])["out"][0].softmax(0)
    assert probs.shape == (21, 520, 824) and probs.std((1, 2)).max() > 0.01, "the test tests something"
    edges = [[520 * row // 6, -(-520 * (row + 1) // 6)] for row in range(6)]
    columns = [[824 * column // 9, -(-824 * (column + 1) // 9)] for column in range(9)]
    slow = [[probs[:, y1:y2, x1:x2].mean((1, 2)) for x1, x2 in columns] for y1, y2 in edges]
    assert torch.allclose(found.map, torch.stack([torch.stack(row, 1) for row in slow], 1), atol=1e-4)
    assert tutor.identity["weights"] == "deeplab.pth" and len(tutor.identity["weights_sha256"]) == 64


def test_weights_by_torchvisions_name_are_never_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fetched: list[str] = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, hash_prefix: fetched.append(url))
    for model in ("maskrcnn_resnet50_fpn_v2", "deeplabv3_resnet101"):
        with pytest.raises(InputError, match=rf"{get_model_weights(model).DEFAULT}: .* fetch \S+/{model}_coco-"):
            open_tutor(f"torchvision:{model}")
    assert get_model_weights("deeplabv3_resnet101").DEFAULT.name == "COCO_WITH_VOC_LABELS_V1"
    assert categories("deeplabv3_resnet101", None) == list(VOC.names)
    name = "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1"
    file = "lraspp_mobilenet_v3_large-d234d4ea.pth"
    with pytest.raises(InputError, match=rf"fetch https://\S+/{file} and put it at {tmp_path}/hub/checkpoints/{file}"):
        open_tutor("torchvision", weights=name)
    assert fetched == []
    with pytest.raises(InputError):
        open_tutor("torchvision", weights=name, download=True)
    assert len(fetched) == 1 and fetched[0].endswith(file)
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    for given in (
        {"weights": name},
        {"model": "lraspp_mobilenet_v3_large"},
        {"weights": tmp_path / "hub/checkpoints" / file},
    ):
        tutor = open_tutor("torchvision", **given)
        assert tutor.labels == VOC and tutor.identity["tutor"] == "lraspp_mobilenet_v3_large"


def test_own_detector_weights_with_frozen_normalisation(tmp_path: Path) -> None:
    model = network("fasterrcnn_mobilenet_v3_large_320_fpn", outputs=3)
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "own.safetensors")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    given = {"weights": tmp_path / "own.safetensors", "model": "fasterrcnn_mobilenet_v3_large_320_fpn"}
    tutor = open_tutor("torchvision", **given, labels=tmp_path / "names.txt", score_floor=0.1)
    assert tutor.labels.classes == ("cat", "dog") and tutor.identity["nms_iou"] == 0.5
    assert tutor.identity["preprocessing"].startswith("RGB 0..1, sides (320, 640)")
    with pytest.raises(InputError, match="91 outputs .*give labels=FILE"):
        open_tutor("torchvision", **given)
    with pytest.raises(InputError, match="not the weights of lraspp_mobilenet_v3_large"):
        open_tutor("torchvision", weights=given["weights"], model="lraspp_mobilenet_v3_large")


def test_outputs_of_a_segmentation_model_that_are_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=4).eval()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    (tmp_path / "names.txt").write_text("background\nN/A\ncat\nN/A\n")
    given = {"weights": tmp_path / "own.pth", "model": "lraspp_mobilenet_v3_large"}
    tutor = open_tutor("torchvision", **given, labels=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    own = ask(open_tutor("torchvision", **given, labels=tmp_path / "names.txt"), noise(41, 65)).map
    assert tutor.labels.classes == ("cat",)
    assert torch.allclose(ask(tutor, noise(41, 65)).map, torch.stack([own[0] + own[1] + own[3], own[2]]), atol=1e-6)


def test_scales_that_leave_a_network_nothing_to_see_are_refused(tmp_path: Path) -> None:
    for name, sides in (("lraspp_mobilenet_v3_large", "520"), ("fasterrcnn_mobilenet_v3_large_320_fpn", "320")):
        model = get_model(name, weights=None, weights_backbone=None, num_classes=2)
        torch.save(model.state_dict(), tmp_path / "own.pth")
        (tmp_path / "names.txt").write_text("cat\n")
        given = {"weights": tmp_path / "own.pth", "model": name, "labels": tmp_path / "names.txt"}
        with pytest.raises(InputError, match=rf"scales: 0\.0005 makes 0 of the {sides} pixels .* give 0\.\d+ or more"):
            open_tutor("torchvision", scales=(0.0005, 1), **given)
    least = open_tutor("torchvision", scales=(0.1,), **given)
    assert ask(least, noise(41, 65)).boxes_xyxy is not None, "32 of 320 pixels"


def test_torchvisions_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = network("ssdlite320_mobilenet_v3_large", outputs=3)
    bias = model.head.classification_head.module_list[0][1].bias
    torch.nn.init.constant_(bias, math.nan)
    with pytest.raises(InputError, match=r"image a: \d+ of the network's 6468 scores are NaN"):  # 3,234 anchors
        ask(Detector(model, ["background", "cat", "dog"], {}, 0.05, None, 9, 0.05), noise(60, 80))
    torch.nn.init.zeros_(bias)
    torch.nn.init.constant_(model.head.regression_head.module_list[0][1].bias, math.nan)
    with pytest.raises(InputError, match=r"image a: \d+ of the network's \d+ box sides are NaN"):
        ask(Detector(model, ["background", "cat", "dog"], {}, 0.05, None, 9, 0.05), noise(60, 80))
    torch.save(model.state_dict(), tmp_path / "own.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(
        InputError, match=r"weights of head\.regression_head.*bias are NaN or infinite; take an earlier"
    ):
        open_tutor(
            "torchvision:ssdlite320_mobilenet_v3_large", weights=tmp_path / "own.pth", labels=tmp_path / "names.txt"
        )


def test_torchvision_weights_that_are_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError, match="without running code"):
        open_tutor("torchvision", weights=tmp_path / "harmful.pth", model="lraspp_mobilenet_v3_large")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(InputError, match=r"of which model are these weights\? Give model=NAME"):
        open_tutor("torchvision", weights=tmp_path / "harmful.pth")
    with pytest.raises(InputError, match="unknown torchvision model 'yolo'; possible: fasterrcnn"):
        open_tutor("torchvision", model="yolo")
    with pytest.raises(InputError, match=r"no published weights; possible: FCOS_ResNet50_FPN_Weights\.COCO_V1"):
        open_tutor("torchvision", model="fcos_resnet50_fpn", weights="IMAGENET")


def test_torchvisions_coco_names_are_ours() -> None:
    assert torchvision.__version__
    names = categories("fasterrcnn_resnet50_fpn", None)
    assert [name for name in names[1:] if name != "N/A"] == COCO_NAMES
    assert len(MODELS) >= 18


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_torchvision_is_a_tutor(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    extra = (
        {} if "ssd" in name or "rcnn" in name or name.startswith(("fcos", "retina", "lraspp")) else {"aux_loss": True}
    )
    save_file(get_model(name, weights=None, weights_backbone=None, **extra).state_dict(), tmp_path / "w.safetensors")
    found = ask(open_tutor("torchvision", weights=tmp_path / "w.safetensors", model=name, device="cpu"), noise(60, 80))
    assert (found.map is None) != (found.boxes_xyxy is None)


# Files


def results(folder: Path, entries: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(entries))
    return folder


def entry(image_id: Any = "a", category_id: int = 17, score: float = 0.75, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": [2, 4, 10, 6], "score": score} | more


def test_coco_results(tmp_path: Path) -> None:
    tutor = open_tutor("files", folders=results(tmp_path, [entry(), entry(category_id=90), entry(139), entry("x")]))
    assert tutor.labels == COCO
    found = ask(tutor, Image.new("RGB", (40, 30)))
    assert found.boxes_xyxy.tolist() == [[2, 4, 12, 10]] * 2
    assert [COCO.names[index] for index in found.classes] == ["cat", "toothbrush"]
    assert found.probs[0, [0, 16]].tolist() == [0.25, 0.75] and found.map is None and found.instances is None
    assert len(ask(tutor, Image.new("RGB", (40, 30)), "000000000139").classes) == 1, "a number is the stem's"
    with pytest.raises(InputError, match='no entry for image b; .*missing="allow"'):
        ask(tutor, Image.new("RGB", (40, 30)), "b")
    lenient = open_tutor("files", folders=tmp_path, missing="allow")
    assert ask(lenient, Image.new("RGB", (40, 30)), "b").boxes_xyxy.shape == (0, 4), "nothing was found there"


def test_category_numbers_never_mean_two_things(tmp_path: Path) -> None:
    ambiguous = results(tmp_path / "ambiguous", [entry(category_id=8)])
    with pytest.raises(
        InputError, match=r"category 8 may be cat, by position in .* or truck, by COCO's numbering; say which"
    ):
        open_tutor("files", folders=ambiguous, default_labels=VOC)
    eighth = {"voc": "cat", "coco": "truck"}
    for labels, name in eighth.items():
        tutor = open_tutor("files", folders=ambiguous, labels=labels)
        assert tutor.labels.names[int(ask(tutor, Image.new("RGB", (40, 30))).classes[0])] == name
    assert (
        open_tutor("files", folders=results(tmp_path / "coco", [entry(category_id=44)]), default_labels=VOC).labels
        == COCO
    )
    assert (
        open_tutor("files", folders=results(tmp_path / "voc", [entry(category_id=12)]), default_labels=VOC).labels
        == VOC
    )
    with pytest.raises(InputError, match="category 95 .*neither COCO's numbers nor positions"):
        open_tutor("files", folders=results(tmp_path / "neither", [entry(category_id=95)]), default_labels=VOC)
    same = LabelSpace.of(["person", "bicycle"])
    agreed = open_tutor("files", folders=results(tmp_path / "same", [entry(category_id=2)]), default_labels=same)
    assert agreed.labels == same, "number 2 is the bicycle, whoever counts"
    own = {
        "annotations": [entry(7, 3)],
        "categories": [{"id": 3, "name": "cow"}],
        "images": [{"id": 7, "file_name": "x/a.jpg"}],
    }
    tutor = open_tutor("files", folders=results(tmp_path / "own", own))
    assert tutor.labels.classes == ("cow",) and ask(tutor, Image.new("RGB", (40, 30))).classes.tolist() == [1]


def test_masks_of_coco_results_are_instances(tmp_path: Path) -> None:
    # Uncompressed runs, column by column of a 30 x 40 image: columns 2 to 11, rows 4 to 9.
    runs = [2 * 30 + 4] + [6, 24] * 9 + [6]
    runs.append(30 * 40 - sum(runs))
    segmentation = {"size": [30, 40], "counts": runs}
    tutor = open_tutor("files", folders=results(tmp_path, [entry(segmentation=segmentation), entry(category_id=1)]))
    found = ask(tutor, Image.new("RGB", (40, 30)))
    assert len(found.classes) == 2 and found.instances.boxes_xyxy.tolist() == [[2, 4, 12, 10]]
    assert found.instances.masks.shape == (1, 56, 56) and found.instances.masks[0, 8:48, 8:48].min() > 0.999
    only_mask = {key: value for key, value in entry(segmentation=segmentation).items() if key != "bbox"}
    tutor = open_tutor("files", folders=results(tmp_path, [only_mask]))
    assert ask(tutor, Image.new("RGB", (40, 30))).boxes_xyxy.tolist() == [[2, 4, 12, 10]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, "a score is a probability from 0 to 1"),
        ({"score": None}, "'score' must be a number"),
        ({"bbox": [2, 4, 10]}, "'bbox' must be"),
        ({"bbox": [2, 4, -10, 5]}, "negative side"),
        ({"bbox": [2, 4, float("nan"), 5]}, "'bbox' must be a number"),
        ({"bbox": [200, 4, 10, 5]}, "40x30"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, "must state the size"),
    ],
)
def test_broken_results_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tutor = open_tutor("files", folders=results(tmp_path, [entry("x"), entry(**change)]))
    with pytest.raises(InputError, match=rf"results\.json: entry 1.*{message}"):
        ask(tutor, Image.new("RGB", (40, 30)))


def test_the_thesis_xml(tmp_path: Path) -> None:
    horse = "<object><name>horse</name><class_index>13</class_index><bndbox><xmin>0.0</xmin><ymin>1.5</ymin>"
    horse += "<xmax>19.25</xmax><ymax>9</ymax></bndbox><confidence>3.63e-06</confidence></object>"
    (tmp_path / "a.xml").write_text(f"<annotation><folder>VOC2012</folder>{horse}</annotation>")
    (tmp_path / "empty.xml").write_text("<annotation/>")
    tutor = open_tutor("files", folders=[tmp_path])
    found = ask(tutor, Image.new("RGB", (20, 10)))
    assert tutor.labels == VOC and found.boxes_xyxy.tolist() == [[0, 1.5, 19.25, 9]] and found.classes.tolist() == [13]
    assert found.scores.tolist() == pytest.approx([3.63e-6]) and found.probs[0, 0] == pytest.approx(1 - 3.63e-6)
    assert ask(tutor, Image.new("RGB", (20, 10)), "empty").boxes_xyxy.shape == (0, 4)
    with pytest.raises(InputError, match=r"no b\.xml"):
        ask(tutor, Image.new("RGB", (20, 10)), "b")
    lenient = open_tutor("files", folders=[tmp_path], missing="allow")
    assert ask(lenient, Image.new("RGB", (20, 10)), "b").boxes_xyxy is None, "not asked"
    for old, new, message in (
        ("confidence>", "certainty>", "object 1: 'confidence' must be a number, got None"),
        (">horse<", ">hors<", "did you mean horse"),
        ("</annotation>", "", "not readable as XML"),
    ):
        (tmp_path / "a.xml").write_text(f"<annotation>{horse}</annotation>".replace(old, new))
        with pytest.raises(InputError, match=rf"a\.xml.*{message}"):
            ask(tutor, Image.new("RGB", (20, 10)))


def test_probability_maps_of_every_type(tmp_path: Path) -> None:
    counts = np.array([[[255, 0, 0], [200, 50, 5]]], np.uint8)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for number, (dtype, scale) in enumerate((("uint8", 1), ("float16", 255), ("float32", 255), ("float64", 255))):
        for suffix in (".npz", ".npy"):
            folder = tmp_path / f"{number}{suffix}"
            folder.mkdir()
            array = (counts / scale).astype(dtype)
            np.savez(folder / "a.npz", probs=array) if suffix == ".npz" else np.save(folder / "a.npy", array)
            found = ask(open_tutor("files", folders=folder, labels=names), Image.new("RGB", (16, 8)))
            assert found.map.shape == (3, 1, 2) and found.boxes_xyxy is None
            assert np.rint(found.map.numpy() * 255).tolist() == counts.transpose(2, 0, 1).tolist()


def test_fine_maps_are_averaged_to_the_stride(tmp_path: Path) -> None:
    array = np.zeros((8, 16, 21), np.float32)
    array[..., 0] = 1
    array[:4, :8, [0, 8]] = 0, 1
    np.save(tmp_path / "a.npy", array)
    found = ask(open_tutor("files", folders=tmp_path), Image.new("RGB", (16, 8)))
    assert found.map[[0, 8]].tolist() == [[[0.5, 1]], [[0.5, 0]]]


def test_the_thesis_arrays_are_confidences(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 21))
    array[0, 0, 8], array[0, 1, [8, 12]] = 0.9, (0.8, 0.5)
    array[1, :, 0] = 1
    np.save(tmp_path / "a.npy", array)
    tutor = open_tutor("files", folders=tmp_path, stride=1)
    assert tutor.identity["tutor"] == "maps of confidences"
    assert tutor.identity["map_values"] == "confidences"
    found = ask(tutor, Image.new("RGB", (3, 2))).map
    assert found[[0, 8], 0, 0].tolist() == pytest.approx([0, 0.9])
    assert found[[0, 8, 12], 0, 1].tolist() == pytest.approx([0, 0.8, 0.5])
    assert found[:, 0, 2].sum() == 0 and found[:, 1].sum() == 0, "channel 0 says nothing"


def test_of_fine_confidences_those_at_the_cells_centres_count(tmp_path: Path) -> None:
    array = np.zeros((6, 6, 21))
    array[1, 1, 8], array[:, 3:, 12] = 0.9, 0.4
    np.save(tmp_path / "a.npy", array)
    found = ask(open_tutor("files", folders=tmp_path, stride=3), Image.new("RGB", (6, 6))).map
    assert found[8].tolist() == pytest.approx(np.array([[0.9, 0], [0, 0]]))
    assert found[12].tolist() == pytest.approx(np.array([[0, 0.4], [0, 0.4]]))


def test_boxes_and_maps_together(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "a.npz", probs=np.eye(21, dtype=np.float32)[None, :1])
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "a.xml").write_text("<annotation/>")
    tutor = open_tutor("files", folders=[tmp_path / "boxes", tmp_path / "maps"])
    found = ask(tutor, Image.new("RGB", (8, 8)))
    assert found.boxes_xyxy.shape == (0, 4) and found.map.shape == (21, 1, 1)
    before = tutor.identity["weights_sha256"]
    (tmp_path / "boxes" / "b.xml").write_text("<annotation/>")
    after = open_tutor("files", folders=[tmp_path / "boxes", tmp_path / "maps"]).identity["weights_sha256"]
    assert before != after, "other answers are another tutor"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2, 21), np.nan), "probabilities lie from 0 to 1"),
        (np.full((2, 2, 21), 2.0), "probabilities lie from 0 to 1"),
        (np.zeros((2, 2)), r"expected \[height, width, classes\]"),
        (np.zeros((2, 2, 21), np.int64), "expected .* of uint8"),
        (np.eye(22)[None], "22 channels, expected 21"),
        (np.eye(21)[None].repeat(9, 0), "is it another image's"),
        (np.full((2, 2, 21), 0.5), "sum to 10.5 to 10.5, not to one"),
        (np.array([{"a": 1}], dtype=object), "without running code"),
    ],
)
def test_broken_maps_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", probs=np.eye(21, dtype=np.float32)[None, :1])
    np.savez(tmp_path / "b.npz", probs=array)
    with pytest.raises(InputError, match=rf"b\.npz.*{message}"):
        ask(open_tutor("files", folders=tmp_path), Image.new("RGB", (21, 8)), "b")


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no answers of a tutor here; possible files: \.json"):
        open_tutor("files", folders=tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        open_tutor("files", folders=tmp_path / "absent")
    (tmp_path / "inner" / "Annotations").mkdir(parents=True)
    (tmp_path / "inner" / "Annotations" / "a.xml").touch()
    with pytest.raises(InputError, match=r"no answers .*; perhaps .*inner/Annotations is meant$"):
        open_tutor("files", folders=tmp_path / "inner")
    results(tmp_path, [entry()])
    (tmp_path / "a.xml").write_text("<annotation/>")
    with pytest.raises(InputError, match=r"boxes as \.xml, but .*\.json; choose one"):
        open_tutor("files", folders=tmp_path)
    (tmp_path / "m").mkdir()
    np.savez(tmp_path / "m" / "a.npz", other=np.zeros(3))
    with pytest.raises(InputError, match=r"a\.npz: holds no array 'probs'"):
        open_tutor("files", folders=tmp_path / "m")
    np.savez(tmp_path / "m" / "a.npz", probs=np.full((1, 1, 5), 0.2))
    with pytest.raises(InputError, match="5 channels, background included, fit no known classes"):
        open_tutor("files", folders=tmp_path / "m")


@pytest.mark.real
@real
def test_the_deeplab_maps_go_through_a_store_bit_exact(tmp_path: Path) -> None:
    from tutored.softlabels.codec import to_table
    from tutored.softlabels.decode import from_table

    folder = REAL / "data" / "voc2012-animals-deeplab"
    tutor = open_tutor("files", folders=folder)
    paths = sorted(folder.glob("*.npz"))[::170]
    given = [np.load(path)["probs"] for path in paths]
    answers = tutor([Image.new("RGB", (8 * a.shape[1], 8 * a.shape[0])) for a in given], [path.stem for path in paths])
    block = from_table(to_table([path.stem for path in paths], answers), 21)
    for row, array in enumerate(given):
        stored = block.cut(row).map.permute(1, 2, 0).numpy() * 255
        assert (np.rint(stored) == array).all()
