"""torchvision's detectors, instance and semantic segmentation models as tutors, with weights from local files."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor
from torchvision.models import detection, get_model, get_model_weights, list_models, segmentation
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.functional import pil_to_tensor
from torchvision.transforms.v2 import functional as transforms

from tutored.errors import InputError
from tutored.labels import NO_CLASS, LabelSpace
from tutored.processes import choose_device
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import TorchvisionOptions, outputs
from tutored.weights import read_weights

MODELS = (*list_models(module=detection), *list_models(module=segmentation))
SHORT_SIDE = 520
"""Pixels to which torchvision's semantic segmentation models scale the shorter side."""
FEWEST = 32
"""Pixels of a side below which these networks, whose deepest cells are that wide, see nothing."""
SMALLEST_SIDE = 0.01
"""Pixels; the R-CNNs drop smaller boxes before suppression."""
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
EPSILON_ZERO = (
    "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "KeypointRCNN_ResNet50_FPN_Weights.COCO_V1",
    "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
)
"""Weights that were trained without an epsilon in batch normalisation; torchvision sets it when it loads them."""


def open_torchvision(options: TorchvisionOptions) -> "Detector | Segmenter":
    """A tutor from torchvision; what it answers follows from the model. Raises InputError: the weights are not here
    (the message says which file belongs where), or not this model's.
    """
    source = find(options)
    given = options.labels
    names = (
        categories(source.model, source.published) if given is None else ["background", *outputs.read_outputs(given)]
    )
    network = build(source, names).to(choose_device(options.device))
    identity = {
        "kind": "torchvision",
        "tutor": source.model,
        "weights": source.path.name,
        "weights_sha256": outputs.files_sha256([source.path], "the weights"),
    }
    return (Segmenter if hasattr(network, "classifier") else Detector)(network, names, identity, options)


class Detector(outputs.NetworkTutor):
    """Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS, SSD, SSDlite.

    Suppression is torchvision's, but each box keeps its whole class distribution: the softmax row of its proposal
    (R-CNNs, SSD), or the sigmoids of its anchor (`outputs.soft_boxes`). Outputs named "N/A" are dropped; their
    probability counts as background.
    """

    def __init__(
        self, model: Any, names: Sequence[str], identity: Mapping[str, Any], options: TorchvisionOptions
    ) -> None:
        self.model, self.options = model, options
        used = [index for index, name in enumerate(names) if index and name != NO_CLASS]
        self.labels = LabelSpace.of([names[index] for index in used])
        self._used = torch.tensor(used, device=next(model.parameters()).device)
        heads = getattr(model, "roi_heads", None)
        self._has_masks = heads is not None and heads.has_mask()
        self._nms_iou = float((heads or model).nms_thresh) if options.nms_iou is None else options.nms_iou
        resize = model.transform
        self.identity = {
            **identity,
            "preprocessing": f"RGB 0..1, sides {resize.fixed_size or (*resize.min_size, resize.max_size)}, "
            f"mean {resize.image_mean}, deviation {resize.image_std}",
            "score_floor": options.score_floor,
            "nms_iou": self._nms_iou,
            "max_boxes": options.max_boxes,
            "mask_floor": options.mask_floor if self._has_masks else None,
            "map_stride": None,
        }

    def at_scale(self, scale: float) -> Self:
        """See `fuse.Augmented`; SSD's input has one size."""
        resize = copy(self.model.transform)
        if resize.fixed_size is not None:
            raise InputError(f"scales: {self.identity['tutor']} takes pictures of one size only; leave scales out")
        resize.min_size = tuple(_side(pixels, scale) for pixels in resize.min_size)
        resize.max_size = _side(resize.max_size, scale)
        scaled = copy(self)
        scaled.model = copy(self.model)
        # Parts of a module are attributes in a dictionary that its copy shares.
        scaled.model._modules = {**self.model._modules, "transform": resize}
        return scaled

    @torch.no_grad()
    def answers(self, image: Image.Image) -> Sequence[Any]:
        size, used = (image.height, image.width), self._used
        found = dense(self.model, _picture(image, used.device))
        scores = found.scores[:, used]
        per_class = found.boxes_xyxy.dim() == 3
        boxes = found.boxes_xyxy[:, used] if per_class else found.boxes_xyxy
        groups = found.groups
        rows, columns = outputs.select(
            boxes,
            scores * found.usable.expand_as(found.scores)[:, used],
            self.options,
            nms_iou=self._nms_iou,
            groups=groups[:, used] if groups is not None and groups.shape[1] > 1 else groups,
            group_limit=found.group_limit,
        )
        boxes = boxes[rows, columns] if per_class else boxes[rows]
        scale = boxes.new_tensor([size[1] / found.size[1], size[0] / found.size[0]]).repeat(2)
        answer = outputs.soft_boxes((boxes * scale).cpu(), scores[rows].cpu(), columns.cpu(), size)
        if not self._has_masks:
            return (answer,)
        masked = scores[rows, columns] >= self.options.mask_floor
        masks = _masks(self.model, found, boxes[masked], used[columns[masked]])
        return answer, outputs.with_masks(answer, masks.cpu())


