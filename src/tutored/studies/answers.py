"""What a finished student says about a few images of the evaluation split, for the pictures of a report."""

from __future__ import annotations

import json
from pathlib import Path

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.data import open_dataset
from tutored.device import choose_device
from tutored.files import whole_folder
from tutored.predict import Predictor
from tutored.structures import Dataset
from tutored.visualise import save_mask

SHOWN = 4
"""Images, evenly spaced over the split."""
SCORE = 0.4
"""Boxes from this score on are kept."""


def shown_images(dataset: Dataset) -> tuple[str, ...]:
    """The same for every student."""
    step = max(len(dataset.ids) // SHOWN, 1)
    return dataset.ids[step // 2 :: step][:SHOWN]


def keep_answers(config: Config, run: Path) -> None:
    """Write `run/answers`: for each image its map as `ID.png`, and all boxes as `boxes.json`.

    A run without an evaluation split gets none.
    """
    if config.data.val_split is None or config.data.held_out:
        return
    student, _, labels = load_checkpoint(run / "checkpoint")
    dataset = open_dataset(config.data.val or config.data.train, config.data.val_split, None, labels.classes)
    device = choose_device(config.train.device if config.train.device != "auto" else None)
    predictor = Predictor(student, config.decode, device, tasks=config.taught)
    ids = shown_images(dataset)
    boxes = {}
    with whole_folder(run / "answers") as folder:
        for image_id, answer in zip(ids, predictor([dataset.image(image_id) for image_id in ids]), strict=True):
            kept = answer.above(SCORE)
            name = image_id.replace("/", "-")
            if kept.mask is not None:
                save_mask(kept.mask, folder / f"{name}.png")
            if kept.boxes_xyxy is not None and kept.classes is not None and kept.scores is not None:
                boxes[image_id] = {
                    "size": list(kept.size),
                    "boxes_xyxy": [[round(value, 1) for value in box] for box in kept.boxes_xyxy.tolist()],
                    "classes": kept.classes.tolist(),
                    "scores": [round(score, 3) for score in kept.scores.tolist()],
                }
        (folder / "boxes.json").write_text(json.dumps(boxes) + "\n")
