"""What all students are made of: heads, each one task with its loss, over a shared network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import grid_sample

from tutored.config import StudentSection
from tutored.errors import InputError
from tutored.losses import Term
from tutored.tasks import DenseTask, Task
from tutored.tasks.detection import BoxTargets, Detection, Detections, SoftBoxes
from tutored.tasks.detection.decode import Kept, keep
from tutored.tasks.instances import InstanceMasks, Instances, InstanceSegmentation, InstanceTargets
from tutored.tasks.instances.types import cells_inside
from tutored.tasks.task import refuse_nan
from tutored.types import Size

Sum = Callable[[Any, Any, Any], Tensor]


class Head(nn.Module):
    """One task of one student: raw outputs from features, what they learn, their loss terms, and answers.

    Attributes:
        grid: cells along one side of the map for which the task's targets are made; 0 for a head without a map.
        terms: of its loss; an entry more is a term more.
        by_class: beginnings of the names of its parameters whose first axis is [n x classes] of the label space, by
            which a training that starts from another student takes over what it knows of each class.
    """

    by_class: tuple[str, ...] = ()

    def __init__(self, task: Task, terms: Mapping[str, Term], grid: int = 0) -> None:
        super().__init__()
        self.task, self.grid, self.terms = task, grid, dict(terms)

    @property
    def weight(self) -> float:
        """Of its terms in the loss."""
        weight: float = self.task.section.weight
        return weight

    def assign(self, targets: Any, *, tutor: bool) -> Any:
        """What its outputs learn from one source, built from targets alone."""
        raise NotImplementedError

    def decode(self, raw: Any, sizes: Sequence[Size]) -> list[Any]:
        """Predictions for images of these sizes, in their own pixels, on the CPU. Raises FloatingPointError: the
        outputs are NaN, as those of a student whose training diverged.
        """
        raise NotImplementedError

    def soften(self, raw: Any, sizes: Sequence[Size]) -> list[Any]:
        """Soft answers, where the student is a tutor. Raises as `decode`."""
        raise NotImplementedError


USUAL_SCORE = 0.5
"""From which answers are shown where no validation has said better."""


class DenseHead(Head):
    """A map for a task that any student can learn; the task brings targets, loss and decoding. `network` leads from the
    student's features to [B, task.channels, grid, grid].
    """

    task: DenseTask
    by_class = ("network.logits.",)

    def __init__(self, task: DenseTask, network: nn.Module, grid: int) -> None:
        super().__init__(task, task.terms, grid)
        self.network = network

    def forward(self, features: Any) -> Tensor:
        raw: Tensor = self.network(features)
        return raw

    def assign(self, targets: Any, *, tutor: bool) -> Any:
        return self.task.assign(targets, tutor=tutor)

    def decode(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        return self.task.decode(raw, sizes)

    def soften(self, raw: Tensor, sizes: Sequence[Size]) -> list[Any]:
        return self.task.soften(raw, sizes)


class Student(nn.Module):
    """A network with a trunk and a head for each task: images to raw outputs by task.

    Takes float32 [B, 3, S, S], S = `size`, RGB in 0..1, resized without keeping the aspect ratio.

    Attributes:
        Section: the config keys of its shape and heads.
        config: the section that it was built from.
        scores: by task, from which score on its answers are worth showing, where they have scores; validation finds
            it (`Figures.score`), and a checkpoint keeps it.
        backbone: the trunk; its parameters learn at `train.backbone_lr`.
    """

    Section: ClassVar[type[StudentSection]] = StudentSection
    backbone: nn.Module

    def __init__(self, config: StudentSection, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.config, self.tasks = config, dict(tasks)
        self.heads = nn.ModuleDict()
        self.scores = dict.fromkeys(tasks, USUAL_SCORE)

    def add_heads(
        self,
        boxes: Callable[[Detection], "PlacedHead"],
        rows: Callable[[int], nn.Module],
        maps: Callable[[int], nn.Module],
        prototypes: int,
        grid: int,
    ) -> None:
        """Give the student a head for each task. Raises InputError: a task is of a kind that none of them can answer.

        Args:
            boxes: makes the head for the boxes of a task.
            rows: makes a network from features to [B, P, columns], for the places of these boxes.
            maps: makes a network from features to [B, channels, grid, grid].
            prototypes: maps of which an instance's mask is a weighted sum.
        """
        for name, task in self.tasks.items():
            if isinstance(task, InstanceSegmentation):
                coefficients, masks = rows(prototypes), maps(prototypes)
                self.heads[name] = InstanceHead(task, boxes(task), coefficients, masks, grid)
            elif isinstance(task, Detection):
                self.heads[name] = boxes(task)
            elif isinstance(task, DenseTask):
                self.heads[name] = DenseHead(task, maps(task.channels), grid)
            else:
                raise InputError(
                    f"tasks.{name}: the student {self.config.kind} has no head for kind {task.kind}; possible: "
                    f"{Detection.kind}, {InstanceSegmentation.kind}, any dense kind"
                )

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return self.config.size

    @property
    def update_after(self) -> Mapping[str, int]:
        """By task, how many images must have taught it before the optimiser updates the parameters of its head; under
        the empty name, how many images before it updates all other parameters. Until then their gradients add up.

        What is not named, or by 0, is updated in each step, as everything is in a student that names nothing.
        """
        return {}

    @property
    def grids(self) -> dict[str, int]:
        """`Head.grid` by task."""
        return {name: head.grid for name, head in self.heads.items()}  # type: ignore[misc]

    def checked(self, images: Tensor) -> Tensor:
        """The images, channels-last. Raises ValueError where they are of another shape."""
        if images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"images must have shape [B, 3, {self.size}, {self.size}], got {tuple(images.shape)}")
        return images.contiguous(memory_format=torch.channels_last)

    def combine(self, terms: Mapping[str, Tensor], share: float) -> Tensor:
        """The loss from its terms, `task/term/source`, each divided and weighted already: their sum.

        A student may combine them in another way, also with parameters of its own, such as learnt task weights. Of a
        batch that is cut into micro-batches these are the terms of a `share`; the losses are added up.
        """
        return torch.stack(list(terms.values())).sum()


class PlacedHead(Head):
    """Boxes and classes of P places in the input, such as anchors or the points of a grid.

    Args:
        size: side of the network's input in pixels.
        class_sum, box_sum: see `Term.sum`; what is learnt has `box`, `positive` and `weight` of each place, and
            `normaliser`.
    """

    task: Detection

    def __init__(self, task: Detection, size: int, class_sum: Sum, box_sum: Sum) -> None:
        super().__init__(task, {"class": Term(_normaliser, class_sum), "box": Term(_normaliser, box_sum)})
        self.size = size

    def boxes_and_probs(self, raw: Any) -> tuple[Tensor, Tensor]:
        """Boxes float32 [B, P, 4], pixels of the network's input, not clipped, and probabilities float32 [B, P, C+1].

        Column 0 is background; what classes that are scored by themselves leave of 1 is background's, too.
        """
        raise NotImplementedError

    def kept(self, raw: Any, sizes: Sequence[Size]) -> list[Kept]:
        """Final boxes, and the places that they come from."""
        return keep(*self.boxes_and_probs(raw), sizes, self.task.section.decode, self.size)

    def soften(self, raw: Any, sizes: Sequence[Size]) -> list[SoftBoxes]:
        """Final boxes with a class distribution each: scores that sum to more than 1 are divided by their sum."""
        return [each.boxes.normalised() for each in self.kept(raw, sizes)]

    def decode(self, raw: Any, sizes: Sequence[Size]) -> list[Detections]:
        return [each.boxes.final() for each in self.kept(raw, sizes)]


def _normaliser(_: Any, learned: Any) -> Tensor:
    normaliser: Tensor = learned.normaliser
    return normaliser


def matched(targets: BoxTargets, learned: Any, places_xyxy: Tensor) -> Tensor:
    """float32 [B, P, 4]: the box that each positive place learns; elsewhere the place's own, of [P, 4]."""
    found = targets.boxes_xyxy.gather(1, learned.box[..., None].expand(-1, -1, 4))
    return torch.where(learned.positive[..., None], found, places_xyxy)


