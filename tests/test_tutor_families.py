"""ONNX files of known exporters, each a tiny graph with the exporter's own names, shapes and metadata."""

import json

import numpy as np
import onnx.parser
import pytest

from made import ask, blank, onnx_model, refused
from tutored.errors import InputError
from tutored.labels import COCO
from tutored.tutors import open_tutor

NAMES = {"names": "{0: 'cat', 1: 'dog'}"}
CAT_DOG = {"config.json": {"id2label": {"0": "cat", "1": "dog"}}}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def write(folder, inputs, outputs, beside=None, **about):
    """A model that answers with these arrays, whatever it sees, and JSON files beside it."""
    for name, content in (beside or {}).items():
        (folder / name).write_text(json.dumps(content))
    return onnx_model(folder / "m.onnx", inputs, outputs, **about)


def opened(path, family, **options):
    tutor = open_tutor("onnx", weights=path, **options)
    assert f"{path}: read as {family}: " in tutor.notes[0], tutor.notes
    return tutor


def boxes_of(tutor, height, width):
    """(class, box, score) of each box, best first, to two digits."""
    found = ask(tutor, blank(height, width)).tasks["detection"]
    names = [tutor.labels.names[index] for index in found.classes]
    boxes = [[round(edge, 2) for edge in box] for box in found.boxes_xyxy.tolist()]
    return list(zip(names, boxes, [round(score, 2) for score in found.scores.tolist()], strict=True))


def about(task, side=32, end2end=False):
    """The metadata of an Ultralytics export."""
    return NAMES | {"task": task, "stride": "32", "imgsz": f"[{side}, {side}]", "end2end": str(end2end)}


SQUARE = {"images": [1, 3, 32, 32]}
# In a picture of 64 x 32 pixels, halved to 32 x 16 and put in the middle of 32 x 32, so from y = 8 on:
WIDE = (32, 64)


def test_ultralytics_detect(tmp_path):
    rows = np.zeros((1, 6, 21))
    rows[0, :, 0], rows[0, :, 1] = [16, 16, 16, 8, 0.9, 0.05], [4, 12, 8, 8, 0.1, 0.5]
    tutor = opened(write(tmp_path, SQUARE, {"output0": rows}, **about("detect")), "Ultralytics", score_floor=0.2)
    assert boxes_of(tutor, *WIDE) == [("cat", [16, 8, 48, 24], 0.9), ("dog", [0, 0, 16, 16], 0.5)]
    told = json.loads(tutor.identity["preprocessing"].partition(", ")[2])
    assert tutor.identity["nms_iou"] == 0.7 and tutor.identity["preprocessing"].startswith("32 x 32, ")
    placed = [told[key] for key in ("colours", "white", "fit", "corner", "fill")]
    assert placed == ["rgb", 1, "letterbox", "centre", 114]


@pytest.mark.parametrize("raw", [True, False])
def test_ultralytics_segment(tmp_path, raw):
    prototypes = np.full((1, 32, 8, 8), -50.0)
    prototypes[0, 3, :, 4:] = 50  # the right half of the input
    shares = np.eye(32)[3]
    row = np.concatenate([[16, 16, 16, 8, 0.9, 0.05] if raw else [8, 12, 24, 20, 0.9, 0], shares])
    rows = np.zeros((1, 38, 21)) if raw else np.zeros((1, 3, 38))
    rows[0][(slice(None), 0) if raw else (0, slice(None))] = row
    outputs = {"output0": rows, "output1": prototypes}
    file = write(tmp_path, SQUARE, outputs, **about("segment", end2end=not raw))
    tutor = opened(file, "Ultralytics", score_floor=0.2)
    assert boxes_of(tutor, *WIDE) == [("cat", [16, 8, 48, 24], 0.9)]
    found = ask(tutor, blank(*WIDE)).tasks["instances"]
    assert found.boxes_xyxy.tolist() == [[16, 8, 48, 24]] and found.masks.shape == (1, 28, 28)
    assert found.masks[0, :, :11].max() < 1e-4 and found.masks[0, :, 17:].min() > 0.9999, "the box' right half"
    assert tutor.identity["mask_floor"] == 0.05


def test_ultralytics_semantic(tmp_path):
    logits = np.zeros((1, 2, 32, 32))
    logits[0, 0, :16], logits[0, 1, 16:] = 50, 50
    numbers = logits.argmax(1).astype(np.uint8)  # since 8.4.57 the graph ends in class numbers
    for output in (logits, numbers):
        tutor = opened(write(tmp_path, SQUARE, {"output0": output}, **about("semantic")), "Ultralytics", stride=16)
        found = ask(tutor, blank(*WIDE)).tasks["segmentation"].map
        assert found.shape == (3, 2, 4) and found[0].max() < 1e-6
        assert found[1].tolist() == pytest.approx(np.array([[1] * 4, [0] * 4])), "the picture's upper half is cat"