class Segmenter(outputs.NetworkTutor):
    """FCN, DeepLabV3, LR-ASPP: softmax of the class scores, averaged over the cells of a grid on the image."""

    def __init__(
        self, model: Any, names: Sequence[str], identity: Mapping[str, Any], options: TorchvisionOptions
    ) -> None:
        self.model = model
        self._outputs = outputs.ClassOutputs(names, identity["tutor"])
        self.labels = self._outputs.labels
        self._stride, self._short_side = options.stride, SHORT_SIDE
        self.identity = {
            **identity,
            "preprocessing": f"RGB 0..1, short side {SHORT_SIDE}, mean {MEAN}, deviation {DEVIATION}",
            "score_floor": None,
            "nms_iou": None,
            "map_stride": options.stride,
        }

    def at_scale(self, scale: float) -> Self:
        """See `fuse.Augmented`."""
        scaled = copy(self)
        scaled._short_side = _side(SHORT_SIDE, scale)
        return scaled

    @torch.no_grad()
    def answers(self, image: Image.Image) -> Sequence[SoftMap]:
        # Pillow's filter, before anything is a tensor, as in torchvision's own presets.
        resized = transforms.resize(image.convert("RGB"), [self._short_side])
        picture = _picture(resized, next(self.model.parameters()).device)
        logits = self.model(transforms.normalize(picture, MEAN, DEVIATION)[None])["out"][0]
        cells = outputs.on_cells(logits.softmax(0), (image.height, image.width), self._stride)
        return (SoftMap(map=self._outputs.remap(cells)),)


def _side(pixels: int, scale: float) -> int:
    """A side of the network's input at a scale. Raises InputError: fewer than `FEWEST` pixels."""
    scaled = round(pixels * scale)
    if scaled < FEWEST:
        raise InputError(
            f"scales: {scale:g} makes {scaled} of the {pixels} pixels of the network's input; give "
            f"{math.ceil(FEWEST / pixels * 1000) / 1000:g} or more"
        )
    return scaled


def _picture(image: Image.Image, device: torch.device) -> Tensor:
    picture: Tensor = pil_to_tensor(image.convert("RGB"))
    return picture.to(device).float() / 255


# --- Every box's whole class distribution, which torchvision's own post-processing drops


