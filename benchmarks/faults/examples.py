"""Valid examples of users' files: data sets, answers of tutors, lists, a request, and networks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file

from tutored.labels import VOC, LabelSpace

SIZE = (8, 10)
"""(height, width) of every picture here."""
PETS = LabelSpace.of(["cat", "dog"])
XML = (
    "<annotation><size><width>10</width><height>8</height></size>"
    "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>7</ymax>"
    "</bndbox></object><object><name>dog</name><bndbox><xmin>3.5</xmin><ymin>1</ymin><xmax>10</xmax><ymax>8</ymax>"
    "</bndbox></object></annotation>"
)


def picture(seed: int = 0) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8))


def mask() -> Image.Image:
    """Classes 0, 8 and 12, and some void; with a palette."""
    values = np.zeros(SIZE, np.uint8)
    values[1:7, 0:4], values[2:8, 5:9], values[-1] = 8, 12, 255
    made = Image.fromarray(values)
    made.putpalette([channel for value in range(256) for channel in (value, value * 5 % 256, value * 11 % 256)])
    return made


def make_voc(folder: Path) -> None:
    """A VOC folder of two images."""
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        picture().save(folder / f"JPEGImages/{name}.jpg")
        (folder / f"Annotations/{name}.xml").write_text(XML)
        mask().save(folder / f"SegmentationClass/{name}.png")
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in VOC.classes))


def make_coco(folder: Path) -> None:
    """A COCO folder of two images, with polygons and run lengths."""
    (folder / "val").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        picture().save(folder / f"val/{name}.jpg")
    counts = {"size": [8, 10], "counts": [8, 20, 52]}
    kinds: list[Any] = [[[1, 1, 6, 1, 6, 6, 1, 6]], counts, {"size": [8, 10], "counts": "8d0d1"}]
    content = {
        "images": [{"id": i, "file_name": f"{n}.jpg", "height": 8, "width": 10} for i, n in ((1, "a"), (2, "b"))],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": n,
                "image_id": 1 + n % 2,
                "category_id": 3,
                "bbox": [1, 1, 5, 5],
                "iscrowd": n % 2,
                "segmentation": s,
            }
            for n, s in enumerate(kinds)
        ],
    }
    (folder / "val.json").write_text(json.dumps(content))


def make_results(folder: Path) -> None:
    """COCO results of one image."""
    entry = {"image_id": "a", "category_id": 17, "bbox": [1.0, 1.0, 5.0, 5.0], "score": 0.5}
    region = {
        "image_id": "a",
        "category_id": 18,
        "score": 0.9,
        "segmentation": {"size": [8, 10], "counts": [8, 20, 52]},
    }
    content = {
        "images": [{"id": "a", "file_name": "a.jpg"}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [entry, region, entry],
    }
    (folder / "results.json").write_text(json.dumps(content))


def make_confidences(folder: Path) -> None:
    """XML with confidences of one image."""
    (folder / "a.xml").write_text(XML.replace("</name>", "</name><confidence>0.5</confidence>"))


def make_maps(folder: Path, *, packed: bool) -> None:
    """Probabilities of VOC's classes on a grid of 3 x 4."""
    probs = np.random.default_rng(0).random((3, 4, 21)).astype(np.float32)
    probs /= probs.sum(2, keepdims=True)
    if packed:
        np.savez_compressed(folder / "a.npz", probs=probs)
    else:
        np.save(folder / "a.npy", probs)


def make_list(folder: Path) -> None:
    """A folder of pictures, and a list of them."""
    for name in ("a.png", "b.jpg"):
        picture().save(folder / name)
    (folder / "list.txt").write_text("a.png\nb.jpg\n")


def make_upload(folder: Path) -> None:
    """The body of a request with a picture."""
    written = io.BytesIO()
    picture().save(written, "PNG")
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    (folder / "body").write_bytes(head + written.getvalue() + b"\r\n--x--\r\n")


def make_onnx(folder: Path) -> None:
    """A model that answers with fixed boxes and scores, and what declares it."""
    arrays = {"boxes": np.array([[[1, 1, 5, 6.0]]], np.float32), "scores": np.array([[[0.9, 0.1]]], np.float32)}
    fixed = [
        helper.make_tensor(f"f_{name}", TensorProto.FLOAT, array.shape, array.ravel()) for name, array in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items()]
    nodes = [helper.make_node("Identity", [f"f_{name}"], [name]) for name in arrays]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])], outputs, fixed
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "m.onnx")
    head = {"kind": "boxes_scores", "boxes": "boxes", "scores": "scores"}
    declared = {"labels": ["cat", "dog"], "detection": head, "input": {"mean": [0.1, 0.2, 0.3], "fit": "letterbox"}}
    (folder / "m.yaml").write_text(yaml.safe_dump(declared))


def make_weights(folder: Path) -> None:
    """The same tensors as a pickle of torch's and as safetensors."""
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    torch.save(tensors, folder / "w.pth")
    save_file(tensors, folder / "w.safetensors")