@pytest.mark.parametrize("named", [True, False])
def test_an_rt_detr_of_ultralytics(tmp_path, named):
    """Shares of the stretched input: score and class in each row today, a score for each class in older exports."""
    told = {"head": "RTDETRDecoder"} if named else {"description": "Ultralytics rtdetr-l model"}
    rows = [[[0.5, 0.5, 0.5, 0.5, 0.9, 0 if named else 0.1]]]
    tutor = opened(write(tmp_path, SQUARE, {"output0": rows}, **about("detect") | told), "Ultralytics", score_floor=0.2)
    assert boxes_of(tutor, *WIDE) == [("cat", [16, 8, 48, 24], 0.9)] and tutor.identity["nms_iou"] is None
    assert '"fit":"stretch"' in tutor.identity["preprocessing"]


def test_ultralytics_of_other_tasks_are_refused(tmp_path):
    file = write(tmp_path, SQUARE, {"output0": np.zeros((1, 57, 21))}, **about("pose"))
    with pytest.raises(InputError, match=r"m\.onnx: an Ultralytics export of the task pose .*possible: detect, segm"):
        open_tutor("onnx", weights=file)


def test_yolov5(tmp_path):
    """Its own exporter: no task in the metadata, objectness before the classes, rows first."""
    rows = np.zeros((1, 63, 6))
    rows[0, 0] = [16, 16, 16, 8, 0.5, 0.8]
    file = write(tmp_path, SQUARE, {"output0": rows}, stride="32", names="{0: 'cat'}")
    assert boxes_of(opened(file, "Ultralytics"), *WIDE) == [("cat", [16, 8, 48, 24], 0.4)]


