"""Promptable segmenters: tiny encoders and decoders in the form of known exports, with masks worked out by hand."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from made import refused
from test_tutor_stores import detected, store
from tutored.cli import main
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.tutors import open_tutor
from tutored.types import SoftLabels

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LABELS = LabelSpace.of(["cat", "dog"])
PICTURE = Image.new("RGB", (32, 16))
PICTURE.paste((255, 255, 255), (0, 0, 8, 16))  # its left quarter is white
BOX = ([4.0, 2.0, 12.0, 10.0], 2, 0.8)  # half of it is white


def save(path, nodes, inputs, outputs, **fixed):
    graph = helper.make_graph(
        [helper.make_node(kind, given, [out], **more) for kind, given, out, more in nodes],
        "made",
        [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, [None] * rank) for name, rank in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in fixed.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def encoder(folder, name, shape, outputs, grey, side):
    """Gives +1 where the picture is brighter than `grey` and -1 where it is darker, in 16 x 16 cells."""
    nodes = [("Transpose", [name], "turned", {"perm": [2, 0, 1]})] if len(shape) == 3 else []
    nodes += [("Unsqueeze", ["turned", "zero"], "batch", {})] if nodes else [("Identity", [name], "batch", {})]
    pool = {"kernel_shape": [side // 16] * 2, "strides": [side // 16] * 2}
    nodes += [
        ("Sub", ["batch", "grey"], "above", {}),
        ("ReduceMean", ["above"], "mean", {"axes": [1]}),
        ("AveragePool", ["mean"], "cells", pool),
        *(("Sign", ["cells"], each, {}) for each in outputs),
    ]
    saved = save(folder / "encoder.onnx", nodes, {name: (shape, FLOAT)}, dict.fromkeys(outputs, 4), grey=grey)
    if len(shape) == 3:
        made = onnx.load(saved)
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
        onnx.save(made, saved)
    return saved


def decoder(folder, features, prompts, masks, factors, sure, side=64):
    """Logits: the first feature times (x1 + 2 y1 + 3 x2 + 4 y2) / 100, at 64 pixels, times the sum of labels / 5."""
    coords, labels = list(prompts)[:2]
    nodes = [
        ("Mul", [coords, "weights"], "weighed", {}),
        ("ReduceSum", ["weighed"], "prompt", {"keepdims": 0}),
        ("ReduceSum", [labels], "kind", {"keepdims": 0}),
        ("Mul", ["prompt", "kind"], "both", {}),
        ("Mul", [features[0], "both"], "one", {}),
        ("Mul", ["one", "factors"], masks, {}),
        ("Identity", ["sure"], "iou_predictions", {}),
    ]
    inputs = {name: ([1, 1, 16, 16], FLOAT) for name in features} | prompts
    weights = np.array([[1, 2], [3, 4]]) / 500 * 64 / side
    outputs = {masks: np.ndim(factors), "iou_predictions": 2}
    return save(folder / "decoder.onnx", nodes, inputs, outputs, weights=weights, factors=factors, sure=[sure])


def prompts(prefix, size=FLOAT, ranks=(3, 2)):
    found = {
        f"{prefix}point_coords": ([*[1] * (ranks[0] - 2), "points", 2], FLOAT),
        f"{prefix}point_labels": ([*[1] * (ranks[1] - 1), "points"], FLOAT),
    }
    found |= {} if prefix else {"mask_input": ([1, 1, 64, 64], FLOAT), "has_mask_input": ([1], FLOAT)}
    return found | ({"orig_im_size": ([2], size)} if size else {})


def sam(folder):
    """The first of four masks is meant for boxes, however sure the network is of the others."""
    factors = np.array([1, -1, -1, -1]).reshape(1, 4, 1, 1)
    return (
        encoder(folder, "input_image", [1, 3, 64, 64], ["image_embeddings"], 0, 64),
        decoder(folder, ["image_embeddings"], prompts(""), "low_res_masks", factors, [0.1, 0.9, 0.9, 0.9]),
    )


def mobile_sam(folder):
    """Pictures of any size from 0 to 255 with their channels last; the encoder calls its output by another name."""
    return (
        encoder(folder, "input_image", ["h", "w", 3], ["output"], 128, 1024),
        decoder(folder, ["image_embeddings"], prompts(""), "masks", np.ones((1, 1, 1, 1)), [0.5], 1024),
    )


def sam_2(folder):
    """Stretched pictures, several features, and of three masks the one of which the network is sure."""
    features = ["image_embed", "high_res_feats_0", "high_res_feats_1"]
    factors = np.array([-1, 1, -1]).reshape(1, 3, 1, 1)
    return (
        encoder(folder, "image", [1, 3, 64, 64], features, 0, 64),
        decoder(folder, features, prompts("", None), "masks", factors, [0.1, 0.9, 0.5]),
    )


def efficient_sam(folder):
    """Stretched pictures from 0 to 1 of any size; prompts and masks have a side more."""
    factors, asked = np.array([1, -1, -1]).reshape(1, 1, 3, 1, 1), prompts("batched_", INT64, (4, 3))
    return (
        encoder(folder, "batched_images", [1, 3, "h", "w"], ["image_embeddings"], 0.5, 1024),
        decoder(folder, ["image_embeddings"], asked, "output_masks", factors, [0.9, 0.5, 0.1], 1024),
    )


def asked(files, folder, **options):
    found = detected(BOX, ([0, 0, 4, 4], 1, 0.4), classes=3)
    boxes = store(folder / "boxes", LABELS, {"a": SoftLabels.of((16, 32), found)})
    tutor = open_tutor("prompted", encoder=files[0], decoder=files[1], boxes=boxes, **options)
    (answer,) = tutor([PICTURE], ["a"])
    return answer.tasks["instances"]


@pytest.mark.parametrize(
    ("export", "corners"),
    [
        (sam, [8, 4, 24, 20]),  # twice as large, in the upper half of the input
        (mobile_sam, [8, 4, 24, 20]),  # the same of 1024 pixels
        (sam_2, [8, 8, 24, 40]),  # twice as wide, four times as high
        (efficient_sam, [8, 8, 24, 40]),
    ],
)
def test_a_mask_is_drawn_for_each_box(export, corners, tmp_path):
    found = asked(export(tmp_path), tmp_path)
    assert found.boxes_xyxy.tolist() == [BOX[0]] and found.classes.tolist() == [2], "the other is below the floor"
    assert found.scores.tolist() == pytest.approx([0.8]) and found.masks.shape == (1, 56, 56)
    logit = sum(place * times for place, times in zip(corners, [1, 2, 3, 4], strict=True)) / 100
    white = torch.tensor(logit).sigmoid()
    # The edge at the box's middle is read bilinearly between two cells of a quarter of its width.
    torch.testing.assert_close(found.masks[0, :, :20], white.expand(56, 20))
    torch.testing.assert_close(found.masks[0, :, -20:], (1 - white).expand(56, 20))


def test_the_command_gives_drawn_boxes_masks(voc_folder, tmp_path, capsys):
    encode, decode = sam(tmp_path)
    files = ["--encoder", str(encode), "--decoder", str(decode), "--boxes", "ground_truth"]
    where = ["--data", f"voc:{voc_folder}", "--split", "val", "--out", str(tmp_path / "out")]
    assert main(["label", "prompted", *files, *where]) == 0
    made = Store.open(tmp_path / "out")
    assert made.kinds == ("instances",) and made.identity["mask_side"] == 56
    assert len(made["val_000"].tasks["instances"].masks) > 0
    (tmp_path / "encoder.yaml").write_text("input: {white: 2}")
    assert main(["label", "prompted", *files, *where, "--resume"]) == 2
    assert "'preprocessing'" in capsys.readouterr().err, "what is declared beside the encoder counts"


def test_files_that_are_no_pair_are_refused(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (encode, decode), other = sam(tmp_path), sam_2(tmp_path / "other")
    for files, message in (
        ((encode, encode), r"takes no corners of boxes .* a network that needs no prompts is the tutor onnx:FILE"),
        ((encode, other[1]), "takes image_embed, high_res_feats_0, .* gives image_embeddings; give the encoder and"),
    ):
        refused(message, asked, files, tmp_path)
    for part in (encode, decode):
        refused("needs boxes as prompts; label with `prompted --encoder FILE", open_tutor, f"onnx:{part}")
    refused("boxes: Field required", open_tutor, "prompted", encoder=encode, decoder=decode)
    refused("boxes: unknown; possible: ", open_tutor, f"onnx:{decode}", boxes="ground_truth")
    assert main(["label", f"onnx:{decode}", "--boxes", "ground_truth"]) == 2
    told = capsys.readouterr().err
    assert "no such option '--boxes'; it is an option of the tutors instances, prompted, rescored\n" in told