class Dense(NamedTuple):
    """Everything a detector says about one image, in pixels of its own resized input.

    Attributes:
        boxes_xyxy: float32 [A, 4], or [A, N, 4] with a box for each class; clipped.
        scores: float32 [A, N] for the model's N outputs: softmax with background in column 0 (R-CNNs, SSD), or
            independent sigmoids with an unused column 0 (RetinaNet, FCOS).
        usable: bool [A, 1] or [A, N], which boxes are large enough to be detections; NaN boxes stay, to be refused.
        size: (height, width) of that input without padding.
        features: the backbone's maps, from which Mask R-CNN's masks are read.
        groups, group_limit: as in `outputs.select`: the model's own bound on candidates.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    usable: Tensor
    size: tuple[int, int]
    features: dict[str, Tensor]
    groups: Tensor | None = None
    group_limit: int = 0


def dense(model: Any, image: Tensor) -> Dense:
    """Run a detector of torchvision on one image, float32 [3, H, W] in 0..1, up to its post-processing."""
    images, _ = model.transform([image])
    features = model.backbone(images.tensors)
    size = images.image_sizes[0]
    if isinstance(model, FasterRCNN):
        proposals, _ = model.rpn(images, features)
        heads = model.roi_heads
        pooled = heads.box_roi_pool(features, proposals, images.image_sizes)
        logits, offsets = heads.box_predictor(heads.box_head(pooled))
        boxes = clip_boxes_to_image(heads.box_coder.decode(offsets, proposals), size)
        return Dense(boxes, logits.softmax(-1), ~(_shorter_side(boxes) < SMALLEST_SIDE), size, features)
    maps = list(features.values())
    out = {name: values[0] for name, values in model.head(maps).items()}
    anchors = model.anchor_generator(images, maps)[0]
    offsets = out["bbox_regression"]
    if isinstance(model, FCOS):
        boxes = model.box_coder.decode(offsets, anchors)
        scores = (out["cls_logits"].sigmoid() * out["bbox_ctrness"].sigmoid()).sqrt()
    else:
        boxes = model.box_coder.decode_single(offsets, anchors)
        scores = out["cls_logits"].softmax(-1) if isinstance(model, SSD) else out["cls_logits"].sigmoid()
    if isinstance(model, SSD):
        groups = torch.arange(scores.shape[1], device=scores.device)[None]
    elif isinstance(model, (RetinaNet, FCOS)):
        cells = torch.tensor([level.shape[-2] * level.shape[-1] for level in maps], device=scores.device)
        levels = torch.arange(len(maps), device=scores.device)
        groups = levels.repeat_interleave(cells * (len(anchors) // int(cells.sum())))[:, None]
    else:
        raise TypeError(f"no torchvision detector: {type(model).__name__}")
    boxes = clip_boxes_to_image(boxes, size)
    return Dense(boxes, scores, ~(_shorter_side(boxes)[:, None] <= 0), size, features, groups, model.topk_candidates)


def _masks(model: Any, found: Dense, boxes_xyxy: Tensor, classes: Tensor) -> Tensor:
    """Mask R-CNN's masks, float32 [N, 28, 28], of boxes [N, 4] in pixels of its input, by the model's class numbers."""
    heads = model.roi_heads
    pooled = heads.mask_roi_pool(found.features, [boxes_xyxy], [found.size])
    masks: Tensor = maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), [classes])[0]
    return masks[:, 0]


def _shorter_side(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amin(-1)


# --- Weights: found by torchvision's names, never fetched unasked


class Source(NamedTuple):
    """Where a model's weights are: the model's name, the published entry (None: the user's own), the file."""

    model: str
    published: Any
    path: Path


def find(options: TorchvisionOptions) -> Source:
    """The file for the model and the weights that a user names. Raises InputError: no such model or weights, or the
    file is not here: the message says which, and where it belongs.
    """
    model, weights = options.model, options.weights
    if model is not None and model not in MODELS:
        raise InputError(f"unknown torchvision model {model!r}; possible: {', '.join(MODELS)}")
    published = {str(entry): (name, entry) for name in MODELS for entry in get_model_weights(name)}
    if weights is not None and Path(weights).exists():
        path = Path(weights)
        same = [found for found in published.values() if _file_name(found[1]) == path.name]
        if same and model in (None, same[0][0]):
            return Source(*same[0], path)
        if model is None:
            raise InputError(f"{path}: of which model are these weights? Give model=NAME, one of {', '.join(MODELS)}")
        return Source(model, None, path)
    if model is not None:
        weights = str(getattr(get_model_weights(model), str(weights or "DEFAULT"), weights))
    if str(weights) not in published or model not in (None, published[str(weights)][0]):
        possible = [text for text, (name, _) in published.items() if model in (None, name)]
        raise InputError(f"weights {weights}: no such file, and no published weights; possible: {', '.join(possible)}")
    name, entry = published[str(weights)]
    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(entry)
    if not path.is_file():
        if not options.download:
            raise InputError(
                f"{weights}: the file is not on this machine; fetch {entry.url} and put it at {path}, "
                "give weights=FILE, or allow download=True (--download)"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    return Source(name, entry, path)


def categories(model: str, published: Any) -> list[str]:
    """The model's output names, background first, as its published weights (else its default ones) state them."""
    entry = published or get_model_weights(model).DEFAULT
    return ["background", *entry.meta["categories"][1:]]


def build(source: Source, names: Sequence[str]) -> torch.nn.Module:
    """The model with its weights, in evaluation mode. Raises InputError: the file holds no weights, some that are NaN,
    or not those of this model with so many outputs. `names` has one for each of the model's outputs, background first.
    """
    state = read_weights(source.path)
    broken = next((name for name, value in state.items() if not value.isfinite().all()), None)
    if broken:  # R-CNNs drop proposals that are NaN, and would find nothing
        raise InputError(
            f"{source.path}: weights of {broken} are NaN or infinite; take an earlier checkpoint of the training"
        )
    extra = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in state) else {}
    network = {"weights": None, "weights_backbone": None, "num_classes": len(names)}
    model: torch.nn.Module = get_model(source.model, **network, **extra)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(
            f"{source.path}: not {source.model} with {len(names)} outputs ({reason}); "
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


def _file_name(entry: Any) -> str:
    return PurePosixPath(entry.url).name
