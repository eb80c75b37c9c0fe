"""How much the tutors doubt what they teach: `python path/to/results/study/doubt.py`, where `run.sh` ran.

Over the training images of the small split: what a box that teaches gives to its best class, to background, and to the
other classes; and by how much a cell's likeliest class leads.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tutored.config import Loss
from tutored.data import open_dataset
from tutored.data.teaching import teachable
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.studies import load_setting


def main() -> None:
    setting, config = load_setting(Path(__file__).parent / "setting.yaml"), Loss()
    dataset = open_dataset(setting.data, setting.small)
    stores = (Store.open(Path(setting.store(task, "small"))) for task in ("detection", "segmentation"))
    detection, segmentation = (Folded(store, ClassMap.by_name(store.labels, dataset.labels)) for store in stores)
    taught, leads = [], []
    for image_id in dataset.ids:
        boxes, cells = detection[image_id], segmentation[image_id].map
        assert boxes.probs is not None
        assert cells is not None
        chosen = teachable(boxes, config)
        taught.append(boxes.probs[chosen[boxes.scores[chosen] >= config.box_floor]])
        first, second = cells.flatten(1).topk(2, dim=0).values
        leads.append(first - second)
    probs, lead = torch.cat(taught), torch.cat(leads)
    best, background = probs[:, 1:].amax(dim=1), probs[:, 0]
    others = probs[:, 1:].sum(dim=1) - best
    print(f"{len(probs)} boxes: best class {best.mean():.3f}, background {background.mean():.3f}", end=", ")
    print(f"others {others.mean():.3f}, more than .1 in {(others > 0.1).float().mean():.3f} of them")
    print(f"{len(lead)} cells: lead {lead.mean():.3f}, under .5 in {(lead < 0.5).float().mean():.3f} of them")


if __name__ == "__main__":
    main()
