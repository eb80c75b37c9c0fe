"""How much mIoU does a map's grid allow? `python path/to/results/study/ceiling.py`, where `run.sh` ran.

The ground truth of the evaluation images, averaged over the cells of a grid as fine as a network's map and enlarged as
its answer is: what a student would have that says just the right thing in every cell. 20, 32 and 48 cells a side are
the maps of 160, 256 and 384 pixels at stride 8, 40 and 64 those of 160 and 256 at stride 4; beside them the
segmentation tutor on such grids.
"""

from __future__ import annotations

from pathlib import Path

from torch.nn.functional import adaptive_avg_pool2d, one_hot

from tutored.data import open_dataset
from tutored.evaluate import Record, figures, record
from tutored.labels import ClassMap
from tutored.maps import likeliest
from tutored.softlabels import Folded, Store
from tutored.structures import IGNORE, Prediction
from tutored.studies import load_setting

GRIDS = (20, 32, 40, 48, 64)


def main() -> None:
    setting = load_setting(Path(__file__).parent / "setting.yaml")
    dataset = open_dataset(setting.data, setting.evaluation)
    store = Store.open(Path(setting.store("segmentation", "evaluation")))
    tutor = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
    for grid in GRIDS:
        records: dict[str, list[Record]] = {"ground truth": [], "tutor": []}
        for image_id in dataset.ids:
            truth = dataset.ground_truth(image_id)
            assert truth.mask is not None
            known = truth.mask != IGNORE
            drawn = one_hot(truth.mask.long() * known, len(dataset.labels)).permute(2, 0, 1) * known.float()
            said = tutor[image_id].map
            assert said is not None
            for name, each in (("ground truth", drawn), ("tutor", said)):
                mask = likeliest(adaptive_avg_pool2d(each, grid), truth.size)
                records[name].append(record(image_id, truth, Prediction(size=truth.size, mask=mask), dataset.labels))
        found = {name: figures(each, dataset.labels, setting.reported).miou for name, each in records.items()}
        print(f"{grid} x {grid} cells:", ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
