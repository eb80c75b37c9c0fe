"""Networks' weights in files, read without running their code."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tutored.errors import InputError
from tutored.files import regular

AROUND = ("model", "state_dict")
"""What training scripts call the weights where they put them beside the optimiser's state and their arguments."""
PARALLEL = "module."
"""In front of every name, where the network was saved as several GPUs trained it."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file's weights by name: safetensors, or what torch saved of them alone or in a training script's checkpoint.
    Raises InputError: it can't be read without running its code, or holds no weights.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(regular(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            state: Any = torch.load(regular(path), map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}); give a file of weights") from error
    except Exception as error:  # torch and safetensors have no common base class for broken files
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it also holds {asked[1]}" if asked else " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: no weights that can be loaded without running code ({reason}); "
            "save model.state_dict() alone, or safetensors"
        ) from error
    state = state if isinstance(state, Mapping) else {}
    weights = next((state[name] for name in AROUND if isinstance(state.get(name), Mapping)), state)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: holds no dictionary of weights; save model.state_dict() alone, or safetensors")
    if all(name.startswith(PARALLEL) for name in weights):
        weights = {name.removeprefix(PARALLEL): value for name, value in weights.items()}
    return dict(weights)
