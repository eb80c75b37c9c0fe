"""A student that was trained here, as the tutor of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tutored.checkpoint import WEIGHTS, load_checkpoint
from tutored.device import choose_device
from tutored.structures import SoftLabels
from tutored.student import preprocess, soft_decode
from tutored.tutors import file_sha256


class StudentTutor:
    """A checkpoint's boxes with their whole class distributions, and its probability map on its own grid.

    For a task that the checkpoint was not taught it has no answer.
    """

    def __init__(self, weights: Path | str, *, score_floor: float | None = None, device: str | None = None) -> None:
        """Load the checkpoint.

        Args:
            weights: a checkpoint's folder.
            score_floor: replaces that of the checkpoint's configuration.
            device: see `choose_device`.

        Raises:
            InputError: the folder is no checkpoint.
        """
        weights = Path(weights)
        self._student, config, self.labels = load_checkpoint(weights)
        self._device = choose_device(device)
        self._student.to(self._device)
        floor = config.decode.score_floor if score_floor is None else score_floor
        self._decode = config.decode.model_copy(update={"score_floor": floor})
        self._size = config.student.size
        self._taught = config.taught
        self.identity: Mapping[str, Any] = {
            "kind": "student",
            "tutor": f"BlitzNet on {config.student.backbone}",
            "weights": config.run_id,
            "weights_sha256": file_sha256(weights / WEIGHTS, "the checkpoint's weights"),
            "preprocessing": f"RGB 0..1, bilinear to {self._size} x {self._size}, aspect ratio not kept",
            **self._decode.model_dump(mode="json"),
            "map_stride": None,
            "input_map_stride": config.student.stride if "segmentation" in config.taught else None,
        }

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        # One at a time: in a batch, the last digits of an answer would depend on its neighbours.
        return [self._answer(image) for image in images]

    def _answer(self, image: Image.Image) -> SoftLabels:
        outputs = self._student(preprocess([image], self._size).to(self._device))
        (answer,) = soft_decode(outputs, [(image.height, image.width)], self._decode, self._size)
        if "detection" not in self._taught:
            answer = replace(answer, boxes_xyxy=None, classes=None, probs=None)
        return answer if "segmentation" in self._taught else replace(answer, map=None)
