"""Models of torchvision as tutors: random networks, against torchvision's own post-processing."""

import argparse
import math
import os
import pickle

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.roi_heads import paste_masks_in_image

from made import ask, ask_boxes, ask_map, noise, refused, write
from tutored.errors import InputError
from tutored.labels import COCO_NAMES, VOC, LabelSpace
from tutored.tutors import TorchvisionOptions, open_tutor
from tutored.tutors.torchvision import MODELS, Detector, categories


def network(name, seed=0, outputs=5):
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


def normalised(model, part, side):
    """The deepest random networks give the same for every image, unless their normalisation knows its data."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    part.train()(torch.rand(2, 3, side, side))
    return model.eval()


NAMES = ["background", "cat", "N/A", "dog", "horse"]


def detector(model, names, floor=0.05, most=9, mask_floor=0.05):
    return Detector(model, names, {}, TorchvisionOptions(score_floor=floor, max_boxes=most, mask_floor=mask_floor))


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 0.05),
        ("retinanet_resnet50_fpn", 0.02),
        ("fcos_resnet50_fpn", 0.02),
        ("ssdlite320_mobilenet_v3_large", 0.05),
    ],
)
def test_detectors_answer_as_torchvision_does(name, floor):
    model, image, most = network(name), noise(90, 120), 50
    heads = getattr(model, "roi_heads", model)
    # Theirs counts outputs that we drop, so no bound may bind.
    heads.score_thresh, heads.topk_candidates, heads.detections_per_img = floor, 100_000, 100_000
    found = ask_boxes(detector(model, NAMES, floor, most), image)
    with torch.inference_mode():
        (theirs,) = model([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
    wanted = torch.tensor([NAMES[label] in ("cat", "dog", "horse") for label in theirs["labels"]])
    wanted &= (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(1)
    boxes, labels, scores = (theirs[key][wanted][:most] for key in ("boxes", "labels", "scores"))
    assert len(boxes) >= 5, "the test tests something"
    assert torch.allclose(found.boxes_xyxy, boxes, atol=1e-4) and torch.allclose(found.scores, scores, atol=1e-4)
    space = LabelSpace.of([name for name in NAMES[1:] if name != "N/A"])
    assert [space.names[index] for index in found.classes] == [NAMES[label] for label in labels]
    assert torch.allclose(found.probs.sum(1), torch.ones(len(boxes)), atol=1e-5)
    assert found.probs.shape[1] == len(space)


def test_mask_rcnn_keeps_its_soft_masks():
    model, image = network("maskrcnn_resnet50_fpn", outputs=3), noise(90, 120)
    made = ask(detector(model, ["background", "cat", "dog"], mask_floor=0.1), image).tasks["instances"]
    model.roi_heads.detections_per_img = 9
    with torch.inference_mode():
        (theirs,) = model([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255])
    assert made.masks.shape[1:] == (28, 28) and len(made.masks) >= 3
    count = len(made.masks)
    assert torch.allclose(made.boxes_xyxy, theirs["boxes"][:count], atol=1e-4) and (made.scores >= 0.1).all()
    pasted = paste_masks_in_image(made.masks[:, None], made.boxes_xyxy, (90, 120))
    assert torch.allclose(pasted, theirs["masks"][:count], atol=1e-4)


def test_segmentation_weights_from_a_file(tmp_path):
    torch.manual_seed(0)
    model = get_model("deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, aux_loss=True)
    normalised(model, model.backbone, 128)
    torch.nn.init.normal_(model.classifier[-1].weight)
    torch.save(model.state_dict(), tmp_path / "deeplab.pth")
    tutor = open_tutor("torchvision", weights=tmp_path / "deeplab.pth", model="deeplabv3_mobilenet_v3_large")
    assert tutor.labels == VOC
    image = noise(41, 65)
    found = ask_map(tutor, image)
    assert found.shape == (21, 6, 9), "cells of eight pixels, the last ones smaller"
    assert torch.allclose(found.sum(0), torch.ones(6, 9), atol=1e-5)
    preprocess = get_model_weights("deeplabv3_mobilenet_v3_large").DEFAULT.transforms()
    with torch.inference_mode():
        probs = model(preprocess(image)[None])["out"][0].softmax(0)
    assert probs.shape == (21, 520, 824) and probs.std((1, 2)).max() > 0.01, "the test tests something"
    edges = [[520 * row // 6, -(-520 * (row + 1) // 6)] for row in range(6)]
    columns = [[824 * column // 9, -(-824 * (column + 1) // 9)] for column in range(9)]
    slow = [[probs[:, y1:y2, x1:x2].mean((1, 2)) for x1, x2 in columns] for y1, y2 in edges]
    assert torch.allclose(found, torch.stack([torch.stack(row, 1) for row in slow], 1), atol=1e-4)
    assert tutor.identity["weights"] == "deeplab.pth" and len(tutor.identity["weights_sha256"]) == 64


def test_weights_are_never_fetched_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fetched = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, hash_prefix: fetched.append(url))
    for model in ("maskrcnn_resnet50_fpn_v2", "deeplabv3_resnet101"):
        refused(rf"{get_model_weights(model).DEFAULT}: .* fetch \S+/{model}_coco-", open_tutor, f"torchvision:{model}")
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
    checkpoint = tmp_path / "hub/checkpoints" / file
    for given in ({"weights": name}, {"model": "lraspp_mobilenet_v3_large"}, {"weights": checkpoint}):
        tutor = open_tutor("torchvision", **given)
        assert tutor.labels == VOC and tutor.identity["tutor"] == "lraspp_mobilenet_v3_large"


def test_answers_that_are_not_finite_are_refused(tmp_path):
    model = network("ssdlite320_mobilenet_v3_large", outputs=3)
    bias = model.head.classification_head.module_list[0][1].bias
    torch.nn.init.constant_(bias, math.nan)
    with pytest.raises(InputError, match=r"image a: \d+ of the network's 6468 scores are NaN"):  # 3,234 anchors
        ask(detector(model, ["background", "cat", "dog"]), noise(60, 80))
    torch.nn.init.zeros_(bias)
    torch.nn.init.constant_(model.head.regression_head.module_list[0][1].bias, math.nan)
    with pytest.raises(InputError, match=r"image a: \d+ of the network's \d+ box sides are NaN"):
        ask(detector(model, ["background", "cat", "dog"]), noise(60, 80))
    torch.save(model.state_dict(), tmp_path / "own.pth")
    given = {"weights": tmp_path / "own.pth", "labels": write(tmp_path / "names.txt", "cat\ndog\n")}
    with pytest.raises(InputError, match=r"weights of head\.regression_head.*bias are NaN or infinite; take an"):
        open_tutor("torchvision:ssdlite320_mobilenet_v3_large", **given)


def test_weights_that_are_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError, match="without running code"):
        open_tutor("torchvision", weights=tmp_path / "harmful.pth", model="lraspp_mobilenet_v3_large")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(InputError, match=r"of which model are these weights\? Give model=NAME"):
        open_tutor("torchvision", weights=tmp_path / "harmful.pth")
    refused("unknown torchvision model 'yolo'; possible: fasterrcnn", open_tutor, "torchvision", model="yolo")
    with pytest.raises(InputError, match=r"no published weights; possible: FCOS_ResNet50_FPN_Weights\.COCO_V1"):
        open_tutor("torchvision", model="fcos_resnet50_fpn", weights="IMAGENET")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_training_scripts_are_read(tmp_path, prefix):
    torch.manual_seed(0)
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3).eval()
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    training = {"epoch": 29, "args": argparse.Namespace(lr=0.01)}
    training["optimizer"] = torch.optim.SGD([torch.zeros(1)]).state_dict()
    torch.save({"model": state, **training}, tmp_path / "model_29.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    given = {"model": "lraspp_mobilenet_v3_large", "labels": tmp_path / "labels.txt"}
    tutor = open_tutor("torchvision", weights=tmp_path / "model_29.pth", **given)
    assert tutor.labels.classes == ("cat", "dog")
    name = "classifier.low_classifier.weight"
    assert torch.equal(tutor.model.state_dict()[name], state[f"{prefix}{name}"])
    torch.save({"model": state, "best": np.float64(0.5)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: .*it also holds numpy.*; save model\.state_dict\(\) alone, or"):
        open_tutor("torchvision", weights=tmp_path / "other.pth", **given)


def test_torchvisions_coco_names_are_ours():
    names = categories("fasterrcnn_resnet50_fpn", None)
    assert [name for name in names[1:] if name != "N/A"] == COCO_NAMES
    assert len(MODELS) >= 18
