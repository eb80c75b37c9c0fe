"""Models of transformers from local folders: found by name, never fetched unasked, never unpickled."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from tutored.errors import InputError
from tutored.tutors import file_sha256

TASKS = {
    "ForObjectDetection": "AutoModelForObjectDetection",
    "ForSemanticSegmentation": "AutoModelForSemanticSegmentation",
    "ForUniversalSegmentation": "AutoModelForUniversalSegmentation",
    "MaskFormerForInstanceSegmentation": "AutoModelForUniversalSegmentation",
}
"""The end of an architecture's name, and the class of transformers that loads it."""
UNIVERSAL = ("maskformer", "mask2former", "oneformer")
"""Model types of universal segmentation whose outputs are classes and masks of queries over the whole picture."""
WANTED = ("*.json", "*.safetensors", "*.txt")
"""What is fetched of a repository: no pickles, no code."""
FACTS = (
    "size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std",
    "do_pad", "pad_size", "size_divisor", "keep_aspect_ratio", "ensure_multiple_of", "do_flip_channel_order",
)  # fmt: skip
"""Of a preprocessor's settings those that change what the network sees."""
MULTIPLE = 32
"""Sides that are scaled are rounded to a multiple of this, as most of these networks want them."""


class HfModel:
    """A network with its own preprocessing.

    Attributes:
        config: transformers' configuration.
        kind: one of the values of `TASKS`.
        names: one for each class, as the model states them.
        identity: as `Tutor.identity`, of this part.
    """

    def __init__(self, model: str | Path, *, download: bool, device: torch.device, task: str) -> None:
        """Load it.

        Args:
            model: a folder, or a repository's name.
            download: fetch a repository that is not here.
            task: what OneFormer is told to do, "semantic" or "instance".

        Raises:
            InputError: it is not here, of no known kind, has no safetensors or not this network's, or transformers
                is not installed.
        """
        try:
            import transformers
        except ImportError as error:
            raise InputError("the tutor `hf` needs transformers: pip install 'tutored[hf]'") from error
        folder = find(model, download=download)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError(
                f"{model}: no weights as safetensors, and pickles are never loaded; save the model again with "
                "save_pretrained, or take a revision with model.safetensors"
            )
        self.config: Any = _attempt(model, _config, folder)
        self.kind = _kind(model, self.config)
        parts: list[Any] = [self.config, getattr(self.config, "backbone_config", None)]
        for part in parts:
            if getattr(part, "use_pretrained_backbone", False):
                part.use_pretrained_backbone = False  # its weights are in the file; transformers would fetch others
        network, report = _attempt(
            model,
            getattr(transformers, self.kind).from_pretrained,
            folder,
            config=self.config,
            use_safetensors=True,
            output_loading_info=True,
        )
        if report["missing_keys"] or report["mismatched_keys"]:
            lacking = str(sorted([*report["missing_keys"], *report["mismatched_keys"]])[0])
            raise InputError(f"{model}: the file lacks weights of {type(network).__name__}, such as {lacking}")
        self._network = network.float().eval().to(device)
        self._device = device
        self._processor, self._extra = _processor(model, folder, self.config, task)
        self._takes = inspect.signature(network.forward).parameters.keys()
        self._size: dict[str, int] | None = None
        self.names = [str(self.config.id2label[index]) for index in range(len(self.config.id2label))]
        self.identity: dict[str, Any] = {
            "kind": "hf",
            "tutor": type(network).__name__,
            "weights": folder.name if Path(model).expanduser().is_dir() else str(model),
            "weights_sha256": _digest(files),
            "preprocessing": self._facts(),
        }

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> tuple[Any, tuple[float, float]]:
        """The raw outputs for one image, and the share (rows, columns) of the network's input that is picture."""
        size = {} if self._size is None else {"size": self._size}
        inputs = self._processor(images=image.convert("RGB"), return_tensors="pt", **self._extra, **size)
        taken = {name: inputs[name].to(self._device) for name in inputs if name in self._takes}
        return self._network(**taken), _picture_share(inputs.get("pixel_mask"))

    def at_scale(self, scale: float) -> Self:
        """The same network on pictures `scale` times as large."""
        scaled = copy(self)
        scaled._size = {
            name: max(MULTIPLE, round(pixels * scale / MULTIPLE) * MULTIPLE) for name, pixels in self._sizes().items()
        }
        try:
            scaled(Image.new("RGB", (64, 64)))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"scales: {self.identity['tutor']} takes pictures of one size only ({error}); leave scales out"
            ) from error
        return scaled

    def _image_processor(self) -> Any:
        return getattr(self._processor, "image_processor", self._processor)

    def _sizes(self) -> dict[str, int]:
        settings = self._image_processor().to_dict()
        if not settings.get("do_resize") or not settings.get("size"):
            raise InputError(f"scales: {self.identity['tutor']} takes pictures as they are; leave scales out")
        return {name: pixels for name, pixels in settings["size"].items() if pixels}

    def _facts(self) -> str:
        settings = self._image_processor().to_dict()
        known = {name: settings[name] for name in FACTS if settings.get(name) is not None}
        return f"{type(self._image_processor()).__name__} {json.dumps(known, sort_keys=True, default=str)}"