SIDE = 56
"""Cells along one side of a soft mask over its box."""


class InstanceOutputs(NamedTuple):
    """An instance head's raw answer for a batch.

    Attributes:
        boxes: that of its head for boxes, with P places.
        coefficients: float32 [B, P, D].
        prototypes: float32 [B, D, g, g].
    """

    boxes: Any
    coefficients: Tensor
    prototypes: Tensor


class InstanceHead(Head):
    """Boxes with masks.

    Args:
        boxes: the head for its boxes, with P places.
        coefficients: network from the student's features to [B, P, D].
        prototypes: network from the student's features to [B, D, grid, grid].
        grid: cells along one side of the prototypes.
    """

    task: InstanceSegmentation

    def __init__(
        self, task: InstanceSegmentation, boxes: PlacedHead, coefficients: nn.Module, prototypes: nn.Module, grid: int
    ) -> None:
        terms = {name: _of_boxes(term) for name, term in boxes.terms.items()}
        terms["mask"] = Term(lambda _, learned: learned.normaliser, self.mask_sum)
        super().__init__(task, terms, grid)
        self.by_class = tuple(f"boxes.{name}" for name in boxes.by_class)
        self.boxes, self.coefficients, self.prototypes = boxes, coefficients, prototypes
        self.size = boxes.size

    def forward(self, features: Any) -> InstanceOutputs:
        return InstanceOutputs(self.boxes(features), self.coefficients(features), self.prototypes(features))

    def assign(self, targets: InstanceTargets, *, tutor: bool) -> Any:
        """What the head for boxes learns: masks follow the same places."""
        return self.boxes.assign(targets.boxes, tutor=tutor)

    def mask_sum(self, raw: InstanceOutputs, targets: InstanceTargets, learned: Any) -> Tensor:
        """Summed loss of the positive places' masks, weighted as their boxes.

        Of one place it is the mean cross-entropy of the cells in its box, and one minus the overlap that soft masks
        have there: (a + b - |a - b|) / (a + b + |a - b|), which is largest where both are equal (Wang et al. 2023).
        Cells that are not known do not count.
        """
        side = targets.masks.shape[-1]
        centres = (torch.arange(side, device=raw.prototypes.device) + 0.5) * (self.size / side)
        total = raw.prototypes.float().sum() * 0 + raw.coefficients.float().sum() * 0
        for image in range(len(targets.masks)):
            places = learned.positive[image].nonzero()[:, 0]
            if not len(places):
                continue
            rows = learned.box[image, places]
            logits = mask_logits(raw.coefficients[image, places], raw.prototypes[image])
            wanted, counts = targets.masks[image, rows], cells_inside(targets.boxes_xyxy[image, rows], centres)
            counts = counts & ~wanted.isnan()
            wanted = wanted.nan_to_num(0.0)
            entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counts
            found = logits.sigmoid() * counts
            both, apart = found + wanted * counts, (found - wanted * counts).abs()
            shared, every = (each.sum(dim=(1, 2)) for each in (both - apart, both + apart))
            seen = counts.sum(dim=(1, 2))
            losses = entropy.sum(dim=(1, 2)) / seen.clamp(min=1) + (1 - shared / every.clamp(min=1e-6)) * (seen > 0)
            total = total + (losses * learned.weight[image, places]).sum()
        return self.task.section.mask * total

    def boxes_and_probs(self, raw: InstanceOutputs) -> tuple[Tensor, Tensor]:
        """As its head for boxes."""
        return self.boxes.boxes_and_probs(raw.boxes)

    def soften(self, raw: InstanceOutputs, sizes: Sequence[Size]) -> list[Instances]:
        """The kept boxes, each with a mask [SIDE, SIDE] over it."""
        refuse_nan(raw.coefficients, raw.prototypes)
        found = []
        for index, (kept, size) in enumerate(zip(self.boxes.kept(raw.boxes, sizes), sizes, strict=True)):
            answer = kept.boxes.normalised()
            logits = mask_logits(raw.coefficients[index, kept.rows], raw.prototypes[index])
            masks = over_boxes(logits.cpu(), answer.boxes_xyxy, size).sigmoid()
            found.append(
                Instances(boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, scores=answer.scores, masks=masks)
            )
        return found

    def decode(self, raw: InstanceOutputs, sizes: Sequence[Size]) -> list[InstanceMasks]:
        """Final boxes and masks of every image in its own pixels."""
        return [found.final(size) for found, size in zip(self.soften(raw, sizes), sizes, strict=True)]


def _of_boxes(term: Term) -> Term:
    """A term of the head for boxes on the raw answer and the targets of an instance head."""
    return Term(
        lambda targets, learned: term.weight(targets.boxes, learned),
        lambda raw, targets, learned: term.sum(raw.boxes, targets.boxes, learned),
        term.sources,
    )


def mask_logits(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """float32 [N, g, g], of coefficients [N, D] and prototypes [D, g, g] of one image."""
    return (coefficients.float() @ prototypes.float().flatten(1)).reshape(-1, *prototypes.shape[1:])


def over_boxes(maps: Tensor, boxes_xyxy: Tensor, size: Size) -> Tensor:
    """float32 [N, SIDE, SIDE]: maps [N, g, g] over an image of `size`, read bilinearly on a grid over each box."""
    if not len(maps):
        return maps.new_zeros(0, SIDE, SIDE)
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    near, far = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    places = (near + (far - near) * steps[:, None]) * 2 / torch.tensor([size[1], size[0]]) - 1
    shape = (len(maps), SIDE, SIDE)
    grid = torch.stack([places[:, None, :, 0].expand(shape), places[:, :, None, 1].expand(shape)], dim=-1)
    return grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
