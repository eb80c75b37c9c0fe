"""The segmentation tutor's own mIoU on the training images, as stored and vetted by drawn boxes.

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
from tutored.studies import load_setting

setting = load_setting(Path(__file__).parent / "setting.yaml")
dataset = open_dataset(setting.data, setting.large)
store = Store.open(Path(setting.store("segmentation", "large")))
class_map = ClassMap.by_name(store.labels, dataset.labels, renamed={}, elsewhere="background")
answers = Folded(store, class_map, background="noisy_or")
classes = len(dataset.labels)
reported = [dataset.labels.names.index(name) for name in setting.reported or dataset.labels.classes]

confusion = {"as stored": torch.zeros(classes, classes), "vetted by boxes": torch.zeros(classes, classes)}
for image_id in dataset.ids:
    truth, answer = dataset.ground_truth(image_id), answers[image_id]
    if truth.mask is None or truth.boxes_xyxy is None:
        continue
    mask = interpolate(truth.mask[None, None].float(), answer.map.shape[-2:], mode="nearest-exact")[0, 0].long()
    drawn = mask < classes
    for name, soft in (("as stored", answer), ("vetted by boxes", map_by_boxes(answer, truth))):
        pairs = mask[drawn] * classes + soft.map.argmax(dim=0)[drawn]
        confusion[name] += pairs.bincount(minlength=classes**2).reshape(classes, classes)

for name, counts in confusion.items():
    hits = counts.diagonal()
    iou = hits / (counts.sum(dim=0) + counts.sum(dim=1) - hits)
    print(f"{name}: mIoU {iou[reported].mean():.3f}")
