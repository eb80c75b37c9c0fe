"""The segmentation tutor's own mIoU on the training images, as stored, vetted by drawn boxes, and by the other tutor's.

    python path/to/results/study/vetting.py

from the folder of `run.sh`. On the cells of the stored maps, over the classes that the studies report; ground truth is
the mask's pixel nearest to a cell's centre.
"""

from pathlib import Path

import torch
from torch.nn.functional import interpolate

from tutored.data import open_dataset
from tutored.data.vetting import map_by_boxes
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store
from tutored.structures import GroundTruth
from tutored.studies import load_setting

FLOOR = 0.01  # weaker boxes of the detection tutor vet nothing
setting = load_setting(Path(__file__).parent / "setting.yaml")
dataset = open_dataset(setting.data, setting.large)
maps, boxes = (Store.open(Path(setting.store(name, "large"))) for name in ("segmentation", "detection"))
answers, found = (Folded(store, ClassMap.by_name(store.labels, dataset.labels)) for store in (maps, boxes))
classes = len(dataset.labels)
reported = [dataset.labels.names.index(name) for name in setting.reported or dataset.labels.classes]

names = ("as stored", "vetted by drawn boxes", "vetted by the detection tutor's boxes")
confusion = {name: torch.zeros(classes, classes) for name in names}
for image_id in dataset.ids:
    truth, answer = dataset.ground_truth(image_id), answers[image_id]
    if truth.mask is None or truth.boxes_xyxy is None:
        continue
    mask = interpolate(truth.mask[None, None].float(), answer.map.shape[-2:], mode="nearest-exact")[0, 0].long()
    drawn = mask < classes
    seen = found[image_id]
    kept = seen.scores >= FLOOR
    others = GroundTruth(
        size=truth.size,
        boxes_xyxy=seen.boxes_xyxy[kept],
        classes=seen.classes[kept],
        difficult=torch.zeros(int(kept.sum()), dtype=torch.bool),
    )
    for name, soft in zip(names, (answer, map_by_boxes(answer, truth), map_by_boxes(answer, others)), strict=True):
        pairs = mask[drawn] * classes + soft.map.argmax(dim=0)[drawn]
        confusion[name] += pairs.bincount(minlength=classes**2).reshape(classes, classes)

for name, counts in confusion.items():
    hits = counts.diagonal()
    iou = hits / (counts.sum(dim=0) + counts.sum(dim=1) - hits)
    print(f"{name}: mIoU {iou[reported].mean():.3f}")
