"""Training batches: who teaches which image, and all of it under one random geometry, every draw from the seed."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutored.config import Augment, TaskSection
from tutored.errors import InputError
from tutored.files import sha256
from tutored.geometry import draw_geometry
from tutored.tasks import Task
from tutored.types import SOURCES, Batch, Dataset, GroundTruth, Size, SoftLabels

Weights = tuple[float, float]
"""Weight of the ground truth and of the tutor for one image and task; (0, 0): nobody teaches."""


def ranks(image_ids: Sequence[str], seed: int, task: str) -> dict[str, float]:
    """Each image's place, 0 to 1, in one shuffled order of the split, and in that order.

    "The first 20 %" of it is a part of "the first 50 %", whatever the two are used for, and it does not depend on the
    order in which the ids are given.
    """

    def key(image_id: str) -> bytes:
        return hashlib.sha256(f"{seed}/{task}/{image_id}".encode()).digest()

    ordered = sorted(image_ids, key=key)
    return {image_id: place / len(ordered) for place, image_id in enumerate(ordered)}


def annotations_sha256(dataset: Dataset, told: str = "") -> str:
    """A digest of a text and of all files that hold annotations. Raises OSError."""
    digest = hashlib.sha256(told.encode())
    for file in sorted({str(file) for image_id in dataset.ids for file in dataset.files(image_id)[1:]}):
        digest.update(sha256(Path(file)).encode())
    return digest.hexdigest()


def drawn_and_hidden(
    dataset: Dataset, task: str, section: TaskSection, seed: int
) -> tuple[frozenset[str], frozenset[str]]:
    """The images whose ground truth for a task a run sees, and those whose it hides (`TaskSection.hidden`)."""
    annotated = [image_id for image_id in dataset.ids if task in dataset.annotated_tasks(image_id)]
    places = ranks(annotated, seed, section.hidden_like or task)
    hidden = frozenset(image_id for image_id, place in places.items() if place < section.hidden)
    return frozenset(annotated) - hidden, hidden


def source_weights(
    task: TaskSection, rank: float, *, drawn: bool, answered: bool, rng: random.Random | None = None, joint: bool = True
) -> Weights:
    """Who teaches one image's task.

    Args:
        rank: the image's place in `ranks`, for `replace`.
        drawn: there is ground truth for it, and it is not hidden.
        answered: the tutor has an answer for it.
        rng: for `resampled`, which draws at every visit.
        joint: as `Loss.joint`; without it `TaskSection.weights` mix the sources' means, and every image counts
            one in each.
    """
    if task.policy == "none":
        return (0.0, 0.0)
    if task.policy == "ground_truth":
        return (float(drawn), 0.0)
    if task.policy == "fill":
        return (1.0, 0.0) if drawn else (0.0, float(answered))
    if task.policy == "replace":
        place = rng.random() if task.resampled and rng else rank
        return (0.0, float(answered)) if place < task.share else (float(drawn), 0.0)
    if drawn and answered and joint:
        return task.weights
    return (float(drawn), float(answered))


@dataclass(frozen=True, slots=True)
class Example:
    """One augmented image (uint8 [S, S, 3]), and by task both sources' rows and weights."""

    image_id: str
    image: Tensor
    rows: dict[str, tuple[Any, Any]]
    weights: dict[str, Weights]


