"""What maps do for the detection tutor's own boxes: `python path/to/results/study/vouching.py`, where `run.sh` ran.

Over the classes that the studies report: mAP of the boxes as stored and vouched for, and the difference with a 95 %
interval over images, for several shares of a box from which a map agrees in full; precision and recall of the boxes
that teach.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tutored.data import open_dataset
from tutored.evaluate import Resampled, compare, record, resample
from tutored.judge import as_prediction
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Folded, Store
from tutored.structures import Dataset, SoftLabels
from tutored.studies import Setting, load_setting
from tutored.tutors.vouched import VouchedTutor

FULL = (0.1, 0.2, 0.3, 0.4, 0.5)
TEACHES = 0.5  # the default of `loss.box_floor`


def judged(
    name: str, answers: Mapping[str, SoftLabels], labels: LabelSpace, dataset: Dataset, setting: Setting
) -> Resampled:
    classes = [dataset.labels.index(each) for each in setting.reported or dataset.labels.classes]
    folded = Folded(answers, ClassMap.by_name(labels, dataset.labels))
    records = [
        record(image_id, dataset.ground_truth(image_id), as_prediction(folded[image_id]), dataset.labels)
        for image_id in dataset.ids
    ]
    matches = [each.matches for each in records if each.matches is not None]
    objects = sum(np.isin(each.truth_classes[~each.difficult], classes).sum() for each in matches)
    hits = np.concatenate([each.hits[np.isin(each.classes, classes) & (each.scores >= TEACHES)] for each in matches])
    found = (hits == 1).sum()
    figures = resample(records, dataset.labels, setting.reported)
    precision, recall = found / (hits >= 0).sum(), found / objects
    print(f"{name}: mAP {figures.values[0, 0]:.3f}, precision {precision:.3f}, recall {recall:.3f}")
    return figures


def main() -> None:
    setting = load_setting(Path(__file__).parent / "setting.yaml")
    for split in ("small", "evaluation"):
        dataset = open_dataset(setting.data, getattr(setting, split))
        boxes, maps = setting.store("detection", split), setting.store("segmentation", split)
        store = Store.open(Path(boxes))
        before = judged(f"{split}, as stored", store, store.labels, dataset, setting)
        for full in FULL:
            tutor = VouchedTutor(boxes, maps, full=full)
            answers = {image_id: tutor([dataset.image(image_id)], [image_id])[0] for image_id in dataset.ids}
            after = judged(f"{split}, vouched for, full at {full}", answers, tutor.labels, dataset, setting)
            found = next(iter(compare([before], [after]).values()))
            print(f"  {found}")


if __name__ == "__main__":
    main()
