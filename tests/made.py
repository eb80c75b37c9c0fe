"""What tests share: a data set in memory, the tutor that repeats its ground truth, and a small student."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn import functional as F

from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.tasks.detection import Boxes, Detection, SoftBoxes
from tutored.tasks.segmentation import ClassMask, Segmentation, SoftMap
from tutored.tutors import open_tutor
from tutored.tutors.label import label
from tutored.types import IGNORE, GroundTruth, SoftLabels

LABELS = LabelSpace.of(["cat", "dog", "horse"])
CHANNELS = len(LABELS)
TINY = {"kind": "blitznet", "backbone": "test_resnet", "size": 64}
TINY |= {"extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8}
"""A student that takes milliseconds for a step."""
COMPACT = {"kind": "compact", "backbone": "test_resnet", "weights": "random", "size": 64, "width": 16, "map_width": 8}
"""The default student in that size."""
SMALL_STUDENT = """--student.weights random --student.backbone test_resnet --student.size 64 --student.width 16
--student.map_width 8 --train.workers 0 --train.device cpu""".split()
SMALLEST = [*SMALL_STUDENT, "--train.epochs", "1"]
"""Options of a training that takes seconds."""
SHAPE = {"kind": "blitznet", "backbone": "mobilenetv3_small_050", "size": 64}
SHAPE |= {"extra_width": 32, "up_width": 16, "map_width": 8}
"""A small student on a trunk as people have it, with depthwise convolutions and squeeze-and-excitation."""


def two_tasks(labels=LABELS, detection=None, segmentation=None):
    """A detection and a segmentation task in one label space, with these keys of their sections."""
    kinds = {Detection: detection, Segmentation: segmentation}
    return {
        kind.kind: kind(kind.kind, labels, kind.Section.model_validate({"kind": kind.kind, **(keys or {})}))
        for kind, keys in kinds.items()
    }


class MadeDataset:
    """`count` images of coloured rectangles, with exact boxes and masks; nothing is on disk."""

    name, source, split, notes = "made", "made", "all", ()

    def __init__(self, count=6, *, void=True, annotated=None):
        self.labels = {"detection": LABELS, "segmentation": LABELS}
        self.ids = tuple(f"made{index}" for index in range(count))
        self.void = void
        self.annotated = annotated

    def image(self, image_id):
        mask = self.ground_truth(image_id).tasks["segmentation"].mask
        noise = np.random.default_rng(len(image_id)).integers(0, 60, (*mask.shape, 3))
        return Image.fromarray((noise + mask.numpy()[..., None] % 4 * 60).astype(np.uint8))

    def annotated_tasks(self, image_id):
        return tuple(self.labels)

    def problems(self, image_id):
        return ()

    def ground_truth(self, image_id):
        rng = np.random.default_rng(int(image_id.removeprefix("made")))
        height, width = int(rng.integers(50, 70)), int(rng.integers(60, 90))
        mask = torch.zeros(height, width, dtype=torch.uint8)
        boxes, classes = [], []
        for column in range(int(rng.integers(0, 4))):
            x1, y1 = 20 * column + int(rng.integers(0, 4)), int(rng.integers(0, 20))
            x2, y2 = x1 + int(rng.integers(9, 16)), y1 + int(rng.integers(12, 28))
            classes.append(int(rng.integers(1, 4)))
            boxes.append([x1, y1, x2, y2])
            mask[y1:y2, x1:x2] = classes[-1]
        if self.void:
            mask[:, width // 2] = IGNORE
        drawn = boxed(Boxes, boxes, classes, annotated=self.annotated)
        return GroundTruth.of((height, width), drawn, ClassMask(mask=mask, annotated=self.annotated))


def boxed(kind, boxes=(), classes=(), **more):
    """`Boxes`, `Detections`, `SoftBoxes` or `Instances` from lists; none is difficult where nothing is said of it."""
    more = ({"difficult": [False] * len(boxes)} if kind is Boxes else {}) | more
    types = {"difficult": torch.bool}
    told = {
        key: torch.tensor(each, dtype=types.get(key, torch.float32)) if isinstance(each, list) else each
        for key, each in more.items()
    }
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return kind(boxes_xyxy=corners, classes=torch.tensor(classes, dtype=torch.int64), **told)


def chosen(drawn, which, **more):
    """An annotation's objects at these places, with further fields."""
    values = {field.name: getattr(drawn, field.name) for field in fields(drawn)}
    own = {name: value[which] for name, value in values.items() if isinstance(value, torch.Tensor)}
    return replace(drawn, **own, **more)


def certain_boxes(boxes, space=CHANNELS):
    """Soft boxes that say with certainty what was drawn."""
    return SoftBoxes(boxes_xyxy=boxes.boxes_xyxy, classes=boxes.classes, probs=F.one_hot(boxes.classes, space).float())


def certain_map(drawn, space=CHANNELS):
    """A soft map that says with certainty what was drawn, and nothing in the void."""
    known = drawn.mask != IGNORE
    one_hot = F.one_hot(torch.where(known, drawn.mask, 0).long(), space).permute(2, 0, 1).float() * known
    return SoftMap(map=one_hot)


def truthful(truth, space=CHANNELS):
    """Soft labels that say with certainty what the ground truth says, under the names of its tasks."""
    certain = {"detection": certain_boxes, "segmentation": certain_map}
    return SoftLabels(truth.size, {name: certain[each.kind](each, space) for name, each in truth.tasks.items()})


