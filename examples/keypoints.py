"""Animal keypoints, a task of one's own that boxes and masks are trained with and that tutors can teach.

    python examples/keypoints.py convert keypoints.json FOLDER

makes of one file with all annotations one for each image of FOLDER/JPEGImages, in FOLDER/Keypoints, and lists the
keypoints' names in FOLDER/keypoints.txt. Then, with the folder of this file on PYTHONPATH,

    tasks:
      detection: {}
      keypoints: {kind: "keypoints:Keypoints", from: Keypoints, labels: keypoints.txt}

A file of an image is a list of animals: `[{"box": [x1, y1, x2, y2], "keypoints": {"nose": [x, y]}}]`, in pixels. A
keypoint that is left out is not to be seen. The network gives a heat map for each keypoint, and where in its cell a
keypoint lies (Zhou et al., "Objects as points", 2019).

Its metric is PCK@.2 (Yang and Ramanan 2013): the share of the keypoints to be seen from which the likeliest answer in
the animal's box is at most .2 of the box's longer side away; for each keypoint, and the mean of these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from tutored.config import ClassSection
from tutored.errors import InputError
from tutored.geometry import Geometry
from tutored.labels import LabelSpace
from tutored.losses import Term
from tutored.pictures import colour_of, picture_size
from tutored.section import Share
from tutored.tasks import DenseTask, Figures
from tutored.tasks.columns import FLOATS, NUMBERS, Rows, answered, flat, lists, require, starts
from tutored.tasks.task import Remap, refuse_nan

KIND = "keypoints:Keypoints"
NEAR = 0.2
"""Of a box's longer side."""
FLOOR, PEAKS = 0.05, 20
"""Answers are this likely at least, and so many of a keypoint in an image at most."""
AROUND = 0.1
"""A bump that is this high belongs to its keypoint; two cells away it is .14 high."""
RARE = 4.6
"""The raw output less this is a cell's logit: a new network says with .01 that a keypoint is there."""
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Animals:
    """The annotation: K keypoints of A animals, in pixels.

    Attributes:
        xy: float32 [K, 2].
        classes: int64 [K], 1..C, which keypoint it is.
        animals: int64 [K], whose.
        boxes_xyxy: float32 [A, 4].
        annotated: the keypoints that the data set annotates; None: all.
    """

    kind: ClassVar[str] = KIND
    xy: Tensor
    classes: Tensor
    animals: Tensor
    boxes_xyxy: Tensor
    annotated: tuple[int, ...] | None = None

    def relabelled(self, to: Sequence[int], annotated: tuple[int, ...] | None) -> Animals:
        """The same in another label space: `to[c]` is the keypoint there, 0 none."""
        classes = torch.tensor(to)[self.classes]
        kept = classes > 0
        return Animals(
            xy=self.xy[kept],
            classes=classes[kept],
            animals=self.animals[kept],
            boxes_xyxy=self.boxes_xyxy,
            annotated=annotated,
        )

    def counts(self, space: int) -> dict[str, list[int]]:
        """For `tutored data check`: how often each keypoint is there."""
        return {"keypoints": [*torch.bincount(self.classes, minlength=space).tolist(), 0]}


@dataclass(frozen=True, kw_only=True)
class SoftPoints:
    """A tutor's soft answer, and a student's prediction: K likely places, in pixels.

    Attributes:
        xy: float32 [K, 2].
        classes: int64 [K], 1..C.
        scores: float32 [K], 0..1: how high the heat map is there.
        unknown: keypoints that the tutor knows nothing about.
    """

    kind: ClassVar[str] = KIND
    fields: ClassVar[Sequence[pa.Field]] = (
        pa.field("points_classes", NUMBERS),
        pa.field("points_xy", FLOATS),
        pa.field("points_scores", FLOATS),
    )
    xy: Tensor
    classes: Tensor
    scores: Tensor
    unknown: tuple[int, ...] = ()

    def encode(self) -> dict[str, Any]:
        """A store's row."""
        values = self.classes.numpy().astype(np.uint16), self.xy.flatten().numpy(), self.scores.numpy()
        return dict(zip([each.name for each in self.fields], values, strict=True))

    @classmethod
    def decode(cls, table: pa.Table, sizes: Sequence[Size], space: int, remap: Remap | None) -> Sequence[Any]:
        """The answers of a table's rows, in another label space with a remap."""
        there = answered(table, cls.fields)
        (counts, numbers), (twos, sides), (same, values) = (lists(table.column(each.name)) for each in cls.fields)
        require(bool((twos == 2 * counts).all() and (same == counts).all()), "columns of other lengths")
        classes, xy, scores = flat(numbers).astype(np.int64), flat(sides).reshape(-1, 2), flat(values)
        require(bool(((classes >= 1) & (classes < space)).all()), f"a keypoint outside 1..{space - 1}")
        require(bool(np.isfinite(xy).all() and ((scores >= 0) & (scores <= 1)).all()), "an impossible place or score")
        kept = np.ones(len(classes), bool)
        if remap is not None:
            classes = np.array(remap.to)[classes]
            kept = classes < remap.space
        first = starts(counts)

        def make(row: int) -> SoftPoints:
            rows = np.arange(first[row], first[row + 1])
            rows = rows[kept[rows]]
            found = (torch.from_numpy(each[rows].copy()) for each in (xy, classes, scores))
            unknown = remap.unknown if remap else ()
            return cls(**dict(zip(("xy", "classes", "scores"), found, strict=True)), unknown=unknown)

        return Rows(there, make)

    def tempered(self, temperature: float) -> SoftPoints:
        return self


