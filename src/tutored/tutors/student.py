"""A student that was trained here, as the tutor of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from tutored.checkpoint import WEIGHTS, load_checkpoint
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.processes import choose_device
from tutored.students import soft_answer
from tutored.tasks import Task
from tutored.tutors.options import StudentOptions
from tutored.tutors.outputs import files_sha256
from tutored.types import SoftLabels


class StudentTutor:
    """A checkpoint's soft answers: boxes with their whole class distributions, maps on its own grid."""

    notes: Sequence[str] = ()

    def __init__(self, options: StudentOptions) -> None:
        """Load the checkpoint. Raises InputError: the folder is no checkpoint, it was not taught a task, or the tasks
        have no common label space.
        """
        folder = options.weights
        self._student, config = load_checkpoint(folder)
        self._device = choose_device(options.device)
        self._student.to(self._device).eval()
        self._names = options.tasks or config.taught
        unknown = [name for name in self._names if name not in config.taught]
        if unknown:
            raise InputError(f"tasks: {folder} was not taught {unknown[0]!r}; possible: {', '.join(config.taught)}")
        tasks = [self._student.tasks[name] for name in self._names]
        self.labels = _common_labels(tasks)
        decode: dict[str, Any] = {"score_floor": None, "nms_iou": None}
        for task in tasks:
            if hasattr(task.section, "decode"):
                kept = task.section.decode
                if options.score_floor is not None:
                    kept = kept.model_copy(update={"score_floor": options.score_floor})
                    task.section = task.section.model_copy(update={"decode": kept})
                decode |= kept.model_dump(mode="json")
        size, grids = self._student.size, [self._student.grids[name] for name in self._names]
        self.identity: Mapping[str, Any] = {
            "kind": "student",
            "tutor": f"{config.student.kind} on {config.student.backbone}",
            "weights": config.run_id,
            "weights_sha256": files_sha256([folder / WEIGHTS], "the checkpoint's weights"),
            "tasks": list(self._names),
            "preprocessing": f"RGB 0..1, bilinear to {size} x {size}, aspect ratio not kept",
            **decode,
            "map_stride": None,
            "input_map_stride": next((size / grid for grid in grids if grid), None),
        }

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        # One at a time: in a batch, the last digits of an answer would depend on its neighbours.
        return [soft_answer(self._student, [image], self._device, self._names)[0] for image in images]


def _common_labels(tasks: Sequence[Task]) -> LabelSpace:
    kinds = [task.kind for task in tasks]
    spaces = {task.labels for task in tasks}
    if len(set(kinds)) < len(kinds) or len(spaces) != 1:
        raise InputError(
            f"tasks: the tasks {', '.join(task.name for task in tasks)} are of one kind or have other classes, and a "
            "tutor answers each kind in one label space; name some of them, and label once more for the others"
        )
    return spaces.pop()
