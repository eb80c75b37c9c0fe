"""Ground truth folded into another label space, by class name."""

from __future__ import annotations

import torch

from tutored.data.coco import Coco
from tutored.data.view import View
from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace
from tutored.structures import IGNORE, Dataset, GroundTruth


class Relabelled(View):
    """A data set seen in another label space; it has no masks where that has more classes than one can tell apart.

    Attributes:
        to: the class in `labels` of each class of the inner data set; 0 drops its boxes and makes its pixels
            background.
        annotated: the classes of `labels` that the inner data set annotates; None means every class.
    """

    def __init__(
        self, inner: Dataset, labels: LabelSpace, to: tuple[int, ...], annotated: tuple[int, ...] | None
    ) -> None:
        super().__init__(inner)
        self.labels, self.to, self.annotated = labels, to, annotated

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        """As the inner data set has it, but for masks that there can't be."""
        tasks = self.inner.annotated_tasks(image_id)
        return tasks if self._has_masks else tuple(task for task in tasks if task != "segmentation")

    def ground_truth(self, image_id: str) -> GroundTruth:
        """The inner data set's ground truth in the classes of `labels`; raises what that raises."""
        truth = self.inner.ground_truth(image_id)
        to = torch.tensor(self.to)
        mask = None
        if truth.mask is not None and self._has_masks:
            # Boxes may be of classes from 255 on, pixels not.
            numbers = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
            numbers[: len(to[:IGNORE])] = to[:IGNORE]
            mask = numbers[truth.mask.long()]
        if truth.boxes_xyxy is None or truth.classes is None or truth.difficult is None:
            return GroundTruth(size=truth.size, mask=mask, annotated=self.annotated)
        classes = to[truth.classes]
        kept = classes > 0
        return GroundTruth(
            size=truth.size,
            boxes_xyxy=truth.boxes_xyxy[kept],
            classes=classes[kept],
            difficult=truth.difficult[kept],
            mask=mask,
            annotated=self.annotated,
        )

    @property
    def _has_masks(self) -> bool:
        return len(self.labels) <= IGNORE


def relabelled(dataset: Dataset, annotated: tuple[str, ...] | None, classes: tuple[str, ...] | None) -> Dataset:
    """The data set in the label space of `classes`, matched by name, with what it does not annotate declared.

    Args:
        annotated: the data set's own classes that it annotates completely; None means all. What it may hold of its
            other classes is dropped.
        classes: the object classes to see it in; None keeps the data set's own. One that the data set does not
            have counts as not annotated.

    Raises:
        InputError: a name in `annotated` is not a class of the data set, or no class matches.
    """
    own = dataset.labels
    known = set(range(len(own))) if annotated is None else {0, *(own.index(name) for name in annotated)}
    try:
        target = own if classes is None else LabelSpace.of(classes)
    except ValueError as error:
        raise InputError(f"classes {', '.join(classes or ())}: {error}") from error
    if target == own and annotated is None:
        return dataset
    try:
        class_map = ClassMap.by_name(own, target)
    except InputError as error:
        raise InputError(
            f"{dataset.name}: none of its classes ({', '.join(own.classes)}) is one of {', '.join(target.classes)}"
        ) from error
    to = tuple((target_class or 0) if index in known else 0 for index, target_class in enumerate(class_map.to))
    unknown = {target_class for index, target_class in enumerate(class_map.to) if index not in known}
    complete = tuple(index for index in range(1, len(target)) if index in to and index not in unknown)
    annotates = None if len(complete) == len(target) - 1 else complete
    if isinstance(dataset, Coco):
        return dataset.seen_in(target, to, annotates)
    return Relabelled(dataset, target, to, annotates)
