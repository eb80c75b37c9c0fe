"""A store's soft labels in other tools' formats, in a data set's own classes."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tutored.boxes import iou
from tutored.config.entries import TASKS
from tutored.data import open_dataset
from tutored.data.check import told_first
from tutored.data.coco import Coco
from tutored.errors import InputError, Progress
from tutored.files import whole_folder, write_encoded, write_text
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Remapped, Store
from tutored.tasks import task_class
from tutored.tasks.detection import Detection
from tutored.tasks.detection.types import Boxes, SoftBoxes
from tutored.tasks.instances import Instances, InstanceSegmentation
from tutored.tasks.segmentation import save_mask
from tutored.tasks.segmentation.types import ClassMask, SoftMap
from tutored.tutors.files import IN_VOC_PIXELS
from tutored.types import BACKGROUND, IGNORE, Dataset

TAIL_FLOOR = 1e-3
"""Probabilities below are left out of `probs`."""
CELLS = 64
"""Cells of each image's side in cleanlab's arrays; images are stretched to squares, since all must have one size."""
IOU_FLOOR = 0.5
"""From this overlap on, a tutor's box is held against a ground-truth box."""


class Answer(NamedTuple):
    """What a store says about one image of `size` (height, width); None where it does not answer."""

    image_id: str
    size: tuple[int, int]
    boxes: SoftBoxes | None
    map: SoftMap | None
    instances: Instances | None


class Target(NamedTuple):
    """What a writer writes for: data set, classes, place, the lowest score of boxes; `tell` tells the user."""

    dataset: Dataset
    labels: LabelSpace
    out: Path
    score: float
    tell: Callable[[str], object]


