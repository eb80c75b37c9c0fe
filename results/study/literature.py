"""What newer work on soft labels and on two losses offers beside what the recipe has already.

`python path/to/results/study/literature.py ARM HOW SEED`, where `run.sh` ran, trains one run of the study again (`ARM`:
its row, such as "tutors alone"; recipe `corrected`) with one thing added; without arguments it says what all that were
trained gained over the study's own runs of the same seeds. `HOW`:

    dist         the tutor's map is also followed in its relations: Pearson's correlation over a cell's classes and over
                 a class' cells (DIST, arXiv 2205.10536), each added once to the map's term
    cwd          also where each class is, one image at a time: a softmax of log-probabilities over the cells at T = 4,
                 with the paper's weight of 3 (CWD, arXiv 2011.13256)
    worst        the tenth of the tutor's cells with the highest loss teaches nothing (Depth Anything V2, issue 153)
    uncertainty  each task's loss L weighs exp(-s) / 2, and s is learnt: L exp(-s) / 2 + s / 2 (arXiv 1705.07115)
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from train import remembered

from tutored import engine, losses
from tutored.data.voc import Voc
from tutored.engine.trainer import Trainer
from tutored.evaluate.resample import Resampled, compare
from tutored.losses import segmentation
from tutored.losses.segmentation import MapTargets
from tutored.studies.folder import load_folder
from tutored.studies.run import run_folder
from tutored.targets import Batch, Targets

OUT = Path("literature")
WORST = 0.1
CHANNEL_TEMPERATURE, CHANNEL_WEIGHT = 4.0, 3.0


def correlated(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation along the last dimension."""
    return F.cosine_similarity(one - one.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True), dim=-1)


def relations(map_logits: Tensor, targets: Targets, cells: MapTargets) -> Tensor:
    taught = cells.probs.sum(1) > 0
    said, known = (each.movedim(1, -1)[taught] for each in (map_logits.softmax(1), cells.probs))
    own = segmentation_sum(map_logits, targets, cells)
    return own + cells.normaliser * ((1 - correlated(said, known)).mean() + (1 - correlated(said.T, known.T)).mean())


def channels(map_logits: Tensor, targets: Targets, cells: MapTargets) -> Tensor:
    nowhere = (cells.probs.sum(1, keepdim=True) == 0).flatten(2)
    # A class that the store does not name in a cell has less than half of the smallest share that it can write.
    places = (map_logits.log_softmax(1), cells.probs.clamp(min=1 / 512).log())
    said, known = (
        (each.flatten(2) / CHANNEL_TEMPERATURE).masked_fill(nowhere, -torch.inf).log_softmax(-1) for each in places
    )
    apart = (known.exp() * (known - said).masked_fill(nowhere, 0)).sum(-1).mean()
    own = segmentation_sum(map_logits, targets, cells)
    return own + cells.normaliser * CHANNEL_WEIGHT * CHANNEL_TEMPERATURE**2 * apart


def without_worst(map_logits: Tensor, targets: Targets, cells: MapTargets) -> Tensor:
    losses_of_cells = -(cells.probs * map_logits.log_softmax(1)).sum(1)
    taught = losses_of_cells[cells.probs.sum(1) > 0]
    kept = losses_of_cells.detach() <= torch.quantile(taught.detach(), 1 - WORST)
    return (losses_of_cells * kept).sum() * cells.normaliser / (cells.probs.sum(1) * kept).sum()


class Uncertain(Trainer):
    """A trainer that learns how much each task weighs."""

    logs: Tensor
    """s of detection and segmentation, float32 [2]."""

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        if self.done == 0:
            self.logs = torch.zeros(2, requires_grad=True)
            self.own = torch.optim.Adam([self.logs], lr=self.config.train.lr)
        weights = dict(zip(("detection", "segmentation"), (self.logs.detach().neg().exp() / 2).tolist(), strict=True))
        named = {f"{task}_weight": weight for task, weight in weights.items()}
        loss = self.supervision.loss.model_copy(update=named)
        self.supervision = self.supervision._replace(loss=loss)
        values = super().backward(batch)
        tasks = dict.fromkeys(weights, 0.0)
        for name, value in values.items():
            tasks[losses.TASK[name.split("/")[0]]] += float(value)
        # What was weighed is L exp(-s) / 2, and its derivative by s is its negative.
        self.logs.grad = torch.tensor([0.5 - tasks[task] for task in weights])
        self.own.step()
        if self.done % 100 == 0:
            print(self.done, weights, flush=True)
        return values


segmentation_sum = segmentation.map_sum
MAPS = {"dist": relations, "cwd": channels, "worst": without_worst}


def train(arm: str, how: str, seed: int) -> None:
    for name in ("image", "ground_truth"):
        setattr(Voc, name, remembered(getattr(Voc, name)))
    runs = load_folder(Path("study")).runs(["beyond/no-ground-truth"], "corrected", 3)
    run = next(run for run in runs if run.label == f"{arm} (corrected, seed {seed})")
    if (OUT / f"{run.run_id}-{how}" / "result.json").exists():
        return
    trainer = Uncertain if how == "uncertainty" else Trainer
    with (
        patch.object(engine, "Trainer", trainer),
        patch.object(segmentation, "map_sum", MAPS.get(how, segmentation_sum)),
    ):
        engine.train(run.config, OUT / f"{run.run_id}-{how}")


def main() -> None:
    if len(sys.argv) > 1:
        arm, how, seed = sys.argv[1:]
        train(arm, how, int(seed))
    study = Path("study")
    found = defaultdict(list)
    for run in load_folder(study).runs(["beyond/no-ground-truth"], "corrected", 3):
        for how in (*MAPS, "uncertainty"):
            path = OUT / f"{run.run_id}-{how}" / "resamples.npz"
            if path.exists():
                found[run.label.split(" (")[0], how].append((run_folder(study, run) / "resamples.npz", path))
    for (arm, how), pairs in found.items():
        usual, changed = ([Resampled.load(path) for path in side] for side in zip(*pairs, strict=True))
        means = sum(each.values[0] for each in changed) / len(changed)
        print(f"{arm}, {how}, {len(pairs)} seeds: {means[0]:.3f} / {means[1]:.3f}")
        for figure, interval in compare(usual, changed).items():
            print(f"    {figure} {interval}")


if __name__ == "__main__":
    main()
