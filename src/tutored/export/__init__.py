"""A student for use without our package: ONNX or `torch.export`, refused unless it computes the same."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.errors import InputError
from tutored.export.network import Network, Options
from tutored.export.parity import NotEqualError, Parity, check, choose_sample
from tutored.files import whole_file

__all__ = ["NotEqualError", "Options", "Parity", "export_onnx", "export_program"]

OPSET = 17
ABOUT = "tutored.json"
"""The extra file of a program of `torch.export` that holds its metadata."""


def export_onnx(
    checkpoint: Path | str, out: Path | str, options: Options | None = None, pictures: Sequence[Path | str] = ()
) -> Parity:
    """Write a checkpoint's student as one ONNX file, any batch size; refused unless it computes the same.

    Input `images`: float32 [B, 3, S, S], RGB in 0..1. Outputs, for each task that was taught:

    - of boxes `{task}_candidates` float32 [B, A, 4], xyxy in pixels of the S x S input, not clipped, and `{task}_probs`
      float32 [B, A, C+1], class 0 background; with `nms` instead `{task}_boxes` [B, N, 4], clipped, by falling score,
      `{task}_scores` [B, N], `{task}_classes` int64 [B, N], 1..C, and `{task}_count` int64 [B], how many of the N rows
      (`decode.total`) hold a box;
    - of a dense task `{task}_map` float32 [B, channels, h, w]; with `mask` instead its final form, such as
      `{task}_mask` uint8 [B, S, S].

    What else is needed to use them stands in the file's metadata.

    Args:
        options: see `Options`; None gives raw outputs in float32.
        pictures: files to check it on; without any, see `choose_sample`.

    Returns:
        How far it is from PyTorch.

    Raises:
        InputError: no checkpoint, a task of it can't be exported or gives no such answers, no picture, or `onnx` and
            `onnxruntime` are not installed.
        NotEqualError: it differs from PyTorch, see `check`; nothing is written.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(f"exporting to ONNX needs {error.name}; run `pip install 'tutored[onnx]'`") from error
    config, reference, network = _networks(checkpoint, options or Options())
    model = trace(network)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> dict[str, Any]:
        return dict(zip(network.names, session.run(list(network.names), {"images": images.numpy()}), strict=True))

    parity = check(reference, network, answer, choose_sample(config, pictures))
    onnx.helper.set_model_props(model, _about(network, config, parity))
    with whole_file(Path(out)) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return parity


def export_program(
    checkpoint: Path | str, out: Path | str, *, half: bool = False, pictures: Sequence[Path | str] = ()
) -> Parity:
    """Write a checkpoint's student for `torch.export.load`, any batch size; refused unless it computes the same.

    Input and outputs are those of `export_onnx` without options, in a tuple; what else is needed to use them stands
    in the file's `tutored.json`, an extra file.

    Args:
        half: see `Options`.
        pictures: files to check it on; without any, see `choose_sample`.

    Raises:
        InputError: no checkpoint, a task of it can't be exported, or no picture.
        NotEqualError: it differs from PyTorch, see `check`; nothing is written.
    """
    config, reference, network = _networks(checkpoint, Options(half=half))
    sample = choose_sample(config, pictures)
    with torch.no_grad():
        program = torch.export.export(
            network,
            (torch.rand(2, 3, network.size, network.size),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )

    def saved(about: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
        return buffer.getvalue()

    # Our own file of a moment ago: no other is loaded this way, because what is loaded may hold pickles.
    loaded = torch.export.load(io.BytesIO(saved({}))).module()

    def answer(images: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            return dict(zip(network.names, (output.numpy() for output in loaded(images)), strict=True))

    parity = check(reference, network, answer, sample)
    with whole_file(Path(out)) as temporary:
        temporary.write_bytes(saved(_about(network, config, parity)))
    return parity


def _networks(checkpoint: Path | str, options: Options) -> tuple[Config, Network, Network]:
    """The run's config, and the student without options and with them, for the tasks that were taught."""
    student, config = load_checkpoint(checkpoint)
    try:
        return config, Network(student, config.taught, Options()), Network(student, config.taught, options)
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error


def trace(network: Network) -> Any:
    """The network as an ONNX model."""
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


def _about(network: Network, config: Config, parity: Parity) -> dict[str, str]:
    """What using the file takes: text, or JSON where it is a list or dictionary."""
    tasks = {
        name: {"kind": task.kind, "names": task.labels.names} | network.exports[name].facts
        for name, task in network.student.tasks.items()
        if name in network.exports
    }
    size = network.size
    return {
        "tasks": json.dumps(tasks),
        "scores": json.dumps({name: network.student.scores[name] for name in tasks}),
        "preprocessing": f"RGB in 0..1, resized to {size} x {size} (bilinear with antialias, aspect ratio not kept)",
        "outputs": json.dumps(network.names),
        "precision": "float16, inputs and outputs float32" if network.options.half else "float32",
        "checked": json.dumps(parity._asdict()),
        "run_id": config.run_id,
        "made_by": f"tutored {version('tutored')}",
    }
