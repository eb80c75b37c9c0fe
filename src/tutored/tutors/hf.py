"""Detectors, semantic and universal segmentation models of transformers as tutors.

Models are found by name, never fetched unasked, never unpickled, and no code of a repository is run.
"""

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes

from tutored.errors import InputError, needing
from tutored.processes import choose_device
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import HfOptions, outputs

LOADERS = {
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
"""The settings of a preprocessor that change what the network sees."""
MULTIPLE = 32
"""Sides that are scaled are rounded to a multiple of this, as most of these networks want them."""


def open_hf(options: HfOptions) -> "HfTutor":
    """A tutor from transformers; what it answers follows from its architecture. Raises InputError: the model is not
    here or no tutor, has no safetensors or not this network's, its classes have no names, or transformers is not
    installed.
    """
    with needing("the tutor `hf` needs", "hf"):
        import transformers  # noqa: F401
    folder = find(options.model, download=options.download)
    config = _attempt(options.model, _config, folder)
    name = (config.architectures or ["nothing"])[0]
    loader = next((loader for end, loader in LOADERS.items() if name.endswith(end)), "")
    universal = "Universal" in loader
    if not loader or (universal and config.model_type not in UNIVERSAL):
        raise InputError(
            f"{options.model}: {name} is no tutor; possible: object detection, semantic segmentation, and of the "
            f"universal models {', '.join(UNIVERSAL)}"
        )
    if options.instances and not universal:
        raise InputError(f"{options.model}: {name} gives no instances; leave `instances` out")
    if universal:
        return (InstanceSegmenter if options.instances else UniversalSegmenter)(options, folder, config, loader)
    return (Detector if "Detection" in loader else Segmenter)(options, folder, config, loader)


class HfTutor(outputs.NetworkTutor):
    """A network with its own preprocessor; each kind of model says what its raw outputs mean."""

    BOXES: ClassVar[bool] = False
    """Whether it answers with boxes; else with a map."""

    def __init__(self, options: HfOptions, folder: Path, config: Any, loader: str) -> None:
        """Load the model, and ask it about a small grey picture that is no square. Raises InputError: see `open_hf`;
        the network does not take such a picture, or has another number of outputs.
        """
        self.options, self._origin = options, str(options.model)
        files = sorted(folder.glob("*.safetensors"))
        digest = outputs.files_sha256(files, "the weights")
        self.network = self._load(folder, config, loader, files).to(choose_device(options.device))
        self._device = self.network.device
        self._processor, self._extra = self._load_processor(folder, config)
        self._takes = inspect.signature(self.network.forward).parameters.keys()
        self._size: dict[str, int] | None = None
        stated = [str(config.id2label[index]) for index in range(len(config.id2label))]
        self._stated = len(stated)
        names = stated if options.labels is None else outputs.read_outputs(options.labels, len(stated))
        self._outputs = outputs.ClassOutputs(names, self._origin)
        self.labels = self._outputs.labels
        settings = self._image_processor.to_dict()
        known = {name: settings[name] for name in FACTS if settings.get(name) is not None}
        self.identity = {
            "kind": "hf",
            "tutor": type(self.network).__name__,
            "weights": folder.name if Path(self._origin).expanduser().is_dir() else self._origin,
            "weights_sha256": digest,
            "preprocessing": f"{type(self._image_processor).__name__} {json.dumps(known, sort_keys=True, default=str)}",
            "score_floor": options.score_floor if self.BOXES else None,
            "nms_iou": options.nms_iou if self.BOXES else None,
            "max_boxes": options.max_boxes if self.BOXES else None,
            "map_stride": None if self.BOXES else options.stride,
        }
        try:
            found, _ = self.look(Image.new("RGB", (96, 64), (128, 128, 128)))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{self._origin}: the network does not take what its preprocessor makes of a picture of 96 x 64 "
                f"({error}); set `size` in preprocessor_config.json to the height and width that it takes"
            ) from error
        count = self._count(found)
        if count != len(self._outputs):
            raise InputError(
                f"{self._origin}: {count} classes, but {len(names)} names; give labels=FILE with one class a line"
            )

    @torch.no_grad()
    def look(self, image: Image.Image) -> tuple[Any, tuple[float, float]]:
        """The raw outputs for one image, and the share (rows, columns) of the network's input that is picture."""
        size = {} if self._size is None else {"size": self._size}
        inputs = self._processor(images=image.convert("RGB"), return_tensors="pt", **self._extra, **size)
        taken = {name: inputs[name].to(self._device) for name in inputs if name in self._takes}
        covered = inputs.get("pixel_mask")
        share = 1.0, 1.0
        if covered is not None:
            share = float(covered[0].any(1).float().mean()), float(covered[0].any(0).float().mean())
        return self.network(**taken), share

    def at_scale(self, scale: float) -> Self:
        """See `fuse.Augmented`."""
        settings = self._image_processor.to_dict()
        if not settings.get("do_resize") or not settings.get("size"):
            raise InputError(f"scales: {self.identity['tutor']} takes pictures as they are; leave scales out")
        scaled = copy(self)
        scaled._size = {
            name: max(MULTIPLE, round(pixels * scale / MULTIPLE) * MULTIPLE)
            for name, pixels in settings["size"].items()
            if pixels
        }
        try:
            scaled.look(Image.new("RGB", (64, 64)))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"scales: {self.identity['tutor']} takes pictures of one size only ({error}); leave scales out"
            ) from error
        return scaled

    def _count(self, found: Any) -> int:
        """How many classes the raw outputs have."""
        raise NotImplementedError

    @property
    def _image_processor(self) -> Any:
        return getattr(self._processor, "image_processor", self._processor)

    def _load(self, folder: Path, config: Any, loader: str, files: Sequence[Path]) -> Any:
        import transformers

        if not files:
            raise InputError(
                f"{self._origin}: no weights as safetensors, and pickles are never loaded; save the model again with "
                "save_pretrained, or take a revision with model.safetensors"
            )
        parts: list[Any] = [config, getattr(config, "backbone_config", None)]
        for part in parts:
            if getattr(part, "use_pretrained_backbone", False):
                part.use_pretrained_backbone = False  # its weights are in the file; transformers would fetch others
        load = getattr(transformers, loader).from_pretrained
        told = {"config": config, "use_safetensors": True, "output_loading_info": True}
        network, report = _attempt(self._origin, load, folder, **told)
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if lacking:
            raise InputError(
                f"{self._origin}: the file lacks weights of {type(network).__name__}, such as {lacking[0]}"
            )
        return network.float().eval()

    def _load_processor(self, folder: Path, config: Any) -> tuple[Any, dict[str, Any]]:
        """The model's preprocessor and what it is told with every image: the whole picture, and OneFormer's task."""
        import transformers

        if config.model_type != "oneformer":
            processor = _attempt(self._origin, transformers.AutoImageProcessor.from_pretrained, folder)
            return processor, {"do_center_crop": False} if processor.to_dict().get("do_center_crop") else {}
        # The names of its classes for training texts would be fetched from elsewhere.
        load = transformers.AutoImageProcessor.from_pretrained
        images = _attempt(self._origin, load, folder, class_info_file=None)
        tokenizer = _attempt(self._origin, transformers.AutoTokenizer.from_pretrained, folder)
        task = "instance" if self.options.instances else "semantic"
        processor = transformers.OneFormerProcessor(images, tokenizer, task_seq_length=config.task_seq_len)
        return processor, {"task_inputs": [task]}