def convert(
    store: Path,
    kind: str,
    data: str,
    split: str,
    out: Path,
    score: float | None = None,
    progress: Progress | None = None,
    *,
    tell: Callable[[str], object] = lambda note: None,
) -> None:
    """Write what a store says about a split's images, whole or not at all; see the writers for what is in `out` then.

    Classes are those of the data set; where it has none, as pictures alone, the store's own. Raises InputError: an
    unknown kind, no store, no image of the split in it, no common class, nothing that the format holds, more classes
    than its masks can tell apart, or `out` is taken.

    Args:
        out: a file for `coco`, else a new or empty folder.
        score: boxes from this score on; None: what suits the format.
        tell: is given what the user should know of the data set, a sentence each.
    """
    if kind not in KINDS:
        raise InputError(f"format {kind!r}; possible: {', '.join(KINDS)}")
    if out.exists() and (kind == "coco" or not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; choose another --out")
    write, usual = KINDS[kind]
    dataset, stored = open_dataset(data, split), Store.open(store)
    for note in told_first(dataset):
        tell(note)
    labels = next((space for space in dataset.labels.values() if space.classes), stored.labels)
    class_map = ClassMap.by_name(stored.labels, labels)
    held = (SoftBoxes, Instances) if kind == "coco" else (SoftBoxes, Instances, SoftMap)
    kinds = {each.answers[0]: each for each in map(task_class, TASKS) if stored.teaches(each)}
    kinds = {form: each for form, each in kinds.items() if form in held}
    if not kinds:
        raise InputError(f"{store} answers with {', '.join(stored.kinds)}, which {kind} can't hold; give another --to")
    if SoftMap in kinds and len(labels) > IGNORE:
        raise InputError(
            f"{len(labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}); convert the boxes "
            "alone, --to coco, or give a data set with fewer"
        )
    answers = {form: Remapped(stored, class_map, each(each.kind, labels)) for form, each in kinds.items()}
    ids = [image_id for image_id in dataset.ids if any(image_id in each for each in answers.values())]
    if not ids:
        raise InputError(f"{store} answers for none of the {len(dataset.ids)} images of {dataset.name}")

    def each_answer() -> Iterator[Answer]:
        for done, image_id in enumerate(ids, start=1):
            found = {kind: each[image_id] for kind, each in answers.items() if image_id in each}
            size = next(iter(found.values())).size
            boxes, soft_map, instances = (
                next(iter(found[kind].tasks.values())) if kind in found else None
                for kind in (SoftBoxes, SoftMap, Instances)
            )
            if SoftBoxes not in answers and instances is not None:
                boxes = instances.soft_boxes(len(labels))
            yield Answer(image_id, size, boxes, soft_map, instances)
            if progress:
                progress(done, len(ids))

    with nullcontext(out) if kind == "coco" else whole_folder(out) as place:
        write(each_answer(), Target(dataset, labels, place, usual if score is None else score, tell))


def write_coco(answers: Iterable[Answer], target: Target) -> None:
    """One JSON list, an entry a box: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score`, and
    `segmentation` (run lengths) where the box has a mask.

    Image and category ids are the file's own where the data set is COCO, so that `COCO.loadRes` takes the list; else
    the image's name and the class' number (1..C). Beside what COCO asks for stand `category` and `probs`, the whole
    class distribution by name. Maps have no place in this format.
    """
    images: Mapping[str, Any] = {}
    categories: dict[str, Any] = {name: number for number, name in enumerate(target.labels.names)}
    if isinstance(target.dataset, Coco):
        images = target.dataset.numbers
        categories = {name: number for number, name in target.dataset.categories.items()}
    entries = []
    for answer in answers:
        regions = _regions(answer, target.labels)
        for entry in _entries(answer, target):
            number = {"category_id": categories[entry["category"]]}
            whole = {**regions.get((entry["category"], *entry["bbox"]), {}), **entry, **number}
            entries.append({"image_id": images.get(answer.image_id, answer.image_id), **whole})
    write_text(target.out, json.dumps(entries) + "\n")


def write_voc(answers: Iterable[Answer], target: Target) -> None:
    """A VOC folder as if a person had annotated it; softness is lost except for the scores.

    `Annotations/ID.xml`, `SegmentationClass/ID.png`, the lists in `ImageSets` and, unless they are VOC's own, the
    classes in `labels.txt`. Boxes are in VOC's pixels (from 1, the last one included; `source` tells `tutored label
    files` so), each with its `confidence`. In masks, pixels of which the tutor is less sure than the score are 255
    (ignore). Pictures are not copied: put `JPEGImages` beside, or link it, and `voc:OUT` is a data set.
    """
    lists: dict[str, list[str]] = {"Main": [], "Segmentation": []}
    blank = 0
    for answer in answers:
        if answer.boxes is not None:
            lists["Main"].append(answer.image_id)
            entries = _entries(answer, target)
            blank += not entries
            write_text(target.out / "Annotations" / f"{answer.image_id}.xml", _xml(answer, entries, target))
        if answer.map is not None:
            lists["Segmentation"].append(answer.image_id)
            enlarged = F.interpolate(answer.map.map[None], size=answer.size, mode="bilinear", align_corners=False)[0]
            top, mask = enlarged.max(dim=0)
            mask[top < target.score] = IGNORE
            save_mask(mask.to(torch.uint8), target.out / "SegmentationClass" / f"{answer.image_id}.png")
    split = re.sub("[/+]", "-", target.dataset.split)
    for folder, ids in lists.items():
        if ids:
            write_text(target.out / "ImageSets" / folder / f"{split}.txt", "".join(f"{each}\n" for each in ids))
    if blank:
        target.tell(
            f"{blank:,} of {len(lists['Main']):,} images have no box of score {target.score:g} or more; a config that "
            "reads this folder takes them as not labelled, or with `data.empty: annotated` as empty"
        )
    if target.labels != VOC:
        write_text(target.out / "labels.txt", "".join(f"{name}\n" for name in target.labels.classes))


def write_fiftyone(answers: Iterable[Answer], target: Target) -> None:
    """`labels.json` in the form of `FiftyOneImageDetectionDataset`, and `masks/ID.png` of `ImageSegmentationDirectory`.

    Boxes are relative to the image; each one's class distribution stands in its attributes. Pictures are not copied:
    give FiftyOne their folder as `data_path`, and `labels.json` or `masks` as `labels_path`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        sides = (answer.size[1], answer.size[0]) * 2
        if answer.boxes is not None:
            found[answer.image_id] = [
                {
                    "label": entry["category"],
                    "bounding_box": [round(value / side, 6) for value, side in zip(entry["bbox"], sides, strict=True)],
                    "confidence": entry["score"],
                    "attributes": {f"p({name})": share for name, share in entry["probs"].items()},
                }
                for entry in _entries(answer, target)
            ]
        if answer.map is not None and (final := answer.map.final(answer.size)) is not None:
            save_mask(final.mask, target.out / "masks" / f"{answer.image_id}.png")
    if found:
        content = {"classes": list(target.labels.classes), "labels": found}
        write_text(target.out / "labels.json", json.dumps(content) + "\n")


def write_cleanlab(answers: Iterable[Answer], target: Target) -> None:
    """Arrays of the images that have ground truth as well, for finding label errors. Classes are 0 (background) to C.

    - `boxes_labels.npy` int64 [M], the class of each ground-truth box, `boxes_pred_probs.npy` float32 [M, C+1], the
      class distribution of the tutor's box that overlaps it most, at IoU .5 or more; without one, it is background with
      certainty. `boxes.csv` says which image and box each row is.
    - `pixels_labels.npy` uint8 [N, 64, 64] and `pixels_pred_probs.npy` float32 [N, C+1, 64, 64], images stretched to
      squares; `pixels.csv` names them. Void pixels carry the tutor's own class, so that they are never an error.

    Raises InputError: no image has ground truth of what the store answers.
    """
    arrays: dict[str, list[Any]] = {}
    rows: dict[str, list[Sequence[str]]] = {"boxes": [("image_id", "x1", "y1", "x2", "y2")], "pixels": [("image_id",)]}
    for answer in answers:
        for truth in target.dataset.ground_truth(answer.image_id).tasks.values():
            if isinstance(truth, Boxes) and answer.boxes is not None:
                rows["boxes"] += [(answer.image_id, *(f"{x:g}" for x in box)) for box in truth.boxes_xyxy.tolist()]
                arrays.setdefault("boxes_labels", []).append(truth.classes)
                arrays.setdefault("boxes_pred_probs", []).append(_matched(truth, answer.boxes, target.score))
            if isinstance(truth, ClassMask) and answer.map is not None:
                probs = F.interpolate(answer.map.map[None], size=(CELLS, CELLS), mode="bilinear", align_corners=False)
                mask = F.interpolate(truth.mask[None, None].float(), size=(CELLS, CELLS), mode="nearest-exact")[:, 0]
                rows["pixels"].append((answer.image_id,))
                labels = torch.where(mask == IGNORE, probs.argmax(dim=1), mask).to(torch.uint8)
                arrays.setdefault("pixels_labels", []).append(labels)
                arrays.setdefault("pixels_pred_probs", []).append(probs)
    if not arrays:
        raise InputError(
            f"{target.dataset.name}: no image has ground truth of what the store answers, and cleanlab compares the two"
        )
    for name, parts in arrays.items():
        write_encoded(target.out / f"{name}.npy", partial(np.save, arr=torch.cat(parts).numpy()))
    for name, lines in rows.items():
        if f"{name}_labels" in arrays:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(lines)
            write_text(target.out / f"{name}.csv", text.getvalue())


KINDS: dict[str, tuple[Callable[[Iterable[Answer], Target], None], float]] = {
    "coco": (write_coco, 0.0),
    "voc": (write_voc, 0.5),
    "cleanlab": (write_cleanlab, 0.0),
    "fiftyone": (write_fiftyone, 0.05),
}
"""What writes each format, and the score from which on it keeps boxes by default."""


def _regions(answer: Answer, labels: LabelSpace) -> dict[tuple[Any, ...], Any]:
    """The entry of each instance, with its mask, by the class and box."""
    if answer.instances is None:
        return {}
    entries = InstanceSegmentation(Instances.kind, labels).describe(answer.instances.final(answer.size))
    return {(each["category"], *each["bbox"]): each for each in entries}


def _entries(answer: Answer, target: Target) -> list[dict[str, Any]]:
    """The boxes as entries of COCO results, each with `probs` by name; see `Detection.describe`."""
    if answer.boxes is None:
        return []
    kept = answer.boxes.chosen(answer.boxes.scores >= target.score)
    described = Detection(Detection.kind, target.labels).describe(kept.final())
    return [
        entry
        | {"probs": {name: round(p, 5) for name, p in zip(target.labels.names, row, strict=True) if p >= TAIL_FLOOR}}
        for entry, row in zip(described, kept.probs.tolist(), strict=True)
    ]


def _xml(answer: Answer, entries: Iterable[Mapping[str, Any]], target: Target) -> str:
    """The boxes of `_entries` as VOC's XML."""
    height, width = answer.size
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    source = f"<source><annotation>{IN_VOC_PIXELS}</annotation></source>"
    suffix = PurePath(str(target.dataset.files(answer.image_id)[0]).partition("?")[0]).suffix
    lines = [f"<filename>{escape(answer.image_id + suffix)}</filename>", source, size]
    for entry in entries:
        x, y, wide, high = entry["bbox"]
        box = ""
        for side, first, last, pixels in (("x", x, x + wide, width), ("y", y, y + high, height)):
            # Continuous edges as whole pixels from 1, at least one of them.
            start = min(max(round(first) + 1, 1), pixels)
            box += f"<{side}min>{start}</{side}min><{side}max>{min(max(round(last), start), pixels)}</{side}max>"
        lines.append(
            f"<object><name>{escape(entry['category'])}</name><difficult>0</difficult>"
            f"<confidence>{entry['score']}</confidence><bndbox>{box}</bndbox></object>"
        )
    return "\n".join(["<annotation>", *(f"  {line}" for line in lines), "</annotation>", ""])


def _matched(truth: Boxes, answer: SoftBoxes, score: float) -> Tensor:
    """float32 [K, C+1]: what the tutor says about each ground-truth box, whole distributions."""
    found = torch.zeros(len(truth.boxes_xyxy), answer.probs.shape[1])
    found[:, BACKGROUND] = 1
    kept = answer.chosen(answer.scores >= score)
    overlaps = iou(truth.boxes_xyxy, kept.boxes_xyxy)
    if overlaps.numel():
        best, index = overlaps.max(dim=1)
        hit = best >= IOU_FLOOR
        found[hit] = kept.probs[index[hit]]
    return found / found.sum(dim=1, keepdim=True)