class Repeats:
    """A tutor that repeats the ground truth through `change(answer, image_id)`; without, it says nothing."""

    def __init__(self, dataset, change=lambda answer, image_id: answer, kind="repeats"):
        self.dataset, self.change = dataset, change
        self.labels, self.identity = next(iter(dataset.labels.values())), {"kind": kind}

    def __call__(self, images, image_ids):
        return [self.change(truthful(self._whole(each), len(self.labels)), each) for each in image_ids]

    def _whole(self, image_id):
        truth = self.dataset.ground_truth(image_id)
        empty = ClassMask(mask=torch.zeros(truth.size, dtype=torch.uint8))
        return replace(truth, tasks={"detection": boxed(Boxes), "segmentation": empty, **truth.tasks})


PARTS = {"kind": "segmentation", "from": "Parts", "labels": "parts.txt"}
"""The task of `with_parts`."""


def with_parts(folder, split, store):
    """A VOC folder with a second map, whose upper half is head and whose lower one is tail, and a store of a tutor that
    calls all of it head.
    """
    (folder / "Parts").mkdir()
    (folder / "parts.txt").write_text("head\ntail\n")
    answers = store.with_name("answers")
    answers.mkdir()
    for image in (folder / "JPEGImages").glob("*.jpg"):
        width, height = Image.open(image).size
        parts = np.ones((height, width), np.uint8)
        np.save(answers / f"{image.stem}.npy", np.eye(3, dtype=np.float32)[parts])
        parts[height // 2 :] = 2
        Image.fromarray(parts).save(folder / "Parts" / f"{image.stem}.png")
    tutor = open_tutor("files", folders=[answers], labels=folder / "parts.txt")
    label(tutor, open_dataset(f"voc:{folder}", split), store)
    return folder


# --- Messages and files


def refused(match, do, *given, **options):
    """The message with which `do` refuses what it is given; this regular expression is found in it."""
    with pytest.raises(InputError, match=match) as caught:
        do(*given, **options)
    return str(caught.value)


def write(path, content=""):
    """A file of text, or of JSON, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def pictures(*paths, size=(10, 8), mode="RGB", colour=0):
    """Files of one colour, in folders that are made."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path)


def turned(number):
    """EXIF that says how its picture is turned: 3 upside down, 6 by 90 degrees clockwise."""
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def xml(*objects):
    return f"<annotation>{''.join(objects)}</annotation>"


def thing(name, box=(1, 1, 2, 2), extra=""):
    """An object of VOC's XML."""
    sides = "".join(f"<{side}>{at}</{side}>" for side, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{sides}</bndbox></object>"


def coco_file(path, *annotations, images=("1.jpg",), classes=("cat",)):
    """COCO's instances; numbers count from 1 on, and an annotation is of image 1 and class 1 where it says nothing."""
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(images, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1, **each} for n, each in enumerate(annotations)],
    }
    return write(path, content)


def coco_precision(kind, drawn, found):
    """pycocotools' precision [thresholds, recalls, classes] of 100 answers an image, for boxes ("bbox") or "segm".

    Args:
        drawn: by image, entries with a `category_id`, `bbox` and `iscrowd`; a crowd here does not count.
        found: the like with a `score`.
    """
    bound = []
    for sides in (drawn, found):
        rows = [{"image_id": index, **each} for index, side in enumerate(sides) for each in side]
        rows = [
            {"id": n, "area": each["bbox"][2] * each["bbox"][3], "iscrowd": 0, **each} for n, each in enumerate(rows, 1)
        ]
        bound.append(COCO())
        bound[-1].dataset = {
            "images": [{"id": n, "height": 50, "width": 50} for n in range(len(sides))],
            "annotations": rows,
        }
        bound[-1].dataset["categories"] = [{"id": number} for number in (1, 2, 3)]
        bound[-1].createIndex()
    official = COCOeval(*bound, kind)
    official.evaluate()
    official.accumulate()
    return official.eval["precision"][:, :, :, 0, 2]


# --- Asking a tutor


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def blank(height, width):
    return Image.new("RGB", (width, height))


def ask(tutor, image, image_id="a"):
    (found,) = tutor([image], [image_id])
    return found


def ask_boxes(tutor, image, image_id="a"):
    return ask(tutor, image, image_id).tasks["detection"]


def ask_map(tutor, image, image_id="a"):
    return ask(tutor, image, image_id).tasks["segmentation"].map


def onnx_model(path, inputs, outputs, half=False, **metadata):
    """An ONNX model that answers with these arrays, whatever it sees.

    Args:
        inputs: shapes by name; of two dimensions: int64.
        half: the inputs are of float16.
    """
    import onnx
    from onnx import TensorProto, helper

    arrays = {name: np.asarray(values) for name, values in outputs.items()}
    arrays = {name: each.astype(np.float32) if each.dtype.kind == "f" else each for name, each in arrays.items()}
    kinds = {name: helper.np_dtype_to_tensor_dtype(each.dtype) for name, each in arrays.items()}
    float_ = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"fixed_{name}"], [name]) for name in arrays],
        "fixed",
        [helper.make_tensor_value_info(n, TensorProto.INT64 if len(s) == 2 else float_, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(name, kinds[name], each.shape) for name, each in arrays.items()],
        [helper.make_tensor(f"fixed_{name}", kinds[name], a.shape, a.ravel()) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def yolox(path, rows, classes=2, side=32, batch=1, half=False, more=(), **metadata):
    """A YOLOX whose output has these rows; `more`: names of further inputs."""
    output = np.zeros((1, sum((side // stride) ** 2 for stride in (8, 16, 32)), 5 + classes), np.float32)
    for row, values in rows.items():
        output[0, row] = values
    inputs = {name: [batch, 3, side, side] for name in ("images", *more)}
    return onnx_model(path, inputs, {"output": output}, half, **metadata)
