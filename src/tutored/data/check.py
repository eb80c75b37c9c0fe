"""`tutored data check`: read everything, count it, and name every item that training would stumble over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tutored.data.pictures import orientation
from tutored.errors import InputError
from tutored.progress import Progress
from tutored.structures import IGNORE, Dataset, GroundTruth


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """What one split holds.

    Attributes:
        images: ids of the split.
        boxes, masks: images that have them, whatever else they have. Ground truth that can't be read counts nowhere.
        both, none: images with boxes and mask; with neither.
        objects: boxes per class of the label space, difficult ones included.
        difficult: difficult boxes (COCO: crowds) per class.
        pixels: mask pixels per class, "background" and "ignore" included; none of classes beyond what a mask holds.
        problems: one message for each item that can't be used; it names the file.
        notes: what the reader left out, and which pictures say that they are to be turned, which nothing here does.
    """

    images: int
    boxes: int
    masks: int
    both: int
    none: int
    objects: Mapping[str, int]
    difficult: Mapping[str, int]
    pixels: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `check` found.

    Attributes:
        splits: by the split's name.
        overlaps: "train & val" -> the ids of the images that are in both; only pairs that share one.
        namesakes: the same for ids that are of another picture in each.
    """

    splits: Mapping[str, SplitReport]
    overlaps: Mapping[str, Sequence[str]]
    namesakes: Mapping[str, Sequence[str]]

    @property
    def ok(self) -> bool:
        """Nothing unreadable, mismatched or out of range, and no id in two splits."""
        return not (self.overlaps or self.namesakes or any(split.problems for split in self.splits.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain and JSON-ready."""
        return {"ok": self.ok, **asdict(self)}

    def show(self, console: Console, most: int = 20) -> None:
        """Print two tables, images per split and objects and pixels per class, then at most `most` lines a list."""
        console.print(self._images())
        console.print(self._classes())
        for name, split in self.splits.items():
            _show_list(console, f"{name}: {len(split.problems)} problems", split.problems, most)
            _show_list(console, f"{name}: {len(split.notes)} notes", split.notes, most)
        for pair, ids in self.overlaps.items():
            _show_list(console, f"{pair}: {len(ids)} images are in both", ids, most)
        for pair, ids in self.namesakes.items():
            title = f"{pair}: {len(ids)} names are of different pictures; rename those of one split"
            _show_list(console, title, ids, most)

    def _images(self) -> Table:
        columns = ("images", "boxes", "masks", "both", "none")
        table = Table("split", title="Images, and how many of them have")
        for column in (*columns, "objects", "problems"):
            table.add_column(column, justify="right")
        for name, split in self.splits.items():
            counts = [getattr(split, column) for column in columns]
            row = (*counts, sum(split.objects.values()), len(split.problems))
            table.add_row(name, *(f"{value:,}" for value in row))
        return table

    def _classes(self) -> Table:
        table = Table("class", title="Objects (difficult) and share of the mask pixels")
        for name in self.splits:
            table.add_column(f"{name} objects", justify="right")
            table.add_column(f"{name} pixels", justify="right")
        for name in dict.fromkeys(name for split in self.splits.values() for name in split.pixels):
            row = []
            for split in self.splits.values():
                objects, difficult = split.objects.get(name, 0), split.difficult.get(name, 0)
                share = split.pixels.get(name, 0) / max(1, sum(split.pixels.values()))
                row += [f"{objects:,}" + (f" ({difficult:,})" if difficult else ""), f"{share:.2%}"]
            table.add_row(name, *row)
        return table


def check(dataset_by_split: Mapping[str, Dataset], progress: Progress | None = None) -> Report:
    """Read every image and every ground truth once, and pictures of one id in two splits again, to compare them.

    Args:
        progress: called with (images done, images in all) after each image, and each that is compared.
    """
    pairs = {
        f"{name} & {other_name}": (one, other, sorted(set(one.ids) & set(other.ids)))
        for (name, one), (other_name, other) in combinations(dataset_by_split.items(), 2)
    }
    total = sum(len(dataset.ids) for dataset in dataset_by_split.values())
    total += sum(len(shared) for *_, shared in pairs.values())
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    splits = {name: _check_split(dataset, step) for name, dataset in dataset_by_split.items()}
    overlaps: dict[str, list[str]] = {}
    namesakes: dict[str, list[str]] = {}
    for pair, (one, other, shared) in pairs.items():
        for image_id in shared:
            found = namesakes if differ(one, other, image_id) else overlaps
            found.setdefault(pair, []).append(image_id)
            step()
    return Report(splits=splits, overlaps=overlaps, namesakes=namesakes)


def differ(one: Dataset, other: Dataset, image_id: str) -> bool:
    """Whether two data sets have pictures of other pixels under one id; False where one of them can't be read."""
    try:
        return not np.array_equal(np.asarray(one.image(image_id)), np.asarray(other.image(image_id)))
    except InputError:
        return False


def _check_split(dataset: Dataset, step: Callable[[], None]) -> SplitReport:
    images: Counter[str] = Counter()
    objects: Counter[int] = Counter()
    difficult: Counter[int] = Counter()
    pixels = torch.zeros(IGNORE + 1, dtype=torch.int64)
    problems: dict[str, None] = {}
    turned: list[str] = []
    for image_id in dataset.ids:
        try:
            if orientation(dataset.image(image_id)) != 1:
                turned.append(image_id)
        except InputError as error:
            problems[str(error)] = None
        try:
            truth = dataset.ground_truth(image_id)
        except InputError:
            problems |= dict.fromkeys(dataset.problems(image_id))
        else:
            images[_kind(truth)] += 1
            if truth.classes is not None and truth.difficult is not None:
                objects.update(truth.classes.tolist())
                difficult.update(truth.classes[truth.difficult].tolist())
            if truth.mask is not None:
                pixels += torch.bincount(truth.mask.flatten(), minlength=IGNORE + 1)
        step()
    return SplitReport(
        images=len(dataset.ids),
        boxes=images["boxes"] + images["both"],
        masks=images["masks"] + images["both"],
        both=images["both"],
        none=images["none"],
        objects={name: objects[index] for index, name in enumerate(dataset.labels.names) if index},
        difficult={name: difficult[index] for index, name in enumerate(dataset.labels.names) if index},
        pixels=dict.fromkeys(dataset.labels.names, 0)
        | dict(zip(dataset.labels.names, pixels[:IGNORE].tolist(), strict=False))
        | {"ignore": int(pixels[IGNORE])},
        problems=tuple(problems),
        notes=(*dataset.notes, *_turned(turned)),
    )


def _turned(image_ids: Sequence[str]) -> tuple[str, ...]:
    if not image_ids:
        return ()
    return (
        f"{len(image_ids):,} picture(s), such as {image_ids[0]}, say that they are to be turned or mirrored (EXIF): "
        "they are read as stored, as boxes and masks must be, and as tutors and student see them",
    )


def _kind(truth: GroundTruth) -> str:
    if truth.boxes_xyxy is None:
        return "none" if truth.mask is None else "masks"
    return "boxes" if truth.mask is None else "both"


def _show_list(console: Console, title: str, lines: Sequence[str], most: int) -> None:
    if not lines:
        return
    console.print(f"\n{title}", style="bold", highlight=False)
    for line in lines[:most]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(lines) > most:
        console.print(f"  and {len(lines) - most:,} more; --json lists all", markup=False, highlight=False)