class Row(NamedTuple):
    """What one augmented image teaches.

    Attributes:
        heat: float32 [C, h, w], 0..1.
        place: float32 [2, h, w], x and y in cells from the corner of the cell, where it has a keypoint.
        there: float32 [h, w], 1 where the cell has one, otherwise 0.
        known: bool [C, h, w], cells of which the source says whether they have the keypoint.
    """

    heat: Tensor
    place: Tensor
    there: Tensor
    known: Tensor


class Targets(NamedTuple):
    """The same for a batch, and float32 [B]."""

    heat: Tensor
    place: Tensor
    there: Tensor
    known: Tensor
    weight: Tensor


class KeypointsSection(ClassSection):
    """Which of a tutor's places teach what."""

    point_floor: Share = 0.3
    """A tutor's places from this score on teach as drawn keypoints do."""
    ignore_floor: Share = 0.1
    """Around weaker ones, from this score on, nothing is taught about the keypoint; still weaker ones are left out."""


class Keypoints(DenseTask):
    """A heat map for each keypoint and two maps of their places in the cells."""

    kind: ClassVar[str] = KIND
    Section: ClassVar[type[KeypointsSection]] = KeypointsSection
    answers: ClassVar[tuple[type[SoftPoints], ...]] = (SoftPoints,)
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    headline: ClassVar[tuple[str, str]] = ("PCK@.2", "PCK")
    section: KeypointsSection

    @classmethod
    def read(cls, path: Path, size: Size, labels: LabelSpace) -> Animals:
        height, width = size
        points, boxes = [], []
        try:
            for number, animal in enumerate(json.loads(path.read_text(encoding="utf-8"))):
                boxes.append(numbers(animal["box"], "box: x1, y1, x2 and y2", 4))
                for name, place in animal["keypoints"].items():
                    x, y = numbers(place, f"{name}: x and y", 2)
                    if not (0 <= x <= width and 0 <= y <= height):
                        raise ValueError(f"{name} lies at {x:g}, {y:g}, the image has {width}x{height} pixels")
                    points.append((x, y, labels.index(name), number))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: {error}; give [{{'box': [...], 'keypoints': {{name: [x, y]}}}}]") from error
        xy = torch.tensor([point[:2] for point in points], dtype=torch.float32).reshape(-1, 2)
        which = torch.tensor([point[2:] for point in points], dtype=torch.int64).reshape(-1, 2)
        drawn = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return Animals(xy=xy, classes=which[:, 0], animals=which[:, 1], boxes_xyxy=drawn)

    def guides(self, shown: Animals | SoftPoints) -> Tensor:
        return shown.boxes_xyxy if isinstance(shown, Animals) else torch.zeros(0, 4)

    def teach(self, truth: Animals | None, size: Size, geometry: Geometry, grid: int) -> Row:
        if truth is None:
            nothing = torch.zeros(0)
            return self._row(nothing.reshape(0, 2), nothing.long(), nothing, (), geometry, grid)
        known = range(1, len(self.labels)) if truth.annotated is None else truth.annotated
        unknown = tuple({*range(1, len(self.labels))} - {*known})
        return self._row(truth.xy, truth.classes, torch.ones(len(truth.xy)), unknown, geometry, grid)

    def teach_soft(self, answer: SoftPoints | None, size: Size, geometry: Geometry, grid: int) -> Row:
        if answer is None:
            return self.teach(None, size, geometry, grid)
        return self._row(answer.xy, answer.classes, answer.scores, answer.unknown, geometry, grid)

    # A tutor's places are not taught by their scores: quality focal loss learns little from what is far below 1.
    def _row(
        self, xy: Tensor, classes: Tensor, scores: Tensor, unknown: Sequence[int], geometry: Geometry, grid: int
    ) -> Row:
        x1, y1, x2, y2 = geometry.window_xyxy
        share = (xy - torch.tensor([x1, y1])) / torch.tensor([x2 - x1, y2 - y1])
        known = torch.ones(len(self.labels), dtype=torch.bool)
        known[[0, *unknown]] = False
        if geometry.flip:  # what was an animal's left eye looks like its right one
            share = torch.stack([1 - share[:, 0], share[:, 1]], dim=1)
            classes, known = self._mirrored()[classes], known[self._mirrored()]
        at = share * grid
        cells = at.floor().long()
        kept = ((cells >= 0) & (cells < grid)).all(dim=1) & (classes > 0) & (scores >= self.section.ignore_floor)
        at, cells, classes, sure = at[kept], cells[kept], classes[kept], scores[kept] >= self.section.point_floor
        heat, doubt = (torch.zeros(len(self.labels) - 1, grid, grid) for _ in "ab")
        across, down = torch.exp(-((torch.arange(grid) - cells.T[:, :, None]) ** 2) / 2)
        bumps = down[:, :, None] * across[:, None, :]
        for planes, which in ((heat, sure), (doubt, ~sure)):
            for number in set(classes[which].tolist()):
                planes[number - 1] = bumps[which & (classes == number)].amax(dim=0)
        place, there = torch.zeros(2, grid, grid), torch.zeros(grid, grid)
        x, y = cells[sure].T.numpy()
        there.numpy()[y, x] = 1
        place.numpy()[:, y, x] = (at - cells)[sure].T
        return Row(heat, place, there, known[1:, None, None] & (doubt <= heat.clamp(min=AROUND)))

    def _mirrored(self) -> Tensor:
        """int64 [C+1]: the number that each keypoint has in a mirror, 0 where it has none."""
        sides = {"left": "right", "right": "left"}
        names = ["_".join(sides.get(word, word) for word in name.split("_")) for name in self.labels.names]
        return torch.tensor([self.labels.names.index(name) if name in self.labels.names else 0 for name in names])

    def stack(self, rows: Sequence[Row], weight: Tensor) -> Targets:
        return Targets(*(torch.stack(column) for column in zip(*rows, strict=True)), weight)

    @property
    def channels(self) -> int:
        return len(self.labels) + 1

    def assign(self, targets: Targets, *, tutor: bool) -> Tensor:
        """float32 [B, h, w]: how much each cell's place counts."""
        return targets.there * targets.weight[:, None, None]

    @property
    def terms(self) -> Mapping[str, Term]:
        sums = {"heat": heat_sum, "place": place_sum}
        return {name: Term(lambda _, cells: cells.sum(), each) for name, each in sums.items()}

    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[SoftPoints]:
        refuse_nan(raw)
        heat, place = (raw[:, :-2].float() - RARE).sigmoid().cpu(), raw[:, -2:].float().clamp(0, 1).cpu()
        heat = heat * (heat == F.max_pool2d(heat, 3, 1, 1)) * (heat >= FLOOR)
        found = []
        for peaks, places, (height, width) in zip(heat, place, sizes, strict=True):
            rows, columns = peaks.shape[1:]
            scores, cells = peaks.flatten(1).topk(min(PEAKS, rows * columns))
            kept = scores > 0
            x, y = cells[kept] % columns, cells[kept] // columns
            at = (torch.stack([x, y], dim=1) + places[:, y, x].T) * torch.tensor([width / columns, height / rows])
            found.append(SoftPoints(xy=at, classes=kept.nonzero()[:, 0] + 1, scores=scores[kept]))
        return found

    soften = decode

    @classmethod
    def final(cls, answer: SoftPoints, size: Size) -> SoftPoints:
        return answer

    def record(self, truth: Animals, prediction: SoftPoints) -> list[list[int]]:
        """For each keypoint, how often it was found, and how often it is there."""
        found, there = ([0] * (len(self.labels) - 1) for _ in "ab")
        for xy, number, animal in zip(truth.xy, truth.classes.tolist(), truth.animals.tolist(), strict=True):
            box = truth.boxes_xyxy[animal]
            inside = ((prediction.xy >= box[:2]) & (prediction.xy <= box[2:])).all(dim=1)
            scores = prediction.scores * (inside & (prediction.classes == number))
            there[number - 1] += 1
            if len(scores) and scores.max() > 0:
                away = (prediction.xy[scores.argmax()] - xy).norm()
                found[number - 1] += int(away <= NEAR * (box[2:] - box[:2]).max())
        return [found, there]

    def figures(self, records: Sequence[Any]) -> Figures:
        names = self.labels.classes
        found, there = np.array(records).sum(axis=0).tolist() if records else ([0] * len(names),) * 2
        shares = {name: hit / all_ if all_ else None for name, hit, all_ in zip(names, found, there, strict=True)}
        reported = tuple(self.section.reported or names)
        known = [shares[name] for name in reported if shares[name] is not None]
        mean = sum(known) / len(known) if known else None
        counts = {"keypoints": dict(zip(names, there, strict=True))}
        return Figures(len(records), reported, {"PCK@.2": mean}, {"PCK@.2": shares}, counts)

    def draw(self, picture: Image.Image, shown: Animals | SoftPoints, zoom: float) -> Image.Image:
        drawn = picture.copy()
        pen, radius = ImageDraw.Draw(drawn), max(2.0, min(picture.size) / 40)
        sure = torch.ones(len(shown.xy)) if isinstance(shown, Animals) else shown.scores
        for (x, y), number, score in zip(
            (shown.xy * zoom).tolist(), shown.classes.tolist(), sure.tolist(), strict=True
        ):
            if score >= 0.3:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour_of(number), (255, 255, 255))
        return drawn

    def describe(self, prediction: SoftPoints) -> list[dict[str, Any]]:
        rows = zip(prediction.classes.tolist(), prediction.xy.tolist(), prediction.scores.tolist(), strict=True)
        return [{"keypoint": self.labels.names[number], "xy": xy, "score": score} for number, xy, score in rows]


