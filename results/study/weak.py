"""How weak the boxes are that the thesis' floor lets teach: `python path/to/results/study/weak.py`, where `run.sh` ran.

Over the training images of the small split, from each floor on: boxes an image, how many of them are on an object of
their class (IoU .5 or more), and what share of all weight (their scores) they have.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torchvision.ops import box_iou

from tutored.config import THESIS, Loss
from tutored.data import open_dataset
from tutored.data.teaching import teachable
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.studies import load_setting

EDGES = (0.001, 0.01, 0.1, 0.5, 1.0)


def main() -> None:
    setting, config = load_setting(Path(__file__).parent / "setting.yaml"), Loss.model_validate(THESIS["loss"])
    dataset = open_dataset(setting.data, setting.small)
    store = Store.open(Path(setting.store("detection", "small")))
    answers = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
    scores, right = [], []
    for image_id in dataset.ids:
        boxes, truth = answers[image_id], dataset.ground_truth(image_id)
        assert boxes.probs is not None
        assert boxes.boxes_xyxy is not None
        assert truth.boxes_xyxy is not None
        assert truth.classes is not None
        chosen = teachable(boxes, config)
        classes = boxes.probs[chosen, 1:].argmax(dim=1) + 1
        hits = box_iou(boxes.boxes_xyxy[chosen], truth.boxes_xyxy) >= 0.5
        right.append((hits & (classes[:, None] == truth.classes)).any(dim=1))
        scores.append(boxes.scores[chosen])
    score, hit = torch.cat(scores), torch.cat(right).float()
    for low, high in pairwise(EDGES):
        there = (score >= low) & (score <= high if high == EDGES[-1] else score < high)
        print(f"{low} to {high}: {there.sum() / len(dataset.ids):.1f} boxes an image", end=", ")
        print(f"{hit[there].mean():.3f} of them right, {score[there].sum() / score.sum():.3f} of the weight")


if __name__ == "__main__":
    main()
