"""A student as a program of `torch.export`, for use with PyTorch and without our package."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.export.about import about
from tutored.export.network import Network, Options
from tutored.export.parity import Answers, Parity, check
from tutored.export.sample import choose_sample
from tutored.files import whole_file

ABOUT = "tutored.json"


def export_program(checkpoint: Path, out: Path, *, half: bool = False, pictures: Sequence[Path] = ()) -> Parity:
    """Write a checkpoint's student for `torch.export.load`, any batch size; refused unless it computes the same.

    Input and outputs are those of `export_onnx` without options, in a tuple; what else is needed to use them stands
    in the file's `tutored.json`, an extra file.

    Args:
        half: see `Options`.
        pictures: files to check it on; without any, see `choose_sample`.

    Raises:
        InputError: no checkpoint, or no picture.
        NotEqualError: it differs from PyTorch, see `check`; nothing is written.
    """
    student, config, _ = load_checkpoint(checkpoint)
    network = Network(student, Options(half=half), config.decode)
    sample = choose_sample(config, pictures)
    with torch.no_grad():
        program = torch.export.export(
            network,
            (torch.rand(2, 3, network.size, network.size),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    # Our own file of a moment ago: no other is loaded this way, because what is loaded may hold pickles.
    loaded = torch.export.load(io.BytesIO(_saved(program, {}))).module()

    def answer(images: Tensor) -> Answers:
        with torch.no_grad():
            return dict(zip(network.names, (output.numpy() for output in loaded(images)), strict=True))

    parity = check(student, network, answer, sample)
    with whole_file(out) as temporary:
        temporary.write_bytes(_saved(program, {ABOUT: json.dumps(about(network, config, parity))}))
    return parity


def _saved(program: torch.export.ExportedProgram, extra_files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=extra_files)
    return buffer.getvalue()
