from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tutored import boxes, export
from tutored.checkpoint import save_checkpoint
from tutored.config import make_config
from tutored.export import export_onnx
from tutored.labels import LabelSpace
from tutored.student import BlitzNet

PETS = LabelSpace.of(["cat", "dog"])
SHAPE = {"backbone": "mobilenetv3_small_050", "size": 64, "extra_width": 32, "up_width": 16, "map_width": 8}


def saved(folder: Path) -> BlitzNet:
    config = make_config({"data": {"train": "voc:somewhere"}, "student": SHAPE})
    student = BlitzNet(config.student, PETS).eval()
    save_checkpoint(folder, student, config)
    return student


def test_an_exported_student_answers_as_pytorch_does_and_says_what_it_needs(tmp_path: Path) -> None:
    student = saved(tmp_path / "best")
    export_onnx(tmp_path / "best", tmp_path / "best.onnx")
    onnx.checker.check_model(tmp_path / "best.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "best.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(5, 3, 64, 64)
    found = session.run(["boxes", "logits", "map_logits"], {"images": images.numpy()})
    with torch.no_grad():
        outputs = student(images)
    expected = (boxes.decode(outputs.deltas, outputs.anchors_xyxy), outputs.logits, outputs.map_logits)
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["names"]) == ["background", "cat", "dog"]
    assert json.loads(about["decode"])["nms_iou"] == 0.45
    assert "64 x 64" in about["preprocessing"]


def test_a_network_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = saved(tmp_path / "best")
    trace = export._trace

    def spoiled(model: export.Decoded, size: int) -> bytes:
        exported = trace(model, size)
        with torch.no_grad():
            model.student.map.logits.bias += 0.01
        return exported

    monkeypatch.setattr(export, "_trace", spoiled)
    with pytest.raises(RuntimeError, match=r"map_logits differ from PyTorch's by up to 0\.01"):
        export_onnx(tmp_path / "best", tmp_path / "best.onnx")
    assert not (tmp_path / "best.onnx").exists()
    assert student.map.logits.bias.abs().max() == 0
