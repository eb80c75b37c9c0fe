"""Do the two tasks pull the trunk apart? `python path/to/results/study/conflict.py ARM HOW`, where `run.sh` ran.

Trains one run of the study again (`ARM`: its row, such as "tutors alone"; seed 0, recipe `corrected`) and looks at each
task's gradient on the weights that both share, every twenty steps: how long it is, and the cosine between them. `HOW`
says what the weights learn from:

    sum      the two gradients' sum, as everywhere else
    project  each gradient without what points against the other one (PCGrad, arXiv 2001.06782)
    level    both gradients scaled to the longer one's length, then summed (after DB-MTL, arXiv 2308.12029)
"""

from __future__ import annotations

import json
import shutil
import sys
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tutored import engine, losses
from tutored.engine.batches import to_device
from tutored.engine.trainer import Trainer
from tutored.evaluate.resample import Resampled, compare
from tutored.files import write_text
from tutored.studies.folder import load_folder
from tutored.targets import Batch

EVERY = 20
"""Steps between looks."""


class Probe(Trainer):
    """A trainer that knows each task's gradient on the trunk: backbone, down-stream and up-stream."""

    how: ClassVar[str]
    seen: ClassVar[list[dict[str, float]]]
    """The step, each task's gradient norm, and the cosine between the two on each part and on all of them."""

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        looks = self.done % EVERY == 0
        if self.how == "sum" and not looks:
            return super().backward(batch)
        student = self.student
        batch = to_device(batch, self.device)
        assigned = losses.assign(student.anchors_xyxy, batch, self.config.loss)
        factors = losses.divide(assigned.weights, self.config.loss)
        images = batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        found = losses.sums(student(images), batch, assigned, self.config.loss)
        weighed = dict(zip(found, losses.weigh(found, factors), strict=True))
        tasks = dict.fromkeys(losses.TASK.values(), images.new_zeros(()))
        for name, value in weighed.items():
            task = losses.TASK[name.split("/")[0]]
            tasks[task] = tasks[task] + value
        parts = {"backbone": student.backbone, "down": student.down, "up": student.up}
        inside = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
        trunk = [p for part in inside.values() for p in part]
        mine = {id(p) for p in trunk}
        heads = [p for p in student.parameters() if p.requires_grad and id(p) not in mine]
        pulls = [torch.autograd.grad(loss, trunk, retain_graph=True, materialize_grads=True) for loss in tasks.values()]
        own = torch.autograd.grad(torch.stack(list(tasks.values())).sum(), heads)
        first, second = (torch.cat([g.flatten() for g in pull]) for pull in pulls)
        lengths = first.norm(), second.norm()
        if looks:
            sizes = [sum(p.numel() for p in part) for part in inside.values()]
            pairs = zip(inside, torch.split(first, sizes), torch.split(second, sizes), strict=True)
            cosines = {name: float(cosine_similarity(one, other, 0)) for name, one, other in pairs}
            norms = dict(zip(tasks, map(float, lengths), strict=True))
            self.seen.append({"step": self.done, **norms, **cosines, "all": float(cosine_similarity(first, second, 0))})
        dot = first @ second
        if self.how == "project" and dot < 0:
            first, second = first - dot / lengths[1] ** 2 * second, second - dot / lengths[0] ** 2 * first
        if self.how == "level":
            longer = max(lengths)
            first, second = first * (longer / lengths[0]), second * (longer / lengths[1])
        together = torch.split(first + second, [p.numel() for p in trunk])
        for parameter, gradient in zip(trunk, together, strict=True):
            parameter.grad = gradient.view_as(parameter)
        for parameter, gradient in zip(heads, own, strict=True):
            parameter.grad = gradient
        return {name: value.detach() for name, value in weighed.items()}


def main() -> None:
    arm, how = sys.argv[1:]
    runs = load_folder(Path("study")).runs(["beyond/no-ground-truth", "beyond/vouched"], "corrected", 1)
    run = next(run for run in runs if run.label.startswith(f"{arm} ("))
    out = Path("conflict") / f"{run.run_id}-{how}"
    if not (out / "seen.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        Probe.how, Probe.seen = how, []
        with patch.object(engine, "Trainer", Probe):
            engine.train(run.config, out)
        write_text(out / "seen.json", json.dumps(Probe.seen))
    seen = json.loads((out / "seen.json").read_text())
    result = json.loads((out / "result.json").read_text())["figures"]
    epoch_steps = (seen[-1]["step"] + EVERY) // run.config.train.epochs
    for epoch, group in groupby(seen, key=lambda look: look["step"] // epoch_steps):
        looks = list(group)
        means = {name: fmean(look[name] for look in looks) for name in looks[0] if name != "step"}
        against = fmean(look["all"] < 0 for look in looks)
        print(f"epoch {epoch + 1:.0f}:", ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()), end=", ")
        print(f"against each other in {against:.2f} of the looks")
    later = [look for look in seen if look["step"] >= epoch_steps]
    cosines = [look["all"] for look in later]
    error = stdev(cosines) / len(cosines) ** 0.5
    print(
        f"after the first epoch, {len(later)} looks: cosine {fmean(cosines):.2f} +- {error:.2f} (standard error)",
        end=", ",
    )
    print(f"against each other in {fmean(cosine < 0 for cosine in cosines):.2f}", end=", ")
    print(", ".join(f"{task} {fmean(look[task] for look in later):.1f}" for task in ("detection", "segmentation")))
    print(f"{run.label}, {how}: {result['mAP_voc_area@.5']:.3f} / {result['mIoU']:.3f}")
    usual = Path("conflict") / f"{run.run_id}-sum" / "resamples.npz"
    if how != "sum" and usual.exists():
        for figure, found in compare([Resampled.load(usual)], [Resampled.load(out / "resamples.npz")]).items():
            print(f"against the sum: {figure} {found}")


if __name__ == "__main__":
    main()