class Detector(HfTutor):
    """DETR and its kin.

    With one output more than the model states classes, the last is "no object" and outputs are a softmax (DETR, YOLOS):
    each query is a box of its likeliest class, and its distribution is the softmax. Otherwise they are sigmoids
    (RT-DETR, D-FINE, Deformable and Conditional DETR): a query may be kept for several classes (`outputs.soft_boxes`).

    Boxes are shares of the whole input, padding included, as transformers normalises them for training.
    """

    BOXES = True

    def _count(self, found: Any) -> int:
        count = int(found.logits.shape[-1])
        self._no_object = count == self._stated + 1
        return count - self._no_object

    def answers(self, image: Image.Image) -> Sequence[SoftBoxes]:
        found, share = self.look(image)
        size = (image.height, image.width)
        logits, boxes = found.logits[0].cpu(), found.pred_boxes[0].cpu()
        scores = (logits.softmax(-1) if self._no_object else logits.sigmoid())[:, self._outputs.used]
        eligible = torch.where(scores < scores.amax(1, keepdim=True), 0, scores) if self._no_object else scores
        halves = boxes[:, 2:] / 2
        canvas = boxes.new_tensor([size[1] / share[1], size[0] / share[0]] * 2)
        boxes = torch.cat([boxes[:, :2] - halves, boxes[:, :2] + halves], dim=1) * canvas
        rows, columns = outputs.select(boxes, eligible, self.options, nms_iou=self.options.nms_iou)
        return (outputs.soft_boxes(boxes[rows], scores[rows], columns, size),)


