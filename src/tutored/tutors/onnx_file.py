"""ONNX files: sessions of onnxruntime, and what exporters wrote into them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tutored.config import TASKS
from tutored.errors import InputError
from tutored.tutors import file_sha256

FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
"""Types of input that pictures are cast to."""


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A loaded model.

    Attributes:
        session: onnxruntime's.
        names: of its outputs, from the metadata, as exporters write them: a list, or index -> name; else None.
        taught: the tasks of the student, where `tutored export` wrote it; else none.
    """

    path: Path
    sha256: str
    session: Any
    names: list[str] | None
    taught: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, threads: int, device: str | None) -> Self:
        """Load a model. Raises InputError: no such model or device, or onnxruntime is not installed."""
        digest = file_sha256(path, "the model")
        session = _session(path, threads, device)
        about = session.get_modelmeta().custom_metadata_map
        return cls(path, digest, session, _names(about), _taught(about))

    @property
    def outputs(self) -> frozenset[str]:
        """Their names."""
        return frozenset(output.name for output in self.session.get_outputs())

    def run(self, name: str, pixels: Tensor) -> dict[str, Tensor]:
        """The outputs for one picture as the input of this name wants it, cast to its type; float32, by name.

        Raises:
            InputError: the model does not take it.
        """
        given = next(entry.type for entry in self.session.get_inputs() if entry.name == name)
        try:
            values = self.session.run(None, {name: pixels.numpy().astype(FLOATS[given])})
            outputs = [output.name for output in self.session.get_outputs()]
            return {output: torch.from_numpy(value).float() for output, value in zip(outputs, values, strict=True)}
        except Exception as error:  # onnxruntime has no common base class for its errors
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: does not take {list(pixels.shape)} as {name} alone ({reason}); declare its `input`, or "
                "export it with one input, of floats, for one picture"
            ) from error


def _names(about: dict[str, str]) -> list[str] | None:
    try:
        names = ast.literal_eval(about["names"])
        return [str(names[index]) for index in range(len(names))]
    except (KeyError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _taught(about: dict[str, str]) -> tuple[str, ...]:
    if not about.get("made_by", "").startswith("tutored "):
        return ()
    return tuple(task for task in TASKS if task in about.get("tasks", TASKS))


def _session(weights: Path, threads: int, device: str | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("the tutor `onnx` needs onnxruntime: pip install 'tutored[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    known = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    here = {name: provider for name, provider in known.items() if provider in onnxruntime.get_available_providers()}
    if device not in (None, *here):
        raise InputError(f"device {device}: onnxruntime has {', '.join(here)} here; give one of them")
    providers = [here[device]] if device else list(here.values())
    try:
        session = onnxruntime.InferenceSession(str(weights), options, providers=providers)
        # Read here, because what is no text fails only now.
        [entry.name for entry in (*session.get_inputs(), *session.get_outputs())]
        session.get_modelmeta()
        return session
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise InputError(f"{weights}: not an ONNX model that onnxruntime can load ({error})") from error
