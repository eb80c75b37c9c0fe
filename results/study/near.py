"""How near to its tutors is a student? `python near.py RUN...`, from the folder in which `run.sh` ran.

Prints each run's mAP and mIoU on `val` less those of the detection and the segmentation tutor, with 95 % intervals over
images (a paired bootstrap, one seed).
"""

import sys
from pathlib import Path

from tutored.data import open_dataset
from tutored.evaluate import Resampled, compare, record
from tutored.evaluate.resample import resample
from tutored.judge import predictions_of
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.studies import load_setting

OWN = {"mAP_voc_area@.5": "detection", "mIoU": "segmentation"}


def figures_of(task: str) -> Resampled:
    """Those of a tutor's store, with mAP only for boxes and mIoU only for maps."""
    setting = load_setting(Path(__file__).parent / "setting.yaml")
    dataset = open_dataset(setting.data, setting.evaluation)
    store = Store.open(Path(setting.store(task, "evaluation")))
    folded = Folded(store, ClassMap.by_name(store.labels, dataset.labels))
    answers = predictions_of(folded, dataset, store.path)
    records = [record(image, dataset.ground_truth(image), answer, dataset.labels) for image, answer in answers]
    return resample(records, dataset.labels, setting.reported)


def main() -> None:
    tutors = {task: figures_of(task) for task in OWN.values()}
    for run in map(Path, sys.argv[1:]):
        student = Resampled.load(run / "resamples.npz")
        for figure, task in OWN.items():
            found = compare([tutors[task]], [student])[figure]
            print(f"{run}, {figure}: {found.b:.3f}, the {task} tutor {found.a:.3f}, {found}")


if __name__ == "__main__":
    main()