class TrainingSet(torch.utils.data.Dataset[Example | InputError]):
    """Augmented examples by (round, position): the same pair gives the same example in any process, at any time.

    A round is one pass over the images that somebody teaches.

    Args:
        dataset: images and ground truth, under the names of `tasks`.
        grids: by task, cells along one side of the map for which targets are made; 0 for a head without a map.
        soft_labels: by task the tutor's answers by image id, in the task's label space. Any mapping will do; images
            for which the tutor has no answer are not in it.
        size: side of the student's input in pixels.
        data_seed: of which images are hidden or given to the tutor.
        joint: as `Loss.joint`.
    """

    def __init__(
        self,
        dataset: Dataset,
        tasks: Mapping[str, Task],
        grids: Mapping[str, int],
        soft_labels: Mapping[str, Mapping[str, SoftLabels]] | None = None,
        *,
        size: int,
        augment: Augment,
        seed: int = 0,
        data_seed: int = 0,
        joint: bool = True,
    ) -> None:
        self.dataset, self.tasks, self.grids = dataset, tasks, grids
        self.soft_labels = soft_labels or {}
        self.size, self.augment, self.seed, self.joint = size, augment, seed, joint
        self.ranks = {name: ranks(dataset.ids, data_seed, name) for name in tasks}
        self.drawn = {name: drawn_and_hidden(dataset, name, task.section, data_seed)[0] for name, task in tasks.items()}
        run_draw = random.Random(f"{seed}/zoom-out").random()
        self.zoom_out_run = run_draw < augment.zoom_out_share

    def __len__(self) -> int:
        return len(self.dataset.ids)

    def taught(self) -> list[int]:
        """Positions of the images that somebody teaches something, as far as that is decided once."""
        return [position for position, image_id in enumerate(self.dataset.ids) if self._is_taught(image_id)]

    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready: how many images there are, and a hash of which, of those with ground truth, and of that.

        It reads all annotations, 6,000 files in a third of a second. Raises OSError.
        """
        there = [list(self.dataset.ids), *([*task.labels.names] for task in self.tasks.values())]
        there += [sorted(self.drawn[task]) for task in self.tasks]
        return {"count": len(self), "sha256": annotations_sha256(self.dataset, json.dumps(there))}

    def _is_taught(self, image_id: str) -> bool:
        for name, task in self.tasks.items():
            section = task.section
            drawn, answered = image_id in self.drawn[name], image_id in self.soft_labels.get(name, ())
            weights = source_weights(section, self.ranks[name][image_id], drawn=drawn, answered=answered)
            sometimes = (answered and section.share > 0) or (drawn and section.share < 1)
            if any(weights) or (section.policy == "replace" and section.resampled and sometimes):
                return True
        return False

    def __getitem__(self, place: tuple[int, int]) -> Example | InputError:
        """The example, or the error of a broken file: raised in a loader's worker, it would become a traceback."""
        try:
            return self._example(*place)
        except InputError as error:
            return error

    def _example(self, turn: int, position: int) -> Example:
        image_id = self.dataset.ids[position]
        rng = random.Random(f"{self.seed}/{turn}/{image_id}")
        truth = self.dataset.ground_truth(image_id)
        soft = {name: self._answer(name, image_id, truth.size) for name in self.tasks}
        weights = {
            name: source_weights(
                task.section,
                self.ranks[name][image_id],
                drawn=image_id in self.drawn[name],
                answered=soft[name] is not None,
                rng=rng,
                joint=self.joint,
            )
            for name, task in self.tasks.items()
        }
        completed = [name for name in self.tasks if self._completes(name, truth, soft[name], weights[name])]
        for name in completed:
            soft[name] = self.tasks[name].unannotated(soft[name], truth.tasks[name])
        for name in self.tasks:
            soft[name] = self._vetted(name, soft[name], image_id, truth, weights)
        guides = self._guides(truth, soft, weights)
        drawn = rng.random() < self.augment.zoom_out_share
        zoom_out = {"image": drawn, "run": self.zoom_out_run, "never": False}[self.augment.zoom_out]
        geometry = draw_geometry(truth.size, guides, self.size, self.augment, rng, zoom_out=zoom_out)
        recolour = change_colours_in_steps if self.augment.as_specified else change_colours
        change = {"change": partial(recolour, rng=rng)} if self.augment.colour else {}
        image = geometry.image(pixels(self.dataset, image_id), **change)

        taught: dict[str, tuple[Any, Any]] = {}
        for name, task in self.tasks.items():
            given = task.teach(truth.tasks.get(name), truth.size, geometry, self.grids[name])
            answer = soft[name] if weights[name][1] or name in completed else None
            answered = task.teach_soft(answer, truth.size, geometry, self.grids[name])
            if name in completed:
                answered, weights[name] = task.complete(given, answered), (0.0, 1.0)
            taught[name] = given, answered
        return Example(image_id, image, taught, weights)

    def _answer(self, name: str, image_id: str, size: Size) -> Any | None:
        """The tutor's answer, if it has one for this task."""
        try:
            answer = self.soft_labels[name][image_id]  # `get` would look it up twice
        except KeyError:
            return None
        if answer.size != size:
            raise InputError(
                f"{self.dataset.name}: image {image_id} has {size[1]} x {size[0]} pixels, the tutor of {name} saw "
                f"{answer.size[1]} x {answer.size[0]}; label these very images"
            )
        return answer.tasks.get(self.tasks[name].kind)

    def _completes(self, name: str, truth: GroundTruth, answer: Any | None, weights: Weights) -> bool:
        """Whether the tutor answers for the classes that an image is not annotated for."""
        if self.tasks[name].section.policy != "fill" or answer is None or not weights[0]:
            return False
        return getattr(truth.tasks[name], "annotated", None) is not None

    def _vetted(
        self, name: str, answer: Any | None, image_id: str, truth: GroundTruth, weights: Mapping[str, Weights]
    ) -> Any | None:
        """The answer without what the vetting task's ground truth contradicts, where that is there.

        It vets where it is neither hidden nor replaced, also where nobody trains its task.
        """
        task = self.tasks[name]
        other = getattr(task.section, "vetted_by", None)
        if other is None or answer is None:
            return answer
        untrained = self.tasks[other].section.policy == "none" and image_id in self.drawn[other]
        if not (weights[other][0] > 0 or untrained):
            return answer
        return task.vet(answer, truth.size, truth.tasks[other], self.tasks[other].labels)

    def _guides(self, truth: GroundTruth, soft: Mapping[str, Any], weights: Mapping[str, Weights]) -> Tensor:
        """Boxes that steer the crop."""
        everything = self.augment.crop_guides == "all"
        guides = [torch.zeros(0, 4)]
        for name, task in self.tasks.items():
            if name in truth.tasks and (everything or weights[name][0] > 0):
                guides.append(task.guides(truth.tasks[name]))
            if everything and soft[name] is not None:
                guides.append(task.guides(soft[name]))
        return torch.cat(guides)

    def collate(self, items: Sequence[Example | InputError]) -> Batch | InputError:
        """Stack examples; a source that teaches no image of the batch anything of a task is left out. Returns the first
        error instead, where an item is one.
        """
        examples = [item for item in items if isinstance(item, Example)]
        if len(examples) < len(items):
            return next(item for item in items if isinstance(item, InputError))
        targets: dict[str, dict[str, Any]] = {}
        for name, task in self.tasks.items():
            targets[name] = {}
            for number, source in enumerate(SOURCES):
                weight = torch.tensor([example.weights[name][number] for example in examples])
                if weight.any():
                    targets[name][source] = task.stack([example.rows[name][number] for example in examples], weight)
        images = torch.stack([example.image for example in examples]).permute(0, 3, 1, 2)
        return Batch(tuple(example.image_id for example in examples), images, targets)


