"""A store's soft labels in other tools' formats, in a data set's own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

from tutored.convert.cleanlab import write_cleanlab
from tutored.convert.coco import write_coco
from tutored.convert.fiftyone import write_fiftyone
from tutored.convert.voc import write_voc
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.files import whole_folder
from tutored.labels import ClassMap
from tutored.progress import Progress
from tutored.softlabels import Folded, Store
from tutored.structures import IGNORE, Dataset, SoftLabels

__all__ = ["KINDS", "convert"]

Answers = Iterator[tuple[str, SoftLabels]]
KINDS: dict[str, tuple[Callable[[Answers, Dataset, Path, float], None], float]] = {
    "coco": (write_coco, 0.0),
    "voc": (write_voc, 0.5),
    "cleanlab": (write_cleanlab, 0.0),
    "fiftyone": (write_fiftyone, 0.05),
}
"""What writes each format, and the score from which on it keeps boxes by default."""


def convert(
    store: Path,
    kind: str,
    data: str,
    split: str,
    out: Path,
    score: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Write what a store says of a split's images, whole or not at all; see the writers for what lies in `out` then.

    Classes are those of the data set; where it has none, as pictures alone, the store's own.

    Args:
        kind: one of `KINDS`.
        out: a file for `coco`, else a new or empty folder.
        score: boxes from this score on; None: what suits the format.

    Raises:
        InputError: an unknown kind, no store, no image of the split in it, no common class, nothing that the format
            holds, more classes than its masks can tell apart, or `out` is taken.
    """
    if kind not in KINDS:
        raise InputError(f"format {kind!r}; possible: {', '.join(KINDS)}")
    if out.exists() and (kind == "coco" or not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; choose another --out")
    write, usual = KINDS[kind]
    dataset, answers = open_dataset(data, split), Store.open(store)
    if not dataset.labels.classes:
        dataset = open_dataset(data, split, classes=answers.labels.classes)
    if kind == "coco" and "detection" not in answers.tasks:
        raise InputError(f"{store} answers segmentation alone, and COCO results are boxes; give another --to")
    if kind != "coco" and "segmentation" in answers.tasks and len(dataset.labels) > IGNORE:
        raise InputError(
            f"{len(dataset.labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}); convert the "
            "boxes alone, --to coco, or give a data set with fewer"
        )
    folded = Folded(answers, ClassMap.by_name(answers.labels, dataset.labels))
    ids = [image_id for image_id in dataset.ids if image_id in folded]
    if not ids:
        raise InputError(f"{store} answers for none of the {len(dataset.ids)} images of {dataset.name}")

    def each() -> Answers:
        for done, image_id in enumerate(ids, start=1):
            yield image_id, folded[image_id]
            if progress:
                progress(done, len(ids))

    with nullcontext(out) if kind == "coco" else whole_folder(out) as place:
        write(each(), dataset, place, usual if score is None else score)
