"""The command `tutored export`."""

from __future__ import annotations

import argparse
import sys

from tutored.cli.output import say
from tutored.errors import InputError


def export(given: argparse.Namespace) -> int:
    from tutored.export import NotEqualError, Options, export_onnx, export_program
    from tutored.predict import find_pictures

    pictures = list(find_pictures(given.images).values()) if given.images else []
    try:
        if given.to == "onnx" and given.out.suffix in (".pt2", ".pt"):
            raise InputError(f"--out {given.out}: that is a name of PyTorch's; give --to torch, or a name in .onnx")
        if given.to == "torch" and given.out.suffix == ".onnx":
            raise InputError(f"--out {given.out}: that is a name of ONNX's; give --to onnx, or a name in .pt2")
        if given.to == "onnx":
            parity = export_onnx(given.checkpoint, given.out, Options(given.nms, given.mask, given.half), pictures)
        elif given.nms or given.mask:
            raise InputError("--nms and --mask are ONNX's; in PyTorch torchvision.ops.batched_nms and argmax do it")
        else:
            parity = export_program(given.checkpoint, given.out, half=given.half, pictures=pictures)
    except NotEqualError as error:
        print(f"tutored: {error}", file=sys.stderr)
        return 1
    say(f"wrote {given.out}; held against PyTorch on {parity.sample}")
    for line in parity.lines():
        say(f"  {line}")
    return 0
