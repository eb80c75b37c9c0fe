"""Promptable segmenters such as SAM in two ONNX files: an encoder for the picture, a decoder for its boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutored.config import merged, read_yaml
from tutored.errors import InputError, told_of
from tutored.section import Section, validated
from tutored.tutors import PromptedOptions
from tutored.tutors.onnx import FLOATS, data_files, open_session, place
from tutored.tutors.onnx_families import IMAGENET, Picture, declaration_path
from tutored.tutors.outputs import files_sha256, finite, masks_in_boxes, with_masks
from tutored.tutors.stores import Boxes, StoresTutor, identity_of
from tutored.types import Dataset, SoftLabels

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SAM = Picture(white=255, mean=MEAN, deviation=DEVIATION, fit="letterbox", fill=MEAN)
"""SAM's picture; what lies beside it is 0 on the network's input."""
SIDE = 1024
"""Pixels of the input, where the encoder does not fix them."""
CELLS = 56
"""Cells along one side of a mask over its box."""
CORNERS = (2.0, 3.0)
"""Labels of a box's first and last corner among the points of a prompt."""
NO_POINT = -1.0
TYPES = FLOATS | {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
ROLES = {
    "point_coords": "coords",
    "batched_point_coords": "coords",
    "point_labels": "labels",
    "batched_point_labels": "labels",
    "mask_input": "mask",
    "input_masks": "mask",
    "has_mask_input": "has_mask",
    "has_input_masks": "has_mask",
    "orig_im_size": "size",
    "original_image_size": "size",
}
"""What a decoder's inputs are in the exports of SAM, MobileSAM, EdgeSAM, NanoSAM, SAM 2 and EfficientSAM; others are
outputs of the encoder."""
MASKS = ("low_res_masks", "masks", "output_masks")
"""Names of masks as logits over the whole input; the first one that there is. Larger ones are the same, enlarged."""
QUALITIES = ("iou_predictions", "scores")


class Promptable(Section):
    """What may be declared beside an encoder."""

    input: Picture


class PromptedTutor(StoresTutor):
    """Boxes, each with the mask that the network draws for it; a box keeps its class and score. `labels` are those of
    the boxes.
    """

    def __init__(self, options: PromptedOptions, dataset: Dataset | None = None) -> None:
        """Load both files, and try them on a black picture. Raises InputError: no such boxes, files that are no
        promptable segmenter, or onnxruntime is not installed. `dataset` has the images that are labelled, and the boxes
        of `boxes: ground_truth`.
        """
        boxes = Boxes(options, dataset)
        self.labels, self._boxes = boxes.labels, boxes.remap(boxes.labels)
        self._paths = options.encoder, options.decoder
        digest = files_sha256([file for path in self._paths for file in (path, *data_files(path))], "the model")
        self._encoder, self._decoder = (open_session(path, options) for path in self._paths)
        self._features = self._wire()
        self._picture, self._side = self._find_picture()
        told = self._picture.model_dump_json(exclude_defaults=True)
        self.notes = (f"{options.encoder}: its pictures have {self._side[1]} x {self._side[0]} pixels, {told}",)
        self.masks(Image.new("RGB", (64, 64)), torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
        self.identity = identity_of(
            boxes.stores,
            kind="prompted",
            tutor=f"boxes {boxes.told}, masks of {options.encoder.stem} and {options.decoder.stem}",
            weights=f"{options.encoder.name}, {options.decoder.name}",
            weights_sha256=digest,
            preprocessing=f"{self._side[0]} x {self._side[1]}, {self._picture.model_dump_json()}",
            mask_side=CELLS,
            **boxes.facts,
        )

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        found = []
        for image, image_id in zip(images, image_ids, strict=True):
            size = (image.height, image.width)
            boxes, answer = self._boxes(image_id, size), None
            with told_of(f"image {image_id}"):
                answer = boxes and with_masks(boxes, self.masks(image, boxes.boxes_xyxy))
            found.append(SoftLabels.of(size, answer))
        return found

    def masks(self, image: Image.Image, boxes_xyxy: Tensor) -> Tensor:
        """float32 [N, 56, 56], 0..1: a soft mask over each box [N, 4], in pixels of the image."""
        if not len(boxes_xyxy):
            return torch.zeros(0, CELLS, CELLS)
        pixels, placed = place(image, self._side, self._picture)
        name = self._encoder.get_inputs()[0].name
        features = self._run(self._encoder, self._paths[0], {name: pixels.numpy()})
        corner, scale = (torch.tensor(pair, dtype=torch.float32).repeat(2) for pair in (placed.corner, placed.scale))
        found = []
        for box in boxes_xyxy * scale + corner:
            mask = self._mask({own: features[name] for own, name in self._features.items()}, box)
            found.append(masks_in_boxes(mask[None], box[None], torch.zeros(1, dtype=torch.int64), self._side, CELLS))
        return torch.cat(found)

    def _mask(self, features: Mapping[str, NDArray[Any]], box: Tensor) -> Tensor:
        """float32 [h, w] over the whole input: the mask for one box in its pixels.

        Of four masks the first one is meant for a prompt that leaves nothing open, as a box does; of others the one
        that the network itself thinks best is taken.
        """
        entries = [entry for entry in self._decoder.get_inputs() if entry.name in ROLES]
        prompts = {entry.name: self._prompt(ROLES[entry.name], entry.shape, box) for entry in entries}
        outputs = self._run(self._decoder, self._paths[1], {**features, **prompts})
        name = next((name for name in MASKS if name in outputs), None)
        if name is None or outputs[name].ndim < 2:
            told = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
            raise InputError(f"{self._paths[1]}: no masks among its outputs ({told}); possible: {', '.join(MASKS)}")
        values = outputs[name].reshape(-1, *outputs[name].shape[-2:])
        sure = next((outputs[name].ravel() for name in QUALITIES if name in outputs), np.zeros(0))
        best = int(sure.argmax()) if len(sure) == len(values) != 4 else 0
        mask = finite(torch.from_numpy(values[best]).float(), "mask values")
        return mask if values.dtype == np.bool_ else mask.sigmoid()

    def _prompt(self, role: str, shape: Sequence[int | str | None], box: Tensor) -> NDArray[Any]:
        """What an input of the decoder takes; sides of `shape` that are no numbers are open."""
        fixed = [side if isinstance(side, int) else 1 for side in shape]
        if role in ("coords", "labels"):
            count = fixed[-2 if role == "coords" else -1]
            corners = [*box.reshape(2, 2).tolist()] if role == "coords" else [*CORNERS]
            rest = [[0.0, 0.0] if role == "coords" else NO_POINT] * (count - 2)
            points = np.array([*corners, *rest])
            return points.reshape([1] * (len(shape) - points.ndim) + [*points.shape])
        if role == "mask":
            sides = zip(fixed[-2:], self._side, strict=True)
            return np.zeros([1, 1, *(own if own > 1 else side // 4 for own, side in sides)])
        return np.reshape(self._side, [1] * (len(shape) - 1) + [2]) if role == "size" else np.zeros(fixed)

    def _run(self, session: Any, path: Path, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        types = {entry.name: TYPES.get(entry.type, np.float32) for entry in session.get_inputs()}
        try:
            values = session.run(None, {name: value.astype(types[name]) for name, value in given.items()})
        except Exception as error:  # onnxruntime has no common base class for its errors
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: does not take {shapes} ({reason}); give the two files of one export") from error
        return {entry.name: value for entry, value in zip(session.get_outputs(), values, strict=True)}

    def _wire(self) -> dict[str, str]:
        """Which output of the encoder each of the decoder's further inputs takes: that of its name, or the only one.
        Raises InputError: the decoder takes no boxes, or other features than the encoder gives.
        """
        encoder, decoder = self._paths
        inputs = [entry.name for entry in self._decoder.get_inputs()]
        outputs = [entry.name for entry in self._encoder.get_outputs()]
        roles = {ROLES.get(name) for name in inputs}
        if not {"coords", "labels"} <= roles:
            raise InputError(
                f"{decoder}: takes no corners of boxes (point_coords and point_labels) among its inputs "
                f"({', '.join(inputs)}); a network that needs no prompts is the tutor onnx:FILE by itself"
            )
        wanted = [name for name in inputs if name not in ROLES]
        if not {*wanted} <= {*outputs} and (len(wanted), len(outputs)) != (1, 1):
            raise InputError(
                f"{decoder}: takes {', '.join(wanted)}, and {encoder} gives {', '.join(outputs)}; give the encoder and "
                "the decoder of one export"
            )
        return {name: name if name in outputs else outputs[0] for name in wanted}

    def _find_picture(self) -> tuple[Picture, tuple[int, int]]:
        """How the encoder wants its picture, as its export is known or a file beside it says, and (height, width)."""
        entry, path = self._encoder.get_inputs()[0], declaration_path(self._paths[0])
        picture = SAM
        if entry.name == "batched_images":  # EfficientSAM
            picture = Picture()
        elif len(self._features) > 1:  # SAM 2
            picture = IMAGENET
        elif len(entry.shape) == 3:  # SAM with the normalisation in the file
            picture = SAM.model_copy(update={"layout": "hwc", "mean": (0.0,) * 3, "deviation": (1.0,) * 3})
        if path.is_file():
            given = read_yaml(path)
            known = {"input": picture.model_dump()}
            picture = validated(Promptable, merged(known, given) if isinstance(given, dict) else given, str(path)).input
        first = picture.layout.index("h")
        height, width = (side if isinstance(side, int) else SIDE for side in entry.shape[first : first + 2])
        return picture, picture.size or (height, width)
