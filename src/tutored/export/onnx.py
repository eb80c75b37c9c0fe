"""A student as ONNX, for use without PyTorch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.errors import InputError
from tutored.export.about import about
from tutored.export.network import Network, Options
from tutored.export.parity import Answers, Parity, check
from tutored.export.sample import choose_sample
from tutored.files import whole_file

OPSET = 17


def export_onnx(checkpoint: Path, out: Path, options: Options | None = None, pictures: Sequence[Path] = ()) -> Parity:
    """Write a checkpoint's student as one ONNX file, any batch size; refused unless it computes the same.

    Input `images`: float32 [B, 3, S, S], RGB in 0..1. Outputs: `boxes` float32 [B, A, 4], xyxy in pixels of the
    S x S input, not clipped; `logits` [B, A, C+1] and `map_logits` [B, C+1, h, w], class 0 background, before the
    softmax. With `nms`, in the place of boxes and logits: `boxes` [B, N, 4], clipped, by falling score; `scores`
    [B, N]; `classes` int64 [B, N], 1..C; `count` int64 [B], how many of the N rows (`decode.total`) hold a box.
    With `mask`, in the place of map_logits: `mask` uint8 [B, S, S]. What else is needed to use them stands in the
    file's metadata (`about`).

    Args:
        options: see `Options`; None gives raw outputs in float32.
        pictures: files to check it on; without any, see `choose_sample`.

    Returns:
        How far it is from PyTorch.

    Raises:
        InputError: no checkpoint, a task that it was not taught, no picture, or `onnx` and `onnxruntime` are not
            installed.
        NotEqualError: it differs from PyTorch, see `check`; nothing is written.
    """
    try:
        import onnx
        import onnxruntime
        from onnx.utils import Extractor
    except ImportError as error:
        raise InputError(f"exporting to ONNX needs {error.name}; run `pip install 'tutored[onnx]'`") from error
    student, config, _ = load_checkpoint(checkpoint)
    options = options or Options()
    for option, task in (("nms", "detection"), ("mask", "segmentation")):
        if getattr(options, option) and task not in config.taught:
            raise InputError(f"{checkpoint}: was not taught {task}; export it without {option}")
    network = Network(student, options, config.decode)
    everything = _trace(network)
    written = everything if options.raw else Extractor(everything).extract_model(["images"], list(network.meanings))
    models = [written] if options.raw else [everything, written]
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]) for model in models
    ]
    parity = check(student, network, lambda images: _answer(sessions, images), choose_sample(config, pictures))
    onnx.helper.set_model_props(written, about(network, config, parity))
    with whole_file(out) as temporary:
        temporary.write_bytes(written.SerializeToString())
    return parity


def _trace(network: Network) -> Any:
    """The network as ONNX, with all that it answers."""
    import onnx

    buffer, images = io.BytesIO(), torch.rand(2, 3, network.size, network.size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The newer exporter (dynamo=True) gives the same numbers at the same speed, but takes 20 s for this one's 1 s,
        # and another package, onnxscript.
        torch.onnx.export(
            network,
            (images,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.names),
            dynamic_axes={name: {0: "batch"} for name in ("images", *network.names)},
        )
        shapes = [answer.shape for answer in network(images)]
    traced = onnx.load_from_string(buffer.getvalue())
    for output, (_, *sides) in zip(traced.graph.output, shapes, strict=True):
        for dimension, side in zip(output.type.tensor_type.shape.dim[1:], sides, strict=True):
            dimension.dim_value = side
    return traced


def _answer(sessions: Sequence[Any], images: Tensor) -> Answers:
    """What the sessions say; the last one has the last word."""
    found: dict[str, Any] = {}
    for session in sessions:
        names = [output.name for output in session.get_outputs()]
        found.update(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
    return found
