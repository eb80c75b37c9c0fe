"""Arrays for finding label errors: `labels` and `pred_probs`, in the form of the library cleanlab."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.boxes import iou
from tutored.errors import InputError
from tutored.files import write_encoded, write_text
from tutored.structures import BACKGROUND, IGNORE, Dataset, GroundTruth, SoftLabels

SIDE = 64
"""Cells of each image's side; images are stretched to squares, since all must have one size."""
IOU_FLOOR = 0.5


def write_cleanlab(answers: Iterable[tuple[str, SoftLabels]], dataset: Dataset, out: Path, score: float) -> None:
    """Arrays of the images that have ground truth as well. Classes are 0 (background) to C.

    Raises InputError where no image has any.

    - `boxes_labels.npy` int64 [M], the class of each ground-truth box, `boxes_pred_probs.npy` float32 [M, C+1], the
      class distribution of the tutor's box (from `score` on) that overlaps it most, at IoU .5 or more; where there is
      none, it is background with certainty. `boxes.csv` says which image and box each row is.
    - `pixels_labels.npy` uint8 [N, 64, 64] and `pixels_pred_probs.npy` float32 [N, C+1, 64, 64], images stretched to
      squares; `pixels.csv` names them. Void pixels carry the tutor's own class, so that they are never an error.
    """
    rows: list[tuple[str, list[float]]] = []
    box_labels, box_probs, names, masks, maps = [], [], [], [], []
    for image_id, answer in answers:
        truth = dataset.ground_truth(image_id)
        if truth.boxes_xyxy is not None and truth.classes is not None and answer.boxes_xyxy is not None:
            rows += [(image_id, box) for box in truth.boxes_xyxy.tolist()]
            box_labels.append(truth.classes.numpy())
            box_probs.append(_matched(truth, answer, score).numpy())
        if truth.mask is not None and answer.map is not None:
            probs = F.interpolate(answer.map[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]
            mask = F.interpolate(truth.mask[None, None].float(), size=(SIDE, SIDE), mode="nearest-exact")[0, 0]
            names.append(image_id)
            masks.append(torch.where(mask == IGNORE, probs.argmax(dim=0), mask).to(torch.uint8).numpy())
            maps.append(probs.numpy().astype(np.float32))
    if not rows and not names:
        raise InputError(
            f"{dataset.name}: no image has ground truth of a task that the store answers, and cleanlab compares the two"
        )
    if rows:
        write_encoded(out / "boxes_labels.npy", partial(np.save, arr=np.concatenate(box_labels)))
        write_encoded(out / "boxes_pred_probs.npy", partial(np.save, arr=np.concatenate(box_probs)))
        places = ([image_id, *(f"{edge:g}" for edge in box)] for image_id, box in rows)
        _write_table(out / "boxes.csv", [["image_id", "x1", "y1", "x2", "y2"], *places])
    if names:
        write_encoded(out / "pixels_labels.npy", partial(np.save, arr=np.stack(masks)))
        write_encoded(out / "pixels_pred_probs.npy", partial(np.save, arr=np.stack(maps)))
        _write_table(out / "pixels.csv", [["image_id"], *([name] for name in names)])


def _write_table(path: Path, rows: Iterable[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _matched(truth: GroundTruth, answer: SoftLabels, score: float) -> Tensor:
    """float32 [K, C+1]: what the tutor says of each ground-truth box, whole distributions."""
    assert truth.boxes_xyxy is not None and answer.boxes_xyxy is not None and answer.probs is not None
    found = torch.zeros(len(truth.boxes_xyxy), answer.probs.shape[1])
    found[:, BACKGROUND] = 1
    kept = answer.scores >= score
    overlaps = iou(truth.boxes_xyxy, answer.boxes_xyxy[kept])
    if overlaps.numel():
        best, index = overlaps.max(dim=1)
        hit = best >= IOU_FLOOR
        found[hit] = answer.probs[kept][index[hit]]
    return found / found.sum(dim=1, keepdim=True)