class Segmenter(HfTutor):
    """SegFormer, BEiT, UperNet, DPT, ...: softmax of the class scores at the network's own stride.

    A single output has a sigmoid, since a softmax would make it 1 everywhere: SegFormer's loss for it is a binary one.
    """

    def _count(self, found: Any) -> int:
        return int(found.logits.shape[1])

    def _probs(self, found: Any) -> Tensor:
        """float32 [C+1, h, w] over the whole input of the network."""
        logits = found.logits[0]
        if len(logits) == 1:
            return outputs.with_background(self._outputs.remap(logits.sigmoid()))
        return self._outputs.remap(logits.softmax(0))

    def answers(self, image: Image.Image) -> Sequence[SoftMap]:
        found, share = self.look(image)
        probs = picture_part(self._probs(found), share)
        return (SoftMap(map=outputs.on_cells(probs, (image.height, image.width), self.options.stride)),)


class UniversalSegmenter(Segmenter):
    """MaskFormer, Mask2Former, OneFormer: what the queries say together about each cell.

    A class's score is the model's own, the sum over queries of class probability times mask (Cheng et al. 2021). Where
    scores sum to more than one they are divided by the sum; what they leave is background.
    """

    def _count(self, found: Any) -> int:
        return int(found.class_queries_logits.shape[-1]) - 1

    def _probs(self, found: Any) -> Tensor:
        scores = semantic_scores(found.class_queries_logits[0], found.masks_queries_logits[0])
        return outputs.with_background(self._outputs.remap(scores))


class InstanceSegmenter(HfTutor):
    """The same models' objects: each query's box, mask and class distribution.

    A score is the class probability times the mean of the mask where that is above .5 (Mask2Former's instance
    inference); the box is the smallest around that region.
    """

    BOXES = True

    def _count(self, found: Any) -> int:
        return int(found.class_queries_logits.shape[-1]) - 1

    def answers(self, image: Image.Image) -> Sequence[Any]:
        found, share = self.look(image)
        size = (image.height, image.width)
        masks = outputs.finite(picture_part(found.masks_queries_logits[0].cpu(), share).sigmoid(), "mask values")
        seen = (masks > 0.5).any(2).any(1)
        masks, logits = masks[seen], found.class_queries_logits[0].cpu()[seen]
        scores = logits.softmax(-1)[:, :-1][:, self._outputs.used] * mask_scores(masks)[:, None]
        pixels = masks.new_tensor([size[1] / masks.shape[2], size[0] / masks.shape[1]] * 2)
        boxes = (masks_to_boxes(masks > 0.5) + masks.new_tensor([0.0, 0.0, 1.0, 1.0])) * pixels
        rows, columns = outputs.select(boxes, scores, self.options, nms_iou=self.options.nms_iou)
        answer = outputs.soft_boxes(boxes[rows], scores[rows], columns, size)
        return answer, outputs.with_masks(answer, outputs.masks_in_boxes(masks, answer.boxes_xyxy, rows, size))


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Queries' classes [Q, N+1], "no object" last, and masks [Q, h, w] as scores [N, h, w], 0..Q."""
    return torch.einsum("qc,qhw->chw", class_logits.softmax(-1)[:, :-1], mask_logits.sigmoid())


def mask_scores(masks: Tensor) -> Tensor:
    """How sure each soft mask [Q, h, w] is of its region, [Q]."""
    region = (masks > 0.5).float()
    return (masks * region).sum((1, 2)) / region.sum((1, 2)).clamp(min=1)


def picture_part(values: Tensor, share: tuple[float, float]) -> Tensor:
    """The part of values [N, h, w] over the network's input that lies over the picture; padding is right and below."""
    rows, columns = (max(1, round(part * side)) for part, side in zip(share, values.shape[1:], strict=True))
    return values[:, :rows, :columns]


# --- Local files


def find(model: str | Path, *, download: bool) -> Path:
    """The folder of a model: the given one, or that of a repository in the hub's cache on this machine. Raises
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
        told = f"can't be fetched ({reason}); give the name of a repository, or a folder"
        if not download:
            told = "no such folder, and no such repository on this machine; give a folder, or allow download=True "
            told += "(--download)"
        raise InputError(f"{model}: {told}") from error


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


def _attempt(origin: str | Path, load: Any, folder: Path, **options: Any) -> Any:
    try:
        with _alone():
            return load(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # a faulty folder shows itself by errors of all sorts
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{origin}: can't be loaded from its own files without running its code ({reason})") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Without the hub, which transformers asks for a backbone's name even of a folder, progress bars and reports."""
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