def find(model: str | Path, *, download: bool) -> Path:
    """The folder of a model: the given one, or that of a repository in the hub's cache on this machine.

    Raises:
        InputError: neither; with `download`, the hub has no such repository or can't be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{model}: no model of transformers here (no config.json); give a folder of save_pretrained"
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), local_files_only=not download, allow_patterns=list(WANTED)))
    except Exception as error:  # the hub's errors and those of its HTTP client have no common base
        reason = " ".join(str(error).split())[:200]
        if download:
            raise InputError(
                f"{model}: can't be fetched ({reason}); give the name of a repository, or a folder"
            ) from error
        raise InputError(
            f"{model}: no such folder, and no such repository on this machine; give a folder, or allow download=True "
            "(--download)"
        ) from error


def _config(folder: Path, **options: Any) -> Any:
    import transformers

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone, kwargs = settings.get("backbone"), settings.get("backbone_kwargs")
    if not (settings.get("use_timm_backbone") and backbone and kwargs) or settings.get("backbone_config"):
        return transformers.AutoConfig.from_pretrained(folder, **options)
    # As transformers 4.42 and later wrote it; 5 would ask the hub whether timm's name is a repository.
    settings |= {"backbone": None, "backbone_kwargs": None}
    settings["backbone_config"] = {"model_type": "timm_backbone", "backbone": backbone, **kwargs}
    return transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)


def _kind(model: str | Path, config: Any) -> str:
    name = (config.architectures or ["nothing"])[0]
    kind = next((loader for end, loader in TASKS.items() if name.endswith(end)), None)
    if kind is None or (kind == "AutoModelForUniversalSegmentation" and config.model_type not in UNIVERSAL):
        raise InputError(
            f"{model}: {name} is no tutor; possible: object detection, semantic segmentation, and of the universal "
            f"models {', '.join(UNIVERSAL)}"
        )
    return kind


def _processor(model: str | Path, folder: Path, config: Any, task: str) -> tuple[Any, dict[str, Any]]:
    """The model's preprocessor and what it is told with every image: the whole picture, and OneFormer's task."""
    import transformers

    if config.model_type != "oneformer":
        processor = _attempt(model, transformers.AutoImageProcessor.from_pretrained, folder)
        return processor, {"do_center_crop": False} if processor.to_dict().get("do_center_crop") else {}
    # The names of its classes for training texts would be fetched from elsewhere.
    images = _attempt(model, transformers.AutoImageProcessor.from_pretrained, folder, class_info_file=None)
    tokenizer = _attempt(model, transformers.AutoTokenizer.from_pretrained, folder)
    length = config.task_seq_len
    return transformers.OneFormerProcessor(images, tokenizer, task_seq_length=length), {"task_inputs": [task]}


def _attempt(model: str | Path, load: Any, folder: Path, **options: Any) -> Any:
    try:
        with _alone():
            return load(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # what is wrong with a folder shows itself in any way
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{model}: can't be loaded from its own files without running its code ({reason})") from error


@contextmanager
def _alone() -> Iterator[None]:
    """No hub, which transformers asks for a backbone's name even of a folder; no progress bar and no report either."""
    from huggingface_hub import constants
    from transformers.utils import logging

    shown, told, offline = logging.is_progress_bar_enabled(), logging.get_verbosity(), constants.HF_HUB_OFFLINE
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(told)
        if shown:
            logging.enable_progress_bar()


def _picture_share(pixel_mask: Tensor | None) -> tuple[float, float]:
    if pixel_mask is None:
        return 1.0, 1.0
    rows, columns = pixel_mask[0].any(1), pixel_mask[0].any(0)
    return float(rows.float().mean()), float(columns.float().mean())


def _digest(files: list[Path]) -> str:
    """SHA-256 of the file; of several, of their names and hashes."""
    if len(files) == 1:
        return file_sha256(files[0], "the weights")
    lines = (f"{path.name} {file_sha256(path, 'the weights')}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
