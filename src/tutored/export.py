"""A student as ONNX, for use without PyTorch; refused unless it computes the same."""

from __future__ import annotations

import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutored import boxes
from tutored.checkpoint import load_checkpoint
from tutored.errors import InputError
from tutored.files import whole_file
from tutored.student import BlitzNet

OUTPUTS = ("boxes", "logits", "map_logits")
OPSET = 17
TOLERANCE = 1e-4


class Decoded(nn.Module):
    """A student whose boxes need no anchors any more."""

    def __init__(self, student: BlitzNet) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.student(images)
        return boxes.decode(outputs.deltas, outputs.anchors_xyxy), outputs.logits, outputs.map_logits


def export_onnx(checkpoint: Path, out: Path) -> None:
    """Write a checkpoint's student as one ONNX file, any batch size.

    Input `images`: float32 [B, 3, S, S], RGB in 0..1. Outputs: `boxes` float32 [B, A, 4], xyxy in pixels of the
    S x S input, not clipped; `logits` [B, A, C+1] and `map_logits` [B, C+1, h, w], class 0 background, before the
    softmax. What else is needed to use them stands in the file's metadata: class names, preprocessing, score floor
    and limits of the boxes.

    Raises:
        InputError: no checkpoint, or `onnx` and `onnxruntime` are not installed.
        RuntimeError: an output differs from PyTorch's by more than 1e-4 of its largest value (of 1, if that is less);
            nothing is written.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError(f"exporting to ONNX needs {error.name}; run `pip install 'tutored[onnx]'`") from error
    student, config, labels = load_checkpoint(checkpoint)
    size = config.student.size
    model = Decoded(student).to(memory_format=torch.contiguous_format).eval()
    exported = onnx.load_from_string(_trace(model, size))
    about = {
        "names": json.dumps(list(labels.names)),
        "preprocessing": f"RGB in 0..1, resized to {size} x {size} (bilinear with antialias, aspect ratio not kept)",
        "decode": json.dumps(config.decode.model_dump()),
        "run_id": config.run_id,
        "made_by": f"tutored {version('tutored')}",
    }
    onnx.helper.set_model_props(exported, about)
    _check(model, exported.SerializeToString(), size)
    with whole_file(out) as temporary:
        temporary.write_bytes(exported.SerializeToString())


def _trace(model: nn.Module, size: int) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter would need another package, onnxscript, for the same file.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.rand(2, 3, size, size),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in ("images", *OUTPUTS)},
        )
    return buffer.getvalue()


def _check(model: nn.Module, exported: bytes, size: int) -> None:
    """Hold the file against PyTorch on noise, for batches of other sizes than the traced one."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = model(images)
        for name, got, want in zip(OUTPUTS, session.run(None, {"images": images.numpy()}), expected, strict=True):
            worst, largest = float(np.abs(got - want.numpy()).max()), float(want.abs().max())
            if not worst <= TOLERANCE * max(1.0, largest):
                raise RuntimeError(f"the exported network's {name} differ from PyTorch's by up to {worst:.2g}")