def test_rf_detr(tmp_path):
    logits = np.full((1, 2, 91), -9.0)
    logits[0, 0, 18], logits[0, 1, 90] = np.log(9), 0  # COCO's number of dog, and of toothbrush
    masks = np.full((1, 2, 8, 8), -50.0)
    masks[0, 0, :, 4:] = 50
    outputs = {"dets": [[[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]], "labels": logits, "4245": masks}
    tutor = opened(write(tmp_path, {"input": [1, 3, 32, 32]}, outputs), "RF-DETR", score_floor=0.2)
    assert boxes_of(tutor, 32, 64) == [("dog", [16, 8, 48, 24], 0.9), ("toothbrush", [0, 0, 32, 16], 0.5)]
    assert tutor.labels == COCO and tutor.identity["nms_iou"] is None
    first, second = ask(tutor, blank(32, 64)).tasks["instances"].masks
    assert first[:, :11].max() < 1e-4 and first[:, 17:].min() > 0.9999 and second.max() < 1e-4
    told = tutor.identity["preprocessing"]
    assert '"mean":[0.485,0.456,0.406],"deviation":[0.229,0.224,0.225],"fit":"stretch"' in told


def test_rf_detr_of_other_classes(tmp_path):
    logits = [[[np.log(9), -9, -9]]]
    file = write(tmp_path, {"input": [1, 3, 32, 32]}, {"dets": [[[0.5] * 4]], "labels": logits})
    refused("3 outputs, but no names are known; give labels=FILE", open_tutor, "onnx", weights=file)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    tutor = opened(file, "RF-DETR", labels=tmp_path / "names.txt", score_floor=0.2)
    assert boxes_of(tutor, 32, 32) == [("cat", [8, 8, 24, 24], 0.9)], "the output without a name is the last"


def test_rt_detr_and_d_fine(tmp_path):
    """Boxes come in pixels of the size that the graph is told, (width, height)."""
    text = """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3,32,64] images, int64[N,2] orig_target_sizes)
        => (int64[1,1] labels, float[1,1,4] boxes, float[1,1] scores) {
            size = Cast <to = 1> (orig_target_sizes)
            sides = Concat <axis = 1> (size, size)
            shares = Constant <value = float[1,1,4] {0.25, 0.25, 0.75, 0.75}> ()
            boxes = Mul (shares, sides)
            scores = Constant <value = float[1,1] {0.9}> ()
            labels = Constant <value = int64[1,1] {16}> ()
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    tutor = opened(tmp_path / "m.onnx", "RT-DETR, D-FINE", labels="coco")
    assert boxes_of(tutor, 64, 64) == [("dog", [16, 16, 48, 48], 0.9)]
    assert '"white":1.0,"mean":[0.0,0.0,0.0]' in tutor.identity["preprocessing"]


def test_torchvision(tmp_path):
    masks = np.zeros((2, 1, 32, 32))
    masks[0, 0, :, 16:] = 1
    boxes = {"boxes": [[8, 8, 24, 24.0], [0, 0, 8, 8]], "labels": np.array([18, 1]), "scores": [0.9, 0.5]}
    file = write(tmp_path, {"image": [3, 32, 32]}, boxes | {"masks": masks})
    refused("final outputs, but no names are known; .*coco-91: as COCO numbers", open_tutor, "onnx", weights=file)
    tutor = opened(file, "torchvision", labels="coco-91")
    assert boxes_of(tutor, 32, 64) == [("dog", [16, 8, 48, 24], 0.9), ("person", [0, 0, 16, 8], 0.5)]
    assert tutor.labels == COCO and '"layout":"chw"' in tutor.identity["preprocessing"]
    found = ask(tutor, blank(32, 64)).tasks["instances"].masks
    assert found[0, :, :13].max() == 0 and found[0, :, 15:].min() == pytest.approx(1) and found[1].max() == 0
    (tmp_path / "names.txt").write_text("cat\n" * 17 + "dog\n")  # number 0 is background
    assert boxes_of(opened(file, "torchvision", labels=tmp_path / "names.txt"), 32, 32)[0][0] == "dog"


PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "keep_ratio": True, "size": [32, 32]},
    {"type": "Pad", "size": [32, 32], "pad_val": {"img": [114, 114, 114]}},
    {"type": "Normalize", "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "to_rgb": False},
]


def pipeline(*steps):
    tasks = [{"name": "Preprocess", "module": "Transform", "transforms": [*steps]}, {"name": "rtmdet"}]
    return {"pipeline.json": {"pipeline": {"tasks": tasks}}}


DETS = {"dets": [[[8, 4, 24, 12, 0.9], [0, 0, 0, 0, 0]]], "labels": np.array([[16, -1]])}


def test_mmdeploy(tmp_path):
    file = write(tmp_path, {"input": [1, 3, 32, 32]}, DETS, pipeline(*PIPELINE))
    tutor = opened(file, "MMDeploy", labels="coco")
    assert boxes_of(tutor, *WIDE) == [("dog", [16, 8, 48, 24], 0.9)], "the picture lies at the top"
    told = json.loads(tutor.identity["preprocessing"].partition(", ")[2])
    assert told["colours"] == "bgr" and told["white"] == 255 and told["fill"] == [114, 114, 114]
    assert told["mean"] == [103.53, 116.28, 123.675] and told["corner"] == "top_left"
    last = [PIPELINE[1], PIPELINE[3] | {"to_rgb": True}, {"type": "Pad", "size_divisor": 32}]
    write(tmp_path, {"input": [1, 3, 32, 32]}, DETS, pipeline(*last))
    told = json.loads(opened(file, "MMDeploy", labels="coco").identity["preprocessing"].partition(", ")[2])
    assert told["colours"] == "rgb" and told["fill"] == told["mean"], "zero after normalising is the mean"


def test_mmdeploy_without_its_pipeline(tmp_path):
    file = write(tmp_path, {"input": [1, 3, 32, 32]}, DETS)
    with pytest.raises(InputError, match=r"read as MMDeploy, which says in pipeline\.json how .*or declare `input`"):
        open_tutor("onnx", weights=file, labels="coco")
    (tmp_path / "m.yaml").write_text("labels: coco\ninput: {colours: bgr, white: 255}\n")
    assert boxes_of(opened(file, "MMDeploy"), 32, 32) == [("dog", [8, 4, 24, 12], 0.9)], "YAML adds what is missing"
    (tmp_path / "pipeline.json").write_text('{"pipeline": {}}')
    (tmp_path / "m.yaml").unlink()
    with pytest.raises(InputError, match=r"MMDeploy, but .* JSON files beside it, have another form .* \('tasks'\);"):
        open_tutor("onnx", weights=file, labels="coco")


def test_hugging_face_detectors(tmp_path):
    how = {"size": {"height": 32, "width": 64}, "do_rescale": True, "do_normalize": True, **IMAGENET}
    beside = CAT_DOG | {"preprocessor_config.json": how}
    inputs = {"pixel_values": ["batch", "channels", "height", "width"]}
    boxes = [[[0.5, 0.5, 0.5, 0.5]]]
    detr = {"logits": np.log([[[0.6, 0.1, 0.3]]]), "pred_boxes": boxes}
    tutor = opened(write(tmp_path, inputs, detr, beside), "Hugging Face", score_floor=0.2)
    assert boxes_of(tutor, 64, 64) == [("cat", [16, 16, 48, 48], 0.6)] and tutor.labels.classes == ("cat", "dog")
    assert ask(tutor, blank(64, 64)).tasks["detection"].probs.tolist() == [pytest.approx([0.3, 0.6, 0.1])]
    assert tutor.identity["preprocessing"].startswith("32 x 64, ")
    rt_detr = {"logits": [[[np.log(9), -9]]], "pred_boxes": boxes}
    tutor = opened(write(tmp_path, inputs, rt_detr, beside), "Hugging Face", score_floor=0.2)
    assert boxes_of(tutor, 64, 64) == [("cat", [16, 16, 48, 48], 0.9)]


def test_hugging_face_maps(tmp_path):
    logits = np.zeros((1, 2, 2, 2))
    logits[0, 0, 0], logits[0, 1, 1] = 50, 50
    (tmp_path / "onnx").mkdir()
    file = write(tmp_path / "onnx", {"pixel_values": [1, 3, 32, 32]}, {"logits": logits})
    with pytest.raises(InputError, match=r"Hugging Face, which says in config\.json and preprocessor_config\.json how"):
        open_tutor("onnx", weights=file)
    for name, content in (CAT_DOG | {"preprocessor_config.json": {"do_normalize": True, **IMAGENET}}).items():
        (tmp_path / name).write_text(json.dumps(content))  # in the folder above, as on the hub
    found = ask(opened(file, "Hugging Face", stride=16), blank(32, 32)).tasks["segmentation"].map
    assert found[1].tolist() == pytest.approx(np.array([[1, 1], [0, 0]])) and found[0].max() < 1e-6


def test_nanodet(tmp_path):
    rows = np.zeros((1, 64 + 16 + 4 + 1, 2 + 32))
    rows[0, :, 2:] = -50
    # The 17th cell of stride 8 is (1, 2), so at (8, 16). Its distances: 1, 1.5, 2 and 0 strides.
    rows[0, 17, :2] = 0.1, 0.9
    for side, bins in enumerate(([1], [1, 2], [2], [0])):
        rows[0, 17, [2 + 8 * side + each for each in bins]] = 50
    file = write(tmp_path, {"data": [1, 3, 64, 64]}, {"output": rows})
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    tutor = opened(file, "NanoDet", labels=tmp_path / "names.txt", score_floor=0.2)
    assert boxes_of(tutor, 64, 64) == [("dog", [0, 4, 24, 16], 0.9)]
    told = json.loads(tutor.identity["preprocessing"].partition(", ")[2])
    assert [told[key] for key in ("colours", "white", "fit")] == ["bgr", 255, "stretch"]
    assert told["mean"] == [103.53, 116.28, 123.675] and told["deviation"] == [57.375, 57.12, 58.395]


def test_yolox(tmp_path):
    rows = np.zeros((1, 21, 85))
    rows[0, 1, :6], rows[0, 1, 21] = [0.5, 0.5, 0, 0, 0.8, 0], 0.5  # stride 8, cell (1, 0): centre (12, 4), side 8
    tutor = opened(write(tmp_path, SQUARE, {"output": rows}), "YOLOX")
    assert boxes_of(tutor, *WIDE) == [("dog", [16, 0, 32, 16], 0.4)] and tutor.labels == COCO
    told = json.loads(tutor.identity["preprocessing"].partition(", ")[2])
    placed = [told[key] for key in ("colours", "white", "fit", "corner", "fill")]
    assert placed == ["bgr", 255, "letterbox", "top_left", 114]


def test_an_unknown_network_is_described(tmp_path):
    file = write(tmp_path, {"x": ["N", 3, 32, 32]}, {"a": np.zeros((1, 5, 7)), "b": np.zeros((1, 2))})
    message = refused("an export of tutored", open_tutor, "onnx", weights=file)
    assert "(an export of tutored, Ultralytics, RF-DETR, RT-DETR, D-FINE, torchvision, MMDeploy," in message
    assert f"inputs x [N, 3, 32, 32]; outputs a [1, 5, 7], b [1, 2]; say in {file.with_suffix('.yaml')}" in message
    assert "`detection: {kind: final_boxes, boxes: NAME}` or `segmentation: {logits: NAME}`" in message
