"""torchvision's models with weights from local files: found by torchvision's names, never fetched unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torchvision.models import detection, get_model, get_model_weights, list_models, segmentation

from tutored.errors import InputError

MODELS = (*list_models(module=detection), *list_models(module=segmentation))

EPSILON_ZERO = (
    "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "KeypointRCNN_ResNet50_FPN_Weights.COCO_V1",
    "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
)
"""Weights that were trained without an epsilon in batch normalisation; torchvision sets it when it loads them."""


class Source(NamedTuple):
    """Where a model's weights are: the model's name, the published entry (None: the user's own), the file."""

    model: str
    published: Any
    path: Path


def find(model: str | None, weights: Path | str | None, *, download: bool) -> Source:
    """Find the file for a model and weights as a user names them.

    Args:
        model: one of `MODELS`; may be absent where `weights` is a published name or file.
        weights: a file; a published name, with its model (`COCO_V1`) or in full
            (`FCOS_ResNet50_FPN_Weights.COCO_V1`); None: the model's default.
        download: fetch published weights that are not here.

    Raises:
        InputError: no such model or weights, or the file is not here: it says which, and where it belongs.
    """
    if model is not None and model not in MODELS:
        raise InputError(f"unknown torchvision model {model!r}; possible: {', '.join(MODELS)}")
    published = {str(entry): (name, entry) for name in MODELS for entry in get_model_weights(name)}
    if weights is not None and Path(weights).is_file():
        path = Path(weights)
        same = [found for found in published.values() if _file_name(found[1]) == path.name]
        if same and model in (None, same[0][0]):
            return Source(*same[0], path)
        if model is None:
            raise InputError(f"{path}: of which model are these weights? Give model=NAME, one of {', '.join(MODELS)}")
        return Source(model, None, path)
    if model is not None:
        own = get_model_weights(model)
        weights = str(getattr(own, str(weights or "DEFAULT"), weights))
    if str(weights) not in published or model not in (None, published[str(weights)][0]):
        possible = [text for text, (name, _) in published.items() if model in (None, name)]
        raise InputError(f"weights {weights}: no such file, and no published weights; possible: {', '.join(possible)}")
    name, entry = published[str(weights)]
    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(entry)
    if not path.is_file():
        if not download:
            raise InputError(
                f"{weights}: the file is not on this machine; fetch {entry.url} and put it at {path}, "
                "give weights=FILE, or allow download=True"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    return Source(name, entry, path)


def build(source: Source, categories: Sequence[str]) -> torch.nn.Module:
    """The model with its weights, in evaluation mode.

    Args:
        categories: one name for each of the model's outputs, background first.

    Raises:
        InputError: the file holds no weights, or not those of this model with so many outputs.
    """
    state = _read(source.path)
    extra = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in state) else {}
    model: torch.nn.Module = get_model(
        source.model, weights=None, weights_backbone=None, num_classes=len(categories), **extra
    )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{source.path}: not {source.model} with {len(categories)} outputs ({reason}); "
            "give labels=FILE with the model's own classes, or another model"
        ) from error
    # Frozen normalisation, as torchvision trains with, counts no batches.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        first = f"without {missing[0]}" if missing else f"with {unexpected[0]}"
        raise InputError(f"{source.path}: not the weights of {source.model} ({first}); give another model=NAME")
    if str(source.published) in EPSILON_ZERO:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
    return model.eval()


def categories(model: str, published: Any) -> list[str]:
    """The model's output names, background first, as its published weights (else its default ones) state them."""
    entry = published or get_model_weights(model).DEFAULT
    return ["background", *entry.meta["categories"][1:]]


def _file_name(entry: Any) -> str:
    return PurePosixPath(entry.url).name


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and safetensors have no common base class for broken files
        raise InputError(f"{path}: no weights that can be loaded without running code ({error})") from error
    # torchvision's training scripts put the weights beside the optimiser's state.
    state = state.get("model", state) if isinstance(state, dict) else {}
    weights = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not weights or len(weights) < len(state):
        raise InputError(f"{path}: holds no dictionary of weights; save the model's state_dict()")
    broken = next((name for name, value in weights.items() if not value.isfinite().all()), None)
    if broken:  # R-CNNs drop proposals that are NaN, and would find nothing
        raise InputError(f"{path}: weights of {broken} are NaN or infinite; take an earlier checkpoint of the training")
    return weights