def heat_sum(raw: Tensor, targets: Targets, cells: Tensor) -> Tensor:
    """Quality focal loss (Li et al. 2020), which takes targets between 0 and 1; divided by how many keypoints."""
    logits = raw[:, :-2].float() - RARE
    losses = F.binary_cross_entropy_with_logits(logits, targets.heat, reduction="none")
    losses = losses * (logits.sigmoid() - targets.heat).square()
    return (losses * targets.known * targets.weight[:, None, None, None]).sum()


def place_sum(raw: Tensor, targets: Targets, cells: Tensor) -> Tensor:
    """Absolute error of the place in the cell, where a keypoint is."""
    return ((raw[:, -2:].float() - targets.place).abs().sum(dim=1) * cells).sum()


def numbers(given: Any, what: str, count: int) -> list[float]:
    """So many numbers. Raises ValueError where they are others."""
    if not isinstance(given, list) or len(given) != count or not all(isinstance(each, int | float) for each in given):
        raise ValueError(f"{what}, got {given}")
    return given


def convert(source: Path, folder: Path) -> str:
    """One file an image, from a file that holds `names` and `instances` with `image`, `bbox_xyxy` and `keypoints`.

    Returns:
        What was made.

    Raises:
        InputError: an animal has another number of keypoints than there are names.
    """
    whole = json.loads(source.read_text(encoding="utf-8"))
    images: dict[str, list[Any]] = {}
    outside = 0
    for animal in whole["instances"]:
        name, points = animal["image"], animal["keypoints"]
        if len(points) != len(whole["names"]):
            raise InputError(f"{source}: {name} has an animal of {len(points)} keypoints, not of {len(whole['names'])}")
        height, width = picture_size(folder / "JPEGImages" / f"{name}.jpg")
        seen = {each: (x, y) for each, (x, y, visible) in zip(whole["names"], points, strict=True) if visible}
        inside = {each: (x, y) for each, (x, y) in seen.items() if 0 <= x <= width and 0 <= y <= height}
        outside += len(seen) - len(inside)
        images.setdefault(name, []).append({"box": animal["bbox_xyxy"], "keypoints": inside})
    (folder / "Keypoints").mkdir(exist_ok=True)
    for name, animals in images.items():
        (folder / "Keypoints" / f"{name}.json").write_text(json.dumps(animals), encoding="utf-8")
    (folder / "keypoints.txt").write_text("\n".join(whole["names"]) + "\n", encoding="utf-8")
    return f"{folder / 'Keypoints'}: {len(images):,} images; left out {outside:,} keypoints outside of theirs"


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "convert":
        sys.exit("usage: keypoints.py convert keypoints.json FOLDER")
    try:
        print(convert(Path(sys.argv[2]), Path(sys.argv[3])))
    except InputError as error:
        sys.exit(str(error))