def epoch_batches(
    positions: Sequence[int], images: int, batch: int, seed: int, epoch: int, *, rank: int = 0, processes: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """This process' part of each batch of one epoch, as (round, position) pairs of images that are `taught`.

    An epoch is as long as the split, whatever share of it is taught: runs with the same epochs take the same steps.
    Images that nobody teaches are not drawn, the others so much more often, each as often as any other. The order
    depends on seed and epoch alone. The last batch is dropped where it would be smaller, unless it is the only one.
    """
    order: list[tuple[int, int]] = []
    first_round = epoch * images // len(positions)
    for turn in range(first_round, (epoch + 1) * images // len(positions) + 1):
        shuffled = list(positions)
        random.Random(f"{seed}/order/{turn}").shuffle(shuffled)
        order += [(turn, position) for position in shuffled]
    skipped = epoch * images - first_round * len(positions)
    order = order[skipped : skipped + images]
    for first in range(0, max(images - batch, 0) + 1, batch):
        yield order[first : first + batch][rank::processes]


def pixels(dataset: Dataset, image_id: str) -> Tensor:
    """uint8 [H, W, 3]. A data set that has pixels itself, as `Packed`, need not make a picture of Pillow's of them."""
    own = getattr(dataset, "pixels", None)
    found: Tensor = own(image_id) if own else torch.from_numpy(np.array(dataset.image(image_id)))
    return found


GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a pixel's brightness."""


def _draw_changes(rng: random.Random) -> dict[str, float]:
    """How much to change, in one of four orders (specification 4.3, 1)."""
    brightness, hue = rng.uniform(-0.125, 0.125), rng.uniform(-0.07, 0.07)
    drawn = {"b": brightness, "h": hue, "s": rng.uniform(0.5, 1.5), "c": rng.uniform(0.5, 1.5)}
    return {name: drawn[name] for name in rng.choice(("bshc", "sbch", "chbs", "hscb"))}


def change_colours(image: Tensor, rng: random.Random) -> Tensor:
    """Brightness, saturation, hue and contrast of uint8 [H, W, 3], all four as one map of each pixel's red, green and
    blue: in a fifth of the time of `change_colours_in_steps`.

    What differs: nothing is clipped between the changes, and the hue is turned about the axis of greys, which keeps a
    pixel's mean instead of its maximum and turns its angle nearly the same.
    """
    # Not by numpy, whose products take more threads than a loader's process may.
    pixels = image.reshape(-1, 3).float()
    mean = pixels.mean(0).numpy()
    matrix, more, grey = np.eye(3), 0.0, np.array(GREY)
    for step, by in _draw_changes(rng).items():
        if step == "b":
            more += 255 * by
        elif step == "s":
            matrix = by * matrix + (1 - by) * (grey @ matrix)
        elif step == "h":
            matrix = _turn(by) @ matrix
        else:
            more = by * more + (1 - by) * (grey @ matrix @ mean + more)
            matrix = by * matrix
    mixed = (pixels @ torch.from_numpy(matrix.T.astype(np.float32))).add_(more + 0.5).clamp_(0, 255)
    return torch.from_numpy(mixed.numpy().astype(np.uint8)).view(image.shape)  # torch takes six times as long


def _turn(share: float) -> NDArray[np.float64]:
    """The rotation by a share of the circle about the axis on which red, green and blue are equal, [3, 3]."""
    angle = 2 * math.pi * share
    same, left, right = ((1 + 2 * math.cos(angle + shift * math.pi / 3)) / 3 for shift in (0, 2, -2))
    return np.array([[same, left, right], [right, same, left], [left, right, same]])


def change_colours_in_steps(image: Tensor, rng: random.Random) -> Tensor:
    """Brightness, saturation, hue and contrast of uint8 [H, W, 3], one after the other (specification 4.3, 1)."""
    steps: dict[str, Callable[[Tensor, float], Tensor]] = {
        "b": lambda x, by: x.add_(255 * by),
        "s": lambda x, by: torch.lerp(_grey(x).expand_as(x), x, by),
        "h": _turn_hue,
        "c": lambda x, by: torch.lerp(_grey(x).mean(), x, by),
    }
    result = image.permute(2, 0, 1).contiguous().float()
    for step, by in _draw_changes(rng).items():
        result = steps[step](result, by).clamp_(0, 255)
    return torch.from_numpy(result.round_().numpy().astype(np.uint8)).permute(1, 2, 0)


def _grey(image: Tensor) -> Tensor:
    red, green, blue = image
    grey: Tensor = (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    return grey


def _turn_hue(image: Tensor, share: float) -> Tensor:
    """Turn the hue of float32 [3, H, W] by a sixth of the circle at most; saturation and value stay (hexcone model).

    As torchvision's `adjust_hue`, in a tenth of its time. With h a pixel's distance from a colour on the circle of
    length 6, the colour is `low + clamp(2 - |h|, 0, 1) * spread`. There, `(2 - |h|) * spread` is `high + c - a - b`
    for the colour c and the other two, and the sign of h is that of their difference: no angle is worked out.
    """
    red, green, blue = image
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    by = (high - low).mul_(6 * share)
    base = (high + low).sub_(red).sub_(green).sub_(blue)
    turned = torch.empty_like(image)
    for place, colour in enumerate(image):
        new = torch.sub(image[place - 1], image[place - 2], out=turned[place])
        new.sign_().mul_(by).add_(base).add_(colour, alpha=2)
        torch.minimum(torch.maximum(new, low, out=new), high, out=new)
    return turned
