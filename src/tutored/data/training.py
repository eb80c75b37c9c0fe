"""Training batches: images, ground truth and tutors' answers under one random geometry, every draw from the seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tutored.config import TASKS, Config
from tutored.data.sources import Weights, drawn_and_hidden, ranks, source_weights
from tutored.data.teaching import Example, Teaching, complete, teach_ground_truth, teach_soft_labels
from tutored.data.transforms import draw_geometry, jitter_colour
from tutored.data.vetting import boxes_by_mask, map_by_boxes, unannotated_boxes
from tutored.errors import InputError
from tutored.structures import Dataset, GroundTruth, SoftLabels
from tutored.targets import Batch, Targets


class TrainingSet(torch.utils.data.Dataset[Example | InputError]):
    """Augmented examples by (round, position): the same pair gives the same example in any process, at any time.

    A round is one pass over the images that somebody teaches.

    Args:
        dataset: images and ground truth.
        soft_labels: for each task the tutor's answers by image id, in the data set's label space. Any mapping will do;
            it lacks the images that the tutor has no answer for.
        map_side: cells along one side of the student's map.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        map_side: int,
        soft_labels: Mapping[str, Mapping[str, SoftLabels]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.map_side = map_side
        self.soft_labels = soft_labels or {}
        self.tasks = config.supervision.tasks
        self.ranks = {task: ranks(dataset.ids, config.supervision.seed, task) for task in TASKS}
        self.drawn = {task: drawn_and_hidden(dataset, config.supervision, task)[0] for task in TASKS}
        run_draw = random.Random(f"{config.train.seed}/zoom-out").random()
        self.zoom_out_run = run_draw < config.augment.zoom_out_share

    def __len__(self) -> int:
        return len(self.dataset.ids)

    def taught(self) -> list[int]:
        """Positions of the images that somebody teaches something, as far as that is decided once."""
        return [position for position, image_id in enumerate(self.dataset.ids) if self._is_taught(image_id)]

    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready: how many images there are, and a hash of which, and of those with ground truth of each task."""
        there = [list(self.dataset.ids), *(sorted(self.drawn[task]) for task in TASKS)]
        return {"count": len(self), "sha256": hashlib.sha256(json.dumps(there).encode()).hexdigest()}

    def _is_taught(self, image_id: str) -> bool:
        for name, task in self.tasks.items():
            drawn, answered = image_id in self.drawn[name], image_id in self.soft_labels.get(name, ())
            weights = source_weights(task, self.ranks[name][image_id], drawn=drawn, answered=answered)
            sometimes = (answered and task.share > 0) or (drawn and task.share < 1)
            if any(weights) or (task.policy == "replace" and task.resampled and sometimes):
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
        rng = random.Random(f"{self.config.train.seed}/{turn}/{image_id}")
        truth = self.dataset.ground_truth(image_id)
        soft = {task: self._answer(task, image_id, truth.size) for task in TASKS}
        weights = {
            name: source_weights(
                task,
                self.ranks[name][image_id],
                drawn=image_id in self.drawn[name],
                answered=soft[name] is not None,
                rng=rng,
                joint=self.config.loss.joint,
            )
            for name, task in self.tasks.items()
        }
        completed = [
            name
            for name, task in self.tasks.items()
            if task.policy == "fill" and truth.annotated is not None and weights[name][0] > 0 and soft[name] is not None
        ]
        boxes, drawn_map = soft["detection"], soft["segmentation"]
        if boxes and "detection" in completed:
            boxes = soft["detection"] = unannotated_boxes(boxes, truth)
        if boxes and self._vetted("detection", "segmentation", image_id, weights):
            soft["detection"] = boxes_by_mask(boxes, truth, self.config.loss.silent_score)
        if drawn_map and self._vetted("segmentation", "detection", image_id, weights):
            soft["segmentation"] = map_by_boxes(drawn_map, truth)
        guides = self._guides(truth, soft["detection"], weights["detection"])
        geometry = draw_geometry(
            truth.size, guides, self.config.student.size, self.config.augment, rng, zoom_out=self._zoom_out(rng)
        )
        image, (rows, columns) = geometry.image(self.dataset.image(image_id))
        if self.config.augment.colour and rows.stop > rows.start and columns.stop > columns.start:
            image[:, rows, columns] = jitter_colour(image[:, rows, columns], rng)

        given = teach_ground_truth(truth, geometry, len(self.dataset.labels), self.map_side)
        answered = teach_soft_labels(soft, geometry, given, self.config.loss)
        for name in completed:
            answered = complete(given, answered, name, self.config.loss.conflict_iou)
            weights[name] = (0.0, 1.0)
        return Example(image_id, image, given, answered, weights)

    def _answer(self, task: str, image_id: str, size: tuple[int, int]) -> SoftLabels | None:
        """The tutor's answer, if it has one for this task."""
        answer = self.soft_labels.get(task, {}).get(image_id)
        if answer is None or (answer.boxes_xyxy if task == "detection" else answer.map) is None:
            return None
        if answer.size != size:
            raise InputError(
                f"{self.dataset.name}: image {image_id} has {size[1]} x {size[0]} pixels, the tutor of {task} saw "
                f"{answer.size[1]} x {answer.size[0]}; label these very images"
            )
        return answer

    def _vetted(self, task: str, other: str, image_id: str, weights: Mapping[str, Weights]) -> bool:
        """Whether the other task's ground truth vets: neither hidden nor replaced, but perhaps not trained."""
        untrained = self.tasks[other].policy == "none" and image_id in self.drawn[other]
        return self.tasks[task].vetted and (weights[other][0] > 0 or untrained)

    def _guides(self, truth: GroundTruth, answer: SoftLabels | None, weights: Weights) -> Tensor:
        """Boxes that steer the crop."""
        everything = self.config.augment.crop_guides == "all"
        guides = [torch.zeros(0, 4)]
        if truth.boxes_xyxy is not None and (everything or weights[0] > 0):
            guides.append(truth.boxes_xyxy)
        if everything and answer is not None and answer.boxes_xyxy is not None:
            guides.append(answer.boxes_xyxy)
        return torch.cat(guides)

    def _zoom_out(self, rng: random.Random) -> bool:
        augment = self.config.augment
        drawn = rng.random() < augment.zoom_out_share
        return {"image": drawn, "run": self.zoom_out_run, "never": False}[augment.zoom_out]


def collate(items: Sequence[Example | InputError]) -> Batch | InputError:
    """Stack examples; boxes are padded to the most of any image. A source that no image uses becomes None.

    Returns:
        The first error instead, where an item is one.
    """
    examples = [item for item in items if isinstance(item, Example)]
    if len(examples) < len(items):
        return next(item for item in items if isinstance(item, InputError))
    weights = [example.weights for example in examples]
    return Batch(
        tuple(example.image_id for example in examples),
        torch.stack([example.image for example in examples]),
        _stack([example.ground_truth for example in examples], weights, 0),
        _stack([example.tutor for example in examples], weights, 1),
    )


def _stack(taught: Sequence[Teaching], weights: Sequence[Mapping[str, Weights]], source: int) -> Targets | None:
    by_task = {task: torch.tensor([each[task][source] for each in weights]) for task in TASKS}
    if not any(bool(weight.any()) for weight in by_task.values()):
        return None

    def padded(name: str) -> Tensor:
        return pad_sequence([getattr(each, name) for each in taught], batch_first=True)

    def unknown(task: str) -> Tensor:
        # What is known before the batch goes to a device need not be computed, or asked for, there.
        marks = torch.stack([each.unknown[task] for each in taught])
        return marks if marks.any() else marks[:, :0]

    return Targets(
        padded("boxes_xyxy"),
        padded("classes"),
        padded("probs"),
        padded("difficult"),
        torch.stack([each.map for each in taught]),
        torch.stack([each.inside for each in taught]),
        unknown("detection"),
        unknown("segmentation"),
        by_task["detection"],
        by_task["segmentation"],
    )


def epoch_batches(
    positions: Sequence[int], images: int, batch: int, seed: int, epoch: int, *, rank: int = 0, processes: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """This process' part of each batch of one epoch, as (round, position) pairs for `TrainingSet`.

    An epoch is as long as the split, whatever share of it is taught: runs with the same epochs take the same steps.
    Images that nobody teaches are not drawn, the others so much more often, each as often as any other. The order
    depends on seed and epoch alone. The last batch is dropped where it would be smaller, unless it is the only one.

    Args:
        positions: of the images to draw, `TrainingSet.taught`.
        images: in the split.
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
